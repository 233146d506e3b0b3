"""One session with an MCP server, over any transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

import anyio
from mcp.shared.dispatcher import ProgressFnT

from watchdog.domain.reasons import get_reason_family
from watchdog.domain.text import truncate_to_single_line, truncate_with_ellipsis
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, refine_probe_error_until_deadline
from watchdog.net.mcp.client import (
    LEGACY_MCP_PROTOCOL_ERA,
    MAX_MCP_LOG_MESSAGE_CHARS,
    MCP_DISCOVER_METHOD,
    MCP_DISCOVER_REQUEST_TIMEOUT_S,
    McpClient,
    OpenMcpTransport,
    measure_phase_and_tag_errors,
    open_mcp_client_over_transport,
)
from watchdog.net.mcp.http import open_mcp_http_transport
from watchdog.net.mcp.http_transport import McpHttpEndpoint
from watchdog.net.mcp.received_messages import McpMessageInspector
from watchdog.net.mcp.session_result import McpSessionPlan, McpSessionResult
from watchdog.net.mcp.stdio import McpServerCommand, open_mcp_stdio_transport
from watchdog.net.mcp.transport_mismatch import try_other_mcp_transport_and_explain_mismatch
from watchdog.net.phases import RESPONSE_PROCESSING_PHASES, PhaseTimer
from watchdog.net.worker_process import FunctionWorkerProcess

UNKNOWN_MCP_PROTOCOL_ERA = ""
MAX_INITIALIZE_WAIT_AFTER_UNANSWERED_DISCOVERY_S = 1.0
"""Time to respond to `initialize` after `server/discover` got no response, until another process is tried."""


@dataclass(frozen=True, slots=True)
class McpSessionRunner:
    """A session with one server: where it is, what to request, and the circumstances."""

    connector: TcpConnector
    worker: FunctionWorkerProcess | None
    """For large messages. None: messages of any size are read in the event loop, and returned as a whole."""
    target: McpHttpEndpoint | McpServerCommand
    plan: McpSessionPlan
    phase_timer: PhaseTimer
    timeout_s: float
    """Seconds until the caller cancels the session."""
    now: int
    """In ms since the epoch."""

    async def run_mcp_session_into_result(self, result: McpSessionResult) -> None:
        """Carries out the plan and fills in `result`. Raises ProbeError. The caller enforces the timeout."""
        started = perf_counter()
        async with connect_mcp_client(
            self.connector,
            self.target,
            result,
            self.phase_timer,
            worker=self.worker,
            tool_name=self.plan.tool_name,
            timeout_s=self.timeout_s,
            now=self.now,
            protocol_era=self.plan.protocol_era,
        ) as client:
            with measure_phase_and_tag_errors(self.phase_timer, "list"):
                await client.list_tools_into_result()
            if tool_call := self.plan.choose_tool_call([*result.tools, *result.callable_tools]):
                with measure_phase_and_tag_errors(self.phase_timer, "call"):
                    await client.call_tool_into_result(*tool_call, self._make_tool_progress_callback(result))
            if self.plan.resource_uri:
                with measure_phase_and_tag_errors(self.phase_timer, "read"):
                    await client.read_resource_into_result(self.plan.resource_uri)
            phases = self.phase_timer.phase_durations_ms
            judged_ms = sum(phases.get(phase, 0) for phase in RESPONSE_PROCESSING_PHASES)
            result.elapsed_ms = (perf_counter() - started) * 1000 - judged_ms

    @staticmethod
    def _make_tool_progress_callback(result: McpSessionResult) -> ProgressFnT:
        async def record_tool_progress_in_facts(progress: float, total: float | None, message: str | None) -> None:
            of_total = "" if total is None else f" of {total:g}"
            detail = (
                f": {truncate_with_ellipsis(truncate_to_single_line(message), MAX_MCP_LOG_MESSAGE_CHARS)}"
                if message
                else ""
            )
            result.facts["progress"] = f"{progress:g}{of_total}{detail}"

        return record_tool_progress_in_facts


@asynccontextmanager
async def connect_mcp_client(
    connector: TcpConnector,
    target: McpHttpEndpoint | McpServerCommand,
    result: McpSessionResult,
    phase_timer: PhaseTimer,
    *,
    timeout_s: float,
    now: int,
    worker: FunctionWorkerProcess | None,
    tool_name: str = "",
    protocol_era: str = UNKNOWN_MCP_PROTOCOL_ERA,
) -> AsyncIterator[McpClient]:
    """Connects to a server and negotiates the protocol.

    `timeout_s`: until the caller cancels. `worker`: as for McpSessionRunner. `tool_name`: the tool that may be called;
    a large list is reduced to it. `protocol_era`: as an earlier session negotiated it, or UNKNOWN_MCP_PROTOCOL_ERA. A
    remembered era is doubted: if it does not work any more, the era is negotiated again within the same deadline.

    Raises ProbeError. An error that arises while the session is being cancelled is a consequence of the cancellation,
    and never replaces it, unless it was known before (`precedes_deadline`).
    """
    started, cancellations_before = perf_counter(), _count_asyncio_task_cancellations()
    try:
        async with AsyncExitStack() as stack:
            eras = _list_mcp_eras_to_try(target, protocol_era)
            for era, next_era in zip(eras, [*eras[1:], None], strict=True):
                try:
                    remaining_s = timeout_s - (perf_counter() - started)
                    received = McpMessageInspector(worker, phase_timer, tool_name)
                    opening = _open_mcp_transport(connector, target, result, received, remaining_s, now=now)
                    client = await stack.enter_async_context(
                        _open_and_negotiate_mcp(opening, target, result, received, era=era, remaining_s=remaining_s)
                    )
                    break
                except ProbeError as error:
                    is_cancelled = _count_asyncio_task_cancellations() > cancellations_before
                    may_retry = next_era is not None and _may_connect_in_another_mcp_era(target, result, era, error)
                    if is_cancelled or not may_retry:
                        raise
            yield client
    except ProbeError as error:
        is_cancelled = _count_asyncio_task_cancellations() > cancellations_before
        if is_cancelled and not error.precedes_deadline:
            raise asyncio.CancelledError from error
        error.record_interrupted_phase(phase_timer)
        if isinstance(target, McpHttpEndpoint) and not result.protocol_era and not is_cancelled:
            remaining_s = timeout_s - (perf_counter() - started)
            explanation = try_other_mcp_transport_and_explain_mismatch(connector, target, error, now, remaining_s)
            raise await refine_probe_error_until_deadline(error, explanation) from None
        raise


def _open_mcp_transport(
    connector: TcpConnector,
    target: McpHttpEndpoint | McpServerCommand,
    result: McpSessionResult,
    received: McpMessageInspector,
    remaining_s: float,
    *,
    now: int,
) -> AbstractAsyncContextManager[OpenMcpTransport]:
    if isinstance(target, McpServerCommand):
        return open_mcp_stdio_transport(target, received, result.facts, remaining_s)
    return open_mcp_http_transport(
        connector, target, received, result.facts, now=now, endpoint_event_timeout_s=remaining_s / 2
    )


@asynccontextmanager
async def _open_and_negotiate_mcp(
    opening: AbstractAsyncContextManager[OpenMcpTransport],
    target: McpHttpEndpoint | McpServerCommand,
    result: McpSessionResult,
    received: McpMessageInspector,
    *,
    era: str,
    remaining_s: float,
) -> AsyncIterator[McpClient]:
    """A client that has negotiated the protocol, on a connection of its own."""
    async with AsyncExitStack() as stack:
        with measure_phase_and_tag_errors(received.phase_timer, "negotiate"):
            transport: OpenMcpTransport = await stack.enter_async_context(opening)
            client = await stack.enter_async_context(open_mcp_client_over_transport(transport, result, received))
            if isinstance(target, McpServerCommand) and era == UNKNOWN_MCP_PROTOCOL_ERA:
                await _negotiate_mcp_or_raise_if_discovery_blocks(client, target, remaining_s)
            else:
                await client.negotiate(era, remaining_s / 2, _compute_mcp_discovery_timeout_s(remaining_s))
        yield client


async def _negotiate_mcp_or_raise_if_discovery_blocks(
    client: McpClient, command: McpServerCommand, remaining_s: float
) -> None:
    """Negotiates. Raises ProbeError if the process responds to nothing after `server/discover`, while another process
    of the server responds to `initialize`: it handles one request at a time, and never ends one that it does not know.
    A server that is slow looks the same, so its process is left to negotiate until the other one has responded."""
    check_after_s = _compute_mcp_discovery_timeout_s(remaining_s) + min(
        MAX_INITIALIZE_WAIT_AFTER_UNANSWERED_DISCOVERY_S, remaining_s / 8
    )

    async def cancel_negotiation_if_discovery_blocks() -> None:
        await anyio.sleep(check_after_s)
        if await _try_mcp_initialize_in_new_process(command, remaining_s - check_after_s):
            negotiation.cancel()

    with anyio.CancelScope() as negotiation:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_negotiation_if_discovery_blocks)
            await client.negotiate(
                UNKNOWN_MCP_PROTOCOL_ERA, remaining_s / 2, _compute_mcp_discovery_timeout_s(remaining_s)
            )
            tasks.cancel_scope.cancel()
    if negotiation.cancelled_caught:
        client.result.last_method, client.result.protocol_era = MCP_DISCOVER_METHOD, LEGACY_MCP_PROTOCOL_ERA
        problem = "the server responds to no further request after server/discover"
        raise ProbeError("timeout.negotiate", problem, "negotiate")


async def _try_mcp_initialize_in_new_process(command: McpServerCommand, timeout_s: float) -> bool:
    """Whether a process of its own responds, which ends immediately."""
    received = McpMessageInspector(None, PhaseTimer(), "")
    opening = open_mcp_stdio_transport(command, received, {}, timeout_s)
    with suppress(ProbeError), anyio.move_on_after(timeout_s):
        async with _open_and_negotiate_mcp(
            opening, command, McpSessionResult(), received, era=LEGACY_MCP_PROTOCOL_ERA, remaining_s=timeout_s
        ):
            return True
    return False


def _compute_mcp_discovery_timeout_s(remaining_s: float) -> float:
    return min(MCP_DISCOVER_REQUEST_TIMEOUT_S, remaining_s / 2)


def _may_connect_in_another_mcp_era(
    target: McpHttpEndpoint | McpServerCommand, result: McpSessionResult, era: str, error: ProbeError
) -> bool:
    """Whether the negotiation that failed is worth another attempt on a new connection."""
    if error.is_internal:
        return False
    if era != UNKNOWN_MCP_PROTOCOL_ERA:
        return True
    # Some servers exit, or drop the connection, when they receive `server/discover`.
    is_connected = isinstance(target, McpServerCommand) or "address" in result.facts
    return (
        is_connected
        and result.last_method == MCP_DISCOVER_METHOD
        and get_reason_family(error.reason) not in ("http", "tls")
    )


def _list_mcp_eras_to_try(target: McpHttpEndpoint | McpServerCommand, remembered_era: str) -> list[str]:
    if isinstance(target, McpHttpEndpoint) and target.use_sse:
        return [LEGACY_MCP_PROTOCOL_ERA]  # the SSE transport exists in the legacy era only
    return (
        [remembered_era, UNKNOWN_MCP_PROTOCOL_ERA, LEGACY_MCP_PROTOCOL_ERA]
        if remembered_era
        else [UNKNOWN_MCP_PROTOCOL_ERA, LEGACY_MCP_PROTOCOL_ERA]
    )


def _count_asyncio_task_cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
