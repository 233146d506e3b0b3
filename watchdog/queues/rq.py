"""RQ: jobs in Redis, run by Python workers. Watchdog sends and reads them with plain Redis commands."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from watchdog.config_types import SingleLineText
from watchdog.domain.model import Json
from watchdog.domain.observations import (
    CanaryJobPollResult,
    CanaryJobStage,
    QueueStats,
)
from watchdog.domain.timestamps import parse_iso8601
from watchdog.net.errors import ProbeError
from watchdog.net.redact import describe_queue_target
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    CanaryJobRequest,
    QueueConnectContext,
    QueueStatsSource,
    build_canary_job_poll_result,
)
from watchdog.queues.clients.redis import (
    RedisQueueSystemConfig,
    open_redis_client,
    open_redis_client_mapping_errors,
    parse_redis_time_ms,
    translate_redis_errors,
)

CANARY_STAGE_BY_FINAL_RQ_STATUS = {
    "finished": CanaryJobStage.DONE,
    "failed": CanaryJobStage.FAILED,
    "stopped": CanaryJobStage.FAILED,
    "canceled": CanaryJobStage.FAILED,
}
RQ_ABORT_MESSAGE_BY_STATUS = {"stopped": "it was stopped", "canceled": "it was cancelled"}
DEFAULT_RQ_CANARY_FUNCTION = "operator.index"
MAX_DECOMPRESSED_RQ_TRACEBACK_BYTES = 100_000
RQ_WORKERS_PER_REQUEST = 1_000


class RqRedisConfig(RedisQueueSystemConfig):
    """A Redis in which RQ keeps its jobs."""

    form_fields: ClassVar[tuple[str, ...]] = ("redis",)
    kind: ClassVar[str] = "rq"
    name: ClassVar[str] = "RQ"
    pip_extra: ClassVar[str] = "rq"

    @staticmethod
    def redis_key(*parts: str) -> str:
        return ":".join(("rq", *parts))


class RqQueueConfig(RqRedisConfig):
    """An RQ queue."""

    form_fields: ClassVar[tuple[str, ...]] = ("redis", "queue")

    queue: SingleLineText
    """The name of the queue."""

    @property
    def target(self) -> str:
        return describe_queue_target(self.redis, self.queue)

    async def require_queue_exists(self, client: Any) -> None:
        """Raises ProbeError if no job was ever sent to the queue and no worker listens to it."""
        async with client.pipeline(transaction=False) as pipe:
            pipe.sismember(self.redis_key("queues"), self.redis_key("queue", self.queue))
            pipe.exists(self.redis_key("workers", self.queue))
            if not any(await pipe.execute()):
                raise ProbeError("queue.missing", f"queue {self.queue!r} does not exist: it has no jobs and no workers")


# --- canary jobs


class RqCanary(RqQueueConfig, CanaryDriver):
    """A canary job in an RQ queue."""

    form_fields: ClassVar[tuple[str, ...]] = ("redis", "queue", "function")
    example: ClassVar[str] = """
        probes:
          - name: Import pipeline
            every: 5m
            canary:
              rq: {redis: "${REDIS_URL}", queue: imports, function: app.tasks.canary}
              finish_within: 1m
    """

    payload_field: ClassVar[str] = "args"

    function: SingleLineText = DEFAULT_RQ_CANARY_FUNCTION
    """The function that the worker calls. The default is part of Python, so workers need no code for it."""
    args: list[Json] | None = None
    """The arguments for the function; default: no arguments, or, for the default function, the argument that it
    requires."""
    serializer: Literal["pickle", "json"] = "pickle"
    """The serializer that the workers use."""

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_redis_client(self.redis, context) as client:
            yield _RqCanaryConnection(self, client)

    @property
    def serialized_function_call(self) -> bytes:
        args: list[Json] = [7] if self.args is None and self.function == DEFAULT_RQ_CANARY_FUNCTION else self.args or []
        call: list[Json] = [self.function, None, args, {}]
        return json.dumps(call).encode() if self.serializer == "json" else pickle.dumps(call, protocol=4)


class _RqCanaryConnection:
    def __init__(self, config: RqCanary, client: Any) -> None:
        self.config, self.client, self.redis_key = config, client, config.redis_key
        self.queue_key = self.redis_key("queue", config.queue)

    async def send(self, sentinel: CanaryJobRequest) -> str:
        from redis.exceptions import WatchError

        job_key, ttl_s = self.redis_key("job", sentinel.id), sentinel.ttl_ms // 1000
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        fields = {
            "created_at": now, "enqueued_at": now, "origin": self.config.queue, "status": "queued",
            "description": f"{self.config.function} for a canary",
            "data": zlib.compress(self.config.serialized_function_call),
            "timeout": ttl_s, "ttl": ttl_s, "result_ttl": ttl_s, "failure_ttl": ttl_s,
        }  # fmt: skip
        with translate_redis_errors():
            await self.config.require_queue_exists(self.client)
            async with self.client.pipeline(transaction=True) as pipe:
                await pipe.watch(job_key)
                if await pipe.exists(job_key):
                    return sentinel.id
                pipe.multi()
                pipe.hset(job_key, mapping=fields)
                pipe.expire(job_key, ttl_s)
                pipe.rpush(self.queue_key, sentinel.id)
                with suppress(WatchError):  # another process has just sent the same sentinel
                    await pipe.execute()
        return sentinel.id

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        with translate_redis_errors():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.redis_key("job", job_id), "status", "started_at", "ended_at", "worker_name")
                pipe.xrevrange(self.redis_key("results", job_id), count=1)
                (status, started, ended, worker), results = await pipe.execute()
            if status is None:
                return CanaryJobPollResult(CanaryJobStage.LOST)
            is_running = status == "started"
            worker_lost = (
                is_running and bool(worker) and not await count_live_rq_workers(self.client, self.config, [worker])
            )
        stage = (
            CanaryJobStage.RUNNING if is_running else CANARY_STAGE_BY_FINAL_RQ_STATUS.get(status, CanaryJobStage.QUEUED)
        )
        error = RQ_ABORT_MESSAGE_BY_STATUS.get(status) or extract_last_rq_traceback_line(results)
        return build_canary_job_poll_result(
            stage, parse_iso8601(started), parse_iso8601(ended), error, worker_lost=worker_lost
        )

    async def cancel(self, job_id: str) -> bool:
        """LREM decides who gets a waiting job: Watchdog or a worker."""
        with translate_redis_errors():
            if not await self.client.lrem(self.queue_key, 0, job_id):
                status = await self.poll(job_id)
                if status.stage is CanaryJobStage.QUEUED or (
                    status.stage is CanaryJobStage.RUNNING and not status.error
                ):
                    return False
            await self._delete_job(job_id)
        return True

    async def _delete_job(self, job_id: str) -> None:
        runs = [f"{job_id}:{run}" for run in await self.client.zrange(self.redis_key("executions", job_id), 0, -1)]
        queue = self.config.queue
        async with self.client.pipeline(transaction=True) as pipe:
            for registry in ("finished", "failed", "canceled"):
                pipe.zrem(self.redis_key(registry, queue), job_id)
            pipe.zrem(self.redis_key("wip", queue), job_id, *runs)
            pipe.lrem(f"{self.queue_key}:intermediate", 0, job_id)
            pipe.delete(
                *(self.redis_key(kind, job_id) for kind in ("job", "results", "executions")),
                *(self.redis_key("execution", run) for run in runs),
            )
            await pipe.execute()

    async def fetch_queue_stats(self) -> QueueStats:
        with translate_redis_errors():
            return await _fetch_rq_queue_stats(self.config, self.client)


# --- queue statistics


class RqQueueStatsSource(RqQueueConfig, QueueStatsSource):
    """An RQ queue. `failure_ratio` is not available."""

    example: ClassVar[str] = """
        probes:
          - name: Import backlog
            queue: {rq: {redis: "${REDIS_URL}", queue: default}}
    """

    @property
    def unsupported_metrics(self) -> Container[str]:
        return ("failure_ratio",)

    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        async with open_redis_client_mapping_errors(self.redis, context) as client:
            await self.require_queue_exists(client)
            return await _fetch_rq_queue_stats(self, client)


async def _fetch_rq_queue_stats(config: RqQueueConfig, client: Any) -> QueueStats:
    key, queue = config.redis_key, config.queue
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.llen(key("queue", queue))
        for registry in ("wip", "scheduled", "failed"):
            pipe.zcard(key(registry, queue))
        pipe.lindex(key("queue", queue), 0)
        pipe.smembers(key("workers", queue))
        pipe.exists(key("suspended"))
        time, waiting, active, delayed, failed, head, worker_keys, suspended = await pipe.execute()
    now = parse_redis_time_ms(time)
    head_queued_at = parse_iso8601(await client.hget(key("job", head), "enqueued_at")) if head else None
    workers = [worker_key.removeprefix(key("worker", "")) for worker_key in worker_keys]
    return QueueStats(
        waiting=waiting,
        active=active,
        delayed=delayed,
        failed=failed,
        oldest=None if head_queued_at is None else max(now - head_queued_at, 0),
        consumers=await count_live_rq_workers(client, config, workers),
        paused=bool(suspended),
        head=head,
    )


async def count_live_rq_workers(client: Any, driver: RqRedisConfig, workers: list[str]) -> int:
    """The workers that listen for commands: RQ lists a killed worker for minutes."""
    channels = [driver.redis_key("pubsub", worker) for worker in workers]
    count = 0
    for start in range(0, len(channels), RQ_WORKERS_PER_REQUEST):
        listeners = await client.pubsub_numsub(*channels[start : start + RQ_WORKERS_PER_REQUEST])
        count += sum(number > 0 for _, number in listeners)
    return count


def extract_last_rq_traceback_line(results: list[tuple[str, dict[str, str]]]) -> str:
    """Names the exception of the newest result; empty if it has none."""
    packed = results[0][1].get("exc_string", "") if results else ""
    try:
        text = (
            zlib.decompressobj()
            .decompress(base64.b64decode(packed), MAX_DECOMPRESSED_RQ_TRACEBACK_BYTES)
            .decode(errors="replace")
        )
    except (ValueError, zlib.error):
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
