"""RQ: jobs in Redis, worked on by Python. Sent and read with plain commands."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, ClassVar, Literal, NamedTuple

from watchdog.fields import Line
from watchdog.model import Json
from watchdog.queues.base import (
    Canary,
    CanarySystem,
    Depth,
    DepthSystem,
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
from watchdog.words import span

OVER = {
    "finished": Stage.DONE,
    "failed": Stage.FAILED,
    "stopped": Stage.FAILED,
    "canceled": Stage.FAILED,
}
GONE = "gone"
"""Of a run that is no longer kept: it ended well, for those that fail are kept for longer, a year mostly."""
MEDDLED = {"stopped": "somebody stopped it", "canceled": "somebody cancelled it"}
NO_CODE = "operator.index"
MOST = 500
"""Cron jobs that are read."""
RECENT = 10
"""Runs of each that are looked at."""
LONGEST = 100_000
"""Characters of a traceback that are unpacked."""


class RqRedis(RedisSystem):
    """A Redis in which RQ keeps its jobs."""

    name: ClassVar[str] = "RQ"
    extra: ClassVar[str] = "rq"

    @staticmethod
    def key(*parts: str) -> str:
        return ":".join(("rq", *parts))


class RqQueue(RqRedis):
    """A queue of RQ."""

    queue: Line

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    async def there(self, client: Any) -> None:
        """Raises Fault where the queue is not."""
        async with client.pipeline(transaction=False) as pipe:
            pipe.sismember(self.key("queues"), self.key("queue", self.queue))
            pipe.exists(self.key("workers", self.queue))
            if not any(await pipe.execute()):
                raise Fault("queue.missing", f"no queue {self.queue!r}: nobody has sent to it or works on it")


class RqCanary(RqQueue, CanarySystem):
    """A canary job in a queue of RQ."""

    sends: ClassVar[str] = "args"

    function: Line = NO_CODE
    """What its worker calls. The default is a part of Python, so that no worker needs code for it."""
    args: list[Json] | None = None
    """What the function is called with; default: nothing, or what the default function takes."""
    serializer: Literal["pickle", "json"] = "pickle"
    """As the workers have it."""

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with self.opened(reach) as client:
            yield _Rq(self, client)

    @property
    def call(self) -> bytes:
        args: list[Json] = [7] if self.args is None and self.function == NO_CODE else self.args or []
        call: list[Json] = [self.function, None, args, {}]
        return json.dumps(call).encode() if self.serializer == "json" else pickle.dumps(call, protocol=4)


class _Rq:
    def __init__(self, config: RqCanary, client: Any) -> None:
        self.config, self.client, self.key = config, client, config.key
        self.queue = self.key("queue", config.queue)

    async def send(self, sentinel: Sentinel) -> str:
        from redis.exceptions import WatchError

        job, lifetime = self.key("job", sentinel.id), sentinel.lifetime // 1000
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        fields = {
            "created_at": now, "enqueued_at": now, "origin": self.config.queue, "status": "queued",
            "description": f"{self.config.function} for a canary", "data": zlib.compress(self.config.call),
            "timeout": lifetime, "ttl": lifetime, "result_ttl": lifetime, "failure_ttl": lifetime,
        }  # fmt: skip
        with spoken():
            await self.config.there(self.client)
            async with self.client.pipeline(transaction=True) as pipe:
                await pipe.watch(job)
                if await pipe.exists(job):
                    return sentinel.id
                pipe.multi()
                pipe.hset(job, mapping=fields)
                pipe.expire(job, lifetime)
                pipe.rpush(self.queue, sentinel.id)
                with suppress(WatchError):  # another process has sent the very same
                    await pipe.execute()
        return sentinel.id

    async def look(self, ref: str) -> Look:
        with spoken():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.key("job", ref), "status", "started_at", "ended_at", "worker_name")
                pipe.xrevrange(self.key("results", ref), count=1)
                (status, started, ended, worker), results = await pipe.execute()
            if status is None:
                return Look(Stage.LOST)
            if status == "started":
                gone = bool(worker) and not await _alive(self.client, self.config, [worker])
                return Look(Stage.RUNNING, _ms(started), error="its worker is gone" if gone else "")
        if (stage := OVER.get(status)) is None:
            return Look(Stage.QUEUED)
        error = "" if stage is Stage.DONE else MEDDLED.get(status) or _reason(results)
        return Look(stage, _ms(started), _ms(ended), error)

    async def cancel(self, ref: str) -> bool:
        """Whoever takes it out of the queue has it: we, or a worker."""
        with spoken():
            ours = await self.client.lrem(self.queue, 0, ref)
            if not ours:
                look = await self.look(ref)
                if look.stage is Stage.QUEUED or (look.stage is Stage.RUNNING and not look.error):
                    return False
            await self._delete(ref)
        return True

    async def _delete(self, ref: str) -> None:
        runs = [f"{ref}:{run}" for run in await self.client.zrange(self.key("executions", ref), 0, -1)]
        queue = self.config.queue
        async with self.client.pipeline(transaction=True) as pipe:
            for registry in ("finished", "failed", "canceled"):
                pipe.zrem(self.key(registry, queue), ref)
            pipe.zrem(self.key("wip", queue), ref, *runs)
            pipe.lrem(f"{self.queue}:intermediate", 0, ref)
            pipe.delete(
                *(self.key(kind, ref) for kind in ("job", "results", "executions")),
                *(self.key("execution", run) for run in runs),
            )
            await pipe.execute()

    async def depth(self) -> Depth:
        with spoken():
            return await _depth(self.config, self.client)


class RqDepth(RqQueue, DepthSystem):
    """What is in a queue of RQ. Which share of jobs failed it does not show."""

    @property
    def hides(self) -> Container[str]:
        return ("failure_ratio",)

    async def depth(self, reach: Reach, within: int | None) -> Depth:
        async with self.opened(reach) as client:
            with spoken():
                await self.there(client)
                return await _depth(self, client)


async def _depth(config: RqQueue, client: Any) -> Depth:
    key, queue = config.key, config.queue
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.llen(key("queue", queue))
        for registry in ("wip", "scheduled", "failed"):
            pipe.zcard(key(registry, queue))
        pipe.lindex(key("queue", queue), 0)
        pipe.smembers(key("workers", queue))
        pipe.exists(key("suspended"))
        time, waiting, active, delayed, failed, head, workers, suspended = await pipe.execute()
    since = _ms(await client.hget(key("job", head), "enqueued_at")) if head else None
    now = instant(time)
    oldest = None if since is None else max(now - since, 0)
    alive = await _alive(client, config, [worker.removeprefix(key("worker", "")) for worker in workers])
    return Depth(waiting, active, delayed, failed, oldest, alive, bool(suspended), head)


class RqJobs(RqRedis, JobSource):
    """The cron jobs of RQ, and the schedulers that queue them."""

    @property
    def target(self) -> str:
        return self.host

    async def snapshot(self, reach: Reach) -> Snapshot:
        async with self.opened(reach) as client:
            with spoken():
                return await self._read(client)

    async def _read(self, client: Any) -> Snapshot:
        """A scheduler writes down what it knows of its jobs, and each job the runs that it queued."""
        async with client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self.key("cron_schedulers"), 0, -1, withscores=True)
            pipe.zrange(self.key("cron_jobs"), -1, -1, withscores=True)
            time, schedulers, newest = await pipe.execute()
        now = instant(time)
        told = [await client.hget(self.key("cron_scheduler", name), "cron_jobs") for name, _ in schedulers]
        jobs = [job for text in filter(None, told) for job in _listed(text)]
        if not any(told) and newest:
            last = ms(max([at for _, at in schedulers], default=newest[0][1]) * 1000)
            silent = span(max(now - (last or now), 0))
            raise Fault("job.scheduler_dead", f"no scheduler of RQ is running: the last sign of one is {silent} old")
        shared = Counter(_name(job) for job in jobs)
        facts = [
            _job(
                _name(job) if shared[_name(job)] == 1 else f"{_name(job)} {_plan(job)}",
                job,
                await self._runs(client, job),
            )
            for job in jobs[:MOST]
        ]
        return Snapshot(now, tuple(facts), max((ms(at * 1000) or 0 for _, at in schedulers), default=None))

    async def _runs(self, client: Any, job: Mapping[str, Any]) -> list[_Run]:
        """The newest first, as far as they are kept."""
        refs = await client.zrange(self.key("cron_job", _name(job), "jobs"), 0, RECENT - 1, desc=True)
        async with client.pipeline(transaction=False) as pipe:
            for ref in refs:
                pipe.hmget(self.key("job", ref), "status", "enqueued_at", "started_at", "ended_at", "worker_name")
                pipe.xrevrange(self.key("results", ref), count=1)
            told = await pipe.execute()
        runs = []
        for (status, queued, begun, ended, worker), results in zip(told[::2], told[1::2], strict=True):
            held = status != "started" or not worker or bool(await _alive(client, self, [worker]))
            runs.append(_Run(status or GONE, _ms(queued), _ms(begun), _ms(ended), _reason(results), held))
        return runs


class _Run(NamedTuple):
    status: str
    queued: int | None
    begun: int | None
    ended: int | None
    error: str
    held: bool
    """Nobody has left it."""


def _listed(text: str) -> list[dict[str, Any]]:
    try:
        jobs = json.loads(text)
    except (ValueError, RecursionError):
        jobs = None
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise Fault("broker.refused", "what a scheduler of RQ wrote down cannot be read")
    return jobs


def _name(job: Mapping[str, Any]) -> str:
    return str(job.get("name") or job.get("func_name"))


def _plan(job: Mapping[str, Any]) -> str:
    return str(job.get("cron") or f"every {job.get('interval')} s")


def _job(name: str, job: Mapping[str, Any], runs: list[_Run]) -> JobFacts:
    """A cron job. A run that was queued and waits is late; else the next is due when the scheduler says.

    Its expression is left out: it speaks of the local time of a host that we do not know.
    """
    every = job.get("interval")
    waiting = [run.queued for run in runs if run.status not in OVER and run.status != "started" and run.queued]
    at_work = min((run for run in runs if run.status == "started"), key=lambda run: run.begun or 0, default=None)
    over = [run for run in runs if run.status in OVER and run.ended is not None]
    good = next((run.ended for run in over if run.status == "finished"), None)
    newest = over[0] if over else None
    ended = [run for run in runs if run.status in (*OVER, GONE)]
    failed = list(takewhile(lambda run: run.status not in ("finished", GONE), ended))
    return JobFacts(
        name,
        every=ms(every * 1000) if isinstance(every, int | float) else None,
        next_due=min(waiting, default=_ms(job.get("next_enqueue_time"))),
        last_start=max((run.begun for run in runs if run.begun is not None), default=None),
        last_end=newest.ended if newest else None,
        last_ok=good,
        running_since=at_work.begun if at_work else None,
        duration=(newest.ended or 0) - newest.begun if newest and newest.begun is not None else None,
        failures=len(failed),
        error=failed[0].error if failed else "",
        stalled=at_work is not None and not at_work.held,
    )


async def _alive(client: Any, system: RqRedis, workers: list[str]) -> int:
    """How many of them listen to commands: a killed one stays on the list for minutes."""
    channels = [system.key("pubsub", worker) for worker in workers]
    return sum(heard > 0 for _, heard in await client.pubsub_numsub(*channels)) if channels else 0


def _ms(text: Any) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000) if text else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _reason(results: list[tuple[str, dict[str, str]]]) -> str:
    """The last line of the traceback of the newest run."""
    packed = results[0][1].get("exc_string", "") if results else ""
    try:
        text = zlib.decompressobj().decompress(base64.b64decode(packed), LONGEST).decode(errors="replace")
    except (ValueError, zlib.error):
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
