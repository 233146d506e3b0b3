"""Work that may take longer than a tool call: the call waits for a while, then the client polls `job:{id}`."""

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

MAX_CONCURRENT_MCP_TOOL_JOBS = 4
MAX_FINISHED_MCP_TOOL_JOBS = 50
"""Finished jobs that can still be read; the oldest are dropped first."""
FINISHED_MCP_TOOL_JOB_TTL_S = 600.0
"""How long a finished job can be read."""
MAX_WAIT_FOR_MCP_TOOL_JOB_S = 20.0
"""How long a call waits for its job; afterwards the client reads the job's resource."""
MCP_TOOL_JOB_PROGRESS_INTERVAL_S = 1.0
MAX_WAIT_FOR_CANCELLED_MCP_TOOL_JOBS_S = 2.0
"""How long running jobs may take to end at shutdown."""

ProgressCallback = Callable[[float, float, str], Awaitable[None]]
"""(seconds passed, seconds that the job may take, message)"""


class McpToolRequestError(Exception):
    """A request that cannot be served. The message is for an agent: the cause, then what to do."""


class McpSubjectNotFoundError(McpToolRequestError):
    """What the request is about does not exist."""


@dataclass(slots=True)
class WatchdogMcpToolJob:
    """Fails after `timeout_s`. Has ended once `ended_monotonic` is set, with a `result` or an `error`."""

    description: str
    timeout_s: float
    id: str = field(default_factory=lambda: token_hex(8))
    started_monotonic: float = field(default_factory=monotonic)
    ended_monotonic: float | None = None
    result: Json = None
    error: str = ""

    @property
    def status(self) -> str:
        """running, completed or failed."""
        if self.ended_monotonic is None:
            return "running"
        return "failed" if self.error else "completed"

    @property
    def elapsed_s(self) -> float:
        return monotonic() - self.started_monotonic

    @property
    def elapsed_timeout_share(self) -> float:
        """The elapsed share of the timeout; 1 once the job has ended."""
        return round(min(self.elapsed_s / self.timeout_s, 0.99), 2) if self.ended_monotonic is None else 1


class WatchdogMcpToolJobRunner:
    """Runs a few jobs at a time and keeps finished ones for a while. Leaving the block cancels running jobs."""

    def __init__(self) -> None:
        self._jobs: dict[str, WatchdogMcpToolJob] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=MAX_WAIT_FOR_CANCELLED_MCP_TOOL_JOBS_S)

    def start_mcp_tool_job(
        self, description: str, timeout_s: float, work: Callable[[], Coroutine[Any, Any, Json]]
    ) -> WatchdogMcpToolJob:
        """Raises McpToolRequestError if too many jobs are running."""
        if len(self._running) >= MAX_CONCURRENT_MCP_TOOL_JOBS:
            running = ", ".join(self._jobs[id].description for id in self._running)
            raise McpToolRequestError(
                f"{MAX_CONCURRENT_MCP_TOOL_JOBS} jobs are running ({running}): try again when one of them has ended"
            )
        self._evict_finished_mcp_tool_jobs()
        job = WatchdogMcpToolJob(description, timeout_s)
        self._jobs[job.id] = job
        task = self._running[job.id] = asyncio.create_task(self._run_mcp_tool_job(job, work), name=description)
        task.add_done_callback(lambda _: self._running.pop(job.id))
        return job

    async def _run_mcp_tool_job(self, job: WatchdogMcpToolJob, work: Callable[[], Coroutine[Any, Any, Json]]) -> None:
        try:
            async with asyncio.timeout(job.timeout_s):
                job.result = await work()
        except asyncio.CancelledError:
            job.error = "cancelled: Watchdog is shutting down"
            raise
        except TimeoutError:
            job.error = f"{job.description} did not finish within {job.timeout_s:g} s"
        except McpToolRequestError as e:
            job.error = str(e)
        except Exception as e:
            log.exception("tool_job_error", job=job.description)
            job.error = f"internal error ({type(e).__name__}); see Watchdog's log"
        finally:
            job.ended_monotonic = monotonic()

    def _evict_finished_mcp_tool_jobs(self) -> None:
        """Drops jobs that finished long ago, and the oldest ones beyond MAX_FINISHED_MCP_TOOL_JOBS."""
        finished = [job for job in self._jobs.values() if job.ended_monotonic is not None]
        for index, job in enumerate(reversed(finished)):
            age_s = monotonic() - (job.ended_monotonic or 0.0)
            if index >= MAX_FINISHED_MCP_TOOL_JOBS - 1 or age_s > FINISHED_MCP_TOOL_JOB_TTL_S:
                del self._jobs[job.id]

    def find(self, id: str) -> WatchdogMcpToolJob | None:
        self._evict_finished_mcp_tool_jobs()
        return self._jobs.get(id)

    async def report_progress_while_waiting(self, job: WatchdogMcpToolJob, report_progress: ProgressCallback) -> None:
        """Reports progress until the job ends, for at most MAX_WAIT_FOR_MCP_TOOL_JOB_S."""
        task = self._running.get(job.id)
        deadline = monotonic() + MAX_WAIT_FOR_MCP_TOOL_JOB_S
        while task is not None and not task.done() and (remaining_s := deadline - monotonic()) > 0:
            elapsed_s = job.elapsed_s
            message = f"{job.description}: {elapsed_s:.0f} s of at most {job.timeout_s:g} s"
            await report_progress(round(min(elapsed_s, job.timeout_s), 1), job.timeout_s, message)
            await asyncio.wait([task], timeout=min(MCP_TOOL_JOB_PROGRESS_INTERVAL_S, remaining_s))
        if job.ended_monotonic is not None:
            with suppress(Exception):  # the job has ended, whether or not this report arrives
                await report_progress(job.timeout_s, job.timeout_s, f"{job.description}: {job.status}")
