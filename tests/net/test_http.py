"""Requests to misbehaving servers: each ends in time and within limits, and names the problem."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest
import uvloop

from tests.support.hostile_http import ENDLESS_RESPONSES, FAULTY_RESPONSES, bomb, gzipped
from tests.support.polling import HANG_S, wait_until_async
from tests.support.scripted_servers import (
    OPEN_DESCRIPTORS,
    ConnectionHandler,
    ScriptedServer,
    count_open_descriptors,
    http_response,
    redirect_to,
    running_server,
    send_forever,
    send_parts,
)
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.received_body import BodyNotFullyReadProblem, BoundedBodyCollector
from watchdog.net.received_response import MIN_RAW_RESPONSE_BYTES_LIMIT
from watchdog.net.response_parser import HttpResponseParser

DEADLINE = 0.3
Run = Callable[[Coroutine[Any, Any, "Exchange"]], "Exchange"]


@dataclass
class Exchange:
    """One request and its outcome: a response, an error, or neither after the deadline."""

    result: HttpResponse | None = None
    failure: ProbeError | None = None
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    seconds: float = 0.0
    heads: list[str] = field(default_factory=list)
    """The request heads that the server read."""

    @property
    def response(self) -> HttpResponse:
        assert self.result is not None, (self.failure, self.phase_timer.phase_durations_ms)
        return self.result

    @property
    def error(self) -> ProbeError:
        assert self.failure is not None, (self.result, self.phase_timer.phase_durations_ms)
        return self.failure


async def ask(handler: ConnectionHandler, deadline: float = HANG_S, **request: Any) -> Exchange:
    async with running_server(handler) as server, NetworkAccess() as network:
        return await send_request(network, server, server.url_of(), deadline, **request)


async def send_request(
    network: NetworkAccess,
    server: ScriptedServer,
    url: str,
    deadline: float = 5.0,
    starts_deadline: Callable[[PhaseTimer], bool] | None = None,
    **request: Any,
) -> Exchange:
    """`starts_deadline`: the deadline is counted from when this holds, however late that is."""
    exchange = Exchange(heads=server.request_heads)
    started = monotonic()
    sending = network.send_http_request(HttpRequest(url, **request), exchange.phase_timer)
    try:
        async with asyncio.timeout(None if starts_deadline else deadline) as limit:
            exchange.result = await (
                _send_until(sending, limit, deadline, exchange.phase_timer, starts_deadline)
                if starts_deadline
                else sending
            )
    except ProbeError as error:
        exchange.failure = error
    except TimeoutError:
        pass
    exchange.seconds = monotonic() - started
    return exchange


async def _send_until(
    sending: Coroutine[Any, Any, HttpResponse],
    limit: asyncio.Timeout,
    deadline: float,
    phase_timer: PhaseTimer,
    starts_deadline: Callable[[PhaseTimer], bool],
) -> HttpResponse:
    async def set_deadline() -> None:
        await wait_until_async(lambda: starts_deadline(phase_timer))
        limit.reschedule(asyncio.get_running_loop().time() + deadline)

    starting = asyncio.create_task(set_deadline())
    try:
        return await sending
    finally:
        starting.cancel()


# --- time


@pytest.mark.parametrize("temper", ENDLESS_RESPONSES)
def test_the_deadline_ends_it_and_the_timer_names_the_phase(run: Run, temper: str) -> None:
    handler, phase = ENDLESS_RESPONSES[temper]
    exchange = run(ask(handler, DEADLINE, starts_deadline=lambda timer: timer.current_phase == phase))
    assert (exchange.result, exchange.failure) == (None, None)
    assert exchange.seconds < HANG_S
    assert exchange.phase_timer.current_phase == phase
    assert DEADLINE * 500 < sum(exchange.phase_timer.phase_durations_ms.values()) < HANG_S * 1000


# --- faults


@pytest.mark.parametrize("temper", FAULTY_RESPONSES)
def test_an_error_has_a_reason_and_a_plain_message(run: Run, temper: str) -> None:
    handler, reason, message = FAULTY_RESPONSES[temper]
    exchange = run(ask(handler, deadline=5.0, follow_redirects=True))
    port = exchange.heads[0].partition("127.0.0.1:")[2].partition("\r\n")[0]
    assert (exchange.error.reason, str(exchange.error)) == (reason, message.replace("PORT", port))


def test_a_reset_is_distinguished_from_a_close(run: Run) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    exchange = run(ask(reset))
    assert exchange.error.reason == "connection.reset"
    assert str(exchange.error) == "connection reset by the server while waiting for the first byte"
    assert exchange.error.retryable


def test_a_response_that_is_not_http_is_evidence(run: Run) -> None:
    exchange = run(ask(send_parts(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")))
    assert exchange.error.excerpt.startswith("SSH-2.0-OpenSSH_9.2p1")
    assert exchange.error.facts["address"].startswith("127.0.0.1:")


@pytest.mark.parametrize("banner", [b"J\0\0\0\n8.0.36\0", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"220 mail ESMTP", b"+OK"])
def test_a_banner_is_named_before_the_deadline(run: Run, banner: bytes) -> None:
    """The service keeps the connection open, as it waits for its own protocol."""
    exchange = run(ask(send_parts(banner, delay_s=60)))
    assert exchange.error.reason == "protocol.not_http"
    assert exchange.error.excerpt == banner.decode()


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
@pytest.mark.parametrize(("scheme", "reason"), [("http", "protocol.not_http"), ("https", "tls.not_tls")])
def test_a_banner_that_is_sent_at_once_is_named(run: Run, scheme: str, reason: str, delay_s: float) -> None:
    """The service speaks first, before the request or the TLS handshake."""

    async def run_scenario() -> Exchange:
        handler = send_parts(b"SSH-2.0-OpenSSH_9.2p1\r\n", delay_s=delay_s)
        async with running_server(handler, read_request=False) as server, NetworkAccess() as network:
            return await send_request(network, server, server.url_of(scheme=scheme))

    assert {run(run_scenario()).error.reason for _ in range(5)} == {reason}


async def request_without_server(url: str, **request: Any) -> Exchange:
    async with NetworkAccess() as network:
        return await send_request(network, ScriptedServer(), url, **request)


@pytest.mark.parametrize(
    ("url", "reason", "message", "phase"),
    [
        ("http://127.0.0.1:1/", "connection.refused", "connection refused", "connect"),
        ("http://[::1]:1/", "connection.refused", "connection refused", "connect"),
        ("http://missing.invalid/", "dns.not_found", "cannot resolve missing.invalid: host name not found", "dns"),
    ],
)
def test_without_a_server_there_is_an_error(run: Run, url: str, reason: str, message: str, phase: str) -> None:
    exchange = run(request_without_server(url))
    if exchange.error.reason == "connection.unreachable" and "[" in url:
        pytest.skip("IPv6 is missing: a loopback address ::1")
    assert (exchange.error.reason, str(exchange.error), exchange.error.phase) == (reason, message, phase)
    assert exchange.error.retryable


def test_an_error_after_a_redirect_names_the_redirect(run: Run) -> None:
    exchange = run(
        ask(
            send_parts(http_response(status="302 Found", Location="http://127.0.0.1:1/x?token=1")),
            follow_redirects=True,
        )
    )
    assert exchange.error.reason == "connection.refused"
    assert exchange.error.facts == {"address": "127.0.0.1:1", "redirected_to": "http://127.0.0.1:1/x"}


# --- what is known when the deadline passes


@pytest.mark.parametrize(
    ("handler", "facts", "excerpt"),
    [
        (send_parts(delay_s=60), {}, ""),
        (send_parts(b"HTTP/1.1 200 OK\r\nX-A: b", delay_s=60), {}, "HTTP/1.1 200 OK\r\nX-A: b"),
        (
            send_parts(b"HTTP/1.1 200 OK\r\nServer: slow\r\nContent-Length: 5000\r\n\r\nhalf a pa", delay_s=60),
            {"status": 200, "received": "9 of 5000 bytes"},
            "HTTP/1.1 200 OK\nserver: slow\n\nhalf a pa",
        ),
        (
            send_parts(b"HTTP/1.1 503 Busy\r\n\r\nwait", delay_s=60),
            {"status": 503, "received": "4 bytes"},
            "HTTP/1.1 503 Busy\n\nwait",
        ),
        (
            send_parts(gzipped(gzip.compress(b"hello" * 1_000, mtime=0))[:-9], delay_s=60),
            {"status": 200, "received": "40 of 49 bytes"},
            "hello",
        ),
    ],
    ids=["nothing", "half a head", "half a body", "a body without length", "half a compressed body"],
)
def test_evidence_outlives_the_deadline(
    run: Run, handler: ConnectionHandler, facts: dict[str, object], excerpt: str
) -> None:
    def has_arrived(timer: PhaseTimer) -> bool:
        return "address" in timer.facts and excerpt in timer.attempt_evidence_so_far.excerpt

    exchange = run(ask(handler, DEADLINE, starts_deadline=has_arrived))
    evidence = exchange.phase_timer.attempt_evidence_so_far
    observed = dict(evidence.facts)
    assert str(observed.pop("address")).startswith("127.0.0.1:")
    assert observed == facts
    assert excerpt in evidence.excerpt
    assert bool(excerpt) == bool(evidence.excerpt)


# --- cookies


def scripted_site(*replies: bytes) -> ConnectionHandler:
    """A server that sends one reply after another, each on a connection of its own."""
    remaining = iter(replies)

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(remaining))
        await writer.drain()

    return handle


def redirect(location: str, *cookies: str) -> bytes:
    lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n{lines}Content-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("cookies", "location", "sent"),
    [
        (["seen=1; Path=/"], "/b", "seen=1"),
        (["seen=1"], "/b", "seen=1"),
        (["a=1; HttpOnly; SameSite=Lax", "b=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT"], "/b?x=1", "a=1; b=2"),
        (["a=1; Path=/admin"], "/b", ""),
        (["a=1; Path=/admin"], "/administrator", ""),
        (["a=1; Path=/admin"], "/admin/x", "a=1"),
        (["a=1", "a=2"], "/b", "a=2"),
        (["a=1", "a=; Max-Age=0"], "/b", ""),
        (["a=1", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/b", ""),
        (["a=1; Secure"], "/b", ""),
        (["a=x=y==; Path=/"], "/b", "a=x=y=="),
        (["nonsense", "=1", ""], "/b", ""),
        ([f"c{i}={'x' * 1_000}" for i in range(20)], "/b", ""),
    ],
)
def test_a_redirect_gets_back_its_cookies(run: Run, cookies: list[str], location: str, sent: str) -> None:
    exchange = run(ask(scripted_site(redirect(location, *cookies), http_response()), follow_redirects=True))
    assert exchange.response.status == 200
    lines = [line for line in exchange.heads[1].split("\r\n") if line.lower().startswith("cookie:")]
    assert lines == ([f"Cookie: {sent}"] if sent else [])


def test_cookies_are_added_to_a_configured_header(run: Run) -> None:
    exchange = run(
        ask(
            scripted_site(redirect("/b", "seen=1"), http_response()),
            follow_redirects=True,
            headers={"cookie": "lang=en"},
        )
    )
    assert "\r\nCookie: lang=en; seen=1\r\n" in exchange.heads[1]


def test_a_cookie_goes_to_its_origin_alone() -> None:
    async def bounce() -> tuple[list[str], list[str]]:
        ports: dict[str, str] = {}
        replies = {
            "app": iter([lambda: redirect(ports["login"], "session=s3cret"), lambda: http_response(b"welcome")]),
            "login": iter([lambda: redirect(ports["app"], "login=1")]),
        }

        def site(name: str) -> ConnectionHandler:
            async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(next(replies[name])())
                await writer.drain()

            return handle

        async with (
            running_server(site("app")) as app,
            running_server(site("login")) as login,
            NetworkAccess() as network,
        ):
            ports |= {"app": app.url_of("/home"), "login": login.url_of("/")}
            exchange = await send_request(network, app, app.url_of(), follow_redirects=True)
            assert exchange.response.body == b"welcome"
            return app.request_heads, login.request_heads

    app_heads, login_heads = uvloop.run(bounce())
    assert "s3cret" not in login_heads[0]
    assert "\r\nCookie: session=s3cret\r\n" in app_heads[1]
    assert "login=1" not in app_heads[1]


# --- bounds

TOO_LONG = BodyNotFullyReadProblem("body.too_large", "the body is longer than 256 KiB (max_body)")


def test_a_long_body_is_read_to_its_end_and_truncated_at_the_limit(run: Run) -> None:
    exchange = run(ask(send_parts(http_response(b"x" * 700_000)), deadline=5.0))
    assert exchange.response.encoded_body_size_bytes == 700_000
    assert len(exchange.response.body) == DEFAULT_MAX_BODY_BYTES
    assert exchange.response.body_problem == TOO_LONG


def test_a_body_at_the_limit_is_complete(run: Run) -> None:
    exchange = run(ask(send_parts(http_response(b"x" * DEFAULT_MAX_BODY_BYTES)), deadline=5.0))
    assert (len(exchange.response.body), exchange.response.body_problem) == (DEFAULT_MAX_BODY_BYTES, None)


def test_reading_of_an_endless_body_stops(run: Run) -> None:
    exchange = run(ask(send_forever(b"x" * 65_536, first=b"HTTP/1.1 200 OK\r\n\r\n"), deadline=5.0))
    assert (
        MIN_RAW_RESPONSE_BYTES_LIMIT - 1_000
        < exchange.response.encoded_body_size_bytes
        <= MIN_RAW_RESPONSE_BYTES_LIMIT + 65_536
    )
    assert exchange.response.body_problem == TOO_LONG


@pytest.mark.parametrize(("max_body_bytes", "size"), [(1 << 10, 1 << 10), (2 << 20, 700_000), (700_000, 700_000)])
def test_the_limit_is_configurable(run: Run, max_body_bytes: int, size: int) -> None:
    exchange = run(ask(send_parts(http_response(b"x" * 700_000)), deadline=5.0, max_body_bytes=max_body_bytes))
    assert len(exchange.response.body) == size
    assert bool(exchange.response.body_problem) == (size < 700_000)


def test_a_decompression_bomb_is_not_unpacked(run: Run) -> None:
    payload = gzipped(bomb(50))
    tracemalloc.start()
    try:
        exchange = run(ask(send_parts(payload), deadline=5.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert exchange.response.body_problem == BodyNotFullyReadProblem(
        "body.decoded_too_large", "the decoded body is longer than 256 KiB (max_body)"
    )
    assert exchange.response.body == b"\0" * DEFAULT_MAX_BODY_BYTES


def test_an_encoding_that_was_not_requested_is_decoded(run: Run) -> None:
    exchange = run(ask(send_parts(http_response(b"\x8b\x01\x80bomb\x03", Content_Encoding="br")), deadline=5.0))
    assert (exchange.response.body, exchange.response.body_problem) == (b"bomb", None)


def test_an_unknown_encoding_is_not_decoded(run: Run) -> None:
    exchange = run(ask(send_parts(http_response(b"bomb", Content_Encoding="compress")), deadline=5.0))
    assert exchange.response.body_problem == BodyNotFullyReadProblem(
        "body.unsupported_encoding", "the body is encoded as compress, which Watchdog cannot decode"
    )
    assert "accept-encoding: gzip\r\n" in exchange.heads[0].lower()


# --- answers


def test_a_valid_response() -> None:
    body = '{"ü": 1}'.encode()
    exchange = uvloop.run(ask(send_parts(http_response(body, "503 Service Unavailable", X_Tag="a", Set_Cookie="b=c"))))
    response = exchange.response
    assert (response.status, response.reason_phrase, response.http_version) == (503, "Service Unavailable", "1.1")
    assert response.headers == {"content-length": "9", "x-tag": "a", "set-cookie": "b=c"}
    assert (response.body, response.text, response.encoded_body_size_bytes, response.body_problem) == (
        body,
        '{"ü": 1}',
        9,
        None,
    )
    assert (response.redirect_count, response.cert_days) == (0, None)
    assert list(exchange.phase_timer.phase_durations_ms) == ["connect", "first_byte", "body"]
    assert sum(exchange.phase_timer.phase_durations_ms.values()) <= response.elapsed_ms
    assert exchange.phase_timer.current_phase is None


def test_repeated_headers_are_joined() -> None:
    exchange = uvloop.run(ask(send_parts(b"HTTP/1.1 200 OK\r\nVia: a\r\nContent-Length: 0\r\nvia: b\r\n\r\n")))
    assert exchange.response.headers["via"] == "a, b"


@pytest.mark.parametrize(
    ("raw_response", "body"),
    [
        (http_response(gzip.compress(b"zipped", mtime=0)), gzip.compress(b"zipped", mtime=0)),
        (gzipped(gzip.compress(b"zipped", mtime=0)), b"zipped"),
        (gzipped(b""), b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + http_response(b"after interim ones"), b"after interim ones"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\n\nbare line ends", b"bare line ends"),
    ],
)
def test_bodies_of_every_framing(raw_response: bytes, body: bytes) -> None:
    assert uvloop.run(ask(send_parts(raw_response))).response.body == body


def test_a_head_has_no_body() -> None:
    raw_response = http_response(b"not sent", Content_Encoding="gzip").removesuffix(b"not sent")
    assert uvloop.run(ask(send_parts(raw_response), method="HEAD")).response.body == b""


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("grüß".encode(), "text/plain", "grüß"),
        ("grüß".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grüß"),
        ("grüß".encode("cp1252"), 'text/plain; charset="windows-1252"', "grüß"),
        ("日本".encode("shift_jis"), "text/plain;charset=Shift_JIS", "日本"),
        ("grüß".encode("latin-1"), "text/plain", "gr��"),
        (b"xn--\xff", "text/plain; charset=punycode", "xn--�"),
        (
            '<meta charset="windows-1251">Работает'.encode("cp1251"),
            "text/html",
            '<meta charset="windows-1251">Работает',
        ),
        (
            "<meta http-equiv=x content='text/html; charset=ISO-8859-1'>grüß".encode("latin-1"),
            "text/html",
            "<meta http-equiv=x content='text/html; charset=ISO-8859-1'>grüß",
        ),
        (
            "<?xml version='1.0' encoding='iso-8859-1'?><a>grüß</a>".encode("latin-1"),
            "application/xml",
            "<?xml version='1.0' encoding='iso-8859-1'?><a>grüß</a>",
        ),
        ("<meta charset=koi8-r>grüß".encode("latin-1"), "a/b; charset=latin1", "<meta charset=koi8-r>grüß"),
        ("grüß <meta charset=punycode>".encode("latin-1"), "text/html", "gr�� <meta charset=punycode>"),
        (b"\xff", "text/plain; charset=iso-8859-99", "�"),
        ("grüß".encode("utf-8-sig"), "text/plain", "grüß"),
        ("grüß".encode("utf-16"), "text/plain", "grüß"),
        (b"\xfe\xff" + "grüß".encode("utf-16-be"), "text/plain", "grüß"),
        ("grüß".encode("utf-32"), "text/plain", "grüß"),
        ("grüß".encode("utf-16-le"), "text/plain; charset=utf-16le", "grüß"),
        ("grüß".encode("utf-32-be"), "text/plain", "grüß"),
    ],
)
def test_text_of_every_charset(body: bytes, content_type: str, text: str) -> None:
    received = BoundedBodyCollector("", DEFAULT_MAX_BODY_BYTES)
    received.feed(body)
    response = HttpResponse(200, "OK", {"content-type": content_type}, received, 1.0, "1.1", "", "", 0, None)
    assert response.text == text


# --- requests


def test_the_request_that_is_sent() -> None:
    received_bodies: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received_bodies.append(await reader.readexactly(7))
        writer.write(http_response())

    exchange = uvloop.run(ask(echo, method="POST", body=b'{"a":1}', headers={"X-Tag": "ü", "user-agent": "mine"}))
    lines = exchange.heads[0].encode().decode().split("\r\n")
    assert exchange.response.status == 200
    assert lines[0] == "POST / HTTP/1.1"
    assert lines[1].startswith("Host: 127.0.0.1:")
    assert lines[2:-2] == [
        "Accept: */*",
        "Accept-Encoding: gzip",
        "Content-Length: 7",
        "X-Tag: ü",
        "user-agent: mine",
        "Connection: close",
    ]
    assert received_bodies == [b'{"a":1}']


def test_a_server_may_answer_before_it_has_read_the_request() -> None:
    exchange = uvloop.run(
        ask(send_parts(http_response(status="413 Too Large"), delay_s=0.2), method="POST", body=b"x" * 5_000_000)
    )
    assert exchange.response.status == 413


def test_credentials_in_the_url_are_sent_as_basic_authorization() -> None:
    async def run_scenario() -> Exchange:
        async with running_server(send_parts(http_response())) as server, NetworkAccess() as network:
            return await send_request(network, server, f"http://user:pa%3Ass@127.0.0.1:{server.port}/")

    assert "Authorization: Basic dXNlcjpwYTpzcw==\r\n" in uvloop.run(run_scenario()).heads[0]


# --- redirects


@asynccontextmanager
async def _two(
    location: Callable[[ScriptedServer], str],
) -> AsyncIterator[tuple[ScriptedServer, ScriptedServer, NetworkAccess]]:
    """A server that redirects to `location`, from its second request on."""
    async with (
        running_server(send_parts(http_response(b"arrived"))) as second,
        running_server(redirect_to(location(second))) as first,
        NetworkAccess() as network,
    ):
        yield first, second, network


SECRET_HEADERS = {
    "Authorization": "Bearer t0ken-1",
    "X-API-Key": "t0ken-2",
    "Cookie": "t0ken-3",
    "X-Anything": "t0ken-4",
}


def test_configured_headers_are_not_sent_to_another_origin() -> None:
    async def run_scenario() -> Exchange:
        async with _two(lambda second: second.url_of("/there")) as (first, second, network):
            exchange = await send_request(network, first, first.url_of(), headers=SECRET_HEADERS, follow_redirects=True)
            exchange.heads = first.request_heads + second.request_heads
            return exchange

    exchange = uvloop.run(run_scenario())
    assert (exchange.response.body, exchange.response.redirect_count) == (b"arrived", 1)
    assert exchange.response.url.endswith("/there")
    assert all(value in exchange.heads[0] for value in SECRET_HEADERS.values())
    assert "t0ken" not in exchange.heads[1]


def test_the_same_host_under_another_name_is_another_origin() -> None:
    async def run_scenario() -> Exchange:
        async with _two(lambda second: second.url_of("/", host="localhost")) as (first, second, network):
            exchange = await send_request(
                network, first, f"http://user:t0ken@127.0.0.1:{first.port}/", follow_redirects=True
            )
            exchange.heads = first.request_heads + second.request_heads
            return exchange

    exchange = uvloop.run(run_scenario())
    assert "Authorization: Basic" in exchange.heads[0]
    assert "Authorization" not in exchange.heads[1]


def test_configured_headers_are_sent_to_the_same_origin() -> None:
    replies = iter([http_response(status="307 Temporary Redirect", Location="/b"), http_response(b"here")])

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(replies))

    exchange = uvloop.run(ask(handler, headers=SECRET_HEADERS, follow_redirects=True))
    assert exchange.response.body == b"here"
    assert exchange.heads[1].startswith("GET /b ")
    assert all(value in exchange.heads[1] for value in SECRET_HEADERS.values())


@pytest.mark.parametrize(
    ("request_", "status", "followed"),
    [
        ({"follow_redirects": True}, "301 Moved", True),
        ({"follow_redirects": True, "method": "HEAD"}, "308 Moved", True),
        ({"follow_redirects": True}, "300 Choices", False),
        ({"follow_redirects": True}, "304 Not Modified", False),
        ({"follow_redirects": False}, "301 Moved", False),
        ({"follow_redirects": True, "method": "POST"}, "301 Moved", False),
        ({"follow_redirects": True, "method": "DELETE"}, "307 Moved", False),
    ],
)
def test_statuses_that_redirect(request_: dict[str, Any], status: str, followed: bool) -> None:
    exchange = uvloop.run(ask(send_parts(http_response(status=status, Location="http://127.0.0.1:1/")), **request_))
    assert (exchange.failure is not None) == followed
    assert followed or exchange.response.status == int(status[:3])


def test_a_redirect_without_a_location_is_a_response() -> None:
    assert uvloop.run(ask(send_parts(http_response(status="302 Found")), follow_redirects=True)).response.status == 302


# --- leftovers


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_no_connection_stays_open_after_faults_and_cancellations(run: Run) -> None:
    async def run_scenario() -> Exchange:
        handlers = (
            [send_parts(http_response())]
            + [handler for handler, _ in ENDLESS_RESPONSES.values()]
            + [handler for handler, _, _ in FAULTY_RESPONSES.values()]
        )
        async with NetworkAccess() as network:
            descriptors = []
            for handler in handlers:
                async with running_server(handler) as server:
                    await send_request(network, server, server.url_of(), 0.05, follow_redirects=True)
                await asyncio.sleep(0.01)
                descriptors.append(count_open_descriptors())
            assert descriptors[-1] == descriptors[0]
            assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
        return Exchange()

    run(run_scenario())


def test_a_response_that_arrives_in_parts_before_the_request_is_sent_is_complete() -> None:
    async def run_scenario() -> int:
        protocol = HttpExchangeProtocol()
        protocol.connection_made(asyncio.Transport())
        for part in (b"HTTP/1.1 408 Request Timeout\r\n", b"Content-Length: 0\r\n\r\n"):
            protocol.get_buffer(-1)[: len(part)] = part
            protocol.buffer_updated(len(part))
        protocol.eof_received()
        phase_timer = PhaseTimer()
        parser = HttpResponseParser(phase_timer, 1_000, is_head_request=False)
        await protocol.exchange(b"", parser, phase_timer)
        return parser.status

    assert asyncio.run(run_scenario()) == 408
