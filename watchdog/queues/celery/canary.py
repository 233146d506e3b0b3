"""Canary jobs of Celery: sent through the broker, their results read from the result backend in Redis."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, ClassVar, TypeVar

from pydantic import Field, StrictBool

from watchdog.config_types import SingleLineText
from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.timestamps import parse_iso8601
from watchdog.net import PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.queues.base import (
    JOB_WORKER_GONE_MESSAGE,
    CanaryConnection,
    CanaryDriver,
    CanaryJobRequest,
    QueueConnectContext,
)
from watchdog.queues.celery.broker import (
    CeleryQueueConfig,
    fetch_celery_waiting_stats,
    is_celery_task_worker_gone,
    read_whether_celery_task_waits,
    try_remove_celery_message,
)
from watchdog.queues.clients.redis import RedisUrl, open_redis_client, translate_redis_errors

T = TypeVar("T")

CELERY_WORKER_CHECK_INTERVAL_S = 2.0
"""How often the worker of a running sentinel is asked whether it lives."""
MAX_CELERY_RESULT_CHARS_IN_EVENT_LOOP = 64 * 1024
"""A longer result is parsed in the worker process."""
CELERY_SENT_MARKER_TTL_MARGIN_MS = 10_000
"""How long sending may take, plus how far a worker's clock may be from ours."""


class CeleryCanary(CeleryQueueConfig, CanaryDriver):
    """A canary job in a Celery queue. The workers must keep their results in Redis, as JSON."""

    form_fields: ClassVar[tuple[str, ...]] = ("broker", "backend", "queue", "task")
    example: ClassVar[str] = """
        probes:
          - name: Thumbnail pipeline
            every: 5m
            canary:
              celery: {broker: "${REDIS_URL}", backend: "${REDIS_URL}", task: app.tasks.canary}
              finish_within: 1m
    """

    payload_field: ClassVar[str] = "args"
    pickup_hint: ClassVar[str] = (
        "remove start_within, or set celery.task_track_started if the workers have task_track_started"
    )
    backend: RedisUrl
    """The Redis database that holds the workers' results: `redis://user:password@host:6379/1`."""
    task: SingleLineText = "celery.accumulate"
    """The name of the task. The default is part of Celery, so workers need no code for it."""
    args: list[Json] = Field(default_factory=list)
    """The arguments for the task."""
    task_track_started: StrictBool = False
    """Whether Celery's `task_track_started` setting is on in the workers. Required for `start_within`."""

    @property
    def exposes_pickup(self) -> bool:
        return self.task_track_started

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        broker_url = await self.build_address_pinned_broker_url(context)
        async with open_redis_client(self.backend, context) as result_client:
            yield _CeleryCanaryConnection(self, broker_url, context, result_client)


class _CeleryCanaryConnection:
    """Sends and polls sentinels.

    Celery keeps no state of a task that a worker has taken and not finished. So a marker beside the results
    distinguishes a sentinel that may be running from a lost one, for whichever process sent it. The marker is
    deleted with the sentinel, and expires when workers may no longer start it.
    """

    def __init__(self, config: CeleryCanary, broker_url: str, context: QueueConnectContext, result_client: Any) -> None:
        self.config, self.broker_url, self.context, self.result_client = config, broker_url, context, result_client
        self.sent_task_id = ""
        self._drop_checks: dict[str, tuple[float, bool]] = {}
        """By task: when the workers were asked last, by the monotonic clock in seconds, and whether it is dropped."""

    async def send(self, sentinel: CanaryJobRequest) -> str:
        config = self.config

        def publish(app: Any, connection: Any) -> None:
            from kombu.entity import Queue

            if fetch_celery_waiting_stats(connection, config.queue) is None:
                raise config.queue_missing_error
            queue = Queue(config.queue)  # type: ignore[no-untyped-call] # kombu has no types
            app.send_task(
                config.task, args=config.args, task_id=sentinel.id, queue=queue, declare=[],
                expires=sentinel.ttl_ms / 1000, expiration=sentinel.ttl_ms / 1000, retry=False, connection=connection,
            )  # fmt: skip

        with translate_redis_errors():
            await self.result_client.set(
                _build_celery_sent_marker_key(sentinel.id), "", px=sentinel.ttl_ms + CELERY_SENT_MARKER_TTL_MARGIN_MS
            )
        try:
            await self._run_with_broker_connection(publish)
        except ProbeError:
            await self._delete_celery_task_result(sentinel.id)
            raise
        self.sent_task_id = sentinel.id
        self._drop_checks[sentinel.id] = monotonic(), False
        return sentinel.id

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        stored = await self._fetch_celery_task_result(job_id)
        result = stored.get("result")
        worker = result.get("hostname") if isinstance(result, dict) and stored.get("status") == "STARTED" else None
        if worker and await self._has_celery_task_lost_worker(job_id, str(worker)):
            stored = await self._fetch_celery_task_result(job_id)  # it may have finished in between
            if stored.get("status") == "STARTED":
                return CanaryJobPollResult(CanaryJobStage.RUNNING, error=JOB_WORKER_GONE_MESSAGE)
        if (status := _convert_celery_result_to_poll_result(stored)) is not None:
            return status
        if job_id == self.sent_task_id:
            return CanaryJobPollResult(CanaryJobStage.QUEUED if self.config.task_track_started else CanaryJobStage.SENT)
        queue = self.config.queue
        if await self._run_with_broker_connection(
            lambda _, connection: read_whether_celery_task_waits(connection, queue, job_id)
        ):
            return CanaryJobPollResult(CanaryJobStage.QUEUED)
        with translate_redis_errors():
            may_be_running = await self.result_client.exists(_build_celery_sent_marker_key(job_id))
            return CanaryJobPollResult(CanaryJobStage.SENT if may_be_running else CanaryJobStage.LOST)

    async def _fetch_celery_task_result(self, task_id: str) -> dict[str, Any]:
        """What the workers have stored of the task; empty if nothing."""
        with translate_redis_errors():
            text = await self.result_client.get(_build_celery_result_key(task_id)) or "{}"
        return await self.context.network.run_cpu_work_inline_or_in_worker(
            PhaseTimer(), parse_celery_task_result, text, in_worker=len(text) > MAX_CELERY_RESULT_CHARS_IN_EVENT_LOOP
        )

    async def _has_celery_task_lost_worker(self, task_id: str, worker: str) -> bool:
        """Asks the workers again only after a while; until then the last answer counts."""
        checked_at, dropped = self._drop_checks.get(task_id, (-math.inf, False))
        if monotonic() - checked_at >= CELERY_WORKER_CHECK_INTERVAL_S:
            with suppress(ProbeError):  # without the right to ask, workers are taken to live
                dropped = await self._run_with_broker_connection(
                    lambda app, connection: is_celery_task_worker_gone(app, connection, task_id, worker)
                )
            self._drop_checks[task_id] = monotonic(), dropped
        return dropped

    async def cancel(self, job_id: str) -> bool:
        """Removes a waiting message from Redis; RabbitMQ keeps it until it expires."""
        status = await self.poll(job_id)
        stage = status.stage
        removed = stage is not CanaryJobStage.RUNNING or status.error == JOB_WORKER_GONE_MESSAGE
        if stage in (CanaryJobStage.QUEUED, CanaryJobStage.SENT):
            removed = await self._run_with_broker_connection(
                lambda _, connection: try_remove_celery_message(connection, self.config.queue, job_id)
            )
        if removed:
            await self._delete_celery_task_result(job_id)
        return removed

    async def _delete_celery_task_result(self, task_id: str) -> None:
        with translate_redis_errors():
            await self.result_client.delete(_build_celery_result_key(task_id), _build_celery_sent_marker_key(task_id))

    async def fetch_queue_stats(self) -> QueueStats:
        stats = await self._run_with_broker_connection(
            lambda _, connection: fetch_celery_waiting_stats(connection, self.config.queue)
        )
        return stats or QueueStats()

    async def _run_with_broker_connection(self, work: Callable[[Any, Any], T]) -> T:
        return await self.config.run_with_broker_connection(self.broker_url, self.context.timeout_s, work)


def parse_celery_task_result(text: str) -> dict[str, Any]:
    """What decides the stage of a task. The return value of one that succeeded is left out, because it may be large."""
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise ProbeError("broker.refused", "the result is not JSON: the workers need result_serializer json")
    is_done = stored.get("status") == "SUCCESS"
    return {name: stored.get(name) for name in ("status", "date_done", *(() if is_done else ("result",)))}


def _build_celery_result_key(task_id: str) -> str:
    return f"celery-task-meta-{task_id}"


def _build_celery_sent_marker_key(task_id: str) -> str:
    return f"watchdog-canary-{task_id}"


def _convert_celery_result_to_poll_result(stored: dict[str, Any]) -> CanaryJobPollResult | None:
    """None: the workers have stored no state of the task."""
    result, finished_at = stored.get("result"), parse_iso8601(stored.get("date_done"))
    match stored.get("status"):
        case "SUCCESS":
            return CanaryJobPollResult(CanaryJobStage.DONE, finished_at=finished_at)
        case "FAILURE":
            return CanaryJobPollResult(
                CanaryJobStage.FAILED, finished_at=finished_at, error=_format_celery_task_error(result)
            )
        case "REVOKED":
            return CanaryJobPollResult(CanaryJobStage.FAILED, finished_at=finished_at, error="revoked or expired")
        case "STARTED":
            return CanaryJobPollResult(CanaryJobStage.RUNNING)
        case "RETRY":
            return CanaryJobPollResult(
                CanaryJobStage.RUNNING, error=f"waiting for a retry: {_format_celery_task_error(result)}"
            )
    return None


def _format_celery_task_error(result: Any) -> str:
    """Celery stores an exception as its type and its arguments."""
    if not isinstance(result, dict):
        return result if isinstance(result, str) else ""
    args = result.get("exc_message")
    message = ", ".join(map(str, args)) if isinstance(args, list | tuple) else str(args or "")
    return f"{result.get('exc_type', 'error')}: {message}" if message else str(result.get("exc_type", ""))
