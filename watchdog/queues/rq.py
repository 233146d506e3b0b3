"""RQ: jobs in Redis, worked on by Python. Sent and read with plain commands."""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from watchdog.fields import Line
from watchdog.model import Json
from watchdog.queues.base import Backlog, Canary, CanarySystem, Look, Reach, Sentinel, Stage
from watchdog.queues.redis import RedisSystem, spoken
from watchdog.wire.faults import Fault

OVER = {
    "finished": Stage.DONE,
    "failed": Stage.FAILED,
    "stopped": Stage.FAILED,
    "canceled": Stage.FAILED,
}
MEDDLED = {"stopped": "somebody stopped it", "canceled": "somebody cancelled it"}
NO_CODE = "operator.index"
LONGEST = 100_000
"""Characters of a traceback that are unpacked."""


class RqRedis(RedisSystem):
    """A Redis in which RQ keeps its jobs."""

    name: ClassVar[str] = "RQ"
    extra: ClassVar[str] = "rq"

    queue: Line
    prefix: Line = "rq"
    """What all keys begin with."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"


class RqCanary(RqRedis, CanarySystem):
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
        self.config, self.client = config, client
        self.queue = self.key("queue", config.queue)

    def key(self, *parts: str) -> str:
        return ":".join((self.config.prefix, *parts))

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
            if not await self._there():
                raise Fault("queue_missing", f"no queue {self.config.queue!r}: nobody has sent to it or works on it")
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

    async def _there(self) -> bool:
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.sismember(self.key("queues"), self.queue)
            pipe.exists(self.key("workers", self.config.queue))
            return any(await pipe.execute())

    async def look(self, ref: str) -> Look:
        with spoken():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.key("job", ref), "status", "started_at", "ended_at", "worker_name")
                pipe.xrevrange(self.key("results", ref), count=1)
                (status, started, ended, worker), results = await pipe.execute()
            if status is None:
                return Look(Stage.LOST)
            if status == "started":
                gone = bool(worker) and not await self._alive([worker])
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

    async def backlog(self) -> Backlog:
        queue = self.config.queue
        with spoken():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.llen(self.queue)
                pipe.lindex(self.queue, 0)
                pipe.zcard(self.key("wip", queue))
                pipe.smembers(self.key("workers", queue))
                pipe.exists(self.key("suspended"))
                (seconds, micros), waiting, oldest, active, workers, suspended = await pipe.execute()
            since = _ms(await self.client.hget(self.key("job", oldest), "enqueued_at")) if oldest else None
            names = [worker.removeprefix(self.key("worker", "")) for worker in workers]
            alive = await self._alive(names)
        now = int(seconds) * 1000 + int(micros) // 1000
        age = None if since is None else max(now - since, 0)
        return Backlog(waiting, age, active, alive, bool(suspended))

    async def _alive(self, workers: list[str]) -> int:
        """How many of them listen to commands: a killed one stays on the list for minutes."""
        channels = [self.key("pubsub", worker) for worker in workers]
        return sum(heard > 0 for _, heard in await self.client.pubsub_numsub(*channels)) if channels else 0


def _ms(text: str | None) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000) if text else None
    except ValueError:
        return None


def _reason(results: list[tuple[str, dict[str, str]]]) -> str:
    """The last line of the traceback of the newest run."""
    packed = results[0][1].get("exc_string", "") if results else ""
    try:
        text = zlib.decompressobj().decompress(base64.b64decode(packed), LONGEST).decode(errors="replace")
    except (binascii.Error, zlib.error):
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
