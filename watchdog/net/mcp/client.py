"""What is said to an MCP server once a line to it is open: negotiate, list, call, read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import anyio
from mcp import ClientSession, MCPError
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.message import SessionMessage
from mcp.types import (
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    BlobResourceContents,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceResult,
    TextContent,
    TextResourceContents,
)
from pydantic import ConfigDict, TypeAdapter, ValidationError

from watchdog.domain.model import Json
from watchdog.domain.text import shorten, to_single_line, truncate
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer

LEGACY_ERA = "legacy"
"""The era of the `initialize` handshake; the modern one is known by its version."""
MAX_TOOL_LIST_PAGES = 100
"""Pages of tools/list that are read."""
DISCOVERY_TIMEOUT_S = 5.0
"""Seconds that a server may take over `server/discover`; some never answer a method that they do not know."""
MAX_ERROR_EXCERPT_CHARS = 2_000
"""Characters of the target's own text in a fault."""

T = TypeVar("T")
_JSON_ADAPTER: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="null"))


class McpTool(NamedTuple):
    name: str
    needs_arguments: bool


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What to ask."""

    protocol_era: str = ""
    """LEGACY or a modern version: what this server is known to speak. Empty: find out."""
    choose_tool_call: Callable[[Sequence[McpTool]], tuple[str, Mapping[str, Json]] | None] = lambda tools: None
    """The tool to call, and its arguments, given what is listed; None: call nothing."""
    resource_uri: str = ""
    """The URI of a resource to read."""


@dataclass(slots=True)
class SessionResult:
    """What was learnt, filled in as it happens: after a fault it tells how far the visit came."""

    protocol_era: str = ""
    protocol_version: str = ""
    server_name: str = ""
    server_version: str = ""
    tools: list[McpTool] = field(default_factory=list)
    tool_page_count: int = 0
    called_tool: str = ""
    tool_is_error: bool = False
    tool_result: Json = None
    """What the tool answered: its structured content, else its text read as JSON, else its text."""
    tool_result_text: str = ""
    """The text of the tool's answer."""
    resource_content: Json = None
    """The resource's text, read as JSON where it is."""
    elapsed_ms: float | None = None
    """Milliseconds from the start until the last answer."""
    facts: dict[str, Json] = field(default_factory=dict)
    """What the line knows: address, exit code, ..."""


class MessageSender(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...


class Transport(Protocol):
    """An open line to a server."""

    @property
    def incoming(self) -> AsyncIterable[SessionMessage | Exception]: ...

    @property
    def outgoing(self) -> MessageSender: ...

    async def translate_error(self, error: MCPError) -> ProbeError | None:
        """What lies behind an error that the SDK made up; None: the server itself answered with it."""

    @property
    def rejected_by_gateway(self) -> bool:
        """The last answer came from a gatekeeper and says nothing about what the server speaks."""


@contextmanager
def measure_phase(phase_timer: PhaseTimer, name: str) -> Iterator[None]:
    """A phase that stays open when it is cancelled, so that a timeout can name it."""
    phase_timer.start_phase(name)
    try:
        yield
    except asyncio.CancelledError:
        phase_timer.freeze()
        raise
    except Exception as error:
        phase_timer.end_phase(name)
        if isinstance(error, ProbeError) and error.phase is None:
            error.phase = name
        raise
    phase_timer.end_phase(name)


@asynccontextmanager
async def create_mcp_client(transport: Transport, result: SessionResult) -> AsyncIterator[McpClient]:
    """Between line and session stand two relays. One tells a reply to a request that was never made, for which the SDK
    would wait until the deadline; the other has room, for the SDK sends a last word, shielded, while it is cancelled.
    """
    made: set[str] = set()
    inbox, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outbox = anyio.create_memory_object_stream[SessionMessage](16)

    async def receive() -> None:
        async for item in transport.incoming:
            if not isinstance(item, Exception):
                _check_response_id(item, made)
            await inbox.send(item)
        inbox.close()

    async def send() -> None:
        async for item in outbox:
            if isinstance(item.message, JSONRPCRequest):
                made.add(str(item.message.id))
            await transport.outgoing.send(item)

    us = Implementation(name="watchdog-monitor", version="1")
    async with inbox, incoming, outgoing, outbox, anyio.create_task_group() as relays:
        relays.start_soon(receive)
        relays.start_soon(send)
        async with ClientSession(incoming, outgoing, client_info=us) as session:
            yield McpClient(session, transport, result)
        relays.cancel_scope.cancel()


def _check_response_id(message: SessionMessage, sent_request_ids: set[str]) -> None:
    if isinstance(message.message, JSONRPCResponse | JSONRPCError):
        given = message.message.id
        if (
            given is not None and str(given) not in sent_request_ids
        ):  # an error without an id answers what could not be read
            raise ProbeError("mcp.unexpected_id", f"replies to request {str(given)[:40]!r}, which was never made")


class McpClient:
    """The questions. Each fills in what it learnt and raises Fault, which may come out in a group."""

    def __init__(self, session: ClientSession, transport: Transport, result: SessionResult) -> None:
        self.session, self.transport, self.result = session, transport, result

    async def negotiate(self, protocol_era: str, discovery_timeout_s: float) -> None:
        """`patience`: seconds that finding out the era may take."""
        session, seen = self.session, self.result
        if protocol_era and protocol_era != LEGACY_ERA:
            await self._discover()
        elif protocol_era == LEGACY_ERA or not await self._try_discover(discovery_timeout_s):
            await self._initialize()
        seen.protocol_version = session.protocol_version or ""
        seen.protocol_era = LEGACY_ERA if session.initialize_result else seen.protocol_version
        if session.server_info:
            seen.server_name, seen.server_version = session.server_info.name, session.server_info.version

    async def _try_discover(self, discovery_timeout_s: float) -> bool:
        """Whether the server speaks the modern era. Anything but a clear yes is a no; an outage is neither."""
        with anyio.move_on_after(discovery_timeout_s):
            try:
                await self._discover()
                return True
            except ProbeError:
                if self.transport.rejected_by_gateway:
                    raise
        return False

    async def _discover(self) -> None:
        try:
            await self._await_response("server/discover", self.session.discover())
        except RuntimeError as error:
            raise _unsupported_protocol_error(error) from error

    async def _initialize(self) -> None:
        try:
            await self._await_response("initialize", self.session.initialize())
        except ProbeError as fault:
            if fault.facts.get("rpc_error_code") != UNSUPPORTED_PROTOCOL_VERSION:
                raise
            await self._discover()  # a slow starter had heard the question after all, and that settled the era
        except RuntimeError as error:
            raise _unsupported_protocol_error(error) from error

    async def list_tools(self) -> None:
        seen, cursors = self.result, set[str]()
        cursor: str | None = None
        while True:
            page = await self._fetch_tool_page(cursor)
            seen.tool_page_count += 1
            seen.tools += [McpTool(tool.name, bool(tool.input_schema.get("required"))) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in cursors:
                raise ProbeError(
                    "mcp.cursor_loop", f"tools/list goes round in circles: page {seen.tool_page_count} repeats a cursor"
                )
            if seen.tool_page_count == MAX_TOOL_LIST_PAGES:
                raise ProbeError("mcp.too_many_pages", f"tools/list has more than {MAX_TOOL_LIST_PAGES} pages")
            cursors.add(cursor)

    async def _fetch_tool_page(self, cursor: str | None) -> ListToolsResult:
        params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
        try:
            return await self._await_response("tools/list", self.session.list_tools(params=params))
        except ProbeError as fault:
            if fault.facts.get("rpc_error_code") == METHOD_NOT_FOUND and cursor is None:
                return ListToolsResult(tools=[])  # a server without tools need not know the method
            raise

    async def call_tool(self, tool: str, arguments: Mapping[str, Json], on_progress: ProgressFnT | None = None) -> None:
        """`progress` hears how far the tool says it is while it works."""
        # Not session.call_tool(): that throws away an answer which does not fit the tool's own schema.
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        self.result.called_tool = tool
        asking = self.session.send_request(request, CallToolResult, progress_callback=on_progress)
        answer = await self._await_response("tools/call", asking)
        self.result.tool_is_error = answer.is_error
        self.result.tool_result_text = "\n".join(
            block.text for block in answer.content if isinstance(block, TextContent)
        )
        self.result.tool_result = _parse_tool_result(answer.structured_content, self.result.tool_result_text)

    async def read_resource(self, uri: str) -> None:
        answer: ReadResourceResult = await self._await_response("resources/read", self.session.read_resource(uri))
        for part in answer.contents:
            match part:
                case TextResourceContents():
                    self.result.resource_content = _parse_json_or_text(part.text)
                    return
                case BlobResourceContents():
                    self.result.resource_content = part.blob
        if not answer.contents:
            raise ProbeError("mcp.resource_empty", f"resource {uri} has no contents")

    async def _await_response(self, method: str, pending_response: Awaitable[T]) -> T:
        try:
            return await pending_response
        except (MCPError, ValidationError) as error:
            fault = (
                await self._error_from_mcp_error(method, error)
                if isinstance(error, MCPError)
                else _invalid_reply_error(method, error)
            )
            fault.facts["rpc_method"] = method
            raise fault from error

    async def _error_from_mcp_error(self, method: str, error: MCPError) -> ProbeError:
        fault = await self.transport.translate_error(error)
        if fault is None:
            words = to_single_line(error.message)
            fault = ProbeError("mcp.rpc_error", f"{method} answers error {error.code}: {words}")
            fault.facts["rpc_error_code"] = error.code
            if error.data is not None:
                fault.excerpt = truncate(json.dumps(error.data, default=str), MAX_ERROR_EXCERPT_CHARS)
        return fault


def _invalid_reply_error(method: str, error: ValidationError) -> ProbeError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return ProbeError("mcp.invalid_response", f"{method} answers what MCP does not allow: {where}: {first['msg']}")


def _unsupported_protocol_error(error: RuntimeError) -> ProbeError:
    versions = shorten(str(error).rpartition(": ")[2], 60)
    return ProbeError("mcp.unsupported_version", f"speaks no version of MCP that we know ({versions})")


def _parse_tool_result(structured: Any, text: str) -> Json:
    """Servers wrap what is no object as {"result": ...} and repeat it bare as text: then the text is what was meant."""
    parsed = _parse_json_or_text(text)
    if structured is None:
        return parsed
    if isinstance(structured, dict) and structured.keys() == {"result"} and structured["result"] in (text, parsed):
        return parsed
    return _JSON_ADAPTER.dump_python(structured, mode="json")


def _parse_json_or_text(text: str) -> Json:
    try:
        return _JSON_ADAPTER.dump_python(_JSON_ADAPTER.validate_json(text), mode="json")
    except ValueError:
        return text
