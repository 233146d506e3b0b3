"""The running service as another process sees it: asked over its own `/mcp`, and by what it left in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from watchdog.domain.formatting import format_duration_rounded, format_iso8601
from watchdog.domain.model import Json
from watchdog.mcp_server.tool_jobs import RequestRejectedError
from watchdog.net import Network, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.service.clock import Clock
from watchdog.store.read.status import MAX_WATERMARK_LAG_MS

CALL_TIMEOUT_S = 30.0
"""Seconds for a call: longer than it follows a job."""
POLL_INTERVAL_S = 1.0
"""Seconds between looks at a job."""


class ServiceUnreachableError(Exception):
    """The service does not answer. The text says why."""


class RemoteService:
    """`url`: of the service's `/mcp`; empty when it is not known. `key`: opens it, if keys are configured. `watermark`:
    up to when slots were claimed, as the store has it; it raises RefusedError."""

    def __init__(
        self,
        network: Network,
        url: str,
        api_key: str,
        load_watermark: Callable[[], Awaitable[int | None]],
        clock: Clock,
    ):
        self._wire, self._url, self._watermark, self._clock = network, url, load_watermark, clock
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def health(self) -> Json:
        try:
            return await self._call_service("health_check", {})
        except ServiceUnreachableError as e:
            return self._health_from_watermark(await self._watermark(), str(e))

    def _health_from_watermark(self, claimed_until: int | None, error_message: str) -> Json:
        """What can be known of one task when nobody answers: slots are claimed, here or elsewhere."""
        stale = None if claimed_until is None else max(self._clock() - claimed_until, 0)
        error = "nothing was ever probed: start `watchdog run`" if stale is None else ""
        if stale is not None and stale > MAX_WATERMARK_LAG_MS:
            error = f"nothing was probed for {format_duration_rounded(stale)}: is `watchdog run` running?"
        claim = {
            "name": "claim",
            "ok": not error,
            "last_run_at": None if claimed_until is None else format_iso8601(claimed_until),
            "staleness_ms": stale,
            "last_run_status": "overdue" if error else "success",
            "last_run_error": error or None,
        }
        return {"healthy": not error, "tasks": [claim], "note": f"no other task can be seen from here: {error_message}"}

    async def trigger_task(self, task_name: str) -> Json:
        try:
            job = begun = await self._call_service("trigger_task", {"task": task_name})
            while job.get("status") == "running" and begun.get("poll_resource"):
                await asyncio.sleep(POLL_INTERVAL_S)
                job = await self._call_service(resource=begun["poll_resource"])
        except ServiceUnreachableError as e:
            raise RequestRejectedError(f"tasks run inside `watchdog run`, and {e}") from None
        if "result" not in job:
            raise RequestRejectedError(job.get("error", "the answer holds no result"))
        return job["result"]

    async def _call_service(
        self, tool: str = "", arguments: Mapping[str, Json] | None = None, resource: str = ""
    ) -> dict[str, Json]:
        """What a tool answers, or a resource holds. Raises AwayError and RefusedError."""
        from watchdog.net.mcp import McpHttpEndpoint, McpSession, SessionPlan, SessionResult

        if not self._url:
            raise ServiceUnreachableError("it listens on a port that only it knows: give `server.listen` one")
        seen, target = SessionResult(), McpHttpEndpoint(self._url, headers=self._headers)
        agenda = SessionPlan(
            choose_tool_call=lambda _: (tool, arguments or {}) if tool else None, resource_uri=resource
        )
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await McpSession(self._wire.connector, target, agenda, PhaseTimer(), CALL_TIMEOUT_S, self._clock()).run(
                    seen
                )
        except (ProbeError, TimeoutError) as e:
            raise ServiceUnreachableError(f"nothing of use answers at {self._url}: {e or 'timed out'}") from None
        if seen.tool_is_error:
            raise RequestRejectedError(seen.tool_result_text)
        said = seen.resource_content if resource else seen.tool_result
        if not isinstance(said, dict):
            raise ServiceUnreachableError(f"what answers at {self._url} is no Watchdog")
        return said
