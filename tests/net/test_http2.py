"""Requests over HTTP/2: to real servers, and to scripted ones that break the protocol or never end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import uvloop

from tests.support.http2_servers import LARGE_BODY, running_nghttpd, running_nginx_with_http2
from tests.support.nginx import find_nginx
from tests.support.polling import HANG_S, wait_until_async
from tests.support.proxy_servers import find_system_program, running_recording_proxy
from tests.support.scripted_servers import (
    NOW,
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    running_server,
    send_parts,
)
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_evidence import build_response_head_and_body_excerpt
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.net.tls import TlsConfig

Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
Answer: TypeAlias = "Callable[[ScriptedHttp2Connection], Awaitable[None]]"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def nginx_ports(authority: CertificateAuthority) -> Iterator[tuple[int, int]]:
    if find_nginx() is None:
        pytest.skip("nginx is missing: apt install nginx-light")
    with running_nginx_with_http2(authority.issue_certificate("127.0.0.1", "localhost")) as ports:
        yield ports


@pytest.fixture(scope="module")
def nghttpd_port(authority: CertificateAuthority) -> Iterator[int]:
    if find_system_program("nghttpd") is None:
        pytest.skip("nghttpd is missing: apt install nghttp2-server")
    with running_nghttpd(authority.issue_certificate("127.0.0.1")) as port:
        yield port


async def request(
    url: str,
    authority: CertificateAuthority,
    phase_timer: PhaseTimer | None = None,
    routing: RequestRouting | None = None,
    **options: Any,
) -> HttpResponse:
    async with NetworkAccess(routing) as network, asyncio.timeout(HANG_S):
        tls = TlsConfig(ca_file=authority.ca_file)
        sent = HttpRequest(url, http2=True, tls=tls, **options)
        return await network.send_http_request(sent, phase_timer, now=round(NOW.timestamp() * 1000))


async def request_error(url: str, authority: CertificateAuthority, **options: Any) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        await request(url, authority, **options)
    return caught.value


# --- real servers


def test_a_request_to_nginx(run: Run, authority: CertificateAuthority, nginx_ports: tuple[int, int]) -> None:
    timer, url = PhaseTimer(), f"https://127.0.0.1:{nginx_ports[0]}/a?b=c"
    response = run(request(url, authority, timer, headers={"X-Tag": "ü"}))
    assert (response.status, response.http_version, response.reason_phrase) == (200, "2", "")
    expected = f'{{"protocol": "HTTP/2.0", "host": "127.0.0.1:{nginx_ports[0]}", "tag": "ü"}}'
    assert response.text == expected
    assert response.headers["content-encoding"] == "gzip"
    assert response.cert_days is not None
    assert list(timer.phase_durations_ms) == ["connect", "tls", "first_byte", "body"]
    assert timer.current_phase is None
    assert build_response_head_and_body_excerpt(response).startswith("HTTP/2 200\ncontent-type: application/json")


@pytest.mark.parametrize(
    ("path", "options", "status", "redirects"),
    [
        ("/down", {}, 503, 0),
        ("/old", {"follow_redirects": True}, 200, 1),
        ("/old", {}, 301, 0),
        ("/", {"method": "HEAD"}, 200, 0),
        ("/posted", {"method": "POST", "body": b"abc"}, 200, 0),
        ("/", {"method": "OPTIONS"}, 200, 0),
    ],
)
def test_methods_and_statuses_of_nginx(
    authority: CertificateAuthority,
    nginx_ports: tuple[int, int],
    path: str,
    options: dict[str, Any],
    status: int,
    redirects: int,
) -> None:
    response = asyncio.run(request(f"https://127.0.0.1:{nginx_ports[0]}{path}", authority, **options))
    assert (response.status, response.redirect_count, response.http_version) == (status, redirects, "2")
    assert (response.body == b"") == (options.get("method") == "HEAD")


def test_a_large_body_of_nginx_is_truncated_at_the_limit(
    run: Run, authority: CertificateAuthority, nginx_ports: tuple[int, int]
) -> None:
    url = f"https://127.0.0.1:{nginx_ports[0]}/large"
    whole = run(request(url, authority, max_body_bytes=4 << 20))
    assert (whole.body, whole.body_problem) == (LARGE_BODY, None)
    cut = run(request(url, authority))
    assert cut.body == LARGE_BODY[:DEFAULT_MAX_BODY_BYTES]
    assert cut.body_problem is not None
    assert cut.body_problem.reason == "body.too_large"


def test_a_long_request_body_waits_for_the_window_of_the_server(
    run: Run, authority: CertificateAuthority, nghttpd_port: int
) -> None:
    body = b"0123456789" * 30_000
    response = run(
        request(f"https://127.0.0.1:{nghttpd_port}/", authority, method="POST", body=body, max_body_bytes=1 << 20)
    )
    assert (response.status, response.body) == (200, body)


def test_a_file_of_nghttpd(run: Run, authority: CertificateAuthority, nghttpd_port: int) -> None:
    response = run(request(f"https://127.0.0.1:{nghttpd_port}/ca.pem", authority))
    assert response.body == Path(authority.ca_file).read_bytes()
    missing = run(request(f"https://127.0.0.1:{nghttpd_port}/missing", authority))
    assert missing.status == 404


def test_http2_through_real_proxies(
    run: Run, authority: CertificateAuthority, nginx_ports: tuple[int, int], tinyproxy: int, microsocks: int
) -> None:
    for proxy in (f"http://127.0.0.1:{tinyproxy}", f"socks5://127.0.0.1:{microsocks}"):
        routing = RequestRouting(parse_proxy_url(proxy), proxies_loopback=True)
        response = run(request(f"https://127.0.0.1:{nginx_ports[0]}/", authority, routing=routing))
        assert (response.status, response.http_version) == (200, "2")
        assert response.proxy == proxy.rpartition("/")[2]


NOT_SELECTED = "the server does not speak HTTP/2: the server does not select it during the TLS handshake (ALPN)"


def test_a_server_that_speaks_only_http1(
    run: Run, authority: CertificateAuthority, nginx_ports: tuple[int, int]
) -> None:
    error = run(request_error(f"https://127.0.0.1:{nginx_ports[1]}/", authority))
    assert (error.reason, str(error)) == ("protocol.not_http2", NOT_SELECTED)
    assert (error.phase, error.is_internal, error.retryable) == ("tls", False, False)
    assert error.facts["address"] == f"127.0.0.1:{nginx_ports[1]}"


def test_a_redirect_to_http_uses_http1(authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response(b"plain"))) as plain:

            async def answer(connection: ScriptedHttp2Connection) -> None:
                connection.respond({":status": "302", "location": plain.url_of("/x")}, ends=True)

            async with running_http2_server(answer, authority) as url:
                response = await request(url, authority, follow_redirects=True)
                assert (response.body, response.http_version, response.redirect_count) == (b"plain", "1.1", 1)
                assert plain.request_heads[0].startswith("GET /x HTTP/1.1")

    asyncio.run(run_scenario())


def test_headers_do_not_follow_a_redirect_to_another_origin(authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response(b"plain"))) as plain:

            async def answer(connection: ScriptedHttp2Connection) -> None:
                assert connection.request_headers["authorization"] == "Bearer t0ken"
                connection.respond({":status": "302", "location": plain.url_of()}, ends=True)

            async with running_http2_server(answer, authority) as url:
                headers = {"Authorization": "Bearer t0ken", "X-Key": "t0ken"}
                await request(url, authority, follow_redirects=True, headers=headers)
                assert "t0ken" not in plain.request_heads[0]

    asyncio.run(run_scenario())


# --- scripted servers


class ScriptedHttp2Connection:
    """One connection of a scripted server, after it has received the headers of a request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        )
        self.request_headers: dict[str, str] = {}
        self.has_acknowledged_settings = False

    async def receive_request(self) -> None:
        self.h2.initiate_connection()
        self.flush()
        while not self.request_headers:
            self.receive_events(await self.reader.read(65_536))

    def receive_events(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.request_headers = {name.decode(): value.decode() for name, value in event.headers}
            self.has_acknowledged_settings |= isinstance(event, h2.events.SettingsAcknowledged)
        self.flush()

    def respond(self, headers: dict[str, str], body: bytes = b"", *, ends: bool = False) -> None:
        self.h2.send_headers(1, list(headers.items()), end_stream=ends and not body)
        if body:
            self.h2.send_data(1, body, end_stream=ends)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)


def running_http2_server(answer: Answer, authority: CertificateAuthority) -> Any:
    """Yields its URL. `answer`: called once the headers of a request have arrived."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ScriptedHttp2Connection(reader, writer)
        await connection.receive_request()
        await answer(connection)
        await writer.drain()

    return _Http2Server(handle, authority)


class _Http2Server:
    def __init__(self, handler: ConnectionHandler, authority: CertificateAuthority) -> None:
        context = authority.server_tls_context("127.0.0.1")
        context.set_alpn_protocols(["h2"])
        self._running = running_server(handler, context, read_request=False)

    async def __aenter__(self) -> str:
        return (await self._running.__aenter__()).url_of("/path", scheme="https")

    async def __aexit__(self, *error: Any) -> None:
        await self._running.__aexit__(*error)


async def forever(send: Callable[[], None], writer: asyncio.StreamWriter, interval_s: float = 0.0) -> None:
    while True:
        send()
        await writer.drain()
        await asyncio.sleep(interval_s)


def frame(type_: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([type_, flags]) + stream_id.to_bytes(4, "big") + payload


OK = {":status": "200", "content-type": "text/plain"}


async def _hang(connection: ScriptedHttp2Connection) -> None:
    await asyncio.sleep(60)


async def _hang_in_body(connection: ScriptedHttp2Connection) -> None:
    connection.respond(OK, b"half")
    await asyncio.sleep(60)


async def _hang_after_interim(connection: ScriptedHttp2Connection) -> None:
    connection.respond({":status": "103"})
    await asyncio.sleep(60)


async def _drip(connection: ScriptedHttp2Connection) -> None:
    connection.respond(OK)

    def send() -> None:
        connection.h2.send_data(1, b"x")
        connection.flush()

    await forever(send, connection.writer, 0.01)


async def _ping(connection: ScriptedHttp2Connection) -> None:
    await forever(lambda: connection.send_raw(frame(6, 0, 0, b"12345678")), connection.writer, 0.01)


ENDLESS = {
    "nothing comes": (_hang, "first_byte"),
    "a body stops half-way": (_hang_in_body, "body"),
    "interim answers stop": (_hang_after_interim, "first_byte"),
    "a body drips": (_drip, "body"),
    "it only pings": (_ping, "first_byte"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_timer_names_the_phase_that_hangs(run: Run, authority: CertificateAuthority, name: str) -> None:
    answer, phase = ENDLESS[name]

    async def run_scenario() -> None:
        timer = PhaseTimer()
        async with running_http2_server(answer, authority) as url:
            sending = asyncio.create_task(request(url, authority, timer))
            await wait_until_async(lambda: timer.current_phase == phase)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            assert timer.current_phase == phase

    run(run_scenario())


def test_what_has_arrived_is_evidence(run: Run, authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        timer = PhaseTimer()
        async with running_http2_server(_hang_in_body, authority) as url:
            sending = asyncio.create_task(request(url, authority, timer))
            await wait_until_async(lambda: "half" in timer.attempt_evidence_so_far.excerpt)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        evidence = timer.attempt_evidence_so_far
        assert (evidence.facts["status"], evidence.facts["received"]) == (200, "4 bytes")
        assert evidence.excerpt == "HTTP/2 200\ncontent-type: text/plain\n\nhalf"

    run(run_scenario())


async def _reset(connection: ScriptedHttp2Connection, code: int, *, after_head: bool = False) -> None:
    if after_head:
        connection.respond(OK, b"half")
    connection.h2.reset_stream(1, code)
    connection.flush()
    await asyncio.sleep(60)


async def _go_away(connection: ScriptedHttp2Connection, code: int) -> None:
    connection.h2.close_connection(code, last_stream_id=1)
    connection.flush()
    await asyncio.sleep(60)


async def _close(connection: ScriptedHttp2Connection, *, after_head: bool = False) -> None:
    if after_head:
        connection.respond({**OK, "content-length": "100"}, b"abc")
        await connection.writer.drain()
    connection.writer.close()


async def _interim_forever(connection: ScriptedHttp2Connection) -> None:
    await forever(lambda: connection.respond({":status": "103"}), connection.writer)


async def _switch_protocols(connection: ScriptedHttp2Connection) -> None:
    connection.respond({":status": "101"})
    await asyncio.sleep(60)


async def _large_headers(connection: ScriptedHttp2Connection) -> None:
    connection.respond({**OK, **{f"x-{i}": "y" * 1_000 for i in range(80)}}, ends=True)
    await asyncio.sleep(60)


async def _endless_headers(connection: ScriptedHttp2Connection) -> None:
    connection.send_raw(frame(1, 0, 1, b"\x88"))
    padding = b"\x00\x01x\x7f\x81\x4d" + b"y" * 10_000  # a literal header with a value of 10,060 bytes
    await forever(lambda: connection.send_raw(frame(9, 0, 1, padding)), connection.writer)


async def _controls_forever(connection: ScriptedHttp2Connection) -> None:
    await forever(lambda: connection.send_raw(frame(6, 0, 0, b"12345678") * 100), connection.writer)


async def _empty_data_forever(connection: ScriptedHttp2Connection) -> None:
    connection.respond(OK)
    await forever(lambda: connection.send_raw(frame(0, 0, 1) * 100), connection.writer)


async def _raw(connection: ScriptedHttp2Connection, data: bytes) -> None:
    connection.send_raw(data)
    await asyncio.sleep(60)


async def _respond(connection: ScriptedHttp2Connection, headers: dict[str, str], body: bytes = b"") -> None:
    connection.respond(headers, body, ends=True)
    await asyncio.sleep(60)


async def _end_early_with_trailers(connection: ScriptedHttp2Connection) -> None:
    connection.respond({**OK, "content-length": "9"}, b"abc")
    connection.respond({"x-checksum": "1"}, ends=True)
    await asyncio.sleep(60)


REFUSED, CALM, HTTP1 = (
    h2.errors.ErrorCodes.REFUSED_STREAM,
    h2.errors.ErrorCodes.ENHANCE_YOUR_CALM,
    h2.errors.ErrorCodes.HTTP_1_1_REQUIRED,
)
FAULTS: dict[str, tuple[Answer, str, str]] = {
    "it resets the stream": (
        lambda c: _reset(c, REFUSED),
        *("protocol.http2_aborted", "the server aborts the request: REFUSED_STREAM (HTTP/2)"),
    ),
    "it resets the stream in the body": (
        lambda c: _reset(c, REFUSED, after_head=True),
        *("protocol.http2_aborted", "the server aborts the request: REFUSED_STREAM (HTTP/2)"),
    ),
    "it resets the stream without an error": (
        lambda c: _reset(c, 0),
        *("protocol.http2_aborted", "the server aborts the request: NO_ERROR (HTTP/2)"),
    ),
    "its error is unknown": (
        lambda c: _reset(c, 99),
        *("protocol.http2_aborted", "the server aborts the request: error 99 (HTTP/2)"),
    ),
    "it goes away": (
        lambda c: _go_away(c, CALM),
        *("protocol.http2_aborted", "the server aborts the request: ENHANCE_YOUR_CALM (HTTP/2)"),
    ),
    "it requires HTTP/1.1": (
        lambda c: _reset(c, HTTP1),
        *("protocol.not_http2", "the server does not speak HTTP/2: the server requires HTTP/1.1 for this request"),
    ),
    "it closes at once": (
        _close,
        *("connection.closed", "connection closed by the server while waiting for the first byte"),
    ),
    "it closes in the body": (
        lambda c: _close(c, after_head=True),
        *("body.truncated", "the response body is incomplete: received 3 of 100 bytes"),
    ),
    "it goes away before it has read the request": (
        lambda c: _raw(c, frame(7, 0, 0, bytes(8))),
        *("protocol.http2_aborted", "the server aborts the request: NO_ERROR (HTTP/2)"),
    ),
    "it has a length and no body": (
        lambda c: _respond(c, {**OK, "content-length": "9"}),
        *("body.truncated", "the response body is incomplete: received 0 of 9 bytes"),
    ),
    "its body is shorter than its length, and trailers follow": (
        _end_early_with_trailers,
        *("body.truncated", "the response body is incomplete: received 3 of 9 bytes"),
    ),
    "its body is shorter than its length": (
        lambda c: _respond(c, {**OK, "content-length": "9"}, b"abc"),
        *("body.truncated", "the response body is incomplete: received 3 of 9 bytes"),
    ),
    "it sends interim responses forever": (
        _interim_forever,
        *("protocol.no_final_response", "more than 20 interim (1xx) responses"),
    ),
    "it switches protocols": (
        _switch_protocols,
        *(
            "protocol.unexpected_upgrade",
            "HTTP 101: the server switched to another protocol without being asked",
        ),
    ),
    "its headers are large": (
        _large_headers,
        *("protocol.headers_too_large", "the response headers are too long"),
    ),
    "its headers never end": (
        _endless_headers,
        *("protocol.headers_too_large", "the response headers are too long"),
    ),
    "it sends control frames forever": (
        _controls_forever,
        "protocol.invalid_response",
        "the response is not valid HTTP: more than 64 KiB of frames without a part of the response",
    ),
    "it sends empty frames forever": (
        _empty_data_forever,
        "protocol.invalid_response",
        "the response is not valid HTTP: more than 64 KiB of frames without a part of the response",
    ),
    "it speaks HTTP/1": (
        lambda c: _raw(c, http_response(b"hello")),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "its status is no number": (
        lambda c: _respond(c, {":status": "abc"}),
        *("protocol.invalid_response", "the response is not valid HTTP: the status is not a number"),
    ),
    "its status is very long": (
        lambda c: _respond(c, {":status": "2" * 5_000}),
        *("protocol.invalid_response", "the response is not valid HTTP: the status is not a number"),
    ),
    "its header has a line break": (
        lambda c: _respond(c, {":status": "401", "www-authenticate": 'Digest realm="a\r\nX-Key: b", nonce="c"'}),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "it has no status": (
        lambda c: _respond(c, {"x-tag": "a"}),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "its headers cannot be decoded": (
        lambda c: _raw(c, frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "its frame is too long": (
        lambda c: _raw(c, frame(0, 0, 1, b"x" * 20_000)),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "it pushes": (
        lambda c: _raw(c, frame(5, 4, 1, b"\0\0\0\2\x88")),
        *("protocol.invalid_response", "the response is not valid HTTP: it violates HTTP/2"),
    ),
    "its gzip is invalid": (
        lambda c: _respond(c, {**OK, "content-encoding": "gzip"}, b"hello"),
        *("body.invalid_encoding", "the response body is not compressed as its headers state"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_has_a_reason_and_a_plain_message(run: Run, authority: CertificateAuthority, name: str) -> None:
    answer, reason, message = FAULTS[name]

    async def run_scenario() -> None:
        async with running_http2_server(answer, authority) as url:
            error = await request_error(url, authority)
            assert (error.reason, str(error)) == (reason, message)
            assert error.facts["address"].startswith("127.0.0.1:")
            assert not error.is_internal

    run(run_scenario())


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_behind_a_proxy_is_reported_as_without_it(
    authority: CertificateAuthority, microsocks: int, scheme: str, name: str
) -> None:
    answer, reason, message = FAULTS[name]

    async def run_scenario() -> None:
        proxy_tls = authority.server_tls_context("127.0.0.1") if scheme == "https" else None
        async with running_http2_server(answer, authority) as url, running_recording_proxy(proxy_tls) as recording:
            proxy = recording.url.replace("http", scheme, 1)
            if scheme == "socks5h":
                proxy = f"socks5h://127.0.0.1:{microsocks}"
            routing = RequestRouting(parse_proxy_url(proxy), ca_file=authority.ca_file, proxies_loopback=True)
            error = await request_error(url, authority, routing=routing)
            assert (error.reason, str(error)) == (reason, message)
            assert error.facts["proxy"] == parse_proxy_url(proxy).host_and_port
            assert not error.is_internal

    uvloop.run(run_scenario())


def test_a_server_that_goes_away_may_complete_its_response(run: Run, authority: CertificateAuthority) -> None:
    async def answer(connection: ScriptedHttp2Connection) -> None:
        connection.send_raw(frame(7, 0, 0, (1).to_bytes(4, "big") + (0).to_bytes(4, "big")))
        connection.respond(OK, b"done", ends=True)

    async def run_scenario() -> None:
        async with running_http2_server(answer, authority) as url:
            assert (await request(url, authority)).body == b"done"

    run(run_scenario())


@pytest.mark.parametrize("status", ["204", "304"])
def test_a_status_without_a_body_may_state_a_length(authority: CertificateAuthority, status: str) -> None:
    async def run_scenario() -> None:
        headers = {":status": status, "content-length": "9"}
        async with running_http2_server(lambda c: _respond(c, headers), authority) as url:
            assert (await request(url, authority)).status == int(status)

    asyncio.run(run_scenario())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_length_that_is_stated_twice(authority: CertificateAuthority, method: str) -> None:
    async def answer(connection: ScriptedHttp2Connection) -> None:
        connection.h2.send_headers(1, [*OK.items(), ("content-length", "4"), ("content-length", "4")])
        connection.h2.send_data(1, b"done" if method == "GET" else b"", end_stream=True)
        connection.flush()

    async def run_scenario() -> None:
        async with running_http2_server(answer, authority) as url:
            assert (await request(url, authority, method=method)).body == (b"done" if method == "GET" else b"")

    asyncio.run(run_scenario())


def test_the_settings_of_the_server_are_acknowledged(run: Run, authority: CertificateAuthority) -> None:
    """A server sends them at the end of the handshake, possibly before anything is read."""

    async def answer(connection: ScriptedHttp2Connection) -> None:
        while not connection.has_acknowledged_settings:
            connection.receive_events(await connection.reader.read(65_536))
        connection.respond(OK, ends=True)

    async def run_scenario() -> None:
        async with running_http2_server(answer, authority) as url:
            assert (await request(url, authority)).status == 200

    run(run_scenario())


def test_the_request_that_is_sent(run: Run, authority: CertificateAuthority) -> None:
    received: dict[str, str] = {}

    async def answer(connection: ScriptedHttp2Connection) -> None:
        received.update(connection.request_headers)
        connection.respond(OK, ends=True)

    async def run_scenario() -> None:
        async with running_http2_server(answer, authority) as url:
            headers = {"X-Tag": "a", "user-agent": "mine", "TE": "gzip"}
            await request(url, authority, method="PUT", body=b"abc", headers=headers)
            assert received == {
                ":method": "PUT",
                ":scheme": "https",
                ":authority": url.split("/")[2],
                ":path": "/path",
                "accept": "*/*",
                "accept-encoding": "gzip",
                "content-length": "3",
                "x-tag": "a",
                "user-agent": "mine",
            }

    run(run_scenario())


def test_contexts_for_http1_offer_no_http2(authority: CertificateAuthority) -> None:
    """A context is shared by all requests with the same options."""
    offered: list[str | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offered.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response())

    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1")
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with running_server(handle, context, read_request=False) as server, NetworkAccess() as network:
            url, tls = server.url_of(scheme="https"), TlsConfig(ca_file=authority.ca_file)
            for http2 in (True, False):
                sending = network.send_http_request(HttpRequest(url, tls=tls, http2=http2))
                await asyncio.gather(asyncio.wait_for(sending, 0.5), return_exceptions=True)
        assert offered[0] == "h2"
        assert set(offered[1:]) == {"http/1.1"}

    asyncio.run(run_scenario())


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_no_connection_stays_open(run: Run, authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            descriptors = []
            for answer in [answer for answer, _, _ in FAULTS.values()] + [answer for answer, _ in ENDLESS.values()]:
                async with running_http2_server(answer, authority) as url:
                    tls = TlsConfig(ca_file=authority.ca_file)
                    try:
                        async with asyncio.timeout(0.1):
                            await network.send_http_request(HttpRequest(url, tls=tls, http2=True))
                    except (ProbeError, TimeoutError):
                        pass
                await asyncio.sleep(0.01)
                descriptors.append(count_open_descriptors())
            await wait_until_async(lambda: count_open_descriptors() <= descriptors[0])
            assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run(run_scenario())
