"""Sends the requests of an httpx client over our own connections: address filter, proxies, bounds and errors are those
of probes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from watchdog.domain.reasons import get_reason_family
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.http_stream import HttpStreamProtocol, StreamingParser, create_streaming_parser
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import RequestRouting
from watchdog.net.proxy_errors import find_proxy_response_error
from watchdog.net.proxy_tunnel import ServerRoute, open_connection_by_route
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_http_url

_HEADER_NAME_PATTERN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_INVALID_HEADER_VALUE_PATTERN = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_HEADERS_SET_BY_TRANSPORT = frozenset({b"connection", b"transfer-encoding", b"content-length"})


def _read_wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class ExchangeTransport(httpx.AsyncBaseTransport):
    """Each request has a connection of its own, which ends with its response. The response is streamed, and its body is
    passed on as it was received. Raises the exceptions of httpx, with the ProbeError as their cause.

    `get_routing`: called for each request. `clock`: in ms since the epoch; the validity of certificates is explained by
    it.
    """

    def __init__(
        self,
        connector: TcpConnector,
        get_routing: Callable[[], RequestRouting] = RequestRouting,
        clock: Callable[[], int] = _read_wall_clock_ms,
    ) -> None:
        self._connector, self._get_routing, self._clock = connector, get_routing, clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, body = _parse_request_url(request), await request.aread()
        routing, phase_timer = self._get_routing(), PhaseTimer()
        route = ServerRoute(url, True, routing.find_proxy_for_host(url.host), routing.ca_file)
        request_bytes = _encode_request(request, body, route)
        timeouts = request.extensions.get("timeout", {})
        async with _translate_errors(request, httpx.ConnectTimeout, timeouts.get("connect")):
            connection = await open_connection_by_route(self._connector, HttpStreamProtocol, route, phase_timer)
        try:
            async with _translate_errors(request, httpx.ConnectTimeout, timeouts.get("connect")):
                await self._start_tls_if_needed(connection, route, routing.add_ca_file(TlsConfig()), phase_timer)
            async with _translate_errors(request, httpx.ReadTimeout, timeouts.get("read"), is_connected=True):
                response = create_streaming_parser(phase_timer, is_head_request=request.method == "HEAD")
                await connection.send_and_receive_head(request_bytes, response, phase_timer)
                _raise_error_of_forwarding_proxy(response, route)
        except BaseException:
            connection.close()
            raise
        extensions = {
            "http_version": f"HTTP/{response.http_version}".encode(),
            "reason_phrase": response.reason_phrase.encode(errors="replace"),
        }
        stream = _StreamedBody(connection, request, timeouts.get("read"))
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=stream, extensions=extensions, request=request
        )

    async def _start_tls_if_needed(
        self, connection: HttpStreamProtocol, route: ServerRoute, tls: TlsConfig, phase_timer: PhaseTimer
    ) -> None:
        if route.url.scheme != "https":
            return
        handshaker = TlsHandshaker(
            self._connector, route.url, tls, True, self._clock(), proxy=route.proxy, proxy_ca_file=route.proxy_ca_file
        )
        await handshaker.perform_and_find_certificate_expiry(connection.start_tls, phase_timer)


class _StreamedBody(httpx.AsyncByteStream):
    """The body of a response, as it is received. Closing it closes the connection."""

    def __init__(self, connection: HttpStreamProtocol, request: httpx.Request, timeout_s: float | None) -> None:
        self._connection, self._request, self._timeout_s = connection, request, timeout_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            async with _translate_errors(self._request, httpx.ReadTimeout, self._timeout_s, is_connected=True):
                part = await self._connection.read_body()
            if not part:
                return
            yield part

    async def aclose(self) -> None:
        self._connection.close()


def _parse_request_url(request: httpx.Request) -> ParsedHttpUrl:
    """The host and port to connect to. Raises httpx's exceptions."""
    try:
        return parse_http_url(str(request.url))
    except ValueError as error:
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol("the URL is neither http nor https", request=request) from None
        raise httpx.InvalidURL(str(error)) from None


def _encode_request(request: httpx.Request, body: bytes, route: ServerRoute) -> bytes:
    """Raises httpx.LocalProtocolError for headers that are not valid in HTTP."""
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _HEADERS_SET_BY_TRANSPORT]
    for name, value in headers:
        if not _HEADER_NAME_PATTERN.fullmatch(name) or _INVALID_HEADER_VALUE_PATTERN.search(value):
            raise httpx.LocalProtocolError("a header is not valid in HTTP", request=request)
    if body or request.method not in ("GET", "HEAD", "OPTIONS"):
        headers.append((b"Content-Length", str(len(body)).encode()))
    target = request.url.raw_path
    if route.is_forwarded and route.proxy:
        target = f"{route.url.scheme}://{route.url.authority}".encode() + target
        if authorization := route.proxy.authorization_header:
            headers.append((b"Proxy-Authorization", authorization.encode()))
    headers.append((b"Connection", b"close"))
    lines = [b"%s: %s" % header for header in headers]
    return b"\r\n".join([b"%s %s HTTP/1.1" % (request.method.encode(), target), *lines, b"", b""]) + body


def _raise_error_of_forwarding_proxy(response: StreamingParser, route: ServerRoute) -> None:
    if not route.is_forwarded or route.proxy is None:
        return
    if error := find_proxy_response_error(response.status, response.headers, route.proxy):
        raise error


@asynccontextmanager
async def _translate_errors(
    request: httpx.Request,
    timeout_exception: type[httpx.TimeoutException],
    timeout_s: float | None,
    *,
    is_connected: bool = False,
) -> AsyncIterator[None]:
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            yield
    except Exception as exception:
        if isinstance(exception, TimeoutError) and deadline.expired():
            raise timeout_exception("timed out", request=request) from None
        error = build_probe_error_from_exception(exception)
        if error is not None and error.precedes_deadline and not deadline.expired():
            raise asyncio.CancelledError from error  # by the caller, who must not wait for what goes on then
        if error is None and not isinstance(exception, OSError):
            raise
        exception_class = _choose_httpx_exception(error, is_connected=is_connected)
        raise exception_class(str(error or "connection failed"), request=request) from (error or exception)


def _choose_httpx_exception(error: ProbeError | None, *, is_connected: bool) -> type[httpx.TransportError]:
    """`error`: None if it is none of a network, such as the refusal of a firewall of this machine."""
    family = get_reason_family(error.reason) if error else ""
    if family == "proxy":
        return httpx.ProxyError
    if not is_connected:
        return httpx.ConnectError
    return httpx.RemoteProtocolError if family in ("protocol", "body") else httpx.ReadError
