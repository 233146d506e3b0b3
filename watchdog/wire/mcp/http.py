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

from watchdog.model import Json
from watchdog.wire.address import Egress
from watchdog.wire.dial import shown_address
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.handshake import secure
from watchdog.wire.http import Request
from watchdog.wire.mcp.dialogue import SHOWN, Sink
from watchdog.wire.redact import shown_url
from watchdog.wire.tls import Tls
from watchdog.wire.trace import Trace
from watchdog.wire.url import parse_url

if TYPE_CHECKING:
    from watchdog.wire import Wire

MOST = 4 << 20
"""Bytes read in one visit, as they come and as they decode: the SDK knows no limit."""
CHUNK = 16 << 10
LAST_WORD = 0.3
"""Seconds for ending a session that is done, or whose time is up."""
_GATEKEEPERS = frozenset({401, 403, 407, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An MCP server behind a URL."""

    url: str
    sse: bool = False
    """The transport before streamable HTTP."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = field(default_factory=Tls)
    egress: Egress = "private"


@dataclass(slots=True)
class _Reply:
    """What the SDK does not tell about an HTTP answer."""

    status: int
    headers: httpx2.Headers
    request: httpx2.Request
    head: bytes = b""
    """The beginning of the body."""

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def is_rpc_error(self) -> bool:
        try:
            body = json.loads(self.head)
        except (ValueError, RecursionError):
            return False
        return isinstance(body, dict) and isinstance(body.get("error"), dict) and "code" in body["error"]

    def fault(self) -> Fault | None:
        """What is wrong with the answer as such; None: it is a proper answer of an MCP server."""
        fault = self._status_fault() or self._content_fault()
        return fault and self.as_evidence(fault)

    def as_evidence(self, fault: Fault) -> Fault:
        """The fault, with what the answer says of it."""
        told = {name: self.headers.get(name) for name in ("www-authenticate", "retry-after", "server")}
        fault.facts |= {"status": self.status, "content_type": self.content_type}
        fault.facts |= {name.replace("-", "_"): value for name, value in told.items() if value}
        fault.excerpt = self.head[:SHOWN].decode(errors="replace")
        return fault

    def _status_fault(self) -> Fault | None:
        if self.status == 401:
            why = "does not accept our" if "authorization" in self.request.headers else "asks for"
            return Fault("http.401", f"got 401: the server {why} credentials")
        if self.status == 403:
            return Fault("http.403", "got 403: access is forbidden")
        if self.status == 429:
            return Fault("http.429", "got 429: the server limits how often it is asked")
        if self.status >= 500:
            return Fault("http.status", f"got {self.status}", retryable=True)
        if self.status >= 400 and not self.is_rpc_error:
            return Fault("http.status", f"got {self.status}")
        if 300 <= self.status < 400:
            to = shown_url(str(self.request.url.join(self.headers.get("location", ""))))
            return Fault("http.redirect_not_followed", f"got {self.status}: redirects to {to}, which is not followed")
        return None

    def _content_fault(self) -> Fault | None:
        streams = self.content_type == "text/event-stream"
        if streams or (
            self.request.method != "GET" and (self.status == 202 or self.content_type == "application/json")
        ):
            return None
        return Fault("mcp.not_mcp", f"answers {self.content_type or 'nothing'}, not MCP")


class HttpLine:
    """An open line. Everything that the SDK sends and hears goes through its transport, which bounds and notes it."""

    def __init__(self, wire: Wire, endpoint: Endpoint, trace: Trace, facts: dict[str, Json], now: int) -> None:
        self.wire, self.endpoint, self.trace, self.facts, self.now = wire, endpoint, trace, facts, now
        self.incoming: AsyncIterable[SessionMessage | Exception]
        self.outgoing: Sink
        self.reply: _Reply | None = None
        self.error: Exception | None = None
        """What went wrong below the SDK, which may swallow it on its way up."""
        self.abort: Callable[[], None] = lambda: None
        """Ends the visit."""
        self.limit: float | None = None
        """The loop's time at which reading and writing end; None: when the caller says so."""
        self._read = 0

    def count(self, size: int) -> None:
        self._read += size
        if self._read > MOST:
            raise Fault("body.too_large", f"answers more than {MOST >> 20} MiB")

    @property
    def turned_away(self) -> bool:
        return self.reply is not None and self.reply.status in _GATEKEEPERS

    def fail(self, error: Exception) -> None:
        """Over server-sent events the SDK keeps quiet about it and waits on: then the visit ends here."""
        self.error = error
        if self.endpoint.sse:
            self.abort()

    def fault(self, error: Exception) -> Fault | None:
        """What an exception that got through the SDK stands for; None: a bug."""
        errors = [error, self.error] if self.error else [error]
        if fault := fault_of(ExceptionGroup("", errors)) or (self.reply and self.reply.fault()):
            return fault
        if self.endpoint.sse and self.reply is not None:  # its stream ended too early, or holds what is no event
            return self.reply.as_evidence(Fault("mcp.not_mcp", "its event stream is not one of MCP"))
        return None

    async def explain(self, error: MCPError) -> Fault | None:
        if self.error is not None and (fault := fault_of(self.error)):
            return fault
        if self.reply is not None:
            if fault := self.reply.fault():
                return fault
            if self.reply.status == 202:
                return Fault("mcp.invalid_response", "got 202, which promises no reply")
            if error.code == PARSE_ERROR:
                return self.reply.as_evidence(Fault("mcp.not_mcp", "answers what is not JSON-RPC"))
        if error.code == CONNECTION_CLOSED and not (self.reply and self.reply.is_rpc_error):
            return Fault("connection.lost", "connection closed before the reply came", retryable=True)
        return None


@asynccontextmanager
async def http_line(
    wire: Wire, endpoint: Endpoint, trace: Trace, facts: dict[str, Json], now: int
) -> AsyncIterator[HttpLine]:
    """Raises Fault."""
    line = HttpLine(wire, endpoint, trace, facts, now)
    context = wire.context(endpoint.tls) if endpoint.url.startswith("https:") else None
    with anyio.CancelScope() as scope:
        line.abort = scope.cancel
        try:
            async with _opened(line, context):
                yield line
        except Exception as error:
            fault = line.fault(error)
            if fault is None:
                raise
            raise fault from None
    if line.error is not None and (fault := fault_of(line.error)) and scope.cancelled_caught:
        raise fault


@asynccontextmanager
async def _opened(line: HttpLine, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    url = line.endpoint.url
    async with httpcore2.AsyncConnectionPool(ssl_context=context, network_backend=_Backend(line)) as pool:
        client = _client(line, pool)
        if line.endpoint.sse:
            async with sse_client(url, httpx_client_factory=lambda headers=None, timeout=None, auth=None: client) as (
                line.incoming,
                line.outgoing,
            ):
                yield
        else:
            async with (
                client,
                streamable_http_client(url, http_client=client, max_sse_event_size=MOST) as (
                    line.incoming,
                    line.outgoing,
                ),
            ):
                yield


def _client(line: HttpLine, pool: httpcore2.AsyncConnectionPool) -> httpx2.AsyncClient:
    ours = {"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"}
    return httpx2.AsyncClient(
        transport=_Transport(line, pool),
        headers=ours | dict(line.endpoint.headers),
        timeout=None,
        trust_env=False,
    )


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, line: HttpLine, pool: httpcore2.AsyncConnectionPool) -> None:
        self._line, self._pool = line, pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        line = self._line
        if request.method == "GET" and not line.endpoint.sse and "last-event-id" not in request.headers:
            # The stream for what a server says unasked. We do not listen, and some log a traceback when it ends.
            return httpx2.Response(405, request=request)
        if request.method == "DELETE":
            line.limit = asyncio.get_running_loop().time() + LAST_WORD
        try:
            response = await self._pool.handle_async_request(self._core_request(request))
            reply = line.reply = _Reply(response.status, httpx2.Headers(response.headers), request)
            body = _Body(response, reply, line)
            if reply.status == 202 or reply.fault():
                # The SDK will not read it. But a connection serves again only when it was, and people want to know why.
                await body.read_head()
        except Exception as error:
            line.fail(error)
            raise
        if line.endpoint.sse and request.method == "POST" and (fault := reply.fault()):
            line.fail(fault)
        headers = [(k, v) for k, v in response.headers if k.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=headers, stream=body, request=request)

    def _core_request(self, request: httpx2.Request) -> httpcore2.Request:
        url = request.url
        return httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
        )


class _Body(httpx2.AsyncByteStream):
    """An answer's body, decoded, its beginning kept."""

    def __init__(self, response: httpcore2.Response, reply: _Reply, line: HttpLine) -> None:
        self._response, self._reply, self._line = response, reply, line
        encoding = str(reply.headers.get("content-encoding", "identity")).strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Fault("protocol.error", f"answers encoded as {encoding}, which was not asked for")
        self._decoder = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._chunks = aiter(response.stream)  # type: ignore[arg-type] # of an async client
        self._ahead: list[bytes] = []

    async def read_head(self) -> None:
        while len(self._reply.head) < SHOWN and (chunk := await self._next()) is not None:
            self._ahead.append(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._ahead:
            yield self._ahead.pop(0)
        while (chunk := await self._next()) is not None:
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()

    async def _next(self) -> bytes | None:
        try:
            chunk = await anext(self._chunks, None)
            data = None if chunk is None else self._decoded(chunk)
        except Exception as error:
            self._line.fail(error)
            raise
        if data is not None:
            self._reply.head += data[: CHUNK - len(self._reply.head)]
        return data

    def _decoded(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            data = self._decoder.decompress(chunk, MOST + 1)
        except zlib.error:
            raise Fault("protocol.error", "the body says that it is compressed, but it is not") from None
        self._line.count(len(data))
        return data


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects as every probe of ours does: names looked up aside, addresses filtered, phases counted."""

    def __init__(self, line: HttpLine) -> None:
        self._line = line

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the SDK's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        line = self._line
        async with asyncio.timeout_at(line.limit):
            trace = Trace() if "address" in line.facts else line.trace  # the phases are those of the first connection
            sock = await line.wire.dial(host, port, trace, line.endpoint.egress)
            line.facts["address"] = shown_address(sock.getpeername())
            reader, writer = await asyncio.open_connection(sock=sock, limit=CHUNK)
        return _Connection(reader, writer, line, trace)


class _Connection(httpcore2.AsyncNetworkStream):
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: HttpLine, trace: Trace
    ) -> None:
        self._reader, self._writer, self._line, self._trace = reader, writer, line, trace

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's seam
        async with asyncio.timeout_at(self._line.limit):
            data = await self._reader.read(min(max_bytes, CHUNK))
        self._line.count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's seam
        try:
            async with asyncio.timeout_at(self._line.limit):
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
        line, endpoint = self._line, self._line.endpoint
        told = Request(endpoint.url, tls=endpoint.tls, egress=endpoint.egress, trace=self._trace, now=line.now)
        try:
            async with asyncio.timeout_at(line.limit):
                line.facts["cert_days"] = await secure(line.wire, self._writer, parse_url(endpoint.url), told)
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
