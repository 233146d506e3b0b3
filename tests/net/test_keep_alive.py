"""Connections that are kept for the next request: when they are used again, and when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.hostile_http import FAULTY_RESPONSES
from tests.support.polling import HANG_S, wait_until_async
from tests.support.scripted_servers import (
    NOW,
    CertificateAuthority,
    ConnectionHandler,
    ScriptedServer,
    count_open_descriptors,
    http_response,
    running_server,
    send_parts,
)
from watchdog.domain.formatting import DAY_MS
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, kept_connections
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_evidence import build_http_response_evidence_facts
from watchdog.net.tls import TlsConfig

NOW_MS = round(NOW.timestamp() * 1000)
OK = http_response(b"ok")
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on both event loops."""
    return uvloop.run if request.param == "uvloop" else asyncio.run


def respond_in_turn(*responses: bytes) -> ConnectionHandler:
    """Sends the responses one after the other, on any connection. Empty: closes the connection in its place."""
    remaining: Iterator[bytes] = iter(responses)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while response := next(remaining, b""):
            writer.write(response)
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    return handle


async def send(network: NetworkAccess, url: str, now: int = NOW_MS, **options: Any) -> HttpResponse:
    return await network.send_http_request(HttpRequest(url, keep_alive=True, **options), now=now)


@asynccontextmanager
async def serve(*responses: bytes) -> AsyncIterator[tuple[ScriptedServer, NetworkAccess]]:
    async with running_server(respond_in_turn(*responses)) as server, NetworkAccess() as network:
        yield server, network


def test_the_next_request_uses_the_same_connection(run: Run) -> None:
    async def check() -> None:
        async with serve(OK, http_response(b"again")) as (server, network):
            first, timer = await send(network, server.url_of()), PhaseTimer()
            request = HttpRequest(server.url_of("/other"), keep_alive=True)
            second = await network.send_http_request(request, timer)
        assert (first.body, second.body, server.connection_count) == (b"ok", b"again", 1)
        assert timer.phase_durations_ms.keys() == {"first_byte", "body"}
        assert first.peer_address == second.peer_address
        assert "connection_reused" not in build_http_response_evidence_facts(first)
        assert build_http_response_evidence_facts(second)["connection_reused"] is True
        assert "connection: close" not in server.request_heads[0].lower()

    run(check())


def test_without_the_option_each_request_has_a_connection(run: Run) -> None:
    async def check() -> None:
        async with serve(OK, OK) as (server, network):
            for _ in range(2):
                await network.send_http_request(HttpRequest(server.url_of()))
        assert server.connection_count == 2
        assert "connection: close" in server.request_heads[0].lower()

    run(check())


def test_tls_is_kept_with_the_connection_until_its_certificate_expires(run: Run, tmp_path: Path) -> None:
    async def check() -> None:
        authority = CertificateAuthority(tmp_path)
        tls, trusted = authority.server_tls_context("127.0.0.1", end=90), TlsConfig(ca_file=authority.ca_file)
        async with running_server(respond_in_turn(*[OK] * 4), tls) as server, NetworkAccess() as network:
            url = server.url_of(scheme="https")
            days = [(await send(network, url, NOW_MS + n * DAY_MS, tls=trusted)).cert_days for n in (0, 1)]
            assert (days[0], server.connection_count) == ((days[1] or 0) + 1, 1)
            await send(network, url, NOW_MS + 91 * DAY_MS, tls=trusted)
            assert server.connection_count == 2

    run(check())


@pytest.mark.parametrize(
    "response",
    [
        http_response(b"ok", Connection="close"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        OK + b"surplus",
        OK + OK,
        http_response(b"x" * 4_000_000),
    ],
    ids=["it closes", "HTTP 1.0", "ends with the connection", "surplus", "two responses", "longer than the limit"],
)
def test_a_connection_that_another_response_cannot_follow_is_not_kept(run: Run, response: bytes) -> None:
    async def check() -> None:
        parts = send_parts(response)
        async with running_server(parts) as server, NetworkAccess() as network:
            for _ in range(2):
                answered = await send(network, server.url_of(), max_body_bytes=100_000)
                assert (answered.status, answered.is_connection_reused) == (200, False)
            assert server.connection_count == 2

    run(check())


def test_a_connection_that_the_server_has_closed_is_not_used(run: Run) -> None:
    async def check() -> None:
        async with running_server(send_parts(OK)) as server, NetworkAccess() as network:
            await send(network, server.url_of())
            idle = list_idle(network)
            await wait_until_async(lambda: not idle[0].protocol.is_reusable)
            assert (await send(network, server.url_of())).body == b"ok"
            assert server.connection_count == 2

    run(check())


def test_a_request_that_meets_the_end_of_a_kept_connection_is_sent_again(run: Run) -> None:
    async def check() -> None:
        timer = PhaseTimer()
        async with serve(OK, b"", http_response(b"again")) as (server, network):
            await send(network, server.url_of())
            keep_from_noticing_the_end(network)
            request = HttpRequest(server.url_of(), keep_alive=True)
            second = await network.send_http_request(request, timer)
        assert (second.body, second.is_connection_reused, server.connection_count) == (b"again", False, 2)
        assert timer.phase_durations_ms.keys() == {"first_byte", "connect", "body"}
        assert "connection_reused" not in timer.facts

    run(check())


@pytest.mark.parametrize("fault", FAULTY_RESPONSES)
def test_a_fault_on_a_kept_connection_has_the_same_reason(run: Run, fault: str) -> None:
    handler, reason, message = FAULTY_RESPONSES[fault]
    is_first = True

    async def respond_once_and_fail_then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")
        await handler(reader, writer)

    async def check() -> None:
        async with running_server(respond_once_and_fail_then) as server, NetworkAccess() as network:
            await send(network, server.url_of())
            with pytest.raises(ProbeError) as failed:
                async with asyncio.timeout(HANG_S):
                    await send(network, server.url_of(), follow_redirects=True)
            assert failed.value.reason == reason
            assert failed.value.message == message.replace("PORT", str(server.port))
            assert failed.value.facts.get("address", address := f"127.0.0.1:{server.port}") == address
            assert reason.startswith("http.") or not list_idle(network)

    run(check())


def test_a_run_that_is_cancelled_closes_its_connection(run: Run) -> None:
    async def check() -> None:
        async with serve(OK) as (server, network):
            await send(network, server.url_of())
            before = count_open_descriptors()
            sending = asyncio.ensure_future(send(network, server.url_of()))
            await wait_until_async(lambda: not list_idle(network))
            sending.cancel()
            await asyncio.wait([sending])
            await wait_until_async(lambda: count_open_descriptors() < before)

    run(check())


@pytest.mark.parametrize(
    "other",
    [{"tls": TlsConfig(verify=False)}, {"tls": TlsConfig(server_name="b.test")}, {"allow_private_addresses": False}],
    ids=["without verification", "another server name", "without private addresses"],
)
def test_a_request_on_other_terms_does_not_use_it(run: Run, other: dict[str, Any]) -> None:
    async def check() -> None:
        async with serve(OK, OK) as (server, network):
            await send(network, server.url_of())
            if "tls" in other:
                assert not (await send(network, server.url_of(), **other)).is_connection_reused
            else:
                with pytest.raises(ProbeError) as failed:
                    await send(network, server.url_of(), **other)
                assert failed.value.reason == "connection.address_blocked"

    run(check())


def test_connections_are_closed_when_they_were_idle_for_too_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_connections, "MAX_IDLE_S", 0.01)

    async def check() -> None:
        async with serve(OK) as (server, network):
            before = count_open_descriptors()
            await send(network, server.url_of())
            await wait_until_async(lambda: not list_idle(network))
            await wait_until_async(lambda: count_open_descriptors() <= before)

    run(check())


def test_an_old_connection_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_connections, "MAX_AGE_S", 0)

    async def check() -> None:
        async with serve(OK, OK) as (server, network):
            await send(network, server.url_of())
            assert not (await send(network, server.url_of())).is_connection_reused

    run(check())


def test_of_too_many_connections_that_of_the_least_used_server_is_closed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_connections, "MAX_IDLE_CONNECTIONS", 2)

    async def check() -> None:
        async with serve(*[OK] * 4) as (first, network), serve(OK) as (second, _), serve(OK) as (third, _):
            for server in (first, second, first, third):
                await send(network, server.url_of())
            assert len(list_idle(network)) == 2
            assert (await send(network, first.url_of())).is_connection_reused

    run(check())


def test_concurrent_requests_have_connections_of_their_own(run: Run) -> None:
    async def check() -> None:
        async with serve(*[OK] * 20) as (server, network):
            for _ in range(2):
                await asyncio.gather(*(send(network, server.url_of()) for _ in range(10)))
            assert (server.connection_count, len(list_idle(network))) == (10, 10)
            before = count_open_descriptors()
        assert count_open_descriptors() < before

    run(check())


def list_idle(network: NetworkAccess) -> list[kept_connections.KeepableConnection]:
    idle = network.request_sender.kept_connections._idle_by_server.values()
    return [connection for connections in idle for connection in connections]


def keep_from_noticing_the_end(network: NetworkAccess) -> None:
    """As if the server closed the connection just when the request is sent."""
    for connection in list_idle(network):
        connection.protocol._transport.pause_reading()
