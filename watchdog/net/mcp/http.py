"""MCP over HTTP: the streamable HTTP transport and the older one over server-sent events (SSE)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from watchdog.domain.model import Json
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP
from watchdog.net.connector import TcpConnector
from watchdog.net.content_encoding import ContentEncodingDecoder, UnsupportedContentEncodingError
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.mcp.event_stream import (
    ByteOrderMarkRemover,
    SseEventSplitter,
    extract_sse_event_data,
    normalize_mcp_sse_event,
    raise_if_sse_endpoint_has_other_origin,
)
from watchdog.net.mcp.http_connection import McpHttpConnections, McpHttpExchange
from watchdog.net.mcp.http_response import McpHttpResponse
from watchdog.net.mcp.http_transport import (
    MCP_HTTP_READ_CHUNK_BYTES,
    McpHttpEndpoint,
    McpHttpTransport,
)
from watchdog.net.mcp.large_messages import (
    decompress_mcp_response_body,
    shorten_large_mcp_message_in_body,
    shorten_large_mcp_message_in_sse_event,
)
from watchdog.net.mcp.message_text import contains_awaited_mcp_reply, normalize_jsonrpc_message
from watchdog.net.mcp.received_messages import McpMessageInspector
from watchdog.net.mcp.reply_errors import MAX_MCP_ERROR_EXCERPT_CHARS
from watchdog.net.mcp.request_log import LoggedMcpHttpRequest
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector

MCP_SESSION_CLOSE_TIMEOUT_S = 0.3
"""Timeout for ending a session."""


@asynccontextmanager
async def open_mcp_http_transport(
    connector: TcpConnector,
    endpoint: McpHttpEndpoint,
    received: McpMessageInspector,
    facts: dict[str, Json],
    *,
    now: int,
    endpoint_event_timeout_s: float,
) -> AsyncIterator[McpHttpTransport]:
    """`endpoint_event_timeout_s`: for SSE, the time within which the server must send its first event. Raises
    ProbeError."""
    loop = asyncio.get_running_loop()
    transport = McpHttpTransport(connector, endpoint, received, facts, now)
    if endpoint.url.startswith("https:"):
        connector.get_ssl_context(endpoint.tls)  # fails before connecting if a file is unusable
    with anyio.CancelScope() as scope:
        transport.cancel_session = scope.cancel
        try:
            waiting = loop.call_later(endpoint_event_timeout_s, transport.fail_for_missing_sse_endpoint)
            try:
                async with _attach_mcp_sdk_streams_to_transport(transport):
                    waiting.cancel()
                    yield transport
            finally:
                waiting.cancel()
        except asyncio.CancelledError:
            if known_error := transport.find_error_known_before_deadline():
                raise known_error from None
            raise
        except Exception as exception:
            error = transport.translate_mcp_sdk_exception(exception)
            if error is None:
                raise
            raise error from None
    if (
        transport.transport_error is not None
        and (error := build_probe_error_from_exception(transport.transport_error))
        and scope.cancelled_caught
    ):
        raise error


@asynccontextmanager
async def _attach_mcp_sdk_streams_to_transport(transport: McpHttpTransport) -> AsyncIterator[None]:
    url = transport.endpoint.url
    async with McpHttpConnections(transport) as connections:
        client = _create_mcp_httpx_client(transport, connections)
        if transport.endpoint.use_sse:
            transport.reads_event_stream = True
            async with sse_client(url, httpx_client_factory=lambda headers=None, timeout=None, auth=None: client) as (
                transport.incoming,
                transport.message_sender,
            ):
                yield
        else:
            async with (
                client,
                streamable_http_client(
                    url, http_client=client, max_sse_event_size=transport.endpoint.max_session_bytes
                ) as (
                    transport.incoming,
                    transport.message_sender,
                ),
            ):
                yield


@asynccontextmanager
async def open_mcp_http_client(
    connector: TcpConnector, endpoint: McpHttpEndpoint, now: int
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client for single requests to the server, with the same limits."""
    received = McpMessageInspector(None, PhaseTimer(), "")
    transport = McpHttpTransport(connector, endpoint, received, {}, now)
    async with (
        McpHttpConnections(transport) as connections,
        _create_mcp_httpx_client(transport, connections) as client,
    ):
        yield client


def _create_mcp_httpx_client(transport: McpHttpTransport, connections: McpHttpConnections) -> httpx2.AsyncClient:
    defaults = {"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"}
    return httpx2.AsyncClient(
        transport=_McpHttpxTransport(transport, connections),
        headers=httpx2.Headers(defaults | dict(transport.endpoint.headers), encoding="utf-8"),
        timeout=None,
        trust_env=False,
    )


class _McpHttpxTransport(httpx2.AsyncBaseTransport):
    """The transport of the SDK's HTTP client. Records responses and errors, which the SDK does not expose."""

    def __init__(self, transport: McpHttpTransport, connections: McpHttpConnections) -> None:
        self._transport, self._connections = transport, connections

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport = self._transport
        if request.method == "GET" and not transport.endpoint.use_sse and "last-event-id" not in request.headers:
            # The SDK opens a stream for unsolicited messages. Watchdog reads none, and some servers log a traceback
            # when such a stream ends.
            return httpx2.Response(405, request=request)
        is_sse_post = request.method == "POST" and transport.reads_event_stream
        if request.method == "POST" and not transport.endpoint.use_sse:
            transport.transport_error = None  # of an earlier request, after which the session went on
        if request.method == "DELETE":
            transport.io_deadline = asyncio.get_running_loop().time() + MCP_SESSION_CLOSE_TIMEOUT_S
        logged = transport.request_log.begin(request.method, request.content if request.method == "POST" else b"")
        try:
            exchange = await self._connections.send(request)
            try:
                logged.note_response(exchange.status)
                info, body = await self._begin_response(exchange, request, logged, has_replies=not is_sse_post)
            except BaseException:
                exchange.close()
                raise
        except Exception as error:
            logged.note_end()
            transport.record_failure(error)
            raise
        if is_sse_post:
            transport.unread_responses[_parse_jsonrpc_id_text_of_http_request(request)] = info
            if status_error := info.find_mcp_response_error():
                transport.record_failure(status_error)
        kept_headers = [(k, v) for k, v in exchange.raw_headers if k.lower() != b"content-encoding"]
        return httpx2.Response(exchange.status, headers=kept_headers, stream=body, request=request)

    async def _begin_response(
        self, exchange: McpHttpExchange, request: httpx2.Request, logged: LoggedMcpHttpRequest, *, has_replies: bool
    ) -> tuple[McpHttpResponse, _McpHttpResponseStream]:
        headers = httpx2.Headers(exchange.raw_headers)
        info = McpHttpResponse(exchange.status, headers, request, has_replies=has_replies)
        self._transport.response_info = info
        if info.status == 401:
            self._transport.endpoint.reject_credentials()
        if info.session_id_error:
            raise info.session_id_error
        body = _McpHttpResponseStream(exchange, info, self._transport, logged)
        if info.status == 202 or info.find_mcp_response_error():
            # The SDK does not read this body. It is evidence, and a connection is reused only once it was read.
            await body.prefetch_body_start()
        return info, body


def _parse_jsonrpc_id_text_of_http_request(request: httpx2.Request) -> str:
    """Of the message in a POST; "None" for a notification."""
    return str(json.loads(request.content).get("id"))


class _McpHttpResponseStream(httpx2.AsyncByteStream):
    """A response body, decoded, its large messages replaced. Keeps its beginning as evidence."""

    def __init__(
        self,
        exchange: McpHttpExchange,
        response_info: McpHttpResponse,
        transport: McpHttpTransport,
        logged: LoggedMcpHttpRequest,
    ) -> None:
        self._exchange, self._response_info, self._transport = exchange, response_info, transport
        self._logged = logged
        max_bytes = transport.endpoint.max_session_bytes
        encoding = str(response_info.headers.get("content-encoding", ""))
        try:
            self._decoder = ContentEncodingDecoder(encoding, max_bytes)
        except UnsupportedContentEncodingError as error:
            raise ProbeError(
                "body.invalid_encoding", f"the response is encoded as {error}, which was not requested"
            ) from None
        self._prefetched_chunks: list[bytes] = []
        self._mark_remover = ByteOrderMarkRemover()
        self._json_body: BoundedBodyCollector | None = None
        if response_info.has_replies and response_info.content_type == "application/json":
            self._json_body = BoundedBodyCollector(encoding, max_bytes)
        if response_info.has_replies and response_info.content_type == "text/event-stream":
            response_info.events = SseEventSplitter()

    async def prefetch_body_start(self) -> None:
        while (
            len(self._response_info.body_start) < MAX_MCP_ERROR_EXCERPT_CHARS
            and (chunk := await self._read_next_chunk()) is not None
        ):
            self._prefetched_chunks.append(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._json_body is not None:
                yield await self._read_json_body_for_mcp_sdk(self._json_body)
                return
            async for chunk in self._iter_decoded_chunks():
                yield b"".join(
                    [await self._shorten_or_normalize_sse_event(event) for event in self._split_into_sse_events(chunk)]
                )
            yield self._mark_remover.flush() + self._take_unfinished_sse_event_and_reject_reply_in_it()
        except Exception as error:
            self._transport.record_failure(error)
            raise

    async def aclose(self) -> None:
        if self._response_info.request.method != "GET":  # an event stream lasts as long as the session
            self._logged.note_end()
        self._exchange.close()

    async def _read_json_body_for_mcp_sdk(self, body: BoundedBodyCollector) -> bytes:
        async for _ in self._iter_decoded_chunks():
            pass
        body.finish_and_require_complete_body()
        received = self._transport.received
        if received.count_bytes_and_check_if_large(body.decompressed_body_start, is_cut=body.is_large):
            return (await received.shorten_large_message_in_worker(shorten_large_mcp_message_in_body, body)).data
        return normalize_jsonrpc_message(
            decompress_mcp_response_body(body), received.requests.awaited_method_by_request_id
        )

    def _split_into_sse_events(self, chunk: bytes) -> list[bytes]:
        """Into events, if the body is a stream of events."""
        data, events = self._mark_remover.feed(chunk), self._response_info.events
        return [data] if events is None else events.feed(data)

    async def _shorten_or_normalize_sse_event(self, event: bytes) -> bytes:
        if (events := self._response_info.events) is None or b"data" not in event:
            return event  # clients ignore an event without data
        received, expects_endpoint = self._transport.received, self._transport.endpoint.use_sse
        if received.count_bytes_and_check_if_large(event):
            replacement = await received.shorten_large_message_in_worker(
                shorten_large_mcp_message_in_sse_event, event, expects_endpoint
            )
            event, has_error = replacement.data, replacement.has_error
        else:
            event, has_error = normalize_mcp_sse_event(
                event, received.requests.awaited_method_by_request_id, expects_endpoint=expects_endpoint
            )
            if expects_endpoint:
                raise_if_sse_endpoint_has_other_origin(event, self._transport.endpoint.url)
        events.has_error |= has_error
        return event

    def _take_unfinished_sse_event_and_reject_reply_in_it(self) -> bytes:
        """The end of the stream, which the SDK ignores. Raises ProbeError for a reply in it."""
        rest = events.flush() if (events := self._response_info.events) else b""
        if len(rest) > MAX_BODY_BYTES_IN_EVENT_LOOP:
            return rest
        awaited = self._transport.received.requests.awaited_method_by_request_id
        if contains_awaited_mcp_reply(extract_sse_event_data(rest), awaited):
            problem = "the event with the reply does not end with a blank line, so MCP clients ignore it"
            raise ProbeError("mcp.invalid_response", problem)
        if contains_awaited_mcp_reply(rest, awaited):
            problem = "the reply is not an event, although its Content-Type is text/event-stream"
            raise ProbeError("mcp.invalid_response", problem)
        return rest

    async def _iter_decoded_chunks(self) -> AsyncIterator[bytes]:
        """Short ones, so that each is handled quickly."""
        while self._prefetched_chunks:
            yield self._prefetched_chunks.pop(0)
        while (chunk := await self._read_next_chunk()) is not None:
            yield chunk[:MCP_HTTP_READ_CHUNK_BYTES]
            for start in range(MCP_HTTP_READ_CHUNK_BYTES, len(chunk), MCP_HTTP_READ_CHUNK_BYTES):
                await asyncio.sleep(0)
                yield chunk[start : start + MCP_HTTP_READ_CHUNK_BYTES]

    async def _read_next_chunk(self) -> bytes | None:
        """The next part of the body, decoded unless it is JSON, which is collected as it was received."""
        try:
            chunk = await self._exchange.read_body()
            if not chunk:
                return None
            if self._json_body is not None:
                self._json_body.feed(chunk)
                self._response_info.body_start = self._json_body.decompressed_body_start[:MCP_HTTP_READ_CHUNK_BYTES]
                return b""
            data = bytes(self._decoder.decode(chunk))
        except Exception as error:
            self._transport.record_failure(error)
            raise
        if not self._decoder.is_body_uncompressed:  # the connection has counted the bytes as they were received
            self._transport.count_bytes_within_limit(len(data))
        self._response_info.body_start += data[: MCP_HTTP_READ_CHUNK_BYTES - len(self._response_info.body_start)]
        return data
