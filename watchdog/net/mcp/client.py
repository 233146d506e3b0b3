"""The MCP requests over an open transport: negotiate, list tools, call a tool, read a resource."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

import anyio
from mcp import ClientSession, MCPError
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.message import SessionMessage
from mcp.types import (
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceResult,
)
from pydantic import ValidationError

from watchdog.domain.model import Evidence, Json
from watchdog.domain.reasons import generalize_http_status_reason, get_reason_family
from watchdog.domain.text import truncate_to_single_line, truncate_with_ellipsis
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.mcp.large_messages import build_mcp_result_with_required_members_only
from watchdog.net.mcp.received_messages import McpMessageInspector
from watchdog.net.mcp.reply_errors import (
    build_probe_error_from_mcp_error,
    error_from_invalid_mcp_reply,
    error_from_unsupported_mcp_version,
    find_mcp_input_required_error,
)
from watchdog.net.mcp.results import (
    add_missing_mcp_result_members,
    build_mcp_tools_from_list_page,
    extract_mcp_resource_value,
    extract_mcp_tool_result_value_and_text,
    list_capability_names,
)
from watchdog.net.mcp.session_result import McpSessionResult
from watchdog.net.mcp.tool_schema import replace_invalid_tool_schemas
from watchdog.net.phases import PhaseTimer

LEGACY_MCP_PROTOCOL_ERA = "legacy"
"""The protocol era of the `initialize` handshake. The modern era is identified by its protocol version."""
MCP_DISCOVER_METHOD, MCP_LIST_TOOLS_METHOD, MCP_LOG_MESSAGE_METHOD = (
    "server/discover",
    "tools/list",
    "notifications/message",
)
MAX_TOOL_LIST_PAGES = 100
MCP_SERVER_GONE_REASONS = ("mcp.server_exited", "mcp.output_closed")
MCP_DISCOVER_REQUEST_TIMEOUT_S = 5.0
"""Timeout for `server/discover`: some servers never respond to a method that they do not know."""
MAX_MCP_LOG_MESSAGE_CHARS = 200

T = TypeVar("T")


class McpMessageSender(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...


class OpenMcpTransport(Protocol):
    """An open connection to an MCP server."""

    @property
    def incoming(self) -> AsyncIterable[SessionMessage | Exception]: ...

    @property
    def message_sender(self) -> McpMessageSender: ...

    async def translate_error(self, error: MCPError, *, was_received: bool) -> ProbeError | None:
        """The transport error behind an error that the SDK made up. None: the server itself responded with it.

        `was_received`: the transport delivered the error. The code reveals nothing, because servers use the codes of
        the SDK as well.
        """

    def build_server_output_evidence(self) -> Evidence:
        """What the server has sent so far, apart from MCP messages that were read."""

    @property
    def rejected_by_gateway(self) -> bool:
        """Whether a gateway sent the last response, which then reveals nothing about the server's protocol."""


def is_refusal_of_modern_era(error: ProbeError) -> bool:
    """Whether a response to `server/discover`, or its end without one, shows that the server does not know it. An
    internal error shows nothing."""
    is_client_error = generalize_http_status_reason(error.reason) == "http.4xx"
    return is_client_error or get_reason_family(error.reason) in ("mcp", "connection", "protocol")


@contextmanager
def measure_phase_and_tag_errors(phase_timer: PhaseTimer, name: str) -> Iterator[None]:
    """As PhaseTimer.measure; an error that names no phase gets this one."""
    with phase_timer.measure(name):
        try:
            yield
        except ProbeError as error:
            error.phase = name if error.phase is None else error.phase
            raise


@asynccontextmanager
async def open_mcp_client_over_transport(
    transport: OpenMcpTransport, result: McpSessionResult, received: McpMessageInspector
) -> AsyncIterator[McpClient]:
    """Opens an SDK session over the transport, with a relay in each direction.

    The incoming relay rejects replies to requests that were never sent; the SDK would ignore them and wait until the
    deadline. It ends before the session does: what a server sends after the last response is of no interest, and must
    not meet a closed stream, which would look like a lost connection. The outgoing relay goes on until the session has
    ended and has a buffer, because the SDK sends a last message, shielded, when it is cancelled.
    """
    result.build_server_output_evidence = transport.build_server_output_evidence
    inbox, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outbox = anyio.create_memory_object_stream[SessionMessage](16)
    receiving = anyio.CancelScope()

    async def forward_received_messages_to_session() -> None:
        with receiving, suppress(anyio.BrokenResourceError):  # the session may close its end first
            async for item in transport.incoming:
                if receiving.cancel_called:
                    return
                if not isinstance(item, Exception):
                    received.requests.mark_request_answered_or_reject_unknown_reply(item.message)
                    _record_details_discarded_by_mcp_sdk(item.message, result, received)
                await inbox.send(item)
            inbox.close()

    async def relay_outgoing_messages() -> None:
        async for item in outbox:
            if isinstance(item.message, JSONRPCRequest):
                received.requests.add(item.message)
            await transport.message_sender.send(item)

    client_info = Implementation(name="watchdog-monitor", version="1")
    async with inbox, incoming, outgoing, outbox, anyio.create_task_group() as relays:
        relays.start_soon(forward_received_messages_to_session)
        relays.start_soon(relay_outgoing_messages)
        async with ClientSession(incoming, outgoing, client_info=client_info) as session:
            try:
                yield McpClient(session, transport, result, received)
            finally:
                receiving.cancel()
        relays.cancel_scope.cancel()


def _record_details_discarded_by_mcp_sdk(
    message: JSONRPCMessage, result: McpSessionResult, received: McpMessageInspector
) -> None:
    """Keeps what the SDK hides of a message: an error's data, invalid schemas, the last log message."""
    if isinstance(message, JSONRPCError):
        received.errors.append(message.error)
        if message.id is None:  # the session ignores it: nothing shows which request it is about
            text = truncate_to_single_line(f"{message.error.code}: {message.error.message}")
            result.facts["error_without_id"] = truncate_with_ellipsis(text, MAX_MCP_LOG_MESSAGE_CHARS)
    elif isinstance(message, JSONRPCResponse):
        _record_details_of_mcp_result(message, received)
    elif isinstance(message, JSONRPCNotification) and message.method == MCP_LOG_MESSAGE_METHOD:
        line = truncate_to_single_line(str((message.params or {}).get("data")))
        result.facts["last_log_message"] = truncate_with_ellipsis(line, MAX_MCP_LOG_MESSAGE_CHARS)


def _record_details_of_mcp_result(message: JSONRPCResponse, received: McpMessageInspector) -> None:
    method = received.requests.find_mcp_method_of_reply(message)
    if error := find_mcp_input_required_error(method, message.result):
        received.input_required_errors[method] = error
        message.result = build_mcp_result_with_required_members_only(method, message.result)
    add_missing_mcp_result_members(method, message.result, received.protocol_version)
    if method == MCP_LIST_TOOLS_METHOD:
        problems = replace_invalid_tool_schemas(message.result, received.schema_budget, received.protocol_version)
        received.tool_problems |= problems.schema_problems
        received.unusable_tools |= problems.unusable_tools


class McpClient:
    """Sends MCP requests over one session and records the responses in `result`.

    Every method raises ProbeError, possibly inside an exception group, because the SDK runs task groups.
    """

    def __init__(
        self,
        session: ClientSession,
        transport: OpenMcpTransport,
        result: McpSessionResult,
        received: McpMessageInspector,
    ) -> None:
        self.session, self.transport, self.result = session, transport, result
        self._received = received

    async def negotiate(self, protocol_era: str, reconsider_after_s: float, discovery_timeout_s: float) -> None:
        """Agrees on a protocol version. `protocol_era`: the server's era, if it is remembered; else empty.

        `reconsider_after_s`: how long a server may take to respond in its remembered era, until the other era is tried
        as well. `discovery_timeout_s` limits the attempt to find out an era that is not remembered.
        """
        session, result = self.session, self.result
        if not protocol_era:
            if not await self._try_negotiate_by_discover(discovery_timeout_s):
                await self._negotiate_by_initialize()
        elif protocol_era == LEGACY_MCP_PROTOCOL_ERA:
            await self._request_with_delayed_fallback(
                self._negotiate_by_initialize, self._negotiate_by_discover, reconsider_after_s
            )
        else:
            await self._request_with_delayed_fallback(
                self._negotiate_by_discover, self._negotiate_by_initialize, reconsider_after_s
            )
        result.protocol_version = self._received.protocol_version = session.protocol_version or ""
        result.protocol_era = LEGACY_MCP_PROTOCOL_ERA if session.initialize_result else result.protocol_version
        if session.server_info:
            result.server_name, result.server_version = session.server_info.name, session.server_info.version
        result.instructions = session.instructions or ""
        result.capabilities = list_capability_names(session.server_capabilities)

    async def _request_with_delayed_fallback(
        self, expected: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]], other_after_s: float
    ) -> None:
        """Awaits the response to `expected`. If it does not come in time, `other` is requested as well, and the first
        response decides: the server may be slow, or may no longer know the method."""

        async def request_fallback_after_delay() -> None:
            await anyio.sleep(other_after_s)
            with suppress(ProbeError):
                await other()
                requests.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as requests:
                requests.start_soon(request_fallback_after_delay)
                await expected()
                requests.cancel_scope.cancel()
        except ExceptionGroup as group:
            raise build_probe_error_from_exception(group) or group from None

    async def _try_negotiate_by_discover(self, discovery_timeout_s: float) -> bool:
        """Whether the server supports the modern era. Any error counts as no, unless it comes from a gateway, or the
        connection is gone."""
        with anyio.move_on_after(discovery_timeout_s):
            try:
                await self._negotiate_by_discover()
                return True
            except ProbeError as error:
                is_gone = get_reason_family(error.reason) == "connection" or error.reason in MCP_SERVER_GONE_REASONS
                if self.transport.rejected_by_gateway or is_gone:
                    raise
        return False

    async def _negotiate_by_discover(self) -> None:
        try:
            await self._await_mcp_reply_translating_errors(MCP_DISCOVER_METHOD, self.session.discover())
        except ProbeError as error:
            self.result.has_refused_modern_era |= is_refusal_of_modern_era(error)
            raise
        except RuntimeError as error:
            raise error_from_unsupported_mcp_version(error) from error

    async def _negotiate_by_initialize(self) -> None:
        try:
            await self._await_mcp_reply_translating_errors("initialize", self.session.initialize())
        except ProbeError as error:
            code = error.facts.get("rpc_error_code")
            is_modern_only = code == METHOD_NOT_FOUND and not self.result.has_refused_modern_era
            if code != UNSUPPORTED_PROTOCOL_VERSION and not is_modern_only:
                raise
            # A slow server processed the earlier request after its timeout, so that the era is settled; or it knows the
            # modern era alone.
            await self._negotiate_by_discover()
        except RuntimeError as runtime_error:
            raise error_from_unsupported_mcp_version(runtime_error) from runtime_error

    async def list_tools_into_result(self) -> None:
        result, previous_cursors = self.result, set[str]()
        cursor: str | None = None
        while True:
            page = await self._fetch_tool_page(cursor)
            result.tool_page_count += 1
            tools = build_mcp_tools_from_list_page(page, self._received.tool_problems)
            if large := self._received.take_large_mcp_result(MCP_LIST_TOOLS_METHOD):
                result.large_results.append(large)
                result.callable_tools += tools
            else:
                result.tools += tools
            cursor = page.next_cursor
            if not cursor:  # some servers end the list with an empty one
                return
            if cursor in previous_cursors:
                raise ProbeError(
                    "mcp.cursor_loop", f"tools/list never ends: page {result.tool_page_count} repeats a cursor"
                )
            if result.tool_page_count == MAX_TOOL_LIST_PAGES:
                raise ProbeError("mcp.too_many_pages", f"tools/list has more than {MAX_TOOL_LIST_PAGES} pages")
            previous_cursors.add(cursor)

    async def _fetch_tool_page(self, cursor: str | None) -> ListToolsResult:
        params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
        try:
            return await self._await_mcp_reply_translating_errors(
                MCP_LIST_TOOLS_METHOD, self.session.list_tools(params=params)
            )
        except ProbeError as error:
            if error.facts.get("rpc_error_code") == METHOD_NOT_FOUND and cursor is None:
                return ListToolsResult(tools=[])  # a server without tools need not implement the method
            raise

    async def call_tool_into_result(
        self, tool: str, arguments: Mapping[str, Json], on_progress: ProgressFnT | None = None
    ) -> None:
        """`on_progress` receives the progress that the tool reports while it runs."""
        # session.call_tool() would discard a result that does not match the tool's own schema.
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        if problem := self._received.unusable_tools.get(tool):
            raise ProbeError("mcp.tool_unusable", f"tool {tool} is listed, but MCP clients must not call it: {problem}")
        self.result.called_tool = tool
        response = await self._await_mcp_reply_translating_errors(
            "tools/call", self.session.send_request(request, CallToolResult, progress_callback=on_progress)
        )
        self.result.tool_is_error = response.is_error
        if large := self._received.take_large_mcp_result("tools/call"):
            self.result.large_results.append(large)
            self.result.tool_result, self.result.tool_result_text = large.summary, large.excerpt
        else:
            self.result.tool_result, self.result.tool_result_text = extract_mcp_tool_result_value_and_text(response)

    async def read_resource_into_result(self, uri: str) -> None:
        try:
            response: ReadResourceResult = await self._await_mcp_reply_translating_errors(
                "resources/read", self.session.read_resource(uri)
            )
        except ProbeError as error:
            if error.reason == "mcp.resource_missing":
                error.message += f" ({uri})"
            raise
        if large := self._received.take_large_mcp_result("resources/read"):
            self.result.large_results.append(large)
            self.result.resource_content = large.summary
            return
        self.result.resource_content = extract_mcp_resource_value(response)
        if not response.contents:
            raise ProbeError("mcp.resource_empty", f"resource {uri} is empty")

    async def _await_mcp_reply_translating_errors(self, method: str, pending_response: Awaitable[T]) -> T:
        self.result.last_method = method
        try:
            response = await pending_response
        except MCPError as mcp_error:
            error = await self._build_error_from_mcp_error(method, mcp_error)
            error.facts["rpc_method"] = method
            raise error from mcp_error
        except ValidationError as validation_error:
            error = self._received.find_error_of_result(method) or error_from_invalid_mcp_reply(
                method, validation_error
            )
            error.facts["rpc_method"] = method
            raise error from validation_error
        if result_error := self._received.find_error_of_result(method):
            raise result_error
        return response

    async def _build_error_from_mcp_error(self, method: str, mcp_error: MCPError) -> ProbeError:
        received = any((e.code, e.message) == (mcp_error.code, mcp_error.message) for e in self._received.errors)
        error = await self.transport.translate_error(mcp_error, was_received=received)
        return error or build_probe_error_from_mcp_error(method, mcp_error)
