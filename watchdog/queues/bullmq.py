"""BullMQ: jobs in Redis, run by Node.js or Python workers.

Canary jobs are added with BullMQ's own package; everything else is read with plain Redis commands.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from watchdog.config_types import SingleLineText
from watchdog.domain.observations import (
    CanaryJobPollResult,
    CanaryJobStage,
    QueueStats,
    RecentlyEndedJobCounts,
)
from watchdog.domain.timestamps import parse_positive_ms
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
from watchdog.queues.job_status import parse_finite_float_or_none

if TYPE_CHECKING:
    from bullmq import Queue


MAX_BULLMQ_JOB_OPTIONS_BYTES = 64 * 1024
"""Of a job with larger options it is not known since when it waits."""
MAX_REDIS_CLIENT_LIST_CHARS = 8_000_000
"""10,000 connections, the default limit of Redis, take 4 MB."""


class BullmqQueueConfig(RedisQueueSystemConfig):
    """A BullMQ queue."""

    form_fields: ClassVar[tuple[str, ...]] = ("redis", "queue")
    kind: ClassVar[str] = "bullmq"
    name: ClassVar[str] = "BullMQ"
    pip_extra: ClassVar[str] = "bullmq"

    queue: SingleLineText
    """The name of the queue."""
    prefix: SingleLineText = "bull"
    """The prefix of the queue's Redis keys."""

    @property
    def target(self) -> str:
        return describe_queue_target(self.redis, self.queue)

    def redis_key(self, name: str) -> str:
        return f"{self.prefix}:{self.queue}:{name}"

    async def require_queue_exists(self, client: Any) -> None:
        """Raises ProbeError if it does not."""
        if not await client.exists(self.redis_key("meta")):
            raise ProbeError("queue.missing", f"queue {self.queue!r} with prefix {self.prefix!r} does not exist")


class BullmqCanary(BullmqQueueConfig, CanaryDriver):
    """A canary job in a BullMQ queue."""

    example: ClassVar[str] = """
        probes:
          - name: Email pipeline
            every: 5m
            canary:
              bullmq: {redis: "${REDIS_URL}", queue: email, job: __canary__}
              finish_within: 30s
    """

    required_modules: ClassVar[tuple[str, ...]] = ("redis", "bullmq")

    job: SingleLineText = "__canary__"
    """The name of the job. The worker should return immediately when it gets a job with this name."""

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_redis_client(self.redis, context) as client:
            yield _BullmqCanaryConnection(self, client)


class BullmqQueueStatsSource(BullmqQueueConfig, QueueStatsSource):
    """A BullMQ queue. `failure_ratio` ignores jobs that ended before the oldest completed job that the queue still
    keeps. `oldest` checks two jobs: the next one without a priority and the next one with a priority."""

    example: ClassVar[str] = """
        probes:
          - name: Email backlog
            queue: {bullmq: {redis: "${REDIS_URL}", queue: email}}
    """

    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        async with open_redis_client_mapping_errors(self.redis, context) as client:
            await self.require_queue_exists(client)
            return await _fetch_bullmq_queue_stats(self, client, window_ms)


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

    async def send(self, sentinel: CanaryJobRequest) -> str:
        with translate_redis_errors():
            await self.config.require_queue_exists(self.client)
            options = {
                "jobId": sentinel.id,
                "attempts": 1,
                "removeOnComplete": {"age": sentinel.ttl_ms // 1000},
                "removeOnFail": {"age": sentinel.ttl_ms // 1000},
            }
            await self.queue.add(self.config.job, sentinel.payload, options)
        return sentinel.id

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        fields = ("timestamp", "processedOn", "finishedOn", "failedReason", "progress")
        with translate_redis_errors():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hmget(self.redis_key(job_id), *fields)
                pipe.exists(self.redis_key(f"{job_id}:lock"))
                (*times, error, progress), has_lock = await pipe.execute()
        created_at, picked_up_at, finished_at = map(parse_positive_ms, times)
        if created_at is None:
            stage = CanaryJobStage.LOST
        elif finished_at is not None:
            stage = CanaryJobStage.FAILED if error else CanaryJobStage.DONE
        else:
            stage = CanaryJobStage.QUEUED if picked_up_at is None else CanaryJobStage.RUNNING
        return build_canary_job_poll_result(
            stage,
            picked_up_at,
            finished_at,
            error or "",
            worker_lost=not has_lock,
            progress=_parse_bullmq_progress_number(progress),
        )

    async def cancel(self, job_id: str) -> bool:
        with translate_redis_errors():
            return not await self.client.exists(self.redis_key(job_id)) or bool(await self.queue.remove(job_id))

    async def fetch_queue_stats(self) -> QueueStats:
        with translate_redis_errors():
            return await _fetch_bullmq_queue_stats(self.config, self.client)


async def _fetch_bullmq_queue_stats(config: BullmqQueueConfig, client: Any, window_ms: int | None = None) -> QueueStats:
    """The next job is the last one of `wait` (of `paused` in older versions). Only when these are empty, it is the
    first one of `prioritized`."""
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
        responses = await pipe.execute()
    time, is_paused, wait, paused, active, prioritized, delayed, failed, *heads, first_prioritized = responses
    now = parse_redis_time_ms(time)
    heads = [job_id for job_id in (*heads, *first_prioritized) if job_id]
    async with client.pipeline(transaction=False) as pipe:
        for job_id in heads:
            pipe.hstrlen(key(job_id), "opts")
        readable = [
            job_id
            for job_id, size in zip(heads, await pipe.execute(), strict=True)
            if size <= MAX_BULLMQ_JOB_OPTIONS_BYTES
        ]
        for job_id in readable:
            pipe.hmget(key(job_id), "timestamp", "processedOn", "opts")
        ready_since = [
            at for fields in await pipe.execute() if (at := _parse_bullmq_job_ready_since(fields)) is not None
        ]
    return QueueStats(
        waiting=wait + paused + prioritized,
        active=active,
        delayed=delayed,
        failed=failed,
        oldest=max(now - min(ready_since), 0) if ready_since else None,
        consumers=await _count_bullmq_workers(config, client),
        paused=is_paused == "1",
        head=heads[0] if heads else None,
        completed=None
        if window_ms is None
        else await _count_recently_ended_bullmq_jobs(config, client, now - window_ms),
    )


def _parse_bullmq_job_ready_since(fields: list[str | None]) -> int | None:
    """When a waiting job could be taken: after it was created, its delay passed and its last attempt started."""
    created_at, attempted_at = parse_positive_ms(fields[0]), parse_positive_ms(fields[1])
    try:
        delay = json.loads(fields[2] or "{}").get("delay")
    except (ValueError, AttributeError, RecursionError):
        delay = None
    delay = parse_positive_ms(delay) if isinstance(delay, int) else None
    return None if created_at is None else max(created_at + (delay or 0), attempted_at or 0)


async def _count_recently_ended_bullmq_jobs(
    config: BullmqQueueConfig, client: Any, since: int
) -> RecentlyEndedJobCounts:
    """Counts from `since`, or from the oldest completed job that is still kept."""
    oldest = await client.zrange(config.redis_key("completed"), 0, 0, withscores=True)
    since = max(since, *(parse_positive_ms(at) or 0 for _, at in oldest), 0)
    async with client.pipeline(transaction=True) as pipe:
        for name in ("failed", "completed"):
            pipe.zcount(config.redis_key(name), since, "+inf")
        failed, completed = await pipe.execute()
    return RecentlyEndedJobCounts(failed, completed if oldest else None)


async def _count_bullmq_workers(config: BullmqQueueConfig, client: Any) -> int | None:
    """Workers set the queue's name as the name of their connection. None: this Redis does not list connections."""
    from redis.exceptions import RedisError

    encoded_name = base64.b64encode(config.queue.encode()).decode()
    try:
        # Not client_list(), which takes 100 ms for 10,000 clients.
        connections: str = await client.execute_command("CLIENT", "LIST")
    except RedisError:
        return None
    if len(connections) > MAX_REDIS_CLIENT_LIST_CHARS:
        return None
    return len(re.findall(rf" name={re.escape(f'{config.prefix}:{encoded_name}')}(?::w:\S*)? ", connections))


def _parse_bullmq_progress_number(text: str | None) -> float | None:
    try:
        return parse_finite_float_or_none(json.loads(text or "null"))
    except (ValueError, RecursionError):
        return None
