"""Connects only to permitted addresses, skips dead ones, and is never blocked by a name server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from tests.support.fake_network import METADATA_ADDRESS_SPELLINGS, FakeNetwork, install_fake_network
from tests.support.polling import HANG_S, wait_until_async
from tests.support.scripted_servers import http_response, redirect_to, running_server, send_parts
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, connector, name_lookup
from watchdog.net.http import HttpRequest
from watchdog.net.name_lookup import MAX_CONCURRENT_DNS_LOOKUPS, MAX_CONCURRENT_SLOW_HOST_LOOKUPS, SocketAddress
from watchdog.service.runner import build_timeout_observation


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    return install_fake_network(monkeypatch)


async def _exchange(url: str, **request: Any) -> str:
    """The reason of the fault, or of the refusal to read the URL; empty when there was an answer."""
    async with NetworkAccess() as net:
        try:
            async with asyncio.timeout(5):
                await net.send_http_request(HttpRequest(url, **request))
        except ProbeError as error:
            return error.reason
        except ValueError:
            return "not_a_url"
    return ""


@pytest.mark.parametrize("allow_private_addresses", [True, False])
@pytest.mark.parametrize("url", METADATA_ADDRESS_SPELLINGS)
def test_no_spelling_of_a_metadata_address_is_connected_to(
    network: FakeNetwork, url: str, allow_private_addresses: bool
) -> None:
    network.names["metadata.acme.example"] = [["169.254.169.254"]]
    reason = asyncio.run(_exchange(url, allow_private_addresses=allow_private_addresses))
    assert network.connected == []
    assert reason == "connection.address_blocked" or (reason == "dns.not_found" and url == "http://169.254.169.254./")


def test_a_redirect_to_a_metadata_address_is_refused(network: FakeNetwork) -> None:
    network.names["metadata.acme.example"] = [["169.254.169.254"]]

    async def run_scenario() -> list[str]:
        reasons = []
        for url in METADATA_ADDRESS_SPELLINGS:
            async with running_server(redirect_to(url)) as target:
                reasons.append(await _exchange(target.url_of(), follow_redirects=True))
        return reasons

    reasons = asyncio.run(run_scenario())
    assert set(network.connected) == {"127.0.0.1"}
    assert len(network.connected) == len(METADATA_ADDRESS_SPELLINGS)
    assert set(reasons) <= {"connection.address_blocked", "dns.not_found", "http.invalid_redirect"}


def test_a_name_that_changes_to_a_refused_address_is_refused(network: FakeNetwork) -> None:
    async def run_scenario() -> list[str]:
        async with running_server(send_parts(http_response())) as target:
            network.names["rebinding.example"] = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]]
            url = target.url_of(host="rebinding.example")
            return [await _exchange(url) for _ in range(3)]

    assert asyncio.run(run_scenario()) == ["", "connection.address_blocked", ""]
    assert network.connected == ["127.0.0.1", "127.0.0.1"]


def test_only_the_permitted_addresses_of_a_name_are_tried(network: FakeNetwork) -> None:
    async def run_scenario() -> str:
        async with running_server(send_parts(http_response())) as target:
            network.names["mixed.example"] = [["169.254.169.254", "::ffff:a9fe:a9fe", "127.0.0.1"]]
            return await _exchange(target.url_of(host="mixed.example"))

    assert asyncio.run(run_scenario()) == ""
    assert network.connected == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("169.254.169.254", "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("fe80::1", "fe80::1 is a link-local address, which is always refused"),
        (
            "10.1.2.3",
            "10.1.2.3 is a private address, which is refused by `allow_private_addresses: false`",
        ),
        (
            "127.0.0.1",
            "127.0.0.1 is a loopback address, which is refused by `allow_private_addresses: false`",
        ),
    ],
)
def test_a_refusal_names_the_address_and_the_rule(network: FakeNetwork, host: str, message: str) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as net:
            await net.connector.connect(host, 80, PhaseTimer(), allow_private_addresses=False)

    with pytest.raises(ProbeError, match="^" + message) as caught:
        asyncio.run(run_scenario())
    assert not caught.value.retryable
    assert network.connected == []


# --- several addresses


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that never answers: a listener whose queue is full."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
            fillers.append(filler)
        yield f"127.0.0.2:{port}"
        for filler in fillers:
            filler.close()


async def _reached(port: int) -> str:
    async with NetworkAccess() as net:
        async with asyncio.timeout(HANG_S):
            sock = await net.connector.connect("several.example", port, PhaseTimer(), allow_private_addresses=True)
        with sock:
            return str(sock.getpeername()[0])


def test_an_address_that_refuses_connections_is_skipped_at_once(network: FakeNetwork) -> None:
    async def run_scenario() -> str:
        async with running_server(send_parts(http_response())) as target:
            network.names["several.example"] = [["127.0.0.3", "127.0.0.4", "127.0.0.1"]]
            return await _reached(target.port)

    assert asyncio.run(run_scenario()) == "127.0.0.1"


def test_a_silent_address_is_skipped_after_a_delay(network: FakeNetwork, silent: str) -> None:
    host, _, port = silent.partition(":")

    async def run_scenario() -> str:
        server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", int(port))
        async with server:
            network.names["several.example"] = [[host, "127.0.0.1"]]
            return await _reached(int(port))

    assert asyncio.run(run_scenario()) == "127.0.0.1"
    assert network.connected == [host, "127.0.0.1"]


def test_the_error_lists_all_addresses_that_refused(network: FakeNetwork) -> None:
    network.names["several.example"] = [["127.0.0.1", "127.0.0.2"]]

    async def run_scenario() -> None:
        async with NetworkAccess() as net:
            await net.connector.connect("several.example", 1, PhaseTimer(), allow_private_addresses=True)

    with pytest.raises(ProbeError, match=r"^connection refused$") as caught:
        asyncio.run(run_scenario())
    assert caught.value.facts == {"address": "127.0.0.1:1, 127.0.0.2:1"}


# --- name servers


def test_a_name_server_that_hangs_blocks_nothing_else(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def look_up(host: str, port: int) -> list[SocketAddress]:
        if host == "hanging.example":
            network.lookups.append(host)
            released.wait(60)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", look_up)

    async def hang(net: NetworkAccess, port: int) -> str:
        phase_timer = PhaseTimer()
        try:
            async with asyncio.timeout(0.2):
                await net.connector.connect("hanging.example", port, phase_timer, allow_private_addresses=True)
        except TimeoutError:
            return phase_timer.current_phase or ""
        return "connected"

    async def run_scenario() -> list[str]:
        async with running_server(send_parts(http_response())) as target:
            async with NetworkAccess() as net:
                hanging = await asyncio.gather(*(hang(net, target.port) for _ in range(2 * MAX_CONCURRENT_DNS_LOOKUPS)))
                async with asyncio.timeout(HANG_S):
                    (
                        await net.connector.connect(
                            "quick.example", target.port, PhaseTimer(), allow_private_addresses=True
                        )
                    ).close()
            return hanging

    started = monotonic()
    try:
        assert asyncio.run(run_scenario()) == ["dns"] * 2 * MAX_CONCURRENT_DNS_LOOKUPS
        assert network.lookups == ["hanging.example"]
        assert monotonic() - started < HANG_S, "the lookup that hangs is not awaited"
    finally:
        released.set()


def test_names_that_hang_leave_threads_to_others(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    running: list[str] = []

    def look_up(host: str, port: int) -> list[SocketAddress]:
        if host.startswith("hanging"):
            running.append(host)
            released.wait(60)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", look_up)

    async def connect(net: NetworkAccess, host: str, port: int, timeout_s: float) -> str:
        phase_timer = PhaseTimer()
        try:
            async with asyncio.timeout(timeout_s):
                (await net.connector.connect(host, port, phase_timer, allow_private_addresses=True)).close()
        except TimeoutError:
            return phase_timer.current_phase or ""
        return "connected"

    async def run_scenario() -> None:
        hosts = [f"hanging{i}.example" for i in range(MAX_CONCURRENT_DNS_LOOKUPS + 10)]
        async with running_server(send_parts(http_response())) as target, NetworkAccess() as net:
            first = await asyncio.gather(*(connect(net, host, target.port, 0.3) for host in hosts))
            assert first == ["dns"] * MAX_CONCURRENT_DNS_LOOKUPS + ["lookup_queue"] * 10
            assert await connect(net, "quick.example", target.port, 0.2) == "lookup_queue", "no thread is free yet"
            released.set()
            assert await connect(net, "quick.example", target.port, HANG_S) == "connected"
            released.clear()
            running.clear()
            again = await asyncio.gather(*(connect(net, host, target.port, 0.3) for host in hosts[:40]))
            await wait_until_async(lambda: len(running) >= MAX_CONCURRENT_SLOW_HOST_LOOKUPS)
            assert len(running) == MAX_CONCURRENT_SLOW_HOST_LOOKUPS
            assert again == ["dns"] * MAX_CONCURRENT_SLOW_HOST_LOOKUPS + ["lookup_queue"] * (
                40 - MAX_CONCURRENT_SLOW_HOST_LOOKUPS
            )
            assert await connect(net, "quick.example", target.port, HANG_S) == "connected"
            released.set()
            await wait_until_async(lambda: len(running) == 40)
            released.clear()
            running.clear()
            await asyncio.gather(*(connect(net, host, target.port, 0.3) for host in hosts[:40]))
            await wait_until_async(lambda: len(running) >= MAX_CONCURRENT_SLOW_HOST_LOOKUPS)
            assert len(running) == MAX_CONCURRENT_SLOW_HOST_LOOKUPS, "an answer that no run has waited for is too late"

    try:
        asyncio.run(run_scenario())
    finally:
        released.set()


def test_a_name_that_is_answered_in_time_again_counts_as_quick(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that the name does not exist is an answer."""
    hangs = True
    released = threading.Event()

    def look_up(host: str, port: int) -> list[SocketAddress]:
        network.lookups.append(host)
        if hangs:
            released.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", look_up)
    hosts = [f"name{i}.example" for i in range(MAX_CONCURRENT_SLOW_HOST_LOOKUPS + 10)]

    async def look_up_all(net: NetworkAccess, timeout_s: float) -> list[str]:
        async def look_up_one(host: str) -> str:
            try:
                async with asyncio.timeout(timeout_s):
                    await net.connector.connect(host, 1, PhaseTimer(), allow_private_addresses=True)
            except TimeoutError:
                return "timeout"
            except ProbeError as error:
                return error.reason
            return "connected"

        return await asyncio.gather(*map(look_up_one, hosts))

    async def run_scenario() -> None:
        nonlocal hangs
        async with NetworkAccess() as net:
            assert await look_up_all(net, 0.3) == ["timeout"] * len(hosts)
            hangs = False
            released.set()
            assert await look_up_all(net, HANG_S) == ["dns.not_found"] * len(hosts)
            hangs = True
            released.clear()
            network.lookups.clear()
            assert await look_up_all(net, 0.3) == ["timeout"] * len(hosts)
            assert len(network.lookups) == len(hosts)

    try:
        asyncio.run(run_scenario())
    finally:
        released.set()


def test_a_wait_for_a_free_lookup_is_no_failure_of_the_target() -> None:
    timer = PhaseTimer()
    timer.start_nestable_phase("lookup_queue")
    observation = build_timeout_observation(3_000, timer)
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, "watchdog.lookups_busy")
    assert observation.message == f"timed out after 3{NBSP}s while waiting for the lookups of other names"


def test_one_lookup_serves_all_ports(network: FakeNetwork) -> None:
    network.names["shared.example"] = [["127.0.0.5"]]

    async def run_scenario() -> list[tuple[str, int]]:
        lookups = name_lookup.SharedDnsResolver()
        results = await asyncio.gather(*(lookups.resolve("shared.example", port, PhaseTimer()) for port in (80, 443)))
        return [address for [(_, address)] in results]

    assert asyncio.run(run_scenario()) == [("127.0.0.5", 80), ("127.0.0.5", 443)]
    assert network.lookups == ["shared.example"]


def test_the_addresses_tried_outlive_the_deadline(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network.names["silent.example"] = [["127.0.0.6", "127.0.0.7"]]
    phase_timer = PhaseTimer()
    both_hang = asyncio.Event()
    hanging: list[SocketAddress] = []

    async def hang(address: SocketAddress) -> socket.socket:
        hanging.append(address)
        if len(hanging) == 2:
            both_hang.set()
        await asyncio.sleep(60)
        raise AssertionError

    async def set_deadline(deadline: asyncio.Timeout) -> None:
        await both_hang.wait()
        deadline.reschedule(asyncio.get_running_loop().time())

    async def run_scenario() -> None:
        async with NetworkAccess() as net, asyncio.timeout(HANG_S) as deadline, asyncio.TaskGroup() as group:
            group.create_task(set_deadline(deadline))
            await net.connector.connect("silent.example", 443, phase_timer, allow_private_addresses=True)

    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", hang)
    with pytest.raises(TimeoutError):
        asyncio.run(run_scenario())
    observation = build_timeout_observation(200, phase_timer)
    assert observation.reason == "timeout.connect"
    assert observation.evidence.facts["address"] == "127.0.0.6:443, 127.0.0.7:443"


def test_a_name_is_resolved_for_every_connection(network: FakeNetwork) -> None:
    network.names["moving.example"] = [["127.0.0.3"], ["127.0.0.4"]]
    assert asyncio.run(_exchange("http://moving.example:1/")) == "connection.refused"
    assert asyncio.run(_exchange("http://moving.example:1/")) == "connection.refused"
    assert network.connected == ["127.0.0.3", "127.0.0.4"]


@pytest.mark.parametrize("host", [f"{'a' * 64}.example", "a..example", ".example"])
def test_a_name_that_cannot_exist_is_not_found(host: str) -> None:
    async def connect() -> str:
        async with NetworkAccess() as net:
            with pytest.raises(ProbeError) as caught:
                await net.connector.connect(host, 1, PhaseTimer(), allow_private_addresses=True)
        return caught.value.reason

    assert asyncio.run(connect()) == "dns.not_found"


def test_a_failed_lookup_is_not_cached(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[Exception | list[SocketAddress]] = [
        socket.gaierror(socket.EAI_AGAIN, "?"),
        [(socket.AF_INET, ("127.0.0.1", 1))],
    ]

    def look_up(host: str, port: int) -> list[SocketAddress]:
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", look_up)

    async def run_scenario() -> list[str]:
        reasons = []
        async with NetworkAccess() as net:
            for _ in range(2):
                try:
                    await net.connector.connect("flaky.example", 1, PhaseTimer(), allow_private_addresses=True)
                except ProbeError as error:
                    reasons.append(str(error))
        return reasons

    assert asyncio.run(run_scenario()) == [
        "cannot resolve flaky.example: no response from the name server",
        "connection refused",
    ]


def test_only_so_many_slow_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "MAX_REMEMBERED_SLOW_DNS_HOSTS", 3)
    release = threading.Event()
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", lambda _host, _port: release.wait(30) and [])

    async def run_scenario() -> list[str]:
        lookups = name_lookup.SharedDnsResolver()
        try:
            for name in ("a", "b", "a", "c", "d"):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await lookups.resolve(f"{name}.example", 80, PhaseTimer())
            return list(lookups._slow_hosts)
        finally:
            release.set()

    assert asyncio.run(run_scenario()) == ["a.example", "c.example", "d.example"]
