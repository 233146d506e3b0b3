"""Connections that are kept for the next request: when they are used again, and when they are not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_http import FAULTY_RESPONSES
from tests.support.polling import HANG_S, wait_until_async
from tests.support.proxy_servers import RecordingProxy, running_recording_proxy
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
from watchdog.net.http_exchange import HTTP_READ_CHUNK_BYTES
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.net.tls import TlsConfig

NOW_MS = round(NOW.timestamp() * 1000)
OK = http_response(b"ok")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
Run = Callable[[Coroutine[Any, Any, None]], None]


def respond_in_turn(*responses: bytes) -> ConnectionHandler:
    """Sends the responses one after the other, on any connection. Empty: closes the connection in its place."""
    remaining: Iterator[bytes] = iter(responses)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while response := next(remaining, b""):
            writer.write(response)
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    return handle


def stay_open(response: bytes) -> ConnectionHandler:
    """Responds to the first request of a connection, and neither responds to another one nor closes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        await reader.read()

    return handle


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def trust(authority: CertificateAuthority) -> TlsConfig:
    return TlsConfig(ca_file=authority.ca_file)


def through(proxy: RecordingProxy, scheme: str = "http", ca_file: str = "") -> RequestRouting:
    """A routing that uses the proxy for loopback hosts, too."""
    address = parse_proxy_url(f"{scheme}://127.0.0.1:{proxy.server.port}")
    return RequestRouting(address, ca_file=ca_file, proxies_loopback=True)


async def send(network: NetworkAccess, url: str, now: int = NOW_MS, **options: Any) -> HttpResponse:
    return await network.send_http_request(HttpRequest(url, keep_alive=True, **options), now=now)


@asynccontextmanager
async def serve(
    *responses: bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[ScriptedServer, NetworkAccess]]:
    async with running_server(respond_in_turn(*responses), tls) as server, NetworkAccess() as network:
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


def test_tls_is_kept_with_the_connection_until_its_certificate_expires(
    run: Run, authority: CertificateAuthority
) -> None:
    async def check() -> None:
        trusted = trust(authority)
        async with serve(*[OK] * 4, tls=authority.server_tls_context("127.0.0.1", end=90)) as (server, network):
            url = server.url_of(scheme="https")
            days = [(await send(network, url, NOW_MS + n * DAY_MS, tls=trusted)).cert_days for n in (0, 1)]
            assert (days[0], server.connection_count) == ((days[1] or 0) + 1, 1)
            await send(network, url, NOW_MS + 91 * DAY_MS, tls=trusted)
            assert server.connection_count == 2

    run(check())


NOT_KEPT = {
    "it closes": ("GET", stay_open(http_response(b"ok", Connection="close"))),
    "HTTP 1.0": ("GET", stay_open(OK.replace(b"HTTP/1.1", b"HTTP/1.0"))),
    "ends with the connection": ("GET", send_parts(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")),
    "longer than the limit": ("GET", stay_open(http_response(b"x" * 4_000_000))),
    "two lengths": ("GET", stay_open(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n", 1))),
    "two responses": ("GET", stay_open(OK + OK)),
    "surplus": ("GET", stay_open(OK + b"surplus")),
    "surplus after chunks": ("GET", stay_open(CHUNKED + b"surplus")),
    "surplus after no body": ("GET", stay_open(http_response() + b"surplus")),
    "surplus after 204": ("GET", stay_open(b"HTTP/1.1 204 No Content\r\n\r\nsurplus")),
    "surplus after 304": ("GET", stay_open(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nsurplus")),
    "body after HEAD": ("HEAD", stay_open(OK)),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_a_connection_that_another_response_cannot_follow_is_not_kept(run: Run, name: str) -> None:
    method, handler = NOT_KEPT[name]

    async def check() -> None:
        async with running_server(handler) as server, NetworkAccess() as network:
            await send(network, server.url_of(), method=method, max_body_bytes=100_000)
            assert not list_idle(network)

    run(check())


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("GET", OK),
        ("GET", CHUNKED),
        ("GET", http_response()),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", http_response(Content_Length="9")),
    ],
    ids=["with a length", "in chunks", "no body", "204", "HEAD"],
)
def test_a_connection_that_another_response_can_follow_is_kept(run: Run, method: str, response: bytes) -> None:
    async def check() -> None:
        async with serve(response, response) as (server, network):
            reused = [(await send(network, server.url_of(), method=method)).is_connection_reused for _ in range(2)]
            assert reused == [False, True]

    run(check())


def test_a_surplus_that_is_read_after_the_response_is_noticed(run: Run, authority: CertificateAuthority) -> None:
    """With TLS, both event loops read it before the response is processed further."""

    async def check() -> None:
        head_bytes = len(http_response(b"x" * 10_000)) - 10_000
        response = http_response(b"x" * (HTTP_READ_CHUNK_BYTES - head_bytes))
        context = authority.server_tls_context("127.0.0.1")
        async with running_server(stay_open(response + b"surplus"), context) as server, NetworkAccess() as network:
            await send(network, server.url_of(scheme="https"), tls=trust(authority))
            await wait_until_async(lambda: not any(idle.protocol.is_reusable for idle in list_idle(network)))

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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_that_meets_the_end_of_a_kept_connection_is_sent_again(
    run: Run, authority: CertificateAuthority, scheme: str
) -> None:
    async def check() -> None:
        timer, context = PhaseTimer(), authority.server_tls_context("127.0.0.1") if scheme == "https" else None
        async with serve(OK, b"", http_response(b"again"), tls=context) as (server, network):
            request = HttpRequest(server.url_of(scheme=scheme), tls=trust(authority), keep_alive=True)
            await network.send_http_request(request, now=NOW_MS)
            keep_from_noticing_the_end(network)
            second = await network.send_http_request(request, timer, now=NOW_MS)
        assert (second.body, second.is_connection_reused, server.connection_count) == (b"again", False, 2)
        assert timer.phase_durations_ms.keys() - {"tls"} == {"first_byte", "connect", "body"}
        assert ("tls" in timer.phase_durations_ms) == (scheme == "https")
        assert "connection_reused" not in timer.facts

    run(check())


TOO_LATE = http_response(b"late", status="408 Request Timeout", Connection="close")


def test_a_request_that_meets_the_timeout_of_a_kept_connection_is_sent_again(run: Run) -> None:
    async def check() -> None:
        timer = PhaseTimer()
        async with serve(OK, TOO_LATE, OK, TOO_LATE) as (server, network):
            await send(network, server.url_of())
            second = await network.send_http_request(HttpRequest(server.url_of(), keep_alive=True), timer)
            assert (second.status, second.is_connection_reused, server.connection_count) == (200, False, 2)
        assert "connection_reused" not in timer.facts

    run(check())


@pytest.mark.parametrize(
    ("responses", "statuses"),
    [
        ([TOO_LATE], [408]),
        ([OK, http_response(status="408 Request Timeout")], [200, 408]),
        ([OK, TOO_LATE, TOO_LATE], [200, 408]),
    ],
    ids=["to a new connection", "that keeps the connection", "to the second attempt"],
)
def test_any_other_408_is_the_response(run: Run, responses: list[bytes], statuses: list[int]) -> None:
    async def check() -> None:
        async with serve(*responses) as (server, network):
            assert [(await send(network, server.url_of())).status for _ in statuses] == statuses

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


async def time_out(network: NetworkAccess, url: str, timer: PhaseTimer | None = None) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await network.send_http_request(HttpRequest(url, keep_alive=True), timer)


def test_after_a_timeout_on_a_dead_connection_the_others_to_its_server_are_not_used(run: Run) -> None:
    async def check() -> None:
        async with running_server(stay_open(OK)) as server, serve(OK) as (other, _), NetworkAccess() as network:
            await asyncio.gather(*(send(network, server.url_of()) for _ in range(3)), send(network, other.url_of()))
            await time_out(network, server.url_of())
            assert len(list_idle(network)) == 1
            assert (await send(network, server.url_of())).body == b"ok"

    run(check())


def test_after_a_timeout_in_the_body_the_others_are_used(run: Run) -> None:
    async def check() -> None:
        async with serve(OK, OK, OK[:-1]) as (server, network):
            await asyncio.gather(*(send(network, server.url_of()) for _ in range(2)))
            await time_out(network, server.url_of())
            assert len(list_idle(network)) == 1

    run(check())


def test_a_timeout_on_a_kept_connection_names_the_proxy(run: Run) -> None:
    async def check() -> None:
        timer = PhaseTimer()
        async with (
            running_recording_proxy() as proxy,
            running_server(stay_open(OK)) as server,
            NetworkAccess(through(proxy)) as network,
        ):
            await send(network, server.url_of())
            await time_out(network, server.url_of(), timer)
        address = f"127.0.0.1:{proxy.server.port}"
        assert timer.facts == {"address": address, "proxy": address, "connection_reused": True}

    run(check())


@pytest.mark.parametrize(
    "other",
    [{"server_name": "localhost"}, {"verify": False}, {"cert_file": "client.pem"}],
    ids=["another server name", "without verification", "a client certificate"],
)
def test_a_request_with_other_options_of_tls_does_not_use_it(
    run: Run, authority: CertificateAuthority, other: dict[str, Any]
) -> None:
    if "cert_file" in other:
        other = {"cert_file": authority.issue_certificate()}

    async def check() -> None:
        context = authority.server_tls_context("127.0.0.1", "localhost")
        async with serve(OK, OK, tls=context) as (server, network):
            url, tls = server.url_of(scheme="https"), trust(authority)
            await send(network, url, tls=tls)
            assert not (await send(network, url, tls=tls.model_copy(update=other))).is_connection_reused

    run(check())


def test_a_request_that_must_not_reach_private_addresses_does_not_use_it(run: Run) -> None:
    async def check() -> None:
        async with serve(OK, OK) as (server, network):
            await send(network, server.url_of())
            with pytest.raises(ProbeError) as failed:
                await send(network, server.url_of(), allow_private_addresses=False)
            assert failed.value.reason == "connection.address_blocked"

    run(check())


def test_a_request_through_another_proxy_does_not_use_it(run: Run) -> None:
    async def check() -> None:
        async with (
            running_recording_proxy() as first,
            running_recording_proxy() as other,
            serve(OK, OK, OK) as (server, network),
        ):
            for routing in (through(first), through(other), RequestRouting()):
                network.routing = routing
                assert not (await send(network, server.url_of())).is_connection_reused

    run(check())


def test_a_request_that_trusts_another_proxy_does_not_use_it(
    run: Run, authority: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path)

    async def check() -> None:
        async with (
            running_recording_proxy(authority.server_tls_context("127.0.0.1")) as proxy,
            serve(OK, OK) as (server, network),
        ):
            network.routing = through(proxy, "https", authority.ca_file)
            await send(network, server.url_of(), tls=TlsConfig(verify=False))
            network.routing = through(proxy, "https", other.ca_file)
            with pytest.raises(ProbeError) as failed:
                await send(network, server.url_of(), tls=TlsConfig(verify=False))
            assert failed.value.reason == "proxy.unreachable"

    run(check())


@pytest.mark.parametrize("is_proxy", [False, True], ids=["of the server", "of the proxy"])
@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "deleted"])
def test_authorities_are_read_again_once_their_file_is_replaced(
    run: Run, authority: CertificateAuthority, tmp_path: Path, *, is_proxy: bool, is_replaced: bool
) -> None:
    ca_file = tmp_path / "trusted.pem"
    ca_file.write_bytes(Path(authority.ca_file).read_bytes())
    other = Path(CertificateAuthority(tmp_path).ca_file)
    replace_or_delete = partial(other.rename, ca_file) if is_replaced else ca_file.unlink

    async def check() -> None:
        context = authority.server_tls_context("127.0.0.1")
        async with (
            running_recording_proxy(context) as proxy,
            serve(OK, OK, tls=None if is_proxy else context) as (server, network),
        ):
            tls, url = TlsConfig(ca_file=str(ca_file)), server.url_of(scheme="https")
            if is_proxy:
                network.routing = through(proxy, "https", str(ca_file))
                tls, url = TlsConfig(verify=False), server.url_of()
            await send(network, url, NOW_MS, tls=tls)
            replace_or_delete()
            errors = [await find_error(access, url, tls) for access in (network, NetworkAccess(network.routing))]
        assert errors[0] == errors[1]
        replaced_reason = "proxy.unreachable" if is_proxy else "tls.invalid_chain"
        assert errors[0][0] == (replaced_reason if is_replaced else "tls.invalid_file")

    run(check())


async def find_error(network: NetworkAccess, url: str, tls: TlsConfig) -> tuple[str, str, bool, object]:
    async with network:
        with pytest.raises(ProbeError) as failed:
            await send(network, url, NOW_MS, tls=tls)
    return failed.value.reason, failed.value.message, failed.value.is_internal, failed.value.facts


@pytest.mark.parametrize("field", ["cert_file", "key_file"])
def test_a_client_certificate_is_read_again_once_its_file_is_replaced(
    run: Run, authority: CertificateAuthority, field: str
) -> None:
    own = authority.issue_certificate()
    copies = {name: str(authority.folder / f"{field}-{name}.pem") for name in ("cert_file", "key_file")}
    for copy in copies.values():
        Path(copy).write_bytes(Path(own).read_bytes())
    replace = partial(Path(own).rename, copies[field])

    async def check() -> None:
        async with serve(*[OK] * 3, tls=authority.server_tls_context("127.0.0.1")) as (server, network):
            tls, reused = TlsConfig(ca_file=authority.ca_file, **copies), []
            for change in (lambda: None, replace, lambda: None):
                reused.append((await send(network, server.url_of(scheme="https"), tls=tls)).is_connection_reused)
                change()
            assert reused == [False, True, False]

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


def test_of_too_many_connections_those_that_their_server_has_closed_go_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_connections, "MAX_IDLE_CONNECTIONS", 2)

    async def check() -> None:
        async with serve(OK, OK) as (live, network), running_server(send_parts(OK)) as closing, serve(OK) as (third, _):
            await send(network, live.url_of())
            await send(network, closing.url_of())
            await wait_until_async(lambda: not list_idle(network)[-1].protocol.is_reusable)
            await send(network, third.url_of())
            assert [idle.protocol.is_reusable for idle in list_idle(network)] == [True, True]
            assert (await send(network, live.url_of())).is_connection_reused

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
