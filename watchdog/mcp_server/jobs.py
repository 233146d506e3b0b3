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

from watchdog.model import Json

log = structlog.get_logger()

AT_ONCE = 4
KEPT = 50
"""Jobs that have ended and can still be read; the oldest are forgotten first."""
LIFETIME = 600.0
"""Seconds that one can be read after its end."""
FOLLOWED = 20.0
"""Seconds that a call waits for its job; one that takes longer is read by its resource."""
STEP = 1.0
"""Seconds between reports of progress."""
GRACE = 2.0
"""Seconds that jobs may take to end when we are told to stop."""

Progress = Callable[[float, float, str], Awaitable[None]]
"""Tells how many seconds of how many have passed, and in words."""


class RefusedError(Exception):
    """What was asked for cannot be had. The text is for an agent: cause first, then what to do."""


@dataclass(slots=True)
class Job:
    """`what`: in words. `most`: seconds it may take, after which it has failed."""

    what: str
    most: float
    id: str = field(default_factory=lambda: token_hex(8))
    begun: float = field(default_factory=monotonic)
    ended: float | None = None
    result: Json = None
    error: str = ""

    @property
    def resource(self) -> str:
        return f"job:{self.id}"

    def state(self) -> dict[str, Json]:
        """What its resource says. `progress`: the share of its time that has passed, 1 at its end."""
        if self.ended is None:
            passed = monotonic() - self.begun
            return {"status": "running", "progress": round(min(passed / self.most, 0.99), 2)}
        if self.error:
            return {"status": "failed", "progress": 1, "error": self.error}
        return {"status": "completed", "progress": 1, "result": self.result}

    def shown(self) -> dict[str, Json]:
        """What a call answers: where to go on, and how it stands."""
        return {"job_id": self.id, "poll_resource": self.resource, **self.state()}


class Jobs:
    """Leaving the block ends what is under way."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)

    def start(self, what: str, most: float, work: Callable[[], Coroutine[Any, Any, Json]]) -> Job:
        """Begin it. Raises RefusedError."""
        if len(self._running) >= AT_ONCE:
            under_way = ", ".join(self._jobs[id].what for id in self._running)
            raise RefusedError(f"{AT_ONCE} jobs are under way ({under_way}): try again when one has ended")
        self._forget()
        job = Job(what, most)
        self._jobs[job.id] = job
        task = self._running[job.id] = asyncio.create_task(self._do(job, work), name=what)
        task.add_done_callback(lambda _: self._running.pop(job.id))
        return job

    async def _do(self, job: Job, work: Callable[[], Coroutine[Any, Any, Json]]) -> None:
        try:
            async with asyncio.timeout(job.most):
                job.result = await work()
        except asyncio.CancelledError:
            job.error = "stopped: Watchdog was told to end"
            raise
        except TimeoutError:
            job.error = f"{job.what} did not end within {job.most:g} s"
        except RefusedError as e:
            job.error = str(e)
        except Exception as e:
            log.exception("job_failed_internally", job=job.what)
            job.error = f"{type(e).__name__} inside Watchdog; its log says more"
        finally:
            job.ended = monotonic()

    def _forget(self) -> None:
        """What ended long ago, and the oldest of too many."""
        over = [job for job in self._jobs.values() if job.ended is not None]
        for place, job in enumerate(reversed(over)):
            if place >= KEPT - 1 or monotonic() - (job.ended or 0.0) > LIFETIME:
                del self._jobs[job.id]

    def find(self, id: str) -> Job | None:
        self._forget()
        return self._jobs.get(id)

    async def follow(self, job: Job, progress: Progress) -> None:
        """Until it has ended, for so long as a call may take."""
        task = self._running.get(job.id)
        end = monotonic() + FOLLOWED
        while task is not None and not task.done() and (left := end - monotonic()) > 0:
            passed = monotonic() - job.begun
            await progress(
                round(min(passed, job.most), 1), job.most, f"{job.what}: {passed:.0f} s of at most {job.most:g} s"
            )
            await asyncio.wait([task], timeout=min(STEP, left))
        if job.ended is not None:
            with suppress(Exception):  # it has ended, whether or not anybody hears it
                await progress(job.most, job.most, f"{job.what}: {job.state()['status']}")
