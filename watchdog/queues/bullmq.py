"""BullMQ: jobs in Redis, worked on by Node (or Python). Sent through its own package, read with plain commands."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from watchdog.config_types import SingleLineText
from watchdog.domain.observations import CompletedCounts, JobFacts, JobSourceSnapshot, JobStage, JobStatus, QueueStats
from watchdog.domain.timestamps import parse_milliseconds
from watchdog.net.errors import ProbeError
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    ConnectContext,
    JobSource,
    QueueStatsSource,
    SentinelJob,
)
from watchdog.queues.clients.redis import RedisQueueDriver, map_redis_errors, parse_redis_time_ms

if TYPE_CHECKING:
    from bullmq import Queue

MAX_JOBS_READ = 2_000
"""Job schedulers, and jobs at work, that are read."""
MAX_FINISHED_JOBS_READ = 500
"""Finished jobs of each end that are looked through for runs of schedulers."""


class BullmqQueue(RedisQueueDriver):
    """A queue of BullMQ."""

    kind: ClassVar[str] = "bullmq"
    name: ClassVar[str] = "BullMQ"
    pip_extra: ClassVar[str] = "bullmq"

    queue: SingleLineText
    """The name of the queue."""
    prefix: SingleLineText = "bull"
    """The prefix of the queue's Redis keys."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    def redis_key(self, name: str) -> str:
        return f"{self.prefix}:{self.queue}:{name}"

    async def require_queue_exists(self, client: Any) -> None:
        """Raises Fault where the queue is not."""
        if not await client.exists(self.redis_key("meta")):
            raise ProbeError("queue.missing", f"no queue {self.queue!r} under the prefix {self.prefix!r}")


class BullmqCanary(BullmqQueue, CanaryDriver):
    """A canary job in a BullMQ queue."""

    required_modules: ClassVar[tuple[str, ...]] = ("redis", "bullmq")

    job: SingleLineText = "__canary__"
    """The name of the job. Its worker should return at once when it gets a job of this name."""

    @asynccontextmanager
    async def connect(self, context: ConnectContext) -> AsyncIterator[CanaryConnection]:
        async with self.open_client(context) as client:
            yield _BullmqCanaryConnection(self, client)


class BullmqStatsSource(BullmqQueue, QueueStatsSource):
    """A BullMQ queue. `failure_ratio` covers the completed jobs that the queue keeps. `oldest` considers the next job
    without and the next job with a priority."""

    async def fetch_queue_stats(self, context: ConnectContext, window_ms: int | None) -> QueueStats:
        async with self.open_client(context) as client:
            with map_redis_errors():
                await self.require_queue_exists(client)
                return await _fetch_queue_stats(self, client, window_ms)


class BullmqJobSource(BullmqQueue, JobSource):
    """The job schedulers of a BullMQ queue."""

    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        async with self.open_client(context) as client:
            with map_redis_errors():
                return await self._read_snapshot(client)

    async def _read_snapshot(self, client: Any) -> JobSourceSnapshot:
        """A run that is due is one job, `repeat:<scheduler>:<slot>`; when it is picked up, the next one is made."""
        async with client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self.redis_key("repeat"), 0, MAX_JOBS_READ - 1, withscores=True)
            pipe.lrange(self.redis_key("active"), 0, MAX_JOBS_READ - 1)
            time, planned, active = await pipe.execute()
        active = [ref for ref in active if ref.startswith("repeat:")]
        ends = [
            ref
            for kind in ("completed", "failed")
            for ref in await client.zrevrange(self.redis_key(kind), 0, MAX_FINISHED_JOBS_READ - 1)
            if ref.startswith("repeat:")
        ]
        async with client.pipeline(transaction=False) as pipe:
            for name, _ in planned:
                pipe.hgetall(self.redis_key(f"repeat:{name}"))
            for ref in [*active, *ends]:
                pipe.hmget(self.redis_key(ref), "rjk", "processedOn", "finishedOn", "failedReason")
            for ref in active:
                pipe.exists(self.redis_key(f"{ref}:lock"))
            told = await pipe.execute()
        locks = told[len(told) - len(active) :]
        runs: dict[str, list[_BullmqRun]] = {}
        for n, (name, begun, ended, error) in enumerate(told[len(planned) : len(told) - len(active)]):
            if name and parse_milliseconds(begun) is not None:
                held = n >= len(active) or bool(locks[n])
                slot = parse_milliseconds([*active, *ends][n].rpartition(":")[2])
                runs.setdefault(name, []).append(
                    _BullmqRun(parse_milliseconds(begun) or 0, parse_milliseconds(ended), error or "", held, slot)
                )
        jobs = [
            _job_facts(name, parse_milliseconds(due), told[n], runs.get(name, []))
            for n, (name, due) in enumerate(planned)
        ]
        return JobSourceSnapshot(
            parse_redis_time_ms(time), tuple(await self._clear_recovered_failures(client, jobs, runs))
        )

    async def _clear_recovered_failures(
        self, client: Any, jobs: list[JobFacts], runs: dict[str, list[_BullmqRun]]
    ) -> list[JobFacts]:
        """Runs that end well are often removed at once, and failed ones kept: one that was due after the newest that
        failed, and has left no trace, ended well."""
        slots = {
            job.name: slot
            for job in jobs
            if (slot := _last_due_after_failure(job.sanitized, runs.get(job.name, []))) is not None
        }
        async with client.pipeline(transaction=False) as pipe:
            for name, slot in slots.items():
                pipe.exists(self.redis_key(f"repeat:{name}:{slot}"))
            there = await pipe.execute()
        well = {name for name, found in zip(slots, there, strict=True) if not found}
        return [job._replace(failures=0, error="") if job.name in well else job for job in jobs]


class _BullmqRun(NamedTuple):
    started_at: int
    finished_at: int | None
    error: str
    has_worker: bool
    """Somebody works on it."""
    due_at: int | None
    """When it was due."""


def _job_facts(name: str, next_due: int | None, fields: dict[str, str], runs: list[_BullmqRun]) -> JobFacts:
    """A scheduler. `due`: its next run; that moves on when the run is picked up."""
    under_way = min((run for run in runs if run.finished_at is None), default=None)
    over = sorted(
        (run for run in runs if run.finished_at is not None), key=lambda run: run.finished_at or 0, reverse=True
    )
    good = next((run for run in over if not run.error), None)
    newest = over[0] if over else None
    return JobFacts(
        name,
        cron=fields.get("pattern", ""),
        every=parse_milliseconds(fields.get("every")),
        timezone=fields.get("tz") or "UTC",
        next_due=next_due,
        last_start=max((run.started_at for run in runs), default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=good.finished_at if good else None,
        running_since=under_way.started_at if under_way else None,
        duration=(newest.finished_at or 0) - newest.started_at if newest else None,
        failures=len(list(takewhile(lambda run: run.error, over))),
        error=newest.error if newest else "",
        stalled=under_way is not None and not under_way.has_worker,
    )


def _last_due_after_failure(facts: JobFacts, runs: list[_BullmqRun]) -> int | None:
    """When the last run was due that was picked up after the newest that failed, and that we do not see; None: there
    is none. The next one is made when a run is picked up."""
    until = min(
        (run.due_at for run in runs if run.finished_at is None and run.due_at is not None), default=facts.next_due
    )
    plan = facts.build_schedule()
    if not facts.failures or plan is None or until is None:
        return None
    failed = max(run.started_at for run in runs if run.finished_at is not None)
    return plan.latest_slot_until(until - 1) if plan.next_slot_after(failed) < until else None


class _BullmqCanaryConnection:
    def __init__(self, config: BullmqCanary, client: Any) -> None:
        self.config, self.client, self.redis_key = config, client, config.redis_key
        self._queue: Queue | None = None

    @property
    def queue(self) -> Queue:
        if self._queue is None:
            from bullmq import Queue

            self._queue = Queue(self.config.queue, {"connection": self.client, "prefix": self.config.prefix})
        return self._queue

    async def send(self, sentinel: SentinelJob) -> str:
        with map_redis_errors():
            await self.config.require_queue_exists(self.client)
            options = {
                "jobId": sentinel.id,
                "attempts": 1,
                "removeOnComplete": {"age": sentinel.ttl_ms // 1000},
                "removeOnFail": {"age": sentinel.ttl_ms // 1000},
            }
            await self.queue.add(self.config.job, sentinel.payload, options)
        return sentinel.id

    async def poll(self, job_id: str) -> JobStatus:
        with map_redis_errors():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.redis_key(job_id), "timestamp", "processedOn", "finishedOn", "failedReason", "progress")
                pipe.exists(self.redis_key(f"{job_id}:lock"))
                told, locked = await pipe.execute()
        created, picked_up, finished = (parse_milliseconds(text) for text in told[:3])
        error, progress = told[3] or "", _parse_progress(told[4])
        if created is None:
            return JobStatus(JobStage.LOST)
        if finished is not None:
            return JobStatus(JobStage.FAILED if error else JobStage.DONE, picked_up, finished, error)
        if picked_up is not None:
            return JobStatus(
                JobStage.RUNNING, picked_up, error="" if locked else "its worker is gone", progress=progress
            )
        return JobStatus(JobStage.QUEUED)

    async def cancel(self, job_id: str) -> bool:
        with map_redis_errors():
            return not await self.client.exists(self.redis_key(job_id)) or bool(await self.queue.remove(job_id))

    async def fetch_queue_stats(self) -> QueueStats:
        with map_redis_errors():
            return await _fetch_queue_stats(self.config, self.client)


async def _fetch_queue_stats(config: BullmqQueue, client: Any, window_ms: int | None = None) -> QueueStats:
    """The job that is next stands at the end of `wait` (in older versions: of `paused`), or first in `prioritized`,
    which is not looked at while others wait."""
    key = config.redis_key
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.hget(key("meta"), "paused")
        for name in ("wait", "paused", "active"):
            pipe.llen(key(name))
        for name in ("prioritized", "delayed", "failed"):
            pipe.zcard(key(name))
        pipe.lindex(key("wait"), -1)
        pipe.lindex(key("paused"), -1)
        pipe.zrange(key("prioritized"), 0, 0)
        told = await pipe.execute()
    time, paused, wait, halted, active, prioritized, delayed, failed, *heads, first = told
    now = parse_redis_time_ms(time)
    heads = [head for head in (*heads, *first) if head]
    async with client.pipeline(transaction=False) as pipe:
        for head in heads:
            pipe.hmget(key(head), "timestamp", "processedOn", "opts")
        ready = [at for told in await pipe.execute() if (at := _ready_since(told)) is not None]
    return QueueStats(
        wait + halted + prioritized,
        active,
        delayed,
        failed,
        max(now - min(ready), 0) if ready else None,
        await _count_consumers(config, client),
        paused == "1",
        heads[0] if heads else None,
        None if window_ms is None else await _count_completed(config, client, now - window_ms),
    )


def _ready_since(fields: list[str | None]) -> int | None:
    """Since when a job could be taken: it was made, it was to wait, or it was tried before."""
    created, tried = parse_milliseconds(fields[0]), parse_milliseconds(fields[1])
    try:
        delay = json.loads(fields[2] or "{}").get("delay")
    except (ValueError, AttributeError, RecursionError):
        delay = None
    delay = parse_milliseconds(delay) if isinstance(delay, int) else None
    return None if created is None else max(created + (delay or 0), tried or 0)


async def _count_completed(config: BullmqQueue, client: Any, since: int) -> CompletedCounts:
    """How jobs ended since then, or since the first completed one that is still kept."""
    first = await client.zrange(config.redis_key("completed"), 0, 0, withscores=True)
    since = max(since, *(parse_milliseconds(at) or 0 for _, at in first), 0)
    async with client.pipeline(transaction=True) as pipe:
        for name in ("failed", "completed"):
            pipe.zcount(config.redis_key(name), since, "+inf")
        failed, well = await pipe.execute()
    return CompletedCounts(failed, well if first else None)


async def _count_consumers(config: BullmqQueue, client: Any) -> int | None:
    """Connections that say by their name that they work on this queue; None: this Redis does not tell."""
    from redis.exceptions import RedisError

    name = base64.b64encode(config.queue.encode()).decode()
    try:
        clients: list[dict[str, Any]] = await client.client_list()
    except RedisError:
        return None
    own = re.compile(re.escape(f"{config.prefix}:{name}") + "(:w:.*)?")
    return sum(own.fullmatch(one.get("name", "")) is not None for one in clients)


def _parse_progress(text: str | None) -> float | None:
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
