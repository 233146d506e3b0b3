"""BullMQ: jobs in Redis, worked on by Node (or Python). Sent through its own package, read with plain commands."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from watchdog.fields import Line
from watchdog.queues.base import (
    Canary,
    CanarySystem,
    Depth,
    DepthSystem,
    Ended,
    JobFacts,
    JobSource,
    Look,
    Reach,
    Sentinel,
    Snapshot,
    Stage,
    ms,
)
from watchdog.queues.redis import RedisSystem, instant, spoken
from watchdog.wire.faults import Fault

if TYPE_CHECKING:
    from bullmq import Queue

MOST = 2_000
"""Job schedulers, and jobs at work, that are read."""
RECENT = 500
"""Finished jobs of each end that are looked through for runs of schedulers."""


class BullmqQueue(RedisSystem):
    """A queue of BullMQ."""

    name: ClassVar[str] = "BullMQ"
    extra: ClassVar[str] = "bullmq"

    queue: Line
    prefix: Line = "bull"
    """What the queue's keys begin with."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    def key(self, name: str) -> str:
        return f"{self.prefix}:{self.queue}:{name}"

    async def there(self, client: Any) -> None:
        """Raises Fault where the queue is not."""
        if not await client.exists(self.key("meta")):
            raise Fault("queue.missing", f"no queue {self.queue!r} under the prefix {self.prefix!r}")


class BullmqCanary(BullmqQueue, CanarySystem):
    """A canary job in a queue of BullMQ."""

    needs: ClassVar[tuple[str, ...]] = ("redis", "bullmq")

    job: Line = "__canary__"
    """The job's name. Its worker should return at once; a processor that does not know the name may fail it."""

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with self.opened(reach) as client:
            yield _Bullmq(self, client)


class BullmqDepth(BullmqQueue, DepthSystem):
    """What is in a queue of BullMQ. How jobs ended is known as far back as completed ones are kept. The oldest is
    the older of two: the next of the jobs without a priority, and of those with one."""

    async def depth(self, reach: Reach, within: int | None) -> Depth:
        async with self.opened(reach) as client:
            with spoken():
                await self.there(client)
                return await _depth(self, client, within)


class BullmqJobs(BullmqQueue, JobSource):
    """The job schedulers of a queue."""

    async def snapshot(self, reach: Reach) -> Snapshot:
        async with self.opened(reach) as client:
            with spoken():
                return await self._read(client)

    async def _read(self, client: Any) -> Snapshot:
        """A run that is due is one job, `repeat:<scheduler>:<slot>`; when it is picked up, the next one is made."""
        async with client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self.key("repeat"), 0, MOST - 1, withscores=True)
            pipe.lrange(self.key("active"), 0, MOST - 1)
            time, planned, active = await pipe.execute()
        active = [ref for ref in active if ref.startswith("repeat:")]
        ends = [
            ref
            for kind in ("completed", "failed")
            for ref in await client.zrevrange(self.key(kind), 0, RECENT - 1)
            if ref.startswith("repeat:")
        ]
        async with client.pipeline(transaction=False) as pipe:
            for name, _ in planned:
                pipe.hgetall(self.key(f"repeat:{name}"))
            for ref in [*active, *ends]:
                pipe.hmget(self.key(ref), "rjk", "processedOn", "finishedOn", "failedReason")
            for ref in active:
                pipe.exists(self.key(f"{ref}:lock"))
            told = await pipe.execute()
        locks = told[len(told) - len(active) :]
        runs: dict[str, list[_Run]] = {}
        for n, (name, begun, ended, error) in enumerate(told[len(planned) : len(told) - len(active)]):
            if name and ms(begun) is not None:
                held = n >= len(active) or bool(locks[n])
                slot = ms([*active, *ends][n].rpartition(":")[2])
                runs.setdefault(name, []).append(_Run(ms(begun) or 0, ms(ended), error or "", held, slot))
        jobs = [_job(name, ms(due), told[n], runs.get(name, [])) for n, (name, due) in enumerate(planned)]
        return Snapshot(instant(time), tuple(await self._mended(client, jobs, runs)))

    async def _mended(self, client: Any, jobs: list[JobFacts], runs: dict[str, list[_Run]]) -> list[JobFacts]:
        """Runs that end well are often removed at once, and failed ones kept: one that was due after the newest that
        failed, and has left no trace, ended well."""
        slots = {job.name: slot for job in jobs if (slot := _later(job.credible, runs.get(job.name, []))) is not None}
        async with client.pipeline(transaction=False) as pipe:
            for name, slot in slots.items():
                pipe.exists(self.key(f"repeat:{name}:{slot}"))
            there = await pipe.execute()
        well = {name for name, found in zip(slots, there, strict=True) if not found}
        return [job._replace(failures=0, error="") if job.name in well else job for job in jobs]


class _Run(NamedTuple):
    begun: int
    ended: int | None
    error: str
    held: bool
    """Somebody works on it."""
    slot: int | None
    """When it was due."""


def _job(name: str, due: int | None, fields: dict[str, str], runs: list[_Run]) -> JobFacts:
    """A scheduler. `due`: its next run; that moves on when the run is picked up."""
    under_way = min((run for run in runs if run.ended is None), default=None)
    over = sorted((run for run in runs if run.ended is not None), key=lambda run: run.ended or 0, reverse=True)
    good = next((run for run in over if not run.error), None)
    newest = over[0] if over else None
    return JobFacts(
        name,
        cron=fields.get("pattern", ""),
        every=ms(fields.get("every")),
        timezone=fields.get("tz") or "UTC",
        next_due=due,
        last_start=max((run.begun for run in runs), default=None),
        last_end=newest.ended if newest else None,
        last_ok=good.ended if good else None,
        running_since=under_way.begun if under_way else None,
        duration=(newest.ended or 0) - newest.begun if newest else None,
        failures=len(list(takewhile(lambda run: run.error, over))),
        error=newest.error if newest else "",
        stalled=under_way is not None and not under_way.held,
    )


def _later(job: JobFacts, runs: list[_Run]) -> int | None:
    """When the last run was due that was picked up after the newest that failed, and that we do not see; None: there
    is none. The next one is made when a run is picked up."""
    until = min((run.slot for run in runs if run.ended is None and run.slot is not None), default=job.next_due)
    plan = job.plan()
    if not job.failures or plan is None or until is None:
        return None
    failed = max(run.begun for run in runs if run.ended is not None)
    return plan.before(until - 1) if plan.after(failed) < until else None


class _Bullmq:
    def __init__(self, config: BullmqCanary, client: Any) -> None:
        self.config, self.client, self.key = config, client, config.key
        self._queue: Queue | None = None

    @property
    def queue(self) -> Queue:
        if self._queue is None:
            from bullmq import Queue

            self._queue = Queue(self.config.queue, {"connection": self.client, "prefix": self.config.prefix})
        return self._queue

    async def send(self, sentinel: Sentinel) -> str:
        with spoken():
            await self.config.there(self.client)
            options = {
                "jobId": sentinel.id,
                "attempts": 1,
                "removeOnComplete": {"age": sentinel.lifetime // 1000},
                "removeOnFail": {"age": sentinel.lifetime // 1000},
            }
            await self.queue.add(self.config.job, sentinel.payload, options)
        return sentinel.id

    async def look(self, ref: str) -> Look:
        with spoken():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.key(ref), "timestamp", "processedOn", "finishedOn", "failedReason", "progress")
                pipe.exists(self.key(f"{ref}:lock"))
                told, locked = await pipe.execute()
        created, picked_up, finished = (ms(text) for text in told[:3])
        error, progress = told[3] or "", _progress(told[4])
        if created is None:
            return Look(Stage.LOST)
        if finished is not None:
            return Look(Stage.FAILED if error else Stage.DONE, picked_up, finished, error)
        if picked_up is not None:
            return Look(Stage.RUNNING, picked_up, error="" if locked else "its worker is gone", progress=progress)
        return Look(Stage.QUEUED)

    async def cancel(self, ref: str) -> bool:
        with spoken():
            return not await self.client.exists(self.key(ref)) or bool(await self.queue.remove(ref))

    async def depth(self) -> Depth:
        with spoken():
            return await _depth(self.config, self.client)


async def _depth(config: BullmqQueue, client: Any, within: int | None = None) -> Depth:
    """The job that is next stands at the end of `wait` (in older versions: of `paused`), or first in `prioritized`,
    which is not looked at while others wait."""
    key = config.key
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
    now = instant(time)
    heads = [head for head in (*heads, *first) if head]
    async with client.pipeline(transaction=False) as pipe:
        for head in heads:
            pipe.hmget(key(head), "timestamp", "processedOn", "opts")
        ready = [at for told in await pipe.execute() if (at := _ready(told)) is not None]
    return Depth(
        wait + halted + prioritized,
        active,
        delayed,
        failed,
        max(now - min(ready), 0) if ready else None,
        await _consumers(config, client),
        paused == "1",
        heads[0] if heads else None,
        None if within is None else await _ended(config, client, now - within),
    )


def _ready(told: list[str | None]) -> int | None:
    """Since when a job could be taken: it was made, it was to wait, or it was tried before."""
    created, tried = ms(told[0]), ms(told[1])
    try:
        delay = json.loads(told[2] or "{}").get("delay")
    except (ValueError, AttributeError, RecursionError):
        delay = None
    delay = ms(delay) if isinstance(delay, int) else None
    return None if created is None else max(created + (delay or 0), tried or 0)


async def _ended(config: BullmqQueue, client: Any, since: int) -> Ended:
    """How jobs ended since then, or since the first completed one that is still kept."""
    first = await client.zrange(config.key("completed"), 0, 0, withscores=True)
    since = max(since, *(ms(at) or 0 for _, at in first), 0)
    async with client.pipeline(transaction=True) as pipe:
        for name in ("failed", "completed"):
            pipe.zcount(config.key(name), since, "+inf")
        failed, well = await pipe.execute()
    return Ended(failed, well if first else None)


async def _consumers(config: BullmqQueue, client: Any) -> int | None:
    """Connections that say by their name that they work on this queue; None: this Redis does not tell."""
    from redis.exceptions import RedisError

    name = base64.b64encode(config.queue.encode()).decode()
    try:
        clients: list[dict[str, Any]] = await client.client_list()
    except RedisError:
        return None
    own = re.compile(re.escape(f"{config.prefix}:{name}") + "(:w:.*)?")
    return sum(own.fullmatch(one.get("name", "")) is not None for one in clients)


def _progress(text: str | None) -> float | None:
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
