"""The connections of one session: over the exchange that probes use, limited, timed, and used again while they are
idle."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Self

import httpx2

from watchdog.net.errors import build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.http_stream import HttpStreamProtocol, StreamedResponseBody, create_streamed_body
from watchdog.net.mcp.http_transport import McpHttpTransport
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy_errors import find_proxy_response_error
from watchdog.net.proxy_tunnel import ServerRoute, open_connection_by_route
from watchdog.net.response_parser import Http1ResponseParser
from watchdog.net.url import ParsedHttpUrl, parse_http_url

_HEADERS_SET_BY_CONNECTION = frozenset({b"transfer-encoding", b"content-length"})


class McpHttpConnections:
    """Owns the connections of a session: `async with McpHttpConnections(transport) as connections`."""

    def __init__(self, transport: McpHttpTransport) -> None:
        self._transport = transport
        self._idle: list[_McpConnection] = []
        self._open: set[_McpConnection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self._open):
            self._discard(connection)

    async def send(self, request: httpx2.Request) -> McpHttpExchange:
        """Returns once the head of the response has arrived. Raises ProbeError and OSError."""
        url, body = parse_http_url(str(request.url)), await request.aread()
        async with asyncio.timeout_at(self._transport.io_deadline):
            connection = self._take_idle_connection(url) or await self._open_connection(url)
        try:
            request_bytes = _encode_request(request, body, connection.route)
            parser = _CountingParser(self._transport.count_bytes_within_limit, is_head_request=request.method == "HEAD")
            async with asyncio.timeout_at(self._transport.io_deadline):
                await self._receive_head(connection, request_bytes, parser)
        except BaseException:
            self._discard(connection)
            raise
        return McpHttpExchange(connection, parser, self._transport, self._release)

    def _take_idle_connection(self, url: ParsedHttpUrl) -> _McpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.route.url.origin == url.origin:
                return connection
            self._discard(connection)
        return None

    async def _open_connection(self, url: ParsedHttpUrl) -> _McpConnection:
        transport, endpoint = self._transport, self._transport.endpoint
        is_first = "address" not in transport.facts
        phase_timer = transport.phase_timer if is_first else PhaseTimer()  # only the first connection is timed
        route = ServerRoute(url, endpoint.allow_private_addresses, endpoint.proxy, endpoint.proxy_ca_file)
        connection = await open_connection_by_route(
            transport.connector, lambda: _McpConnection(route), route, phase_timer
        )
        self._open.add(connection)
        transport.facts["address"] = connection.peer_address
        if endpoint.proxy is not None:
            transport.facts["proxy"] = endpoint.proxy.host_and_port
        if url.scheme != "https":
            return connection
        connection.handshaker = TlsHandshaker(
            transport.connector,
            url,
            endpoint.tls,
            endpoint.allow_private_addresses,
            transport.now,
            proxy=endpoint.proxy,
            proxy_ca_file=endpoint.proxy_ca_file,
        )
        try:
            expiry = await connection.handshaker.perform_and_find_certificate_expiry(connection.start_tls, phase_timer)
        except BaseException:
            self._discard(connection)
            raise
        if expiry is not None:
            transport.facts["cert_days"] = expiry.days
        return connection

    async def _receive_head(self, connection: _McpConnection, request_bytes: bytes, parser: _CountingParser) -> None:
        has_received_before = connection.has_received
        try:
            await connection.send_and_receive_head(request_bytes, parser, PhaseTimer())
        except Exception as exception:
            error = build_probe_error_from_exception(exception)
            if error is None or connection.handshaker is None or has_received_before or parser.has_received:
                raise
            raise await connection.handshaker.inspect_and_explain_unanswered_request(error) from None
        connection.has_received = True
        if connection.route.is_forwarded and connection.route.proxy is not None:
            proxy = connection.route.proxy
            if proxy_error := find_proxy_response_error(parser.status, parser.headers, proxy):
                raise proxy_error

    def _release(self, connection: _McpConnection, *, is_reusable: bool) -> None:
        """The exchange on this connection has ended."""
        if is_reusable and connection in self._open:
            connection.become_idle()
            self._idle.append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: _McpConnection) -> None:
        self._open.discard(connection)
        connection.close()


class McpHttpExchange:
    """A response whose body is read while it arrives. Close it in any case."""

    def __init__(
        self,
        connection: _McpConnection,
        parser: _CountingParser,
        transport: McpHttpTransport,
        release: Callable[..., None],
    ) -> None:
        self._connection, self._parser, self._transport, self._release = connection, parser, transport, release
        self.status, self.raw_headers = parser.status, list(parser.raw_headers)
        self._is_read = self._is_closed = False

    async def read_body(self) -> bytes:
        """The next part, as it was received; empty at the end. Raises ProbeError and OSError."""
        if self._is_read:
            return b""
        async with asyncio.timeout_at(self._transport.io_deadline):
            part = await self._connection.read_body()
        self._is_read = not part
        return part

    def close(self) -> None:
        """Gives the connection back if the whole response was read."""
        if not self._is_closed:
            self._is_closed = True
            self._release(self._connection, is_reusable=self._is_read and self._parser.allows_another_request)


class _McpConnection(HttpStreamProtocol):
    """A connection for one exchange after the other."""

    def __init__(self, route: ServerRoute) -> None:
        super().__init__()
        self.route = route
        self.handshaker: TlsHandshaker | None = None
        """None: without TLS."""
        self.has_received = False
        """Whether a response has arrived."""


class _CountingParser(Http1ResponseParser[StreamedResponseBody]):
    """Counts what arrives. `count_bytes`: raises ProbeError beyond the limit."""

    def __init__(self, count_bytes: Callable[[int], None], *, is_head_request: bool) -> None:
        super().__init__(PhaseTimer(), create_streamed_body, is_head_request=is_head_request, max_raw_bytes=sys.maxsize)
        self._count_bytes = count_bytes
        self.has_received = False

    def feed(self, data: bytes) -> None:
        self.has_received = True
        self._count_bytes(len(data))
        super().feed(data)


def _encode_request(request: httpx2.Request, body: bytes, route: ServerRoute) -> bytes:
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _HEADERS_SET_BY_CONNECTION]
    if body or request.method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
        headers.append((b"Content-Length", str(len(body)).encode()))
    target = request.url.raw_path
    if route.is_forwarded and route.proxy is not None:
        target = f"{route.url.scheme}://{route.url.authority}".encode() + target
        if authorization := route.proxy.authorization_header:
            headers.append((b"Proxy-Authorization", authorization.encode()))
    lines = [b"%s: %s" % header for header in headers]
    return b"\r\n".join([b"%s %s HTTP/1.1" % (request.method.encode(), target), *lines, b"", b""]) + body
