"""One visit to an MCP server, whatever leads there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from watchdog.net.errors import ProbeError
from watchdog.net.mcp.client import (
    DISCOVERY_TIMEOUT_S,
    LEGACY_ERA,
    McpClient,
    SessionPlan,
    SessionResult,
    Transport,
    create_mcp_client,
    measure_phase,
)
from watchdog.net.mcp.http import McpHttpEndpoint, open_http_transport
from watchdog.net.mcp.stdio import McpServerCommand, open_stdio_transport
from watchdog.net.phases import PhaseTimer

if TYPE_CHECKING:
    from watchdog.net import Network


@dataclass(frozen=True, slots=True)
class McpSession:
    """Where to go, what to ask there, and the circumstances."""

    network: Network
    target: McpHttpEndpoint | McpServerCommand
    plan: SessionPlan
    phase_timer: PhaseTimer
    timeout: float
    """Seconds until the caller ends it."""
    now: int
    """The clock, ms since the epoch."""

    async def run(self, result: SessionResult) -> None:
        """Go through the agenda and fill in `seen`. Raises Fault. The caller ends it in time by cancelling."""
        since = perf_counter()
        opened = connect_mcp_client(
            self.network, self.target, result, self.phase_timer, self.timeout, self.now, self.plan.protocol_era
        )
        async with opened as talk:
            with measure_phase(self.phase_timer, "list"):
                await talk.list_tools()
            if chosen := self.plan.choose_tool_call(result.tools):
                with measure_phase(self.phase_timer, "call"):
                    await talk.call_tool(*chosen)
            if self.plan.resource_uri:
                with measure_phase(self.phase_timer, "read"):
                    await talk.read_resource(self.plan.resource_uri)
            result.elapsed_ms = (perf_counter() - since) * 1000


@asynccontextmanager
async def connect_mcp_client(
    network: Network,
    target: McpHttpEndpoint | McpServerCommand,
    result: SessionResult,
    phase_timer: PhaseTimer,
    timeout_s: float,
    now: int,
    protocol_era: str = "",
) -> AsyncIterator[McpClient]:
    """An open line to a server, and an era agreed on. `seconds`: until the caller ends it. Raises Fault."""
    since = perf_counter()
    if isinstance(target, McpHttpEndpoint) and target.use_sse:
        protocol_era = LEGACY_ERA  # this transport is older than the other era

    @asynccontextmanager
    async def agreed(era: str) -> AsyncIterator[McpClient]:
        left = timeout_s - (perf_counter() - since)
        line: AbstractAsyncContextManager[Transport]
        if isinstance(target, McpHttpEndpoint):
            line = open_http_transport(network, target, phase_timer, result.facts, now)
        else:
            line = open_stdio_transport(target, phase_timer, result.facts, left)
        async with AsyncExitStack() as stack:
            with measure_phase(phase_timer, "negotiate"):
                opened: Transport = await stack.enter_async_context(line)
                talk = await stack.enter_async_context(create_mcp_client(opened, result))
                await talk.negotiate(era, min(DISCOVERY_TIMEOUT_S, left / 2))
            yield talk

    try:
        async with AsyncExitStack() as stack:
            try:
                talk = await stack.enter_async_context(agreed(protocol_era))
            except ProbeError as fault:
                if protocol_era or fault.reason != "mcp.server_exited":
                    raise
                talk = await stack.enter_async_context(
                    agreed(LEGACY_ERA)
                )  # some leave when they hear `server/discover`
            yield talk
    except ProbeError as fault:
        fault.record_phase(phase_timer)
        raise
