"""Requests through proxies: each fault of a proxy has a reason of its own, and nothing reaches whom it must not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvloop
from pydantic import TypeAdapter

from tests.support.fake_network import METADATA_ADDRESS_SPELLINGS, install_fake_network
from tests.support.hostile_http import ENDLESS_RESPONSES, FAULTY_RESPONSES
from tests.support.polling import HANG_S, wait_until_async
from tests.support.proxy_servers import (
    PROXY_PASSWORD,
    PROXY_USER,
    find_system_program,
    running_microsocks,
    running_recording_proxy,
    running_tinyproxy,
)
from tests.support.scripted_servers import (
    NOW,
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    redirect_to,
    running_server,
    send_forever,
    send_parts,
)
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, build_probe_error_from_exception, connector
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.proxy import NoProxyEntry, ProxyAddress, RequestRouting, parse_proxy_url
from watchdog.net.proxy_tunnel import ServerRoute, open_socket_by_route
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_http_url
from watchdog.service.runner import build_timeout_observation

Run = Callable[[Coroutine[Any, Any, Any]], Any]
CREDENTIALS = f"{PROXY_USER}:{PROXY_PASSWORD}@"
SECRET_HEADERS = {"Authorization": "Bearer t0ken-1", "X-API-Key": "t0ken-2"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def through(proxy: str, *, no_proxy: tuple[str, ...] = (), ca_file: str = "") -> RequestRouting:
    """A routing that uses the proxy for loopback hosts, too."""
    return RequestRouting(parse_proxy_url(proxy), no_proxy, ca_file, proxies_loopback=True)


async def request(
    url: str, routing: RequestRouting, phase_timer: PhaseTimer | None = None, **options: Any
) -> HttpResponse:
    async with NetworkAccess(routing) as network, asyncio.timeout(HANG_S):
        now = round(NOW.timestamp() * 1000)
        return await network.send_http_request(HttpRequest(url, **options), phase_timer, now=now)


async def request_error(url: str, routing: RequestRouting, **options: Any) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        await request(url, routing, **options)
    return caught.value


# --- real proxies


@pytest.fixture(params=["HTTP", "SOCKS5", "SOCKS5 with names"])
def real_proxy(request: pytest.FixtureRequest) -> str:
    """The URL of a real proxy."""
    if request.param == "HTTP":
        return f"http://127.0.0.1:{request.getfixturevalue('tinyproxy')}"
    scheme = "socks5h" if "names" in request.param else "socks5"
    return f"{scheme}://127.0.0.1:{request.getfixturevalue('microsocks')}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_request_through_a_real_proxy(
    run: Run, real_proxy: str, authority: CertificateAuthority, scheme: str, host: str
) -> None:
    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1", "localhost") if scheme == "https" else None
        timer, tls = PhaseTimer(), TlsConfig(ca_file=authority.ca_file)
        async with running_server(send_parts(http_response(b"arrived")), context) as server:
            url = server.url_of("/x?y=z", scheme=scheme, host=host)
            response = await request(url, through(real_proxy), timer, tls=tls, method="POST", body=b"abc")
            assert (response.status, response.body) == (200, b"arrived")
            assert response.proxy == real_proxy.rpartition("/")[2]
            assert response.peer_address == response.proxy
            assert (response.cert_days is not None) == (scheme == "https")
            assert server.request_heads[0].startswith("POST /x?y=z HTTP/1.")
            assert f"host: {host}:{server.port}\r\n" in server.request_heads[0].lower()
            assert "proxy-" not in server.request_heads[0].lower()
        phases = timer.phase_durations_ms
        is_tunnel = scheme == "https" or real_proxy.startswith("socks")
        assert ("connect" in phases, "tunnel" in phases, "tls" in phases) == (True, is_tunnel, scheme == "https")
        assert timer.current_phase is None
        assert sum(phases.values()) <= response.elapsed_ms

    run(run_scenario())


def test_the_response_of_nginx_through_a_real_proxy(real_proxy: str, nginx: str) -> None:
    response = asyncio.run(request(f"{nginx}/zipped", through(real_proxy)))
    assert (response.status, len(response.body)) == (200, 5_014)
    redirected = asyncio.run(request(f"{nginx}/old", through(real_proxy), follow_redirects=True))
    assert redirected.redirect_count == 1


def test_a_notification_through_a_real_proxy(run: Run, real_proxy: str) -> None:
    async def run_scenario() -> None:
        handler = send_parts(http_response(b"ok"))
        async with running_server(handler) as server, NetworkAccess(through(real_proxy)) as network:
            response = await network.notifier_http_client.post(server.url_of("/hook"), json={"a": 1})
            assert response.text == "ok"
            assert server.request_heads[0].startswith("POST /hook HTTP/1.")
            assert "proxy-" not in server.request_heads[0].lower()

    run(run_scenario())


def test_a_target_that_refuses_connections(run: Run, real_proxy: str) -> None:
    error = run(request_error("https://127.0.0.1:1/", through(real_proxy)))
    is_socks = real_proxy.startswith("socks")
    if is_socks:
        assert error.reason == "proxy.target_unreachable"
        assert str(error).endswith("cannot reach the target: connection refused")
    else:  # tinyproxy reports every failure as its own
        assert error.reason == "proxy.failed"
        assert str(error).endswith("failed: it answers HTTP 500")
    assert error.facts["proxy"] == real_proxy.rpartition("/")[2]
    assert error.is_internal == (not is_socks)


def test_a_name_that_the_proxy_cannot_resolve(run: Run, microsocks: int) -> None:
    error = run(request_error("http://missing.invalid/", through(f"socks5h://127.0.0.1:{microsocks}")))
    assert (error.reason, error.is_internal) == ("proxy.target_unreachable", False)
    local = run(request_error("http://missing.invalid/", through(f"socks5://127.0.0.1:{microsocks}")))
    assert local.reason == "dns.not_found"


def _require(program: str) -> None:
    if find_system_program(program) is None:
        pytest.skip(f"{program} is missing: apt install {program}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_credentials_of_a_real_http_proxy(run: Run, authority: CertificateAuthority, scheme: str) -> None:
    _require("tinyproxy")

    async def run_scenario(port: int) -> None:
        context = authority.server_tls_context("127.0.0.1") if scheme == "https" else None
        tls = TlsConfig(ca_file=authority.ca_file)
        async with running_server(send_parts(http_response(b"in")), context) as server:
            url, where = server.url_of(scheme=scheme), f"127.0.0.1:{port}"
            assert (await request(url, through(f"http://{CREDENTIALS}{where}"), tls=tls)).body == b"in"
            missing = await request_error(url, through(f"http://{where}"), tls=tls)
            assert (missing.reason, missing.is_internal) == ("proxy.authentication_required", True)
            assert str(missing) == f"no verdict: the proxy {where} requires credentials (Basic)"
            rejected_routing = through(f"http://x:y@{where}")
            if scheme == "https":
                rejected = await request_error(url, rejected_routing, tls=tls)
                assert rejected.reason == "proxy.authentication_required"
                assert str(rejected) == f"no verdict: the proxy {where} rejects the credentials"
            else:  # tinyproxy answers as a target would
                assert (await request(url, rejected_routing)).status == 401
            assert server.connection_count == 1

    with running_tinyproxy(f"BasicAuth {PROXY_USER} {PROXY_PASSWORD}") as port:
        run(run_scenario(port))


def test_the_credentials_of_a_real_socks_proxy(run: Run) -> None:
    _require("microsocks")

    async def run_scenario(port: int) -> None:
        async with running_server(send_parts(http_response(b"in"))) as server:
            url, where = server.url_of(), f"127.0.0.1:{port}"
            assert (await request(url, through(f"socks5://{CREDENTIALS}{where}"))).body == b"in"
            missing = await request_error(url, through(f"socks5://{where}"))
            rejected = await request_error(url, through(f"socks5://x:y@{where}"))
            assert server.connection_count == 1
        assert (missing.reason, rejected.reason) == ("proxy.authentication_required",) * 2
        assert str(missing) == f"no verdict: the proxy {where} requires credentials"
        assert str(rejected) == f"no verdict: the proxy {where} rejects the credentials"

    with running_microsocks("-u", PROXY_USER, "-P", PROXY_PASSWORD) as port:
        run(run_scenario(port))


def test_a_real_proxy_that_does_not_allow_the_port(run: Run) -> None:
    _require("tinyproxy")
    with running_tinyproxy("ConnectPort 443") as port:
        error = run(request_error("https://127.0.0.1:8443/", through(f"http://127.0.0.1:{port}")))
    assert error.reason == "proxy.refused"
    assert str(error) == f"no verdict: the proxy 127.0.0.1:{port} refuses to connect to the target: HTTP 403"
    assert error.facts["status"] == 403


def test_each_kind_of_real_proxy_in_place_of_the_other(run: Run, tinyproxy: int, microsocks: int) -> None:
    error = run(request_error("https://127.0.0.1:2/", through(f"http://127.0.0.1:{microsocks}")))
    assert error.reason == "proxy.wrong_protocol"
    run(hang_in_tunnel_phase(f"socks5://127.0.0.1:{tinyproxy}"))  # it waits for the end of a line


async def hang_in_tunnel_phase(proxy: str) -> PhaseTimer:
    """Returns once a request waits for the proxy to connect."""
    timer = PhaseTimer()
    sending = asyncio.create_task(request("https://127.0.0.1:2/", through(proxy), timer))
    await wait_until_async(lambda: timer.current_phase == "tunnel")
    await asyncio.sleep(0.05)
    assert not sending.done()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    return timer


# --- the same hostile servers as without a proxy


@asynccontextmanager
async def tunnelled_server(
    proxy_url: str, handler: ConnectionHandler, authority: CertificateAuthority
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A server behind a tunnel: its URL, and the options of a request to it. HTTP proxies build tunnels for https."""
    is_tls = proxy_url.startswith("http")
    context = authority.server_tls_context("127.0.0.1") if is_tls else None
    async with running_server(handler, context) as server:
        url = server.url_of(scheme="https" if is_tls else "http")
        yield url, {"tls": TlsConfig(ca_file=authority.ca_file)}


@pytest.mark.parametrize("name", FAULTY_RESPONSES)
def test_a_fault_behind_a_tunnel_is_reported_as_without_it(
    real_proxy: str, authority: CertificateAuthority, name: str
) -> None:
    handler, reason, message = FAULTY_RESPONSES[name]

    async def run_scenario() -> None:
        async with tunnelled_server(real_proxy, handler, authority) as (url, options):
            error = await request_error(url, through(real_proxy), follow_redirects=True, **options)
            expected = message.replace("http://127.0.0.1:PORT/", url)
            assert (error.reason, str(error)) == (reason, expected)
            if "redirects" not in name:
                assert error.facts["proxy"] == real_proxy.rpartition("/")[2]

    uvloop.run(run_scenario())


@pytest.mark.parametrize("name", ENDLESS_RESPONSES)
def test_a_server_that_hangs_behind_a_tunnel_is_reported_with_its_phase(
    real_proxy: str, authority: CertificateAuthority, name: str
) -> None:
    handler, phase = ENDLESS_RESPONSES[name]

    async def run_scenario() -> None:
        timer = PhaseTimer()
        async with tunnelled_server(real_proxy, handler, authority) as (url, options):
            sending = asyncio.create_task(request(url, through(real_proxy), timer, **options))
            await wait_until_async(lambda: timer.current_phase == phase)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            assert timer.current_phase == phase
            assert timer.facts["proxy"] == real_proxy.rpartition("/")[2]

    uvloop.run(run_scenario())


# --- scripted proxies

CONNECT_REPLIES = {
    "it requires credentials": (
        send_parts(b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"),
        *("proxy.authentication_required", "no verdict: the proxy PROXY requires credentials (Negotiate, NTLM)"),
    ),
    "it offers Digest": (
        send_parts(b'HTTP/1.1 407 Auth\r\nProxy-Authenticate: Digest realm="a, b", nonce="c", Basic realm="x"\r\n\r\n'),
        *("proxy.authentication_required", "no verdict: the proxy PROXY requires credentials (Digest, Basic)"),
    ),
    "it refuses": (
        send_parts(http_response(b"no", "403 Forbidden")),
        *("proxy.refused", "no verdict: the proxy PROXY refuses to connect to the target: HTTP 403"),
    ),
    "a squid refuses": (
        send_parts(http_response(b"no", "403 Forbidden", X_Squid_Error="ERR_ACCESS_DENIED 0")),
        *("proxy.refused", "no verdict: the proxy PROXY refuses to connect to the target: its rules do not allow it"),
    ),
    "a squid cannot resolve the name": (
        send_parts(http_response(b"no", "503 Service Unavailable", X_Squid_Error="ERR_DNS_FAIL 0")),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: host name not found"),
    ),
    "it cannot connect": (
        send_parts(http_response(b"no", "502 Bad Gateway")),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: HTTP 502"),
    ),
    "its target times out": (
        send_parts(http_response(b"no", "504 Gateway Timeout")),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: HTTP 504"),
    ),
    "it fails": (
        send_parts(http_response(b"no", "500 Oops")),
        *("proxy.failed", "no verdict: the proxy PROXY failed: it answers HTTP 500"),
    ),
    "it redirects": (
        send_parts(http_response(b"", "302 Found", Location="http://127.0.0.1:1/")),
        *("proxy.failed", "no verdict: the proxy PROXY failed: it answers HTTP 302"),
    ),
    "it closes": (
        send_parts(),
        *("proxy.failed", "no verdict: the proxy PROXY failed: connection closed by the server"),
    ),
    "it speaks SSH": (
        send_parts(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        *("proxy.wrong_protocol", "no verdict: PROXY does not speak HTTP as a proxy"),
    ),
    "it speaks TLS": (
        send_parts(b"\x15\x03\x01\0\x02\x02\x50"),
        *("proxy.wrong_protocol", "no verdict: PROXY does not speak HTTP as a proxy"),
    ),
    "its headers never end": (
        send_forever(b"X-A: b\r\n" * 1_000, first=b"HTTP/1.1 200 OK\r\n"),
        *("proxy.failed", "no verdict: the proxy PROXY failed: the response headers are too long"),
    ),
    "it sends interim responses forever": (
        send_forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
        *("proxy.failed", "no verdict: the proxy PROXY failed: more than 20 interim (1xx) responses"),
    ),
}


async def tunnel_error(url: str, proxy: str, *, is_socket: bool) -> ProbeError:
    """As a request gets it, or a protocol that opens a socket through the proxy."""
    if not is_socket:
        return await request_error(url, through(proxy))
    async with NetworkAccess() as network, asyncio.timeout(HANG_S):
        route = ServerRoute(parse_http_url(url), True, parse_proxy_url(proxy))
        with pytest.raises(ProbeError) as caught:
            await open_socket_by_route(network.connector, route, PhaseTimer())
        return caught.value


@pytest.mark.parametrize("is_socket", [False, True], ids=["a request", "a socket"])
@pytest.mark.parametrize("name", CONNECT_REPLIES)
def test_a_proxy_that_opens_no_tunnel(run: Run, name: str, is_socket: bool) -> None:
    handler, reason, message = CONNECT_REPLIES[name]

    async def run_scenario() -> None:
        async with running_server(handler) as proxy:
            where = f"127.0.0.1:{proxy.port}"
            error = await tunnel_error("https://127.0.0.1:1/", f"http://{where}", is_socket=is_socket)
            assert (error.reason, str(error)) == (reason, message.replace("PROXY", where))
            assert error.is_internal == message.startswith("no verdict")
            assert (error.phase, error.facts["proxy"]) == ("tunnel", where)
            head = proxy.request_heads[0]
            assert head.startswith("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
            assert "authorization" not in head.lower()

    run(run_scenario())


FORWARD_REPLIES = {
    "it requires credentials": (
        send_parts(b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"),
        *("proxy.authentication_required", "no verdict: the proxy PROXY requires credentials (Basic)"),
    ),
    "a squid refuses": (
        send_parts(http_response(b"no", "403 Forbidden", X_Squid_Error="ERR_ACCESS_DENIED 0")),
        *("proxy.refused", "no verdict: the proxy PROXY refuses to connect to the target: its rules do not allow it"),
    ),
    "a squid cannot connect": (
        send_parts(http_response(b"no", "503 Service Unavailable", X_Squid_Error="ERR_CONNECT_FAIL 111")),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: the connection failed"),
    ),
}


@pytest.mark.parametrize("name", FORWARD_REPLIES)
@pytest.mark.parametrize("is_notification", [False, True], ids=["a probe", "a notification"])
def test_a_proxy_that_does_not_forward_a_request(name: str, is_notification: bool) -> None:
    handler, reason, message = FORWARD_REPLIES[name]

    async def run_scenario() -> None:
        async with running_server(handler) as proxy:
            routing = through(f"http://127.0.0.1:{proxy.port}")
            if is_notification:
                async with NetworkAccess(routing) as network:
                    with pytest.raises(httpx.ProxyError) as caught:
                        await network.notifier_http_client.post("http://acme.example/hook")
                translated = build_probe_error_from_exception(caught.value)
                assert translated is not None
                error = translated
            else:
                error = await request_error("http://acme.example/hook", routing)
            assert (error.reason, str(error)) == (reason, message.replace("PROXY", f"127.0.0.1:{proxy.port}"))
            assert proxy.request_heads[0].partition(" ")[2].startswith("http://acme.example/hook HTTP/1.1\r\n")

    asyncio.run(run_scenario())


def test_other_responses_of_a_forwarding_proxy_count_as_those_of_the_target() -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response(b"no", "502 Bad Gateway"))) as proxy:
            response = await request("http://acme.example/", through(f"http://127.0.0.1:{proxy.port}"))
            assert (response.status, response.proxy) == (502, f"127.0.0.1:{proxy.port}")

    asyncio.run(run_scenario())


def socks_replies(*replies: bytes, closes: bool = False, whole: bool = False) -> ConnectionHandler:
    """Sends one reply after each message of the client, byte by byte unless it is sent as a `whole`: it may be cut
    anywhere."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.read(600)
            for part in [reply] if whole else [bytes([byte]) for byte in reply]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        await (reader.read(600) if not replies or not closes else asyncio.sleep(0))

    return handle


def connect_reply(code: int) -> bytes:
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


SOCKS_REPLIES = {
    "it accepts no method": (
        socks_replies(b"\x05\xff"),
        *("proxy.authentication_required", "no verdict: the proxy PROXY requires credentials"),
    ),
    "its rules do not allow it": (
        socks_replies(b"\x05\x00", connect_reply(2)),
        *("proxy.refused", "no verdict: the proxy PROXY refuses to connect to the target: its rules do not allow it"),
    ),
    "it has a general failure": (
        socks_replies(b"\x05\x00", connect_reply(1)),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: general failure"),
    ),
    "the network is unreachable": (
        socks_replies(b"\x05\x00", connect_reply(3)),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: network unreachable"),
    ),
    "the host is unreachable": (
        socks_replies(b"\x05\x00", connect_reply(4)),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: host unreachable"),
    ),
    "the target refuses": (
        socks_replies(b"\x05\x00", connect_reply(5)),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: connection refused"),
    ),
    "its target times out": (
        socks_replies(b"\x05\x00", connect_reply(6)),
        *("proxy.target_unreachable", "the proxy PROXY cannot reach the target: the connection timed out"),
    ),
    "it has no CONNECT": (
        socks_replies(b"\x05\x00", connect_reply(7)),
        *("proxy.failed", "no verdict: the proxy PROXY failed: it does not support the command CONNECT"),
    ),
    "it has no such addresses": (
        socks_replies(b"\x05\x00", connect_reply(8)),
        *("proxy.failed", "no verdict: the proxy PROXY failed: it does not support addresses of this kind"),
    ),
    "its code is unknown": (
        socks_replies(b"\x05\x00", connect_reply(99)),
        *("proxy.failed", "no verdict: the proxy PROXY failed: SOCKS error 99"),
    ),
    "it closes": (socks_replies(closes=True), "proxy.failed", "no verdict: the proxy PROXY failed: connection closed"),
    "it closes in a reply": (
        socks_replies(b"\x05\x00", b"\x05\x00\x00", closes=True),
        *("proxy.failed", "no verdict: the proxy PROXY failed: connection closed"),
    ),
    "it speaks HTTP": (
        socks_replies(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        *("proxy.wrong_protocol", "no verdict: PROXY does not speak SOCKS5 as a proxy"),
    ),
    "it sends more than a reply": (
        socks_replies(b"\x05\x00" + connect_reply(0), whole=True),
        *("proxy.wrong_protocol", "no verdict: PROXY does not speak SOCKS5 as a proxy"),
    ),
    "it speaks SOCKS4": (
        socks_replies(b"\x00\x5b\0\0\0\0\0\0"),
        *("proxy.wrong_protocol", "no verdict: PROXY does not speak SOCKS5 as a proxy"),
    ),
}


_DEPENDS_ON_PACKETS = "it sends more than a reply"
"""A socket takes from its packet no more than the reply."""


@pytest.mark.parametrize(
    ("name", "is_socket"),
    [
        *((name, False) for name in SOCKS_REPLIES),
        *((name, True) for name in SOCKS_REPLIES if name != _DEPENDS_ON_PACKETS),
    ],
)
def test_a_socks_proxy_that_opens_no_tunnel(run: Run, name: str, is_socket: bool) -> None:
    handler, reason, message = SOCKS_REPLIES[name]

    async def run_scenario() -> None:
        async with running_server(handler, read_request=False) as proxy:
            where = f"127.0.0.1:{proxy.port}"
            error = await tunnel_error("http://127.0.0.1:1/", f"socks5://{where}", is_socket=is_socket)
            assert (error.reason, str(error)) == (reason, message.replace("PROXY", where))
            assert error.is_internal == message.startswith("no verdict")
            assert (error.phase, error.facts["proxy"]) == ("tunnel", where)

    run(run_scenario())


@pytest.mark.parametrize("closes_at_once", [True, False])
def test_what_a_target_behind_a_socks_proxy_sends_first_is_no_fault_of_the_proxy(
    run: Run, closes_at_once: bool
) -> None:
    async def run_scenario() -> None:
        reply = connect_reply(0) + b"SSH-2.0-OpenSSH_9.2p1\r\n"
        handler = socks_replies(b"\x05\x00", reply, whole=True, closes=closes_at_once)
        async with running_server(handler, read_request=False) as proxy:
            error = await request_error("http://127.0.0.1:1/", through(f"socks5://127.0.0.1:{proxy.port}"))
            assert error.reason in ("connection.closed", "connection.reset")
            assert not error.is_internal

    run(run_scenario())


def test_a_long_reply_of_a_proxy_is_not_read_byte_by_byte_to_its_end(run: Run) -> None:
    async def run_scenario() -> None:
        head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
        async with running_server(send_parts(head)) as proxy:
            where = f"http://127.0.0.1:{proxy.port}"
            error = await tunnel_error("https://127.0.0.1:1/", where, is_socket=True)
            assert (error.reason, error.is_internal) == ("proxy.failed", True)
            assert str(error).endswith("failed: the response headers are too long")

    run(run_scenario())


def test_a_socks_proxy_that_rejects_the_password(run: Run) -> None:
    async def run_scenario() -> None:
        handler = socks_replies(b"\x05\x02", b"\x01\x01")
        async with running_server(handler, read_request=False) as proxy:
            error = await request_error("http://127.0.0.1:1/", through(f"socks5://u:p@127.0.0.1:{proxy.port}"))
            assert error.reason == "proxy.authentication_required"
            assert str(error).endswith("rejects the credentials")

    run(run_scenario())


@pytest.mark.parametrize(
    "reply", [b"\x05\x00\x00\x01\1\2\3\4\0\1", b"\x05\x00\x00\x04" + b"x" * 18, b"\x05\x00\x00\x03\x03abc\0\1"]
)
def test_a_socks_reply_of_every_kind_of_address(run: Run, reply: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"\x05\x00")
        assert (await reader.readexactly(4 + 1 + len("acme.example") + 2))[3:] == b"\x03\x0cacme.example\x00\x50"
        writer.write(reply)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response(b"arrived"))

    async def run_scenario() -> None:
        async with running_server(handle, read_request=False) as proxy:
            response = await request("http://acme.example/", through(f"socks5h://127.0.0.1:{proxy.port}"))
            assert response.body == b"arrived"

    run(run_scenario())


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "https://127.0.0.1:1"])
def test_a_proxy_that_refuses_connections(run: Run, proxy: str) -> None:
    error = run(request_error("http://127.0.0.1:2/", through(proxy)))
    assert error.reason == "proxy.unreachable"
    assert str(error) == "no verdict: the proxy 127.0.0.1:1 cannot be reached: connection refused"
    assert (error.is_internal, error.retryable, error.phase) == (True, True, "connect")
    assert error.facts == {"address": "127.0.0.1:1", "proxy": "127.0.0.1:1"}


def test_a_proxy_whose_name_does_not_exist(run: Run) -> None:
    error = run(request_error("http://127.0.0.1:2/", through("http://missing.invalid:3128")))
    assert error.reason == "proxy.unreachable"
    assert str(error).endswith("cannot be reached: cannot resolve missing.invalid: host name not found")


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_fault_of_this_machine_is_none_of_the_proxy(run: Run, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    async def fail_to_connect(*_: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(connector, "connect_protocol_to_resolved_address", fail_to_connect)
    error = run(request_error("http://127.0.0.1:2/", through(f"{scheme}://127.0.0.1:1")))
    assert (error.reason, error.is_internal) == ("watchdog.out_of_resources", True)


def test_a_tunnel_that_ends_before_the_handshake_is_reported_as_a_server_that_closes(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(b"HTTP/1.1 200 OK\r\n\r\n")) as proxy:
            error = await request_error("https://127.0.0.1:2/", through(f"http://127.0.0.1:{proxy.port}"))
            assert (error.reason, error.is_internal) == ("tls.closed", False)

    run(run_scenario())


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_hangs_is_a_phase_of_its_own(run: Run, scheme: str) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(delay_s=60), read_request=False) as proxy:
            timer = await hang_in_tunnel_phase(f"{scheme}://127.0.0.1:{proxy.port}")
        observation = build_timeout_observation(5_000, timer)
        assert (observation.outcome, observation.reason) == (Outcome.FAIL, "timeout.tunnel")
        assert observation.message == f"timed out after 5{NBSP}s while waiting for the proxy to connect"
        assert observation.evidence.facts["proxy"] == f"127.0.0.1:{proxy.port}"

    run(run_scenario())


async def _wait_forever(*_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("is_socket", "proxy", "phase", "activity"),
    [
        (False, "http://proxy.example:8", "dns", "resolving the host name"),
        (False, "http://127.0.0.1:PORT", "connect", "connecting"),
        (False, "socks5://127.0.0.1:PORT", "connect", "connecting"),
        (False, "https://127.0.0.1:PORT", "tls", "negotiating TLS"),
        (True, "http://proxy.example:8", "dns", "resolving the host name"),
        (True, "socks5://127.0.0.1:PORT", "connect", "connecting"),
    ],
)
def test_a_proxy_that_cannot_be_reached_in_time_is_not_the_fault_of_the_target(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_socket: bool, proxy: str, phase: str, activity: str
) -> None:
    if phase == "dns":
        monkeypatch.setattr(connector.TcpConnector, "resolve", _hang_in_dns_phase)
    elif phase == "connect":
        monkeypatch.setattr(connector, "connect_protocol_to_resolved_address", _wait_forever)
        monkeypatch.setattr(connector, "connect_socket_to_resolved_address", _wait_forever)

    async def run_scenario() -> None:
        timer, handler = PhaseTimer(), send_parts(delay_s=60)
        async with running_server(handler, read_request=False) as server, NetworkAccess() as network:
            url = proxy.replace("PORT", str(server.port))
            route = ServerRoute(parse_http_url("https://127.0.0.1:2/"), True, parse_proxy_url(url))
            opening = (
                open_socket_by_route(network.connector, route, timer)
                if is_socket
                else request("https://127.0.0.1:2/", through(url), timer)
            )
            task = asyncio.create_task(opening)
            await wait_until_async(lambda: timer.current_phase == phase)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        observation, where = build_timeout_observation(5_000, timer), url.rpartition("/")[2]
        assert (observation.outcome, observation.reason) == (Outcome.ERROR, "proxy.unreachable")
        problem = f"timed out after 5{NBSP}s while {activity}"
        assert observation.message == f"no verdict: the proxy {where} cannot be reached: {problem}"
        assert observation.evidence.facts["proxy"] == where

    run(run_scenario())


def test_a_target_that_hangs_behind_a_proxy_is_no_fault_of_the_proxy(run: Run, authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        timer, tls = PhaseTimer(), authority.server_tls_context("127.0.0.1")
        hanging = running_server(send_parts(delay_s=60), read_request=False)
        async with hanging as server, running_recording_proxy(tls) as proxy:
            routing = through(f"https://127.0.0.1:{proxy.server.port}", ca_file=authority.ca_file)
            task = asyncio.create_task(request(server.url_of(scheme="https"), routing, timer))
            await wait_until_async(lambda: timer.current_phase == "tls" and bool(proxy.request_heads))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        observation = build_timeout_observation(5_000, timer)
        assert (observation.outcome, observation.reason) == (Outcome.FAIL, "timeout.tls")

    run(run_scenario())


async def _hang_in_dns_phase(_: Any, __: str, ___: int, phase_timer: PhaseTimer) -> None:
    with phase_timer.measure("dns"):
        await _wait_forever()


# --- TLS to the proxy


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_behind_tls(run: Run, authority: CertificateAuthority, scheme: str) -> None:
    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1")
        target_context = context if scheme == "https" else None
        async with (
            running_server(send_parts(http_response(b"arrived")), target_context) as server,
            running_recording_proxy(authority.server_tls_context("127.0.0.1")) as proxy,
        ):
            routing = through(f"https://{CREDENTIALS}127.0.0.1:{proxy.server.port}", ca_file=authority.ca_file)
            assert (await request(server.url_of(scheme=scheme), routing)).body == b"arrived"
            assert "Proxy-Authorization: Basic " in proxy.request_heads[0]
            assert "proxy-" not in server.request_heads[0].lower()

    run(run_scenario())


def test_the_certificate_of_a_proxy_is_verified(run: Run, authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        async with running_recording_proxy(authority.server_tls_context("127.0.0.1")) as proxy:
            error = await request_error(
                "https://127.0.0.1:1/", through(f"https://{CREDENTIALS}127.0.0.1:{proxy.server.port}")
            )
            assert error.reason == "proxy.unreachable"
            assert str(error).endswith("cannot be reached: TLS: certificate is signed by an unknown authority")
            assert proxy.request_heads == []

    run(run_scenario())


def test_the_certificate_of_a_target_is_verified_and_explained_through_the_proxy(
    run: Run, authority: CertificateAuthority
) -> None:
    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1", begin=-90, end=-3)
        async with running_server(send_parts(http_response()), context) as server, running_recording_proxy() as proxy:
            tls = TlsConfig(ca_file=authority.ca_file)
            error = await request_error(server.url_of(scheme="https"), through(proxy.url), tls=tls)
            assert error.reason == "tls.expired"
            assert "certificate expired on " in str(error)
            assert len(proxy.request_heads) == 2, "the second connection looks at the certificate, through the proxy"

    run(run_scenario())


# --- what must not happen


@pytest.mark.parametrize("allow_private_addresses", [True, False])
@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_no_spelling_of_a_metadata_address_is_requested_from_a_proxy(
    monkeypatch: pytest.MonkeyPatch, scheme: str, allow_private_addresses: bool
) -> None:
    network = install_fake_network(monkeypatch)
    network.names["metadata.acme.example"] = [["169.254.169.254"]]

    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as proxy:
            routing = through(f"{scheme}://127.0.0.1:{proxy.port}")
            for url in METADATA_ADDRESS_SPELLINGS:
                if "metadata.acme.example" in url and scheme != "socks5":
                    continue  # only the proxy knows its address
                with pytest.raises((ProbeError, ValueError)) as caught:
                    await request(url, routing, allow_private_addresses=allow_private_addresses)
                reason = getattr(caught.value, "reason", "not_a_url")
                assert reason in ("connection.address_blocked", "dns.not_found", "not_a_url"), url
            assert proxy.connection_count == 0
            assert network.connected == []

    asyncio.run(run_scenario())


def test_a_redirect_to_a_metadata_address_is_not_requested_from_a_proxy() -> None:
    async def run_scenario() -> None:
        for url in METADATA_ADDRESS_SPELLINGS[:-1]:
            async with running_server(redirect_to(url)) as proxy:
                error = await request_error(
                    "http://acme.example/", through(f"http://127.0.0.1:{proxy.port}"), follow_redirects=True
                )
                assert error.reason in ("connection.address_blocked", "http.invalid_redirect"), url
                assert proxy.connection_count == 1

    asyncio.run(run_scenario())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/", "http://localhost:8080/", "http://10.0.0.1/", "http://[::1]/"]
)
def test_private_targets_are_refused_without_allow_private_addresses(url: str) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as proxy:
            routing = through(f"http://127.0.0.1:{proxy.port}")
            error = await request_error(url, routing, allow_private_addresses=False)
            assert error.reason == "connection.address_blocked"
            assert proxy.connection_count == 0
            assert (await request("http://acme.example/", routing, allow_private_addresses=False)).status == 200

    asyncio.run(run_scenario())


@pytest.mark.parametrize(
    ("proxy", "allow_private_address", "problem"),
    [
        ("http://169.254.169.254:80", True, "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("socks5h://[fe80::1]:1080", True, "fe80::1 is a link-local address, which is always refused"),
        (
            "http://10.0.0.1:3128",
            False,
            "10.0.0.1 is a private address, which is refused by `allow_private_addresses: false`",
        ),
    ],
)
def test_the_address_of_a_proxy_is_filtered(
    monkeypatch: pytest.MonkeyPatch, proxy: str, allow_private_address: bool, problem: str
) -> None:
    network = install_fake_network(monkeypatch)
    routing = RequestRouting(parse_proxy_url(proxy, allow_private_address=allow_private_address))
    error = asyncio.run(request_error("http://acme.example/", routing))
    assert error.reason == "proxy.unreachable"
    assert str(error).endswith(problem)
    assert network.connected == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_credentials_reach_only_whom_they_are_for(authority: CertificateAuthority, scheme: str) -> None:
    """Those of the target only the target, also after a redirect; those of the proxy only the proxy."""

    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1") if scheme == "https" else None
        async with (
            running_server(send_parts(http_response(b"arrived")), context) as second,
            running_server(redirect_to(second.url_of(scheme=scheme)), context) as first,
            running_recording_proxy() as proxy,
        ):
            response = await request(
                first.url_of(scheme=scheme),
                through(proxy.url),
                tls=TlsConfig(ca_file=authority.ca_file),
                headers=SECRET_HEADERS,
                follow_redirects=True,
            )
            assert (response.body, response.redirect_count) == (b"arrived", 1)
            assert all(value in first.request_heads[0] for value in SECRET_HEADERS.values())
            assert "t0ken" not in second.request_heads[0]
            for head in first.request_heads + second.request_heads:
                assert "proxy-" not in head.lower()
            assert len(proxy.request_heads) == 2
            assert all("Proxy-Authorization: Basic " in head for head in proxy.request_heads)
            if scheme == "https":
                assert all("t0ken" not in head for head in proxy.request_heads)

    asyncio.run(run_scenario())


def test_a_redirect_from_http_to_https_leaves_the_credentials_of_the_proxy_behind(
    authority: CertificateAuthority,
) -> None:
    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1")
        async with (
            running_server(send_parts(http_response(b"arrived")), context) as second,
            running_server(redirect_to(second.url_of(scheme="https"))) as first,
            running_recording_proxy() as proxy,
        ):
            tls = TlsConfig(ca_file=authority.ca_file)
            response = await request(first.url_of(), through(proxy.url), tls=tls, follow_redirects=True)
            assert response.body == b"arrived"
            assert [head.partition(" ")[0] for head in proxy.request_heads] == ["GET", "CONNECT"]
            assert "proxy-" not in (first.request_heads[0] + second.request_heads[0]).lower()

    asyncio.run(run_scenario())


def test_no_message_contains_the_password_of_the_proxy() -> None:
    async def run_scenario() -> None:
        for handler, *_ in [*CONNECT_REPLIES.values(), *FORWARD_REPLIES.values()]:
            async with running_server(handler) as proxy:
                routing = through(f"http://{CREDENTIALS}127.0.0.1:{proxy.port}")
                for url in ("https://127.0.0.1:1/", "http://acme.example/"):
                    try:
                        await request(url, routing)
                    except ProbeError as error:
                        text = f"{error} {error.facts} {error.excerpt}"
                        assert PROXY_PASSWORD not in text
                        assert PROXY_USER not in text

    asyncio.run(run_scenario())


# --- which requests go through the proxy


def test_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as server:
            assert (await request(server.url_of(), RequestRouting())).proxy == ""

    asyncio.run(run_scenario())


PROXY = ProxyAddress("http", "proxy.example", 3128)


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_proxied"),
    [
        ("api.acme.example", (), True),
        ("api.acme.example", ("acme.example",), False),
        ("api.acme.example", (".acme.example",), False),
        ("api.acme.example", ("*.acme.example",), False),
        ("acme.example", (".acme.example",), False),
        ("acme.example.", ("acme.example",), False),
        ("notacme.example", ("acme.example",), True),
        ("acme.example.org", ("acme.example",), True),
        ("10.1.2.3", ("10.0.0.0/8",), False),
        ("10.1.2.3", ("10.1.2.3",), False),
        ("0xa010203", ("10.0.0.0/8",), False),
        ("11.1.2.3", ("10.0.0.0/8",), True),
        ("2001:db8::1", ("2001:db8::/32",), False),
        ("2001:db8::1", ("10.0.0.0/8", "2001:db9::/32"), True),
        ("api.acme.example", ("10.0.0.0/8",), True),
        ("localhost", (), False),
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("127.1", (), False),
        ("0x7f000001.", (), False),
        ("api.localhost", (), False),
    ],
)
def test_no_proxy(host: str, no_proxy: tuple[str, ...], is_proxied: bool) -> None:
    assert (RequestRouting(PROXY, no_proxy).find_proxy_for_host(host) is not None) == is_proxied


@pytest.mark.parametrize("text", ["1.2.3", "10.0", "300.1.1.1", ".1.2", "123"])
def test_what_is_neither_a_name_nor_an_address_is_refused_in_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match="expected a host name"):
        TypeAdapter(NoProxyEntry).validate_python(text)


def test_a_proxy_for_a_target_is_used_for_loopback_addresses() -> None:
    assert RequestRouting(PROXY, proxies_loopback=True).find_proxy_for_host("127.0.0.1") == PROXY
    assert RequestRouting(None, proxies_loopback=True).find_proxy_for_host("127.0.0.1") is None


def test_a_target_that_is_excepted_is_connected_to_directly(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as server:
            routing = through("http://127.0.0.1:1", no_proxy=("127.0.0.0/8",))
            assert (await request(server.url_of(), routing)).proxy == ""

    run(run_scenario())


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", ("http", "proxy.example", 3128, "", "")),
        ("http://proxy.example", ("http", "proxy.example", 80, "", "")),
        ("https://proxy.example/", ("https", "proxy.example", 443, "", "")),
        ("socks5://proxy.example", ("socks5", "proxy.example", 1080, "", "")),
        ("socks5h://u:p%40ss@[::1]:9", ("socks5h", "::1", 9, "u", "p@ss")),
        ("http://u@PROXY.example:1", ("http", "proxy.example", 1, "u", "")),
    ],
)
def test_the_url_of_a_proxy(url: str, proxy: tuple[str, str, int, str, str]) -> None:
    assert parse_proxy_url(url)[:5] == proxy


@pytest.mark.parametrize(
    "url",
    [
        *(
            "proxy.example:3128",
            "ftp://proxy.example",
            "http://",
            "http://proxy.example/path",
            "http://proxy.example?x",
        ),
        *(
            "http://proxy.example:0",
            "http://pro xy",
            "http://a\\b",
            f"socks5://{'u' * 256}:p@proxy.example",
            "http://-",
        ),
    ],
)
def test_an_invalid_url_of_a_proxy_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(expected|invalid host name)") as caught:
        parse_proxy_url(url)
    assert "uuuu" not in str(caught.value)


# --- leftovers


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_no_connection_stays_open_after_faults_of_proxies(run: Run) -> None:
    connect_handlers = [handler for handler, *_ in CONNECT_REPLIES.values()]
    socks_handlers = [handler for handler, *_ in SOCKS_REPLIES.values()]

    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            descriptors = []
            for scheme, handlers in (("http", connect_handlers), ("socks5", socks_handlers)):
                for handler in [*handlers, send_parts(delay_s=60)]:
                    async with running_server(handler, read_request=False) as proxy:
                        network.routing = through(f"{scheme}://127.0.0.1:{proxy.port}")
                        try:
                            async with asyncio.timeout(0.1):
                                await network.send_http_request(HttpRequest("https://127.0.0.1:1/"))
                        except (ProbeError, TimeoutError):
                            pass
                    await asyncio.sleep(0.01)
                    descriptors.append(count_open_descriptors())
            await wait_until_async(lambda: count_open_descriptors() <= descriptors[0])
            assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run(run_scenario())
