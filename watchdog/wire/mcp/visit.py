"""One visit to an MCP server, whatever leads there."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from watchdog.wire.faults import Fault
from watchdog.wire.mcp.dialogue import DISCOVERY, LEGACY, Agenda, Line, Seen, dialogue, phase
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
        era = self.agenda.era
        if isinstance(self.target, Endpoint) and self.target.sse:
            era = LEGACY  # this transport is older than the other era
        try:
            try:
                await self._once(era, seen, since)
            except Fault as fault:
                if era or seen.protocol or fault.reason != "server_exited":
                    raise
                await self._once(LEGACY, seen, since)  # some servers leave when they hear `server/discover`
        except Fault as fault:
            fault.locate(self.trace)
            raise

    async def _once(self, era: str, seen: Seen, since: float) -> None:
        left = self.timeout - (perf_counter() - since)
        line: AbstractAsyncContextManager[Line]
        if isinstance(self.target, Endpoint):
            line = http_line(self.wire, self.target, self.trace, seen.facts, self.now)
        else:
            line = stdio_line(self.target, self.trace, seen.facts, left)
        async with AsyncExitStack() as stack:
            with phase(self.trace, "negotiate"):
                opened: Line = await stack.enter_async_context(line)
                talk = await stack.enter_async_context(dialogue(opened, seen))
                await talk.negotiate(era, min(DISCOVERY, left / 2))
            with phase(self.trace, "list"):
                await talk.list_tools()
            if chosen := self.agenda.choose(seen.tools):
                with phase(self.trace, "call"):
                    await talk.call(*chosen)
            if self.agenda.resource:
                with phase(self.trace, "read"):
                    await talk.read(self.agenda.resource)
            seen.elapsed = (perf_counter() - since) * 1000
