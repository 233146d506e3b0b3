"""A machine without network: one notification about Watchdog, and none about its targets."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.end_to_end import IMMEDIATE_ALERT, EndToEndHarness, RunningWatchdog
from tests.support.fakes import FakeHttpTarget
from tests.support.isolated_network import TARGETS
from tests.support.polling import wait_until_async
from watchdog.domain.model import HealthState
from watchdog.net import connector, name_lookup
from watchdog.net.name_lookup import SocketAddress
from watchdog.store.read.status import list_probe_statuses


def test_a_machine_without_network_blames_no_target(tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("the right to unshare a network namespace is missing: the machine cannot be cut off")
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.support.isolated_network", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    observed = json.loads(ran.stdout.splitlines()[-1])
    assert observed["about_targets"] == 0
    assert observed["about_watchdog"] == [["opened", "watchdog.network"]]
    assert observed["states"] == {"unknown": len(TARGETS)}
    assert set(observed["outcomes"]) == {"error"}


class SimulatedNetwork:
    """The network between Watchdog and 192.0.2.0/24, 198.51.100.0/24 and every name below `example`.

    The test decides which addresses and names have what error; all others are served by a target on loopback.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: FakeHttpTarget):
        self.port = urlsplit(target.url).port
        self.connect_errors: Callable[[str], int] = lambda address: 0
        self.name_errors: Callable[[str], int] = lambda name: 0
        self._connect, self._resolve = connector.connect_socket_to_resolved_address, name_lookup.resolve_host_blocking
        self._connect_protocol = connector.connect_protocol_to_resolved_address
        monkeypatch.setattr(connector, "connect_socket_to_resolved_address", self.connect)
        monkeypatch.setattr(connector, "connect_protocol_to_resolved_address", self.connect_protocol)
        monkeypatch.setattr(name_lookup, "resolve_host_blocking", self.resolve)

    async def connect(self, address: SocketAddress) -> socket.socket:
        return await self._connect(self._route(address))

    async def connect_protocol(self, create_protocol: Callable[[], Any], address: SocketAddress) -> Any:
        return await self._connect_protocol(create_protocol, self._route(address))

    def _route(self, address: SocketAddress) -> SocketAddress:
        host = address[1][0]
        if not host.startswith(("192.0.2.", "198.51.100.")):
            return address
        if number := self.connect_errors(host):
            raise OSError(number, os.strerror(number))
        return (socket.AF_INET, ("127.0.0.1", self.port))

    def resolve(self, host: str, port: int) -> list[SocketAddress]:
        if not host.endswith(".example"):
            return self._resolve(host, port)
        if number := self.name_errors(host):
            raise socket.gaierror(number, "?")
        return [(socket.AF_INET, ("192.0.2.200", port))]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, harness: EndToEndHarness) -> SimulatedNetwork:
    """Two connectivity targets, and 40 targets, half of them by name, which run every 2 s."""
    urls = [f"http://192.0.2.{number}/" for number in range(20)] + [
        f"http://p{number}.example/" for number in range(20)
    ]
    harness.probes = [
        {"name": f"P{number}", "http": url, "every": "2s", "timeout": "5s", "alert": IMMEDIATE_ALERT}
        for number, url in enumerate(urls)
    ]
    harness.extra_config = {"connectivity": {"targets": ["http://198.51.100.1/", "http://connectivity.example/"]}}
    return SimulatedNetwork(monkeypatch, harness.target)


def received_notifications(harness: EndToEndHarness) -> list[tuple[str, str, str]]:
    """Event, probe and reason of each notification that `hook` got."""
    bodies = [request.json for request in harness.receivers["hook"].fake.received]
    return [(body["event"], body["probe"]["name"], body["incident"]["reason"]) for body in bodies]


def count_states(watchdog: RunningWatchdog) -> Counter[HealthState]:
    return Counter(status.state for status in watchdog.query_store(list_probe_statuses))


OWN_INCIDENT = ("opened", "Watchdog", "watchdog.network")


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_without_a_way_out_of_the_machine_no_target_is_blamed(
    harness: EndToEndHarness, network: SimulatedNetwork, number: int
) -> None:
    """There is a default route, but its gateway is dead: no name is resolved, and nothing is reached."""
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("pass", 40)
        network.connect_errors, network.name_errors = lambda _: number, lambda _: socket.EAI_AGAIN
        await watchdog.wait_for_results("error", 80)
        assert received_notifications(harness) == [OWN_INCIDENT]
        network.connect_errors, network.name_errors = lambda _: 0, lambda _: 0
        await wait_until_async(lambda: count_states(watchdog) == {HealthState.UP: 40})
        assert received_notifications(harness) == [OWN_INCIDENT]


async def test_one_dead_host_and_one_name_that_does_not_resolve_are_alerts(
    harness: EndToEndHarness, network: SimulatedNetwork
) -> None:
    """Although one of the connectivity targets is down as well."""
    dead = ("192.0.2.7", "198.51.100.1")
    network.connect_errors = lambda address: errno.EHOSTUNREACH if address in dead else 0
    network.name_errors = lambda name: socket.EAI_AGAIN if name == "p8.example" else 0
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: len(received_notifications(harness)) >= 2)
        await watchdog.wait_for_results("pass", 80)
    assert sorted(received_notifications(harness)) == [
        ("opened", "P28", "dns.no_response"),
        ("opened", "P7", "connection.unreachable"),
    ]


async def test_a_dead_resolver_is_our_own_fault(harness: EndToEndHarness, network: SimulatedNetwork) -> None:
    """Addresses can still be reached, so their targets are judged."""
    network.name_errors = lambda _: socket.EAI_AGAIN
    network.connect_errors = lambda address: errno.ECONNREFUSED if address == "192.0.2.7" else 0
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("error", 40)
        await wait_until_async(lambda: len(received_notifications(harness)) >= 2)
        expected = {HealthState.UNKNOWN: 20, HealthState.UP: 19, HealthState.DOWN: 1}
        await wait_until_async(lambda: count_states(watchdog) == expected)
    assert sorted(received_notifications(harness)) == [("opened", "P7", "connection.refused"), OWN_INCIDENT]


async def test_a_network_that_comes_and_goes_is_one_incident(
    harness: EndToEndHarness, network: SimulatedNetwork
) -> None:
    async with harness.running_watchdog() as watchdog:
        for _ in range(3):
            network.connect_errors, network.name_errors = lambda _: errno.EHOSTUNREACH, lambda _: socket.EAI_AGAIN
            await watchdog.wait_for_results("error", 20)
            network.connect_errors, network.name_errors = lambda _: 0, lambda _: 0
            await watchdog.wait_for_results("pass", 20)
        assert received_notifications(harness) == [OWN_INCIDENT]


@pytest.mark.parametrize("is_own_fault", [True, False])
async def test_a_mass_failure_is_alerted_unless_the_own_network_has_failed(
    harness: EndToEndHarness, network: SimulatedNetwork, is_own_fault: bool
) -> None:
    """A firewall near Watchdog, or one near the targets, refuses every connection. The threshold is the default one."""
    for probe in harness.probes:
        del probe["alert"]
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("pass", 40)
        connectivity = "198.51.100.1"
        network.connect_errors = lambda address: errno.ECONNREFUSED if is_own_fault or address != connectivity else 0
        if is_own_fault:
            await watchdog.wait_for_results("error", 120)
            assert received_notifications(harness) == [OWN_INCIDENT]
        else:
            await wait_until_async(lambda: count_states(watchdog) == {HealthState.DOWN: 40})
            assert OWN_INCIDENT not in received_notifications(harness)
            assert watchdog.count_outcomes()["error"] == 0
