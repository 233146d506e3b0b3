"""The service of another process: asked over its own `/mcp`, or judged by what it left in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from watchdog.api.service import build_health_check_tool_response, serialize_slot_claim_task_health
from watchdog.domain.model import Json
from watchdog.domain.watermark import describe_outdated_watermark_with_advice
from watchdog.mcp_server.tool_jobs import McpToolRequestError
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.service.clock import Clock

REMOTE_WATCHDOG_CALL_TIMEOUT_S = 30.0
"""Longer than a tool call waits for its job."""
REMOTE_WATCHDOG_JOB_POLL_INTERVAL_S = 1.0


class WatchdogUnreachableError(Exception):
    """The service does not respond. The message explains why."""


class RemoteBackgroundTaskControl:
    """`url`: of the service's `/mcp`; empty if it is unknown. `api_key`: empty if no keys are configured.

    `load_watermark`: up to which instant slots were claimed, from the store; raises McpToolRequestError.
    """

    def __init__(
        self,
        network: NetworkAccess,
        url: str,
        api_key: str,
        load_watermark: Callable[[], Awaitable[int | None]],
        clock: Clock,
    ):
        self._network, self._url, self._load_watermark, self._clock = network, url, load_watermark, clock
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def health(self) -> Json:
        try:
            return await self._call_watchdog_mcp_server("health_check", {})
        except WatchdogUnreachableError as e:
            return self._derive_task_health_from_watermark(await self._load_watermark(), str(e))

    def _derive_task_health_from_watermark(self, claimed_until: int | None, unreachable_reason: str) -> Json:
        """The one task that the store shows: whether any process claims slots."""
        now = self._clock()
        error = describe_outdated_watermark_with_advice(claimed_until, now)
        lag_ms = None if claimed_until is None else max(now - claimed_until, 0)
        task = serialize_slot_claim_task_health(last_run_at=claimed_until, staleness_ms=lag_ms, error=error)
        return build_health_check_tool_response(
            [task], note=f"the other tasks cannot be checked from here: {unreachable_reason}"
        )

    async def trigger_task(self, task_name: str) -> Json:
        try:
            call = job = await self._call_watchdog_mcp_server("trigger_task", {"task": task_name})
            while job.get("status") == "running" and call.get("poll_resource"):
                await asyncio.sleep(REMOTE_WATCHDOG_JOB_POLL_INTERVAL_S)
                job = await self._call_watchdog_mcp_server(resource=call["poll_resource"])
        except WatchdogUnreachableError as e:
            raise McpToolRequestError(f"tasks run in `watchdog run`, which cannot be reached: {e}") from None
        if "result" not in job:
            raise McpToolRequestError(job.get("error", "the response has no result"))
        return job["result"]

    async def _call_watchdog_mcp_server(
        self, tool: str = "", arguments: Mapping[str, Json] | None = None, resource: str = ""
    ) -> dict[str, Json]:
        """The structured result of a tool, or the content of a resource.

        Raises WatchdogUnreachableError and McpToolRequestError.
        """
        from watchdog.net.mcp import McpHttpEndpoint, McpSessionPlan, McpSessionResult, McpSessionRunner

        if not self._url:
            raise WatchdogUnreachableError("its port is chosen at random: set a port in `server.listen`")
        result, endpoint = McpSessionResult(), McpHttpEndpoint(self._url, headers=self._headers)
        plan = McpSessionPlan(
            choose_tool_call=lambda _: (tool, arguments or {}) if tool else None, resource_uri=resource
        )
        session = McpSessionRunner(
            self._network.connector,
            worker=None,
            target=endpoint,
            plan=plan,
            phase_timer=PhaseTimer(),
            timeout_s=REMOTE_WATCHDOG_CALL_TIMEOUT_S,
            now=self._clock(),
        )
        try:
            async with asyncio.timeout(REMOTE_WATCHDOG_CALL_TIMEOUT_S):
                await session.run_mcp_session_into_result(result)
        except (ProbeError, TimeoutError) as e:
            raise WatchdogUnreachableError(f"no usable response from {self._url}: {e or 'timed out'}") from None
        if result.tool_is_error:
            raise McpToolRequestError(result.tool_result_text)
        content = result.resource_content if resource else result.tool_result
        if not isinstance(content, dict):
            raise WatchdogUnreachableError(f"the server at {self._url} is not Watchdog")
        return content
