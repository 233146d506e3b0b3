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

from watchdog.model import Json
from watchdog.wire.faults import Fault
from watchdog.wire.redact import cap
from watchdog.wire.trace import Trace

LEGACY = "legacy"
"""The era of the `initialize` handshake; the modern one is known by its version."""
PAGES = 100
"""Pages of tools/list that are read."""
DISCOVERY = 5.0
"""Seconds that a server may take over `server/discover`; some never answer a method that they do not know."""
SHOWN = 2_000
"""Characters of the target's own text in a fault."""

T = TypeVar("T")
_JSON: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="null"))


class Tool(NamedTuple):
    name: str
    needs_arguments: bool


@dataclass(frozen=True, slots=True)
class Agenda:
    """What to ask."""

    era: str = ""
    """LEGACY or a modern version: what this server is known to speak. Empty: find out."""
    choose: Callable[[Sequence[Tool]], tuple[str, Mapping[str, Json]] | None] = lambda tools: None
    """The tool to call, and its arguments, given what is listed; None: call nothing."""
    resource: str = ""
    """The URI of a resource to read."""


@dataclass(slots=True)
class Seen:
    """What was learnt, filled in as it happens: after a fault it tells how far the visit came."""

    era: str = ""
    protocol: str = ""
    server: str = ""
    version: str = ""
    tools: list[Tool] = field(default_factory=list)
    pages: int = 0
    called: str = ""
    is_error: bool = False
    result: Json = None
    """What the tool answered: its structured content, else its text read as JSON, else its text."""
    text: str = ""
    """The text of the tool's answer."""
    resource: Json = None
    """The resource's text, read as JSON where it is."""
    elapsed: float | None = None
    """Milliseconds from the start until the last answer."""
    facts: dict[str, Json] = field(default_factory=dict)
    """What the line knows: address, exit code, ..."""


class Sink(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...


class Line(Protocol):
    """An open line to a server."""

    @property
    def incoming(self) -> AsyncIterable[SessionMessage | Exception]: ...

    @property
    def outgoing(self) -> Sink: ...

    async def explain(self, error: MCPError) -> Fault | None:
        """What lies behind an error that the SDK made up; None: the server itself answered with it."""

    @property
    def turned_away(self) -> bool:
        """The last answer came from a gatekeeper and says nothing about what the server speaks."""


@contextmanager
def phase(trace: Trace, name: str) -> Iterator[None]:
    """A phase that stays open when it is cancelled, so that a timeout can name it."""
    trace.begin(name)
    try:
        yield
    except asyncio.CancelledError:
        trace.stop()
        raise
    except Exception as error:
        trace.end(name)
        if isinstance(error, Fault) and error.phase is None:
            error.phase = name
        raise
    trace.end(name)


@asynccontextmanager
async def dialogue(line: Line, seen: Seen) -> AsyncIterator[Dialogue]:
    """Between line and session stand two relays. One tells a reply to a request that was never made, for which the SDK
    would wait until the deadline; the other has room, for the SDK sends a last word, shielded, while it is cancelled.
    """
    made: set[str] = set()
    inbox, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outbox = anyio.create_memory_object_stream[SessionMessage](16)

    async def receive() -> None:
        async for item in line.incoming:
            if not isinstance(item, Exception):
                _check_id(item, made)
            await inbox.send(item)
        inbox.close()

    async def send() -> None:
        async for item in outbox:
            if isinstance(item.message, JSONRPCRequest):
                made.add(str(item.message.id))
            await line.outgoing.send(item)

    us = Implementation(name="watchdog-monitor", version="1")
    async with inbox, incoming, outgoing, outbox, anyio.create_task_group() as relays:
        relays.start_soon(receive)
        relays.start_soon(send)
        async with ClientSession(incoming, outgoing, client_info=us) as session:
            yield Dialogue(session, line, seen)
        relays.cancel_scope.cancel()


def _check_id(item: SessionMessage, made: set[str]) -> None:
    if isinstance(item.message, JSONRPCResponse | JSONRPCError):
        given = item.message.id
        if given is not None and str(given) not in made:  # an error without an id answers what could not be read
            raise Fault("mcp.unexpected_id", f"replies to request {str(given)[:40]!r}, which was never made")


class Dialogue:
    """The questions. Each fills in what it learnt and raises Fault, which may come out in a group."""

    def __init__(self, session: ClientSession, line: Line, seen: Seen) -> None:
        self.session, self.line, self.seen = session, line, seen

    async def negotiate(self, era: str, patience: float) -> None:
        """`patience`: seconds that finding out the era may take."""
        session, seen = self.session, self.seen
        if era and era != LEGACY:
            await self._discover()
        elif era == LEGACY or not await self._discovered(patience):
            await self._initialize()
        seen.protocol = session.protocol_version or ""
        seen.era = LEGACY if session.initialize_result else seen.protocol
        if session.server_info:
            seen.server, seen.version = session.server_info.name, session.server_info.version

    async def _discovered(self, patience: float) -> bool:
        """Whether the server speaks the modern era. Anything but a clear yes is a no; an outage is neither."""
        with anyio.move_on_after(patience):
            try:
                await self._discover()
                return True
            except Fault:
                if self.line.turned_away:
                    raise
        return False

    async def _discover(self) -> None:
        try:
            await self._ask("server/discover", self.session.discover())
        except RuntimeError as error:
            raise _unsupported(error) from error

    async def _initialize(self) -> None:
        try:
            await self._ask("initialize", self.session.initialize())
        except Fault as fault:
            if fault.facts.get("code") != UNSUPPORTED_PROTOCOL_VERSION:
                raise
            await self._discover()  # a slow starter had heard the question after all, and that settled the era
        except RuntimeError as error:
            raise _unsupported(error) from error

    async def list_tools(self) -> None:
        seen, cursors = self.seen, set[str]()
        cursor: str | None = None
        while True:
            page = await self._page(cursor)
            seen.pages += 1
            seen.tools += [Tool(tool.name, bool(tool.input_schema.get("required"))) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in cursors:
                raise Fault("mcp.cursor_loop", f"tools/list goes round in circles: page {seen.pages} repeats a cursor")
            if seen.pages == PAGES:
                raise Fault("mcp.too_many_pages", f"tools/list has more than {PAGES} pages")
            cursors.add(cursor)

    async def _page(self, cursor: str | None) -> ListToolsResult:
        params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
        try:
            return await self._ask("tools/list", self.session.list_tools(params=params))
        except Fault as fault:
            if fault.facts.get("code") == METHOD_NOT_FOUND and cursor is None:
                return ListToolsResult(tools=[])  # a server without tools need not know the method
            raise

    async def call(self, tool: str, arguments: Mapping[str, Json], progress: ProgressFnT | None = None) -> None:
        """`progress` hears how far the tool says it is while it works."""
        # Not session.call_tool(): that throws away an answer which does not fit the tool's own schema.
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        self.seen.called = tool
        asking = self.session.send_request(request, CallToolResult, progress_callback=progress)
        answer = await self._ask("tools/call", asking)
        self.seen.is_error = answer.is_error
        self.seen.text = "\n".join(block.text for block in answer.content if isinstance(block, TextContent))
        self.seen.result = _result(answer.structured_content, self.seen.text)

    async def read(self, uri: str) -> None:
        answer: ReadResourceResult = await self._ask("resources/read", self.session.read_resource(uri))
        for part in answer.contents:
            match part:
                case TextResourceContents():
                    self.seen.resource = _parsed(part.text)
                    return
                case BlobResourceContents():
                    self.seen.resource = part.blob
        if not answer.contents:
            raise Fault("mcp.resource_empty", f"resource {uri} has no contents")

    async def _ask(self, method: str, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except (MCPError, ValidationError) as error:
            fault = await self._fault(method, error) if isinstance(error, MCPError) else _invalid(method, error)
            fault.facts["method"] = method
            raise fault from error

    async def _fault(self, method: str, error: MCPError) -> Fault:
        fault = await self.line.explain(error)
        if fault is None:
            words = cap(" ".join(error.message.split()), 200)
            fault = Fault("mcp.rpc_error", f"{method} answers error {error.code}: {words}")
            fault.facts["code"] = error.code
            if error.data is not None:
                fault.excerpt = cap(json.dumps(error.data, default=str), SHOWN)
        return fault


def _invalid(method: str, error: ValidationError) -> Fault:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Fault("mcp.invalid_response", f"{method} answers what MCP does not allow: {where}: {first['msg']}")


def _unsupported(error: RuntimeError) -> Fault:
    versions = cap(str(error).rpartition(": ")[2], 60)
    return Fault("mcp.unsupported_version", f"speaks no version of MCP that we know ({versions})")


def _result(structured: Any, text: str) -> Json:
    """Servers wrap what is no object as {"result": ...} and repeat it bare as text: then the text is what was meant."""
    parsed = _parsed(text)
    if structured is None:
        return parsed
    if isinstance(structured, dict) and structured.keys() == {"result"} and structured["result"] in (text, parsed):
        return parsed
    return _JSON.dump_python(structured, mode="json")


def _parsed(text: str) -> Json:
    try:
        return _JSON.dump_python(_JSON.validate_json(text), mode="json")
    except ValueError:
        return text
