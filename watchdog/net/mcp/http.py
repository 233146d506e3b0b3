"""A line over HTTP: streamable HTTP, or the older one that answers over server-sent events."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpcore2
import httpx2
from mcp import MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, PARSE_ERROR

from watchdog.domain.model import Json
from watchdog.net.connector import format_socket_address
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.handshake import perform_tls_handshake
from watchdog.net.http import HttpRequest
from watchdog.net.mcp.client import MAX_ERROR_EXCERPT_CHARS, MessageSender
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import redact_url
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_url

if TYPE_CHECKING:
    from watchdog.net import Network

MAX_SESSION_RESPONSE_BYTES = 4 << 20
"""Bytes read in one visit, as they come and as they decode: the SDK knows no limit."""
READ_CHUNK_BYTES = 16 << 10
SESSION_CLOSE_TIMEOUT_S = 0.3
"""Seconds for ending a session that is done, or whose time is up."""
_GATEWAY_REJECTION_STATUSES = frozenset({401, 403, 407, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class McpHttpEndpoint:
    """An MCP server behind a URL."""

    url: str
    use_sse: bool = False
    """The transport before streamable HTTP."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsConfig = field(default_factory=TlsConfig)
    allow_private_addresses: bool = True


@dataclass(slots=True)
class _ResponseInfo:
    """What the SDK does not tell about an HTTP answer."""

    status: int
    headers: httpx2.Headers
    request: httpx2.Request
    body_start: bytes = b""
    """The beginning of the body."""

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def is_jsonrpc_error(self) -> bool:
        try:
            body = json.loads(self.body_start)
        except (ValueError, RecursionError):
            return False
        return isinstance(body, dict) and isinstance(body.get("error"), dict) and "code" in body["error"]

    def to_error(self) -> ProbeError | None:
        """What is wrong with the answer as such; None: it is a proper answer of an MCP server."""
        fault = self._status_error() or self._content_type_error()
        return fault and self.attach_evidence(fault)

    def attach_evidence(self, error: ProbeError) -> ProbeError:
        """The fault, with what the answer says of it."""
        told = {name: self.headers.get(name) for name in ("www-authenticate", "retry-after", "server")}
        error.facts |= {"status": self.status, "content_type": self.content_type}
        error.facts |= {name.replace("-", "_"): value for name, value in told.items() if value}
        error.excerpt = self.body_start[:MAX_ERROR_EXCERPT_CHARS].decode(errors="replace")
        return error

    def _status_error(self) -> ProbeError | None:
        if self.status == 401:
            why = "does not accept our" if "authorization" in self.request.headers else "asks for"
            return ProbeError("http.401", f"got 401: the server {why} credentials")
        if self.status == 403:
            return ProbeError("http.403", "got 403: access is forbidden")
        if self.status == 429:
            return ProbeError("http.429", "got 429: the server limits how often it is asked")
        if self.status >= 500:
            return ProbeError("http.status", f"got {self.status}", retryable=True)
        if self.status >= 400 and not self.is_jsonrpc_error:
            return ProbeError("http.status", f"got {self.status}")
        if 300 <= self.status < 400:
            to = redact_url(str(self.request.url.join(self.headers.get("location", ""))))
            return ProbeError(
                "http.redirect_not_followed", f"got {self.status}: redirects to {to}, which is not followed"
            )
        return None

    def _content_type_error(self) -> ProbeError | None:
        streams = self.content_type == "text/event-stream"
        if streams or (
            self.request.method != "GET" and (self.status == 202 or self.content_type == "application/json")
        ):
            return None
        return ProbeError("mcp.not_mcp", f"answers {self.content_type or 'nothing'}, not MCP")


class HttpTransport:
    """An open line. Everything that the SDK sends and hears goes through its transport, which bounds and notes it."""

    def __init__(
        self, network: Network, endpoint: McpHttpEndpoint, phase_timer: PhaseTimer, facts: dict[str, Json], now: int
    ) -> None:
        self.network, self.endpoint, self.phase_timer, self.facts, self.now = network, endpoint, phase_timer, facts, now
        self.incoming: AsyncIterable[SessionMessage | Exception]
        self.outgoing: MessageSender
        self.response_info: _ResponseInfo | None = None
        self.transport_error: Exception | None = None
        """What went wrong below the SDK, which may swallow it on its way up."""
        self.cancel_session: Callable[[], None] = lambda: None
        """Ends the visit."""
        self.io_deadline: float | None = None
        """The loop's time at which reading and writing end; None: when the caller says so."""
        self._bytes_read = 0

    def add_bytes_read(self, byte_count: int) -> None:
        self._bytes_read += byte_count
        if self._bytes_read > MAX_SESSION_RESPONSE_BYTES:
            raise ProbeError("body.too_large", f"answers more than {MAX_SESSION_RESPONSE_BYTES >> 20} MiB")

    @property
    def rejected_by_gateway(self) -> bool:
        return self.response_info is not None and self.response_info.status in _GATEWAY_REJECTION_STATUSES

    def record_failure(self, error: Exception) -> None:
        """Over server-sent events the SDK keeps quiet about it and waits on: then the visit ends here."""
        self.transport_error = error
        if self.endpoint.use_sse:
            self.cancel_session()

    def translate_exception(self, error: Exception) -> ProbeError | None:
        """What an exception that got through the SDK stands for; None: a bug."""
        errors = [error, self.transport_error] if self.transport_error else [error]
        if fault := error_from_exception(ExceptionGroup("", errors)) or (
            self.response_info and self.response_info.to_error()
        ):
            return fault
        if (
            self.endpoint.use_sse and self.response_info is not None
        ):  # its stream ended too early, or holds what is no event
            return self.response_info.attach_evidence(ProbeError("mcp.not_mcp", "its event stream is not one of MCP"))
        return None

    async def translate_error(self, error: MCPError) -> ProbeError | None:
        if self.transport_error is not None and (fault := error_from_exception(self.transport_error)):
            return fault
        if self.response_info is not None:
            if fault := self.response_info.to_error():
                return fault
            if self.response_info.status == 202:
                return ProbeError("mcp.invalid_response", "got 202, which promises no reply")
            if error.code == PARSE_ERROR:
                return self.response_info.attach_evidence(ProbeError("mcp.not_mcp", "answers what is not JSON-RPC"))
        if error.code == CONNECTION_CLOSED and not (self.response_info and self.response_info.is_jsonrpc_error):
            return ProbeError("connection.lost", "connection closed before the reply came", retryable=True)
        return None


@asynccontextmanager
async def open_http_transport(
    network: Network, endpoint: McpHttpEndpoint, phase_timer: PhaseTimer, facts: dict[str, Json], now: int
) -> AsyncIterator[HttpTransport]:
    """Raises Fault."""
    line = HttpTransport(network, endpoint, phase_timer, facts, now)
    context = network.ssl_context(endpoint.tls) if endpoint.url.startswith("https:") else None
    with anyio.CancelScope() as scope:
        line.cancel_session = scope.cancel
        try:
            async with _open_streams(line, context):
                yield line
        except Exception as error:
            fault = line.translate_exception(error)
            if fault is None:
                raise
            raise fault from None
    if (
        line.transport_error is not None
        and (fault := error_from_exception(line.transport_error))
        and scope.cancelled_caught
    ):
        raise fault


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
    ours = {"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"}
    return httpx2.AsyncClient(
        transport=_HttpxTransport(transport, pool),
        headers=ours | dict(transport.endpoint.headers),
        timeout=None,
        trust_env=False,
    )


class _HttpxTransport(httpx2.AsyncBaseTransport):
    def __init__(self, transport: HttpTransport, pool: httpcore2.AsyncConnectionPool) -> None:
        self._transport, self._pool = transport, pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        line = self._transport
        if request.method == "GET" and not line.endpoint.use_sse and "last-event-id" not in request.headers:
            # The stream for what a server says unasked. We do not listen, and some log a traceback when it ends.
            return httpx2.Response(405, request=request)
        if request.method == "DELETE":
            line.io_deadline = asyncio.get_running_loop().time() + SESSION_CLOSE_TIMEOUT_S
        try:
            response = await self._pool.handle_async_request(self._to_httpcore_request(request))
            reply = line.response_info = _ResponseInfo(response.status, httpx2.Headers(response.headers), request)
            body = _ResponseStream(response, reply, line)
            if reply.status == 202 or reply.to_error():
                # The SDK will not read it. But a connection serves again only when it was, and people want to know why.
                await body.prefetch_body_start()
        except Exception as error:
            line.record_failure(error)
            raise
        if line.endpoint.use_sse and request.method == "POST" and (fault := reply.to_error()):
            line.record_failure(fault)
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
    """An answer's body, decoded, its beginning kept."""

    def __init__(self, response: httpcore2.Response, response_info: _ResponseInfo, transport: HttpTransport) -> None:
        self._response, self._response_info, self._transport = response, response_info, transport
        encoding = str(response_info.headers.get("content-encoding", "identity")).strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise ProbeError("protocol.error", f"answers encoded as {encoding}, which was not asked for")
        self._decoder = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._chunks = aiter(response.stream)  # type: ignore[arg-type] # of an async client
        self._prefetched_chunks: list[bytes] = []

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
            data = None if chunk is None else self._decode_chunk(chunk)
        except Exception as error:
            self._transport.record_failure(error)
            raise
        if data is not None:
            self._response_info.body_start += data[: READ_CHUNK_BYTES - len(self._response_info.body_start)]
        return data

    def _decode_chunk(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            data = self._decoder.decompress(chunk, MAX_SESSION_RESPONSE_BYTES + 1)
        except zlib.error:
            raise ProbeError("protocol.error", "the body says that it is compressed, but it is not") from None
        self._transport.add_bytes_read(len(data))
        return data


class _NetworkBackend(httpcore2.AsyncNetworkBackend):
    """Connects as every probe of ours does: names looked up aside, addresses filtered, phases counted."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the SDK's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        line = self._transport
        async with asyncio.timeout_at(line.io_deadline):
            trace = (
                PhaseTimer() if "address" in line.facts else line.phase_timer
            )  # the phases are those of the first connection
            sock = await line.network.connect(host, port, trace, line.endpoint.allow_private_addresses)
            line.facts["address"] = format_socket_address(sock.getpeername())
            reader, writer = await asyncio.open_connection(sock=sock, limit=READ_CHUNK_BYTES)
        return _NetworkStream(reader, writer, line, trace)


class _NetworkStream(httpcore2.AsyncNetworkStream):
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        transport: HttpTransport,
        phase_timer: PhaseTimer,
    ) -> None:
        self._reader, self._writer, self._transport, self._phase_timer = reader, writer, transport, phase_timer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's seam
        async with asyncio.timeout_at(self._transport.io_deadline):
            data = await self._reader.read(min(max_bytes, READ_CHUNK_BYTES))
        self._transport.add_bytes_read(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's seam
        try:
            async with asyncio.timeout_at(self._transport.io_deadline):
                self._writer.write(buffer)
                await self._writer.drain()
        except OSError as error:  # the answer may have come before all was sent
            raise httpcore2.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's seam
    ) -> httpcore2.AsyncNetworkStream:
        line, endpoint = self._transport, self._transport.endpoint
        told = HttpRequest(
            endpoint.url,
            tls=endpoint.tls,
            allow_private_addresses=endpoint.allow_private_addresses,
            phase_timer=self._phase_timer,
            now=line.now,
        )
        try:
            async with asyncio.timeout_at(line.io_deadline):
                line.facts["cert_days"] = await perform_tls_handshake(
                    line.network, self._writer, parse_url(endpoint.url), told
                )
        except Exception:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection with something to read was closed by the server
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)
