"""Pings in a network namespace: the kernel replies, or a script plays the hosts and routers, on real ping sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from watchdog.domain.formatting import NBSP

Observations = dict[str, Any]


@pytest.fixture(scope="module")
def observed() -> Observations:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("the right to unshare a network namespace is missing: ping sockets cannot be permitted")
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.support.ping_network"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Read-only file system" in ran.stderr:
        pytest.skip("/proc/sys is mounted read-only: ping sockets cannot be permitted")
    assert ran.returncode == 0, ran.stderr
    observations: Observations = json.loads(ran.stdout.splitlines()[-1])
    return observations


@dataclass(frozen=True)
class PingFault:
    """One row: what happens to the echo requests, and what has to be reported."""

    name: str
    """The scenario of tests/support/ping_network.py."""
    reason: str
    message: str
    shares_remedy_with: str = ""
    first_line: str = "1: no reply"
    """Of the excerpt: the first request."""


def report(sender: str, problem: str) -> dict[str, str]:
    return {"message": f"{sender} reports: {problem}", "first_line": f"1: {sender} reports: {problem}"}


ROUTER = "127.0.0.200"
FAULTS = [
    PingFault("silence", "icmp.no_reply", f"no reply to 4{NBSP}echo requests"),
    PingFault(
        "replies of another host",
        "icmp.no_reply",
        f"no reply to 4{NBSP}echo requests",
        shares_remedy_with="silence",
    ),
    PingFault("half lost", "icmp.loss", "2 of 4 packets lost (50%), limit 0%"),
    PingFault(
        "unreachable after the first",
        "icmp.loss",
        f"3 of 4 packets lost (75%), limit 0%: {ROUTER} reports: destination host unreachable",
        shares_remedy_with="half lost",
        first_line="1: reply after ",
    ),
    PingFault("host unreachable", "icmp.unreachable", **report(ROUTER, "destination host unreachable")),
    PingFault(
        "network unreachable",
        "icmp.unreachable",
        **report(ROUTER, "destination network unreachable"),
        shares_remedy_with="host unreachable",
    ),
    PingFault("time to live exceeded", "icmp.ttl_exceeded", **report(ROUTER, "time to live exceeded")),
    PingFault("prohibited", "icmp.prohibited", **report(ROUTER, "packet filtered")),
    PingFault("too big", "icmp.packet_too_big", **report(ROUTER, "packet too big, maximum 1400 bytes")),
    PingFault(
        "IPv6 unreachable",
        "icmp.unreachable",
        **report("::1", "address unreachable"),
        shares_remedy_with="host unreachable",
    ),
    PingFault(
        "IPv6 hop limit exceeded",
        "icmp.ttl_exceeded",
        **report("::1", "hop limit exceeded"),
        shares_remedy_with="time to live exceeded",
    ),
    PingFault(
        "IPv6 prohibited",
        "icmp.prohibited",
        **report("::1", "communication with destination administratively prohibited"),
        shares_remedy_with="prohibited",
    ),
    PingFault(
        "IPv6 too big",
        "icmp.packet_too_big",
        **report("::1", "packet too big, maximum 1280 bytes"),
        shares_remedy_with="too big",
    ),
]
EVENT_LOOPS = ("asyncio", "uvloop")


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_a_pinged_host(observed: Observations, fault: PingFault, event_loop: str) -> None:
    result = observed["scripted"][event_loop][fault.name]
    assert (result["outcome"], result["reason"], result["message"]) == ("fail", fault.reason, fault.message)
    assert result["excerpt"][0].startswith(fault.first_line)
    assert (result["facts"]["sent"], len(result["excerpt"])) == (4, 4)
    assert result["phases"] == ["echo"], "it ends before its deadline"


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
def test_a_ping_that_succeeds(observed: Observations, event_loop: str) -> None:
    results = observed["kernel"][event_loop] | observed["scripted"][event_loop]
    for name in (
        "IPv4",
        "IPv6",
        "a name",
        "no data",
        "several fragments",
        "expectations hold",
        "replies",
        "duplicates",
    ):
        result, measured = results[name], results[name]["measurements"]
        assert (result["outcome"], measured["loss"]) == ("pass", 0.0), name
        assert 0 < measured["min_ms"] <= measured["avg_ms"] <= measured["max_ms"], name
        assert 0 <= measured["jitter_ms"] <= measured["max_ms"] - measured["min_ms"] + 0.001, name
        assert result["facts"]["sent"] == result["facts"]["received"] == len(result["excerpt"])
    assert results["IPv6"]["facts"]["address"] == "::1"
    assert results["a name"]["phases"] == ["dns", "echo"]


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
def test_the_permitted_loss_and_the_expectations(observed: Observations, event_loop: str) -> None:
    kernel, scripted = observed["kernel"][event_loop], observed["scripted"][event_loop]
    permitted = scripted["half lost, as permitted"]
    assert (permitted["outcome"], permitted["measurements"]["loss"], permitted["facts"]["received"]) == (
        "pass",
        50.0,
        2,
    )
    broken = scripted["half lost, an expectation fails"]
    assert (broken["reason"], broken["message"]) == ("expectation.failed", "loss is 50.0, expected < 25.0")
    assert kernel["an expectation fails"]["reason"] == "expectation.failed"
    assert (kernel["a preference"]["outcome"], kernel["a preference"]["listings"]) == ("pass", {"preference": 2})


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
def test_the_address_filter_applies(observed: Observations, event_loop: str) -> None:
    for name in ("blocked", "private"):
        assert observed["kernel"][event_loop][name]["reason"] == "connection.address_blocked"


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
@pytest.mark.parametrize(("name", "family"), [("no route", "IPv4"), ("no route for IPv6", "IPv6")])
def test_a_missing_route_is_the_fault_of_this_machine(
    observed: Observations, event_loop: str, name: str, family: str
) -> None:
    result = observed["kernel"][event_loop][name]
    assert (result["outcome"], result["reason"]) == ("error", "watchdog.network")
    assert result["message"] == f"no verdict: this machine has no default route for {family}"


def test_a_missing_permission_is_the_fault_of_this_machine(observed: Observations) -> None:
    result = observed["not permitted"]
    assert (result["outcome"], result["reason"]) == ("error", "watchdog.ping_not_permitted")
    assert "net.ipv4.ping_group_range" in result["message"]
    assert "and Watchdog runs with the group 0" in result["message"]


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
def test_a_cancelled_ping_leaves_nothing_behind(observed: Observations, event_loop: str) -> None:
    assert observed["cancelled"][event_loop] == {"cancelled": True, "left": [0, 0, 0], "phase": "echo"}


def test_many_pings_leave_no_descriptor_behind(observed: Observations) -> None:
    before, after = observed["many"]
    assert before == after


@pytest.mark.parametrize("event_loop", EVENT_LOOPS)
def test_a_round_trip_is_measured_by_the_system_while_the_event_loop_is_late(
    observed: Observations, event_loop: str
) -> None:
    late = observed["late"][event_loop]
    assert late["outcome"] == "pass"
    assert late["max_ms"] < 1_000, "the event loop was blocked for longer"
