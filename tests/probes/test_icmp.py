"""The configuration of an ICMP probe, its verdicts, and faults of this machine. Pings: tests/faults/test_pings.py."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icmplib
import pytest
from pydantic import ValidationError

from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import count_open_descriptors
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.net import icmp, name_lookup
from watchdog.net.icmp import EchoFault, EchoSequence, build_echo_fault
from watchdog.probes.icmp import IcmpProbe, describe_echoes


def build_probe(icmp: Any, **fields: Any) -> IcmpProbe:
    return IcmpProbe.model_validate({"name": "Ping", "icmp": icmp, **fields})


def observe(icmp: Any, **fields: Any) -> ProbeResult:
    return asyncio.run(run_probe(build_probe(icmp, **fields))).result


# --- the configuration


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"host": "https://acme.example"}, ("icmp", "host"), "expected a host name or an IP address"),
        ({"host": "acme.example:80"}, ("icmp", "host"), "expected a host name or an IP address"),
        ({"host": "fe80::1%eth0"}, ("icmp", "host"), "expected a host name or an IP address"),
        ({"host": "a", "max_loss": 20}, ("icmp", "max_loss"), "a percentage needs its sign, such as 20%"),
        (
            {"host": "a", "max_loss": "100%"},
            ("icmp", "max_loss"),
            "expected a percentage from 0% to 99.99%, such as 20%",
        ),
        ({"host": "a", "interval": "1ms"}, ("icmp", "interval"), "expected at least 20ms, found 1ms"),
    ],
)
def test_what_is_not_valid(fields: dict[str, Any], field: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_probe(fields)
    [error] = caught.value.errors()
    assert (error["loc"], str(error["ctx"]["error"]).startswith(message)) == (field, True)


@pytest.mark.parametrize(
    ("fields", "timeout", "field"),
    [({"count": 40}, "10s", "count"), ({"interval": "4s"}, "10s", "interval"), ({}, "700ms", "count")],
)
def test_the_requests_leave_time_for_replies(fields: dict[str, Any], timeout: str, field: str) -> None:
    with pytest.raises(ValidationError, match="expected at most half of `timeout`") as caught:
        build_probe({"host": "a", **fields}, timeout=timeout)
    [(path, _)] = caught.value.errors()[0]["ctx"]["error"].errors
    assert path == ("icmp", field)


@pytest.mark.parametrize(
    ("written", "max_loss"), [("0 %", 0.0), ("20%", 20.0), ("0.5 %", 0.5), ("33.33%", 33.33), ("99.99%", 99.99)]
)
def test_a_percentage(written: str, max_loss: float) -> None:
    assert build_probe({"host": "a", "max_loss": written}).icmp.max_loss == max_loss


def test_the_short_form_and_the_target() -> None:
    probe = build_probe("GATEWAY.acme.example")
    assert (probe.target, probe.network_endpoint) == ("gateway.acme.example", "gateway.acme.example")
    assert (probe.may_change_target, probe.may_run_without_store) == (False, True)
    assert build_probe("[2001:DB8::1]").target == "2001:db8::1"


# --- verdicts


ROUTER_FAULT = EchoFault("icmp.unreachable", "destination host unreachable", "192.0.2.254")


@pytest.mark.parametrize(
    ("sentence", "echoes", "max_loss", "reason"),
    [
        ("all replied", EchoSequence(3, {0: 1.0, 1: 2.0, 2: 3.0}, {}, 0), "0%", ""),
        ("one is lost", EchoSequence(3, {0: 1.0, 2: 3.0}, {}, 0), "0%", "icmp.loss"),
        ("a third is permitted", EchoSequence(3, {0: 1.0, 2: 3.0}, {}, 0), "33.33%", ""),
        ("slightly less is permitted", EchoSequence(3, {0: 1.0, 2: 3.0}, {}, 0), "33.32%", "icmp.loss"),
        ("all are lost", EchoSequence(2, {}, {}, 0), "99.99%", "icmp.no_reply"),
        ("an error was reported", EchoSequence(2, {}, {1: ROUTER_FAULT}, 0), "99.99%", "icmp.unreachable"),
        ("an error was reported of a permitted loss", EchoSequence(2, {0: 1.0}, {1: ROUTER_FAULT}, 0), "50%", ""),
    ],
)  # fmt: skip
def test_the_verdict(sentence: str, echoes: EchoSequence, max_loss: str, reason: str) -> None:
    problem = build_probe({"host": "a", "max_loss": max_loss})._find_loss_problem(echoes)
    assert (problem[0] if problem else "") == reason, sentence


def test_the_statistics() -> None:
    statistics = EchoSequence(4, {0: 1.0, 1: 3.0, 3: 2.0}, {}, 0).statistics
    assert statistics == {"loss": 25.0, "min_ms": 1.0, "avg_ms": 2.0, "max_ms": 3.0, "jitter_ms": 1.5}
    assert EchoSequence(4, {}, {}, 0).statistics == {"loss": 100.0}


def test_the_excerpt_lists_each_request() -> None:
    assert describe_echoes(EchoSequence(3, {0: 1.0}, {1: ROUTER_FAULT}, 0)).splitlines() == [
        "1: reply after 1.000 ms",
        "2: 192.0.2.254 reports: destination host unreachable",
        "3: no reply",
    ]


@pytest.mark.parametrize(
    ("family", "type", "code", "reason", "problem"),
    [
        (socket.AF_INET, 3, 0, "icmp.unreachable", "destination network unreachable"),
        (socket.AF_INET, 3, 1, "icmp.unreachable", "destination host unreachable"),
        (socket.AF_INET, 3, 9, "icmp.prohibited", "destination network prohibited"),
        (socket.AF_INET, 3, 10, "icmp.prohibited", "destination host prohibited"),
        (socket.AF_INET, 3, 13, "icmp.prohibited", "packet filtered"),
        (socket.AF_INET, 3, 4, "icmp.packet_too_big", "packet too big, maximum 1400 bytes"),
        (socket.AF_INET, 11, 0, "icmp.ttl_exceeded", "time to live exceeded"),
        (socket.AF_INET, 11, 1, "icmp.unreachable", "fragment reassembly time exceeded"),
        (socket.AF_INET, 12, 0, "icmp.unreachable", "error type: 12, code: 0"),
        (socket.AF_INET6, 1, 0, "icmp.unreachable", "no route to destination"),
        (socket.AF_INET6, 1, 1, "icmp.prohibited", "communication with destination administratively prohibited"),
        (socket.AF_INET6, 1, 3, "icmp.unreachable", "address unreachable"),
        (socket.AF_INET6, 2, 0, "icmp.packet_too_big", "packet too big, maximum 1400 bytes"),
        (socket.AF_INET6, 3, 0, "icmp.ttl_exceeded", "hop limit exceeded"),
    ],
)
def test_what_a_router_reports(family: socket.AddressFamily, type: int, code: int, reason: str, problem: str) -> None:
    assert build_echo_fault(family, type, code, mtu=1_400, reporter="x") == EchoFault(reason, problem, "x")


# --- faults of this machine


@pytest.fixture
def fail_at_creation(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the system refuse every ping socket with this error."""

    def use(number: int) -> None:
        def refuse(*_: object) -> socket.socket:
            raise OSError(number, os.strerror(number))

        for kind in (icmplib.ICMPv4Socket, icmplib.ICMPv6Socket):
            monkeypatch.setattr(kind, "_create_socket", refuse)

    return use


@pytest.mark.parametrize(
    ("number", "host", "reason", "message"),
    [
        (
            errno.EACCES,
            "192.0.2.1",
            "watchdog.ping_not_permitted",
            "no verdict: the operating system does not permit Watchdog to send",
        ),
        (
            errno.EPERM,
            "2001:db8::1",
            "watchdog.ping_not_permitted",
            "no verdict: the operating system does not permit Watchdog to send",
        ),
        (
            errno.EPROTONOSUPPORT,
            "192.0.2.1",
            "watchdog.ping_not_permitted",
            "no verdict: the operating system does not permit",
        ),
        (errno.EAFNOSUPPORT, "2001:db8::1", "watchdog.network", "no verdict: this machine has no IPv6"),
        (errno.EMFILE, "192.0.2.1", "watchdog.out_of_resources", "Watchdog has too many open files"),
    ],
)
def test_a_system_that_permits_no_ping_socket_is_at_fault(
    fail_at_creation: Callable[[int], None], number: int, host: str, reason: str, message: str
) -> None:
    fail_at_creation(number)
    result = observe(host)
    assert (result.outcome, result.reason) == (Outcome.ERROR, reason)
    assert result.message.startswith(message)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("1\t0\n", "net.ipv4.ping_group_range permits no group, and Watchdog runs with the group"),
        (
            "100\t200\n",
            "net.ipv4.ping_group_range permits only the groups 100 to 200, and Watchdog runs with the group",
        ),
        ("", "it does not support unprivileged ping sockets"),
    ],
)
def test_the_message_names_the_setting(
    fail_at_creation: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, text: str
) -> None:
    fail_at_creation(errno.EACCES)
    monkeypatch.setattr(icmp, "PING_GROUP_RANGE_FILE", tmp_path / "range")
    (tmp_path / "range").write_text(content)
    assert text in observe("192.0.2.1").message


class FakePingSocket(socket.socket):
    """A socket of UDP instead of ICMP, so that no permission is needed. The test decides what fails."""

    connect_error, send_error = 0, 0

    def connect(self, address: Any, /) -> None:
        if self.connect_error:
            raise OSError(self.connect_error, os.strerror(self.connect_error))

    def sendto(self, data: Any, *_: Any) -> int:
        if self.send_error:
            raise OSError(self.send_error, os.strerror(self.send_error))
        return len(data)


@pytest.fixture
def fake_sockets(monkeypatch: pytest.MonkeyPatch) -> type[FakePingSocket]:
    class Sockets(FakePingSocket):
        pass

    def create(_: object, type: int) -> socket.socket:
        sock = Sockets(socket.AF_INET, type)
        sock.bind(("127.0.0.1", 0))
        return sock

    monkeypatch.setattr(icmplib.ICMPv4Socket, "_create_socket", create)
    return Sockets


@pytest.mark.parametrize(
    ("connect_error", "send_error", "reason", "message"),
    [
        (errno.EACCES, 0, "watchdog.ping_not_sent", "refuses to send the echo request: Permission denied"),
        (errno.EINVAL, 0, "watchdog.ping_not_sent", "refuses to send the echo request: Invalid argument"),
        (0, errno.EPERM, "watchdog.ping_not_sent", "refuses to send the echo request: Operation not permitted"),
        (0, errno.EACCES, "watchdog.ping_not_sent", "refuses to send the echo request: Permission denied"),
        (0, errno.ENOBUFS, "watchdog.ping_not_sent", "refuses to send the echo request: No buffer space available"),
        (errno.EADDRNOTAVAIL, 0, "watchdog.network", "no address of the target's kind"),
    ],
)
def test_a_system_that_refuses_to_send_is_at_fault(
    fake_sockets: type[FakePingSocket], connect_error: int, send_error: int, reason: str, message: str
) -> None:
    fake_sockets.connect_error, fake_sockets.send_error = connect_error, send_error
    descriptors = count_open_descriptors()
    result = observe("127.0.0.1")
    assert (result.outcome, result.reason) == (Outcome.ERROR, reason)
    assert message in result.message
    assert count_open_descriptors() == descriptors


def test_a_packet_that_is_too_big_for_the_own_link(fake_sockets: type[FakePingSocket]) -> None:
    fake_sockets.send_error = errno.EMSGSIZE
    result = observe({"host": "127.0.0.1", "count": 2, "interval": "20ms"})
    assert (result.outcome, result.reason) == (Outcome.FAIL, "icmp.packet_too_big")
    assert result.message == "Watchdog's machine reports: packet too big"


def test_the_first_address_with_a_route_is_pinged(
    fake_sockets: type[FakePingSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [(socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", lambda *_: addresses)

    def connect(_: socket.socket, address: Any) -> None:
        if address[0] == "192.0.2.1":
            raise OSError(errno.ENETUNREACH, "no route")

    monkeypatch.setattr(fake_sockets, "connect", connect)
    probe = build_probe({"host": "two.example", "count": 1}, timeout="300ms")
    recorded = asyncio.run(run_probe(probe))
    assert (recorded.result.reason, recorded.evidence.facts["address"]) == ("icmp.no_reply", "127.0.0.1")
