"""MCP over HTTP: the streamable HTTP transport and the older one over server-sent events (SSE)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpcore2
import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from watchdog.domain.model import Json
from watchdog.net.connector import Connector
from watchdog.net.content_encoding import ContentDecoder, UnsupportedEncodingError
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.mcp.event_stream import ByteOrderMarkRemover, EventNameNormalizer
from watchdog.net.mcp.http_connection import NetworkBackend
from watchdog.net.mcp.http_response import ResponseInfo
from watchdog.net.mcp.http_transport import (
    READ_CHUNK_BYTES,
    HttpTransport,
    McpHttpEndpoint,
)
from watchdog.net.mcp.reply_errors import MAX_ERROR_EXCERPT_CHARS
from watchdog.net.phases import PhaseTimer

SESSION_CLOSE_TIMEOUT_S = 0.3
"""Timeout for ending a session."""


@asynccontextmanager
async def open_http_transport(
    connector: Connector,
    endpoint: McpHttpEndpoint,
    phase_timer: PhaseTimer,
    facts: dict[str, Json],
    *,
    now: int,
    endpoint_event_timeout_s: float,
) -> AsyncIterator[HttpTransport]:
    """`endpoint_event_timeout_s`: for SSE, the time within which the server must send its first event. Raises
    ProbeError."""
    loop = asyncio.get_running_loop()
    transport = HttpTransport(connector, endpoint, phase_timer, facts, now)
    ssl_context = connector.ssl_context(endpoint.tls) if endpoint.url.startswith("https:") else None
    with anyio.CancelScope() as scope:
        transport.cancel_session = scope.cancel
        try:
            waiting = loop.call_later(endpoint_event_timeout_s, transport.report_missing_endpoint)
            try:
                async with _open_streams(transport, ssl_context):
                    waiting.cancel()
                    yield transport
            finally:
                waiting.cancel()
        except asyncio.CancelledError:
            if isinstance(transport.transport_error, ProbeError) and transport.transport_error.precedes_deadline:
                raise transport.transport_error from None
            raise
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
        ssl_context=ssl_context, network_backend=NetworkBackend(transport)
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
                streamable_http_client(
                    url, http_client=client, max_sse_event_size=transport.endpoint.max_session_bytes
                ) as (
                    transport.incoming,
                    transport.outgoing,
                ),
            ):
                yield


@asynccontextmanager
async def open_http_client(
    connector: Connector, endpoint: McpHttpEndpoint, now: int
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client for single requests to the server, with the same limits."""
    transport = HttpTransport(connector, endpoint, PhaseTimer(), {}, now)
    ssl_context = connector.ssl_context(endpoint.tls) if endpoint.url.startswith("https:") else None
    backend = NetworkBackend(transport)
    async with (
        httpcore2.AsyncConnectionPool(ssl_context=ssl_context, network_backend=backend) as pool,
        _create_httpx_client(transport, pool) as client,
    ):
        yield client


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
            self._decoder = ContentDecoder(encoding, transport.endpoint.max_session_bytes)
        except UnsupportedEncodingError as error:
            raise ProbeError(
                "body.invalid_encoding", f"the response is encoded as {error}, which was not requested"
            ) from None
        self._chunks = aiter(response.stream)  # type: ignore[arg-type] # of an async client
        self._prefetched_chunks: list[bytes] = []
        self._filters: list[ByteOrderMarkRemover | EventNameNormalizer] = [ByteOrderMarkRemover()]
        if response_info.content_type == "text/event-stream":
            response_info.events = EventNameNormalizer(expects_endpoint=transport.endpoint.use_sse)
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
