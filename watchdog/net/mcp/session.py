"""One session with an MCP server, over any transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from watchdog.net.connector import Connector
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


@dataclass(frozen=True, slots=True)
class McpSession:
    """A session with one server: where it is, what to request, and the circumstances."""

    connector: Connector
    target: McpHttpEndpoint | McpServerCommand
    plan: SessionPlan
    phase_timer: PhaseTimer
    timeout_s: float
    """Seconds until the caller cancels the session."""
    now: int
    """In ms since the epoch."""

    async def run(self, result: SessionResult) -> None:
        """Carries out the plan and fills in `result`. Raises ProbeError. The caller enforces the timeout."""
        started = perf_counter()
        async with connect_mcp_client(
            self.connector,
            self.target,
            result,
            self.phase_timer,
            timeout_s=self.timeout_s,
            now=self.now,
            protocol_era=self.plan.protocol_era,
        ) as client:
            with measure_phase(self.phase_timer, "list"):
                await client.list_tools()
            if tool_call := self.plan.choose_tool_call(result.tools):
                with measure_phase(self.phase_timer, "call"):
                    await client.call_tool(*tool_call)
            if self.plan.resource_uri:
                with measure_phase(self.phase_timer, "read"):
                    await client.read_resource(self.plan.resource_uri)
            result.elapsed_ms = (perf_counter() - started) * 1000


@asynccontextmanager
async def connect_mcp_client(
    connector: Connector,
    target: McpHttpEndpoint | McpServerCommand,
    result: SessionResult,
    phase_timer: PhaseTimer,
    *,
    timeout_s: float,
    now: int,
    protocol_era: str = "",
) -> AsyncIterator[McpClient]:
    """Connects to a server and negotiates the protocol. `timeout_s`: until the caller cancels. Raises ProbeError."""
    started = perf_counter()
    if isinstance(target, McpHttpEndpoint) and target.use_sse:
        protocol_era = LEGACY_ERA  # the SSE transport exists in the legacy era only

    @asynccontextmanager
    async def negotiated(era: str) -> AsyncIterator[McpClient]:
        remaining_s = timeout_s - (perf_counter() - started)
        opening: AbstractAsyncContextManager[Transport]
        if isinstance(target, McpHttpEndpoint):
            opening = open_http_transport(connector, target, phase_timer, result.facts, now)
        else:
            opening = open_stdio_transport(target, phase_timer, result.facts, remaining_s)
        async with AsyncExitStack() as stack:
            with measure_phase(phase_timer, "negotiate"):
                transport: Transport = await stack.enter_async_context(opening)
                client = await stack.enter_async_context(create_mcp_client(transport, result))
                await client.negotiate(era, min(DISCOVERY_TIMEOUT_S, remaining_s / 2))
            yield client

    try:
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(negotiated(protocol_era))
            except ProbeError as error:
                if protocol_era or error.reason != "mcp.server_exited":
                    raise
                # Some servers exit when they receive `server/discover`.
                client = await stack.enter_async_context(negotiated(LEGACY_ERA))
            yield client
    except ProbeError as error:
        error.record_phase(phase_timer)
        raise
