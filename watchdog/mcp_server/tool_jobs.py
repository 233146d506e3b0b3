"""Work that may outlast a call: begun by one, followed by it for a while, read by `job:{id}` afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from time import monotonic
from typing import Any, Self

import structlog

from watchdog.domain.model import Json

log = structlog.get_logger()

MAX_CONCURRENT_JOBS = 4
MAX_FINISHED_JOBS = 50
"""Jobs that have ended and can still be read; the oldest are forgotten first."""
FINISHED_JOB_TTL_S = 600.0
"""Seconds that one can be read after its end."""
MAX_CALL_WAIT_S = 20.0
"""Seconds that a call waits for its job; one that takes longer is read by its resource."""
PROGRESS_INTERVAL_S = 1.0
"""Seconds between reports of progress."""
SHUTDOWN_GRACE_S = 2.0
"""Seconds that jobs may take to end when we are told to stop."""

ProgressCallback = Callable[[float, float, str], Awaitable[None]]
"""Tells how many seconds of how many have passed, and in words."""


class RequestRejectedError(Exception):
    """What was asked for cannot be had. The text is for an agent: cause first, then what to do."""


@dataclass(slots=True)
class ToolJob:
    """`what`: in words. `most`: seconds it may take, after which it has failed."""

    description: str
    timeout_s: float
    id: str = field(default_factory=lambda: token_hex(8))
    started_monotonic: float = field(default_factory=monotonic)
    ended_monotonic: float | None = None
    result: Json = None
    error: str = ""

    @property
    def resource_uri(self) -> str:
        return f"job:{self.id}"

    def status_json(self) -> dict[str, Json]:
        """What its resource says. `progress`: the share of its time that has passed, 1 at its end."""
        if self.ended_monotonic is None:
            passed = monotonic() - self.started_monotonic
            return {"status": "running", "progress": round(min(passed / self.timeout_s, 0.99), 2)}
        if self.error:
            return {"status": "failed", "progress": 1, "error": self.error}
        return {"status": "completed", "progress": 1, "result": self.result}

    def call_result_json(self) -> dict[str, Json]:
        """What a call answers: where to go on, and how it stands."""
        return {"job_id": self.id, "poll_resource": self.resource_uri, **self.status_json()}


class ToolJobRunner:
    """Leaving the block ends what is under way."""

    def __init__(self) -> None:
        self._jobs: dict[str, ToolJob] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_GRACE_S)

    def start(self, description: str, timeout_s: float, work: Callable[[], Coroutine[Any, Any, Json]]) -> ToolJob:
        """Begin it. Raises RefusedError."""
        if len(self._running) >= MAX_CONCURRENT_JOBS:
            under_way = ", ".join(self._jobs[id].description for id in self._running)
            raise RequestRejectedError(
                f"{MAX_CONCURRENT_JOBS} jobs are under way ({under_way}): try again when one has ended"
            )
        self._evict_finished()
        job = ToolJob(description, timeout_s)
        self._jobs[job.id] = job
        task = self._running[job.id] = asyncio.create_task(self._run(job, work), name=description)
        task.add_done_callback(lambda _: self._running.pop(job.id))
        return job

    async def _run(self, job: ToolJob, work: Callable[[], Coroutine[Any, Any, Json]]) -> None:
        try:
            async with asyncio.timeout(job.timeout_s):
                job.result = await work()
        except asyncio.CancelledError:
            job.error = "stopped: Watchdog was told to end"
            raise
        except TimeoutError:
            job.error = f"{job.description} did not end within {job.timeout_s:g} s"
        except RequestRejectedError as e:
            job.error = str(e)
        except Exception as e:
            log.exception("tool_job_error", tool_job=job.description)
            job.error = f"{type(e).__name__} inside Watchdog; its log says more"
        finally:
            job.ended_monotonic = monotonic()

    def _evict_finished(self) -> None:
        """What ended long ago, and the oldest of too many."""
        over = [job for job in self._jobs.values() if job.ended_monotonic is not None]
        for place, job in enumerate(reversed(over)):
            if place >= MAX_FINISHED_JOBS - 1 or monotonic() - (job.ended_monotonic or 0.0) > FINISHED_JOB_TTL_S:
                del self._jobs[job.id]

    def find(self, id: str) -> ToolJob | None:
        self._evict_finished()
        return self._jobs.get(id)

    async def follow_progress(self, job: ToolJob, report_progress: ProgressCallback) -> None:
        """Until it has ended, for so long as a call may take."""
        task = self._running.get(job.id)
        end = monotonic() + MAX_CALL_WAIT_S
        while task is not None and not task.done() and (left := end - monotonic()) > 0:
            passed = monotonic() - job.started_monotonic
            await report_progress(
                round(min(passed, job.timeout_s), 1),
                job.timeout_s,
                f"{job.description}: {passed:.0f} s of at most {job.timeout_s:g} s",
            )
            await asyncio.wait([task], timeout=min(PROGRESS_INTERVAL_S, left))
        if job.ended_monotonic is not None:
            with suppress(Exception):  # it has ended, whether or not anybody hears it
                await report_progress(job.timeout_s, job.timeout_s, f"{job.description}: {job.status_json()['status']}")
