"""One visit to an MCP server, whatever leads there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from watchdog.wire.faults import Fault
from watchdog.wire.mcp.dialogue import DISCOVERY, LEGACY, Agenda, Dialogue, Line, Seen, dialogue, phase
from watchdog.wire.mcp.http import Endpoint, http_line
from watchdog.wire.mcp.stdio import Command, stdio_line
from watchdog.wire.trace import Trace

if TYPE_CHECKING:
    from watchdog.wire import Wire


@dataclass(frozen=True, slots=True)
class Visit:
    """Where to go, what to ask there, and the circumstances."""

    wire: Wire
    target: Endpoint | Command
    agenda: Agenda
    trace: Trace
    timeout: float
    """Seconds until the caller ends it."""
    now: int
    """The clock, ms since the epoch."""

    async def make(self, seen: Seen) -> None:
        """Go through the agenda and fill in `seen`. Raises Fault. The caller ends it in time by cancelling."""
        since = perf_counter()
        opened = conversation(self.wire, self.target, seen, self.trace, self.timeout, self.now, self.agenda.era)
        async with opened as talk:
            with phase(self.trace, "list"):
                await talk.list_tools()
            if chosen := self.agenda.choose(seen.tools):
                with phase(self.trace, "call"):
                    await talk.call(*chosen)
            if self.agenda.resource:
                with phase(self.trace, "read"):
                    await talk.read(self.agenda.resource)
            seen.elapsed = (perf_counter() - since) * 1000


@asynccontextmanager
async def conversation(
    wire: Wire, target: Endpoint | Command, seen: Seen, trace: Trace, seconds: float, now: int, era: str = ""
) -> AsyncIterator[Dialogue]:
    """An open line to a server, and an era agreed on. `seconds`: until the caller ends it. Raises Fault."""
    since = perf_counter()
    if isinstance(target, Endpoint) and target.sse:
        era = LEGACY  # this transport is older than the other era

    @asynccontextmanager
    async def agreed(era: str) -> AsyncIterator[Dialogue]:
        left = seconds - (perf_counter() - since)
        line: AbstractAsyncContextManager[Line]
        if isinstance(target, Endpoint):
            line = http_line(wire, target, trace, seen.facts, now)
        else:
            line = stdio_line(target, trace, seen.facts, left)
        async with AsyncExitStack() as stack:
            with phase(trace, "negotiate"):
                opened: Line = await stack.enter_async_context(line)
                talk = await stack.enter_async_context(dialogue(opened, seen))
                await talk.negotiate(era, min(DISCOVERY, left / 2))
            yield talk

    try:
        async with AsyncExitStack() as stack:
            try:
                talk = await stack.enter_async_context(agreed(era))
            except Fault as fault:
                if era or fault.reason != "mcp.server_exited":
                    raise
                talk = await stack.enter_async_context(agreed(LEGACY))  # some leave when they hear `server/discover`
            yield talk
    except Fault as fault:
        fault.locate(trace)
        raise
