"""MCP over HTTP: the streamable HTTP transport and the older one over server-sent events (SSE)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpcore2
import httpx2
from mcp import MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, PARSE_ERROR

from watchdog.domain.model import Json
from watchdog.net.connector import Connector, format_socket_address
from watchdog.net.content_encoding import ContentDecoder, UnsupportedEncodingError
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.handshake import TlsHandshake
from watchdog.net.mcp.client import MAX_ERROR_EXCERPT_CHARS, MessageSender
from watchdog.net.mcp.event_stream import ByteOrderMarkRemover, EventNameNormalizer
from watchdog.net.mcp.http_response import ResponseInfo
from watchdog.net.phases import PhaseTimer
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_url

MAX_SESSION_RESPONSE_BYTES = 4 << 20
"""Bytes read in one session, as received and as decompressed; the SDK has no limit of its own."""
READ_CHUNK_BYTES = 16 << 10
SESSION_CLOSE_TIMEOUT_S = 0.3
"""Timeout for ending a session."""
_GATEWAY_REJECTION_STATUSES = frozenset({401, 403, 407, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class McpHttpEndpoint:
    """An MCP server behind a URL."""

    url: str
    use_sse: bool = False
    """Use the transport that preceded streamable HTTP."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsConfig = field(default_factory=TlsConfig)
    allow_private_addresses: bool = True


class HttpTransport:
    """An open connection to an MCP server over HTTP.

    Everything that the SDK sends and receives passes through it, so that sizes are bounded, phases timed, and errors
    kept that the SDK swallows or replaces by its own. `facts` is filled in as connections are made.
    """

    def __init__(
        self, connector: Connector, endpoint: McpHttpEndpoint, phase_timer: PhaseTimer, facts: dict[str, Json], now: int
    ) -> None:
        self.connector, self.endpoint = connector, endpoint
        self.phase_timer, self.facts, self.now = phase_timer, facts, now
        self.incoming: AsyncIterable[SessionMessage | Exception]
        self.outgoing: MessageSender
        self.response_info: ResponseInfo | None = None
        self.transport_error: Exception | None = None
        """The last error below the SDK, which may swallow it."""
        self.cancel_session: Callable[[], None] = lambda: None
        """Ends the session."""
        self.io_deadline: float | None = None
        """Loop time at which reading and writing end. None: the caller decides."""
        self._bytes_read = 0

    def add_bytes_read(self, byte_count: int) -> None:
        self._bytes_read += byte_count
        if self._bytes_read > MAX_SESSION_RESPONSE_BYTES:
            message = f"the server sent more than {MAX_SESSION_RESPONSE_BYTES >> 20} MiB, Watchdog's limit"
            raise ProbeError("body.too_large", message, is_internal=True)

    @property
    def rejected_by_gateway(self) -> bool:
        return self.response_info is not None and self.response_info.status in _GATEWAY_REJECTION_STATUSES

    def record_failure(self, error: Exception) -> None:
        """Over SSE the SDK ignores the error and keeps waiting, so this ends the session."""
        self.transport_error = error
        if self.endpoint.use_sse:
            self.cancel_session()

    def translate_exception(self, error: Exception) -> ProbeError | None:
        """Translates an exception that came through the SDK. None: it is a bug."""
        errors = [error, self.transport_error] if self.transport_error else [error]
        response = self.response_info
        if translated := error_from_exception(ExceptionGroup("", errors)) or (response and response.to_error()):
            return translated
        if self.endpoint.use_sse and response is not None:  # the stream ended early, or is not a stream of events
            return response.attach_evidence(ProbeError("mcp.not_mcp", "the event stream is not MCP"))
        return None

    async def translate_error(self, error: MCPError, *, was_received: bool) -> ProbeError | None:
        if was_received and self.endpoint.use_sse:  # the SDK makes up errors over streamable HTTP only
            return None
        response = self.response_info
        if self.transport_error is not None and (translated := error_from_exception(self.transport_error)):
            return translated
        if response is not None:
            if translated := response.to_error():
                return translated
            if response.status == 202:
                return ProbeError("mcp.invalid_response", "HTTP 202: the server accepts the request without a reply")
            if error.code == PARSE_ERROR:
                return response.attach_evidence(ProbeError("mcp.not_mcp", "the response is not JSON-RPC"))
        if error.code == CONNECTION_CLOSED and not (response and response.is_jsonrpc_error):
            return ProbeError("connection.closed", "connection closed before the reply arrived", retryable=True)
        return None


@asynccontextmanager
async def open_http_transport(
    connector: Connector, endpoint: McpHttpEndpoint, phase_timer: PhaseTimer, facts: dict[str, Json], now: int
) -> AsyncIterator[HttpTransport]:
    """Raises ProbeError."""
    transport = HttpTransport(connector, endpoint, phase_timer, facts, now)
    ssl_context = connector.ssl_context(endpoint.tls) if endpoint.url.startswith("https:") else None
    with anyio.CancelScope() as scope:
        transport.cancel_session = scope.cancel
        try:
            async with _open_streams(transport, ssl_context):
                yield transport
        except Exception as exception:
            error = transport.translate_exception(exception)
            if error is None:
                raise
            raise error from None
    if (
        transport.transport_error is not None
        and (error := error_from_exception(transport.transport_error))
        and scope.cancelled_caught
    ):
        raise error


@asynccontextmanager
async def _open_streams(transport: HttpTransport, ssl_context: ssl.SSLContext | None) -> AsyncIterator[None]:
    url = transport.endpoint.url
    async with httpcore2.AsyncConnectionPool(
        ssl_context=ssl_context, network_backend=_NetworkBackend(transport)
    ) as pool:
        client = _create_httpx_client(transport, pool)
        if transport.endpoint.use_sse:
            async with sse_client(url, httpx_client_factory=lambda headers=None, timeout=None, auth=None: client) as (
                transport.incoming,
                transport.outgoing,
            ):
                yield
        else:
            async with (
                client,
                streamable_http_client(url, http_client=client, max_sse_event_size=MAX_SESSION_RESPONSE_BYTES) as (
                    transport.incoming,
                    transport.outgoing,
                ),
            ):
                yield


def _create_httpx_client(transport: HttpTransport, pool: httpcore2.AsyncConnectionPool) -> httpx2.AsyncClient:
    defaults = {"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"}
    return httpx2.AsyncClient(
        transport=_HttpxTransport(transport, pool),
        headers=httpx2.Headers(defaults | dict(transport.endpoint.headers), encoding="utf-8"),
        timeout=None,
        trust_env=False,
    )


class _HttpxTransport(httpx2.AsyncBaseTransport):
    """The transport of the SDK's HTTP client. Records responses and errors, which the SDK does not expose."""

    def __init__(self, transport: HttpTransport, pool: httpcore2.AsyncConnectionPool) -> None:
        self._transport, self._pool = transport, pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport = self._transport
        if request.method == "GET" and not transport.endpoint.use_sse and "last-event-id" not in request.headers:
            # The SDK opens a stream for unsolicited messages. Watchdog reads none, and some servers log a traceback
            # when such a stream ends.
            return httpx2.Response(405, request=request)
        if request.method == "POST" and not transport.endpoint.use_sse:
            transport.transport_error = None  # of an earlier request, after which the session went on
        if request.method == "DELETE":
            transport.io_deadline = asyncio.get_running_loop().time() + SESSION_CLOSE_TIMEOUT_S
        try:
            response = await self._pool.handle_async_request(self._to_httpcore_request(request))
            info = ResponseInfo(response.status, httpx2.Headers(response.headers), request)
            transport.response_info = info
            body = _ResponseStream(response, info, transport)
            if info.status == 202 or info.to_error():
                # The SDK does not read this body. It is evidence, and a connection is reused only once it was read.
                await body.prefetch_body_start()
        except Exception as error:
            transport.record_failure(error)
            raise
        if transport.endpoint.use_sse and request.method == "POST" and (status_error := info.to_error()):
            transport.record_failure(status_error)
        headers = [(k, v) for k, v in response.headers if k.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=headers, stream=body, request=request)

    def _to_httpcore_request(self, request: httpx2.Request) -> httpcore2.Request:
        url = request.url
        return httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
        )


class _ResponseStream(httpx2.AsyncByteStream):
    """A response body, decoded. Keeps its beginning as evidence."""

    def __init__(self, response: httpcore2.Response, response_info: ResponseInfo, transport: HttpTransport) -> None:
        self._response, self._response_info, self._transport = response, response_info, transport
        encoding = str(response_info.headers.get("content-encoding", ""))
        try:
            self._decoder = ContentDecoder(encoding, MAX_SESSION_RESPONSE_BYTES)
        except UnsupportedEncodingError as error:
            raise ProbeError(
                "body.invalid_encoding", f"the response is encoded as {error}, which was not requested"
            ) from None
        self._chunks = aiter(response.stream)  # type: ignore[arg-type] # of an async client
        self._prefetched_chunks: list[bytes] = []
        self._filters: list[ByteOrderMarkRemover | EventNameNormalizer] = [ByteOrderMarkRemover()]
        if response_info.content_type == "text/event-stream":
            response_info.events = EventNameNormalizer()
            self._filters.append(response_info.events)

    async def prefetch_body_start(self) -> None:
        while (
            len(self._response_info.body_start) < MAX_ERROR_EXCERPT_CHARS
            and (chunk := await self._next_chunk()) is not None
        ):
            self._prefetched_chunks.append(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._prefetched_chunks:
            yield self._prefetched_chunks.pop(0)
        while (chunk := await self._next_chunk()) is not None:
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()

    async def _next_chunk(self) -> bytes | None:
        try:
            chunk = await anext(self._chunks, None)
            data = self._flush_filters() if chunk is None else self._decode_chunk(chunk)
        except Exception as error:
            self._transport.record_failure(error)
            raise
        return None if chunk is None and not data else data

    def _decode_chunk(self, chunk: bytes) -> bytes:
        data = bytes(self._decoder.decode(chunk))
        if not self._decoder.is_identity:  # the connection has counted the bytes as they were received
            self._transport.add_bytes_read(len(data))
        self._response_info.body_start += data[: READ_CHUNK_BYTES - len(self._response_info.body_start)]
        for body_filter in self._filters:
            data = body_filter.feed(data)
        return data

    def _flush_filters(self) -> bytes:
        """What the filters still hold at the end of the body."""
        data = b""
        for body_filter in self._filters:
            data = (body_filter.feed(data) if data else b"") + body_filter.flush()
        return data


class _NetworkBackend(httpcore2.AsyncNetworkBackend):
    """Connects through the shared connector: names resolved in threads, addresses filtered, phases timed."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        transport = self._transport
        is_first = "address" not in transport.facts
        phase_timer = transport.phase_timer if is_first else PhaseTimer()  # only the first connection is timed
        async with asyncio.timeout_at(transport.io_deadline):
            sock = await transport.connector.connect(
                host, port, phase_timer, transport.endpoint.allow_private_addresses
            )
            transport.facts["address"] = format_socket_address(sock.getpeername())
            reader, writer = await asyncio.open_connection(sock=sock, limit=READ_CHUNK_BYTES)
        return _NetworkStream(reader, writer, transport, phase_timer)


class _NetworkStream(httpcore2.AsyncNetworkStream):
    """A connection whose bytes are counted and whose TLS handshake is timed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        transport: HttpTransport,
        phase_timer: PhaseTimer,
    ) -> None:
        self._reader, self._writer, self._transport, self._phase_timer = reader, writer, transport, phase_timer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's interface
        async with asyncio.timeout_at(self._transport.io_deadline):
            data = await self._reader.read(min(max_bytes, READ_CHUNK_BYTES))
        self._transport.add_bytes_read(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's interface
        try:
            async with asyncio.timeout_at(self._transport.io_deadline):
                self._writer.write(buffer)
                await self._writer.drain()
        except OSError as error:  # the response may arrive before everything is sent
            raise httpcore2.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's interface
    ) -> httpcore2.AsyncNetworkStream:
        transport, endpoint = self._transport, self._transport.endpoint
        handshake = TlsHandshake(
            transport.connector,
            parse_url(endpoint.url),
            endpoint.tls,
            endpoint.allow_private_addresses,
            transport.now,
        )
        try:
            async with asyncio.timeout_at(transport.io_deadline):
                expiry = await handshake.perform(self._writer, self._phase_timer)
        except Exception:
            await self.aclose()
            raise
        transport.facts["cert_days"] = expiry.days
        return self

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection that is readable was closed by the server
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)
