"""The running service as another process sees it: asked over its own `/mcp`, and by what it left in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from watchdog.mcp_server.jobs import RefusedError
from watchdog.model import Json
from watchdog.service.clock import Clock
from watchdog.store.views import STANDSTILL
from watchdog.wire import Trace, Wire
from watchdog.wire.faults import Fault
from watchdog.words import about, iso

PATIENCE = 30.0
"""Seconds for a call: longer than it follows a job."""
POLL = 1.0
"""Seconds between looks at a job."""


class AwayError(Exception):
    """The service does not answer. The text says why."""


class Outside:
    """`url`: of the service's `/mcp`; empty when it is not known. `key`: opens it, if keys are configured. `watermark`:
    up to when slots were claimed, as the store has it; it raises RefusedError."""

    def __init__(self, wire: Wire, url: str, key: str, watermark: Callable[[], Awaitable[int | None]], clock: Clock):
        self._wire, self._url, self._watermark, self._clock = wire, url, watermark, clock
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def health(self) -> Json:
        try:
            return await self._visit("health_check", {})
        except AwayError as e:
            return self._by_the_store(await self._watermark(), str(e))

    def _by_the_store(self, through: int | None, why: str) -> Json:
        """What can be known of one task when nobody answers: slots are claimed, here or elsewhere."""
        stale = None if through is None else max(self._clock() - through, 0)
        error = "nothing was ever probed: start `watchdog run`" if stale is None else ""
        if stale is not None and stale > STANDSTILL:
            error = f"nothing was probed for {about(stale)}: is `watchdog run` running?"
        claim = {
            "name": "claim",
            "ok": not error,
            "last_run_at": None if through is None else iso(through),
            "staleness_ms": stale,
            "last_run_status": "overdue" if error else "success",
            "last_run_error": error or None,
        }
        return {"healthy": not error, "tasks": [claim], "note": f"no other task can be seen from here: {why}"}

    async def trigger(self, name: str) -> Json:
        try:
            job = begun = await self._visit("trigger_task", {"task": name})
            while job.get("status") == "running" and begun.get("poll_resource"):
                await asyncio.sleep(POLL)
                job = await self._visit(resource=begun["poll_resource"])
        except AwayError as e:
            raise RefusedError(f"tasks run inside `watchdog run`, and {e}") from None
        if "result" not in job:
            raise RefusedError(job.get("error", "the answer holds no result"))
        return job["result"]

    async def _visit(
        self, tool: str = "", arguments: Mapping[str, Json] | None = None, resource: str = ""
    ) -> dict[str, Json]:
        """What a tool answers, or a resource holds. Raises AwayError and RefusedError."""
        from watchdog.wire.mcp import Agenda, Endpoint, Seen, Visit

        if not self._url:
            raise AwayError("it listens on a port that only it knows: give `server.listen` one")
        seen, target = Seen(), Endpoint(self._url, headers=self._headers)
        agenda = Agenda(choose=lambda _: (tool, arguments or {}) if tool else None, resource=resource)
        try:
            async with asyncio.timeout(PATIENCE):
                await Visit(self._wire, target, agenda, Trace(), PATIENCE, self._clock()).make(seen)
        except (Fault, TimeoutError) as e:
            raise AwayError(f"nothing of use answers at {self._url}: {e or 'timed out'}") from None
        if seen.is_error:
            raise RefusedError(seen.text)
        said = seen.resource if resource else seen.result
        if not isinstance(said, dict):
            raise AwayError(f"what answers at {self._url} is no Watchdog")
        return said
