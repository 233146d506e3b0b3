"""Celery: jobs in a broker, worked on by Python, their results in Redis. Sent through its own package, off the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from hashlib import blake2b
from threading import BoundedSemaphore
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool

from watchdog.config_types import ALLOW_FROM_FILE, SingleLineText, split_url
from watchdog.domain.formatting import DAY_MS
from watchdog.domain.model import Json
from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.domain.timestamps import parse_iso8601
from watchdog.net.errors import ProbeError
from watchdog.net.threads import run_in_daemon_thread
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    ConnectContext,
    QueueDriver,
    QueueStatsSource,
    SentinelJob,
    broker_unreachable_error,
    resolve_reachable_address,
)
from watchdog.queues.clients.redis import RedisUrl, map_redis_errors, open_redis_client, redis_error_message

T = TypeVar("T")

DEFAULT_BROKER_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
MAX_MESSAGES_SEARCHED = 500
"""Waiting messages among which a sentinel of ours is looked for."""
MAX_BROKER_THREADS = 8
BROKER_THREAD_SEMAPHORE = BoundedSemaphore(MAX_BROKER_THREADS)
"""What may wait for brokers at a time, calls that were given up included."""
SEND_AND_CLOCK_SKEW_MS = 10_000
"""Milliseconds that sending may take, and by which our clock and that of a worker may differ."""


def _validate_broker_url(text: str) -> str:
    split_url(text, DEFAULT_BROKER_PORTS, "redis://host:6379/0 or amqp://user:password@host:5672/vhost")
    return text


class CeleryQueue(QueueDriver):
    """A queue of Celery."""

    kind: ClassVar[str] = "celery"
    name: ClassVar[str] = "Celery"
    required_modules: ClassVar[tuple[str, ...]] = ("celery", "redis")
    pip_extra: ClassVar[str] = "celery"

    broker: Annotated[str, AfterValidator(_validate_broker_url), ALLOW_FROM_FILE]
    """`redis://user:password@host:6379/0` or `amqp://user:password@host:5672/vhost`; `rediss://` and `amqps://` for
    TLS."""
    queue: SingleLineText = "celery"
    """The name of the queue."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @property
    def host(self) -> str:
        return urlsplit(self.broker).hostname or ""

    @property
    def queue_missing_error(self) -> ProbeError:
        return ProbeError("queue.missing", f"the broker has no queue {self.queue!r}")

    def prepare(self) -> None:
        super().prepare()
        _ = _create_app(self.broker, 1).connection_for_write().transport  # most of Celery is loaded by its first use

    async def resolve_broker_url(self, context: ConnectContext) -> str:
        """The broker's URL, with the address that passed our filter; TLS is about the name. Raises Fault where nobody
        listens."""
        broker = urlsplit(self.broker)
        address = await resolve_reachable_address(
            context, self.host, broker.port or DEFAULT_BROKER_PORTS[broker.scheme]
        )
        if broker.scheme in ("rediss", "amqps"):
            return self.broker
        user, at, _ = broker.netloc.rpartition("@")
        shown = f"[{address}]" if ":" in address else address
        return broker._replace(
            netloc=f"{user}{at}{shown}:{broker.port or DEFAULT_BROKER_PORTS[broker.scheme]}"
        ).geturl()

    async def run_with_broker_connection(self, url: str, timeout_s: float, work: Callable[[Any, Any], T]) -> T:
        """What `work` finds, given Celery and a connection to that URL, on a thread of its own: it waits as long as it
        likes, we do not. Raises Fault."""
        from kombu.exceptions import OperationalError

        if not BROKER_THREAD_SEMAPHORE.acquire(blocking=False):
            raise broker_unreachable_error("too many earlier calls still wait for an answer")

        def run() -> T:
            try:
                app = _create_app(url, timeout_s)
                with app.connection_for_write() as connection:
                    return work(app, connection)
            except OperationalError as e:  # whatever goes wrong as something is sent
                raise e.__cause__ or e from None
            finally:
                BROKER_THREAD_SEMAPHORE.release()

        try:
            async with asyncio.timeout(timeout_s):
                with map_redis_errors():
                    return await run_in_daemon_thread(run, f"ask {self.target}")
        except TimeoutError:
            raise broker_unreachable_error(f"the broker gives no answer in {timeout_s:g} s") from None
        except ProbeError:
            raise
        except Exception as e:
            raise broker_unreachable_error(redis_error_message(e)) from None


class CeleryStatsSource(CeleryQueue, QueueStatsSource):
    """A Celery queue. Only `waiting`, `stalled` and, on RabbitMQ, `consumers` are available. On Redis, an empty queue
    cannot be told from one that does not exist."""

    @property
    def unsupported_metrics(self) -> Container[str]:
        hidden = ("active", "delayed", "failed", "oldest", "failure_ratio")
        return (*hidden, "head" if urlsplit(self.broker).scheme.startswith("amqp") else "consumers")

    async def fetch_queue_stats(self, context: ConnectContext, window_ms: int | None) -> QueueStats:
        url = await self.resolve_broker_url(context)
        depth = await self.run_with_broker_connection(
            url, context.timeout_s, lambda _, connection: _fetch_queue_stats(connection, self.queue)
        )
        if depth is None:
            raise self.queue_missing_error
        return depth


class CeleryCanary(CeleryQueue, CanaryDriver):
    """A canary job in a Celery queue. The workers must keep their results in Redis, as JSON."""

    payload_field: ClassVar[str] = "args"
    pickup_hint: ClassVar[str] = (
        "remove start_within, or set celery.task_track_started if the workers have task_track_started"
    )
    blocking_period_ms: ClassVar[int | None] = DAY_MS

    backend: RedisUrl
    """The Redis with the results of the workers: `redis://user:password@host:6379/1`."""
    task: SingleLineText = "celery.accumulate"
    """The name of the task. The default is part of Celery, so workers need no code for it."""
    args: list[Json] = Field(default_factory=list)
    """The arguments of the task."""
    task_track_started: StrictBool = False
    """Whether the workers run with Celery's setting `task_track_started`. Required for `start_within`."""

    @property
    def exposes_pickup(self) -> bool:
        return self.task_track_started

    @asynccontextmanager
    async def connect(self, context: ConnectContext) -> AsyncIterator[CanaryConnection]:
        url = await self.resolve_broker_url(context)
        async with open_redis_client(self.backend, context) as results:
            yield _CeleryCanaryConnection(self, url, context.timeout_s, results)


class _CeleryCanaryConnection:
    """What a worker has begun shows no state. A mark beside the results, which goes when the sentinel does or when no
    worker may begin it any more, says that there may be one: whoever sent it."""

    def __init__(self, config: CeleryCanary, url: str, timeout_s: float, results: Any) -> None:
        self.config, self.broker_url, self.timeout_s, self.result_client = config, url, timeout_s, results
        self.sent_task_id = ""

    async def send(self, sentinel: SentinelJob) -> str:
        config = self.config

        def publish(app: Any, connection: Any) -> None:
            from kombu.entity import Queue

            if _fetch_queue_stats(connection, config.queue) is None:
                raise config.queue_missing_error
            queue = Queue(config.queue)  # type: ignore[no-untyped-call] # kombu has no types
            app.send_task(
                config.task, args=config.args, task_id=sentinel.id, queue=queue, declare=[],
                expires=sentinel.ttl_ms / 1000, retry=False, connection=connection,
            )  # fmt: skip

        with map_redis_errors():
            await self.result_client.set(_sent_marker_key(sentinel.id), "", px=sentinel.ttl_ms + SEND_AND_CLOCK_SKEW_MS)
        try:
            await self._run_with_broker_connection(publish)
        except ProbeError:
            await self._delete_result(sentinel.id)
            raise
        self.sent_task_id = sentinel.id
        return sentinel.id

    async def poll(self, job_id: str) -> JobStatus:
        with map_redis_errors():
            try:
                meta = json.loads(await self.result_client.get(_result_key(job_id)) or "{}")
            except ValueError:
                raise ProbeError(
                    "broker.refused", "the result is no JSON: the workers need result_serializer json"
                ) from None
        told, ended = meta.get("result"), parse_iso8601(meta.get("date_done"))
        match meta.get("status"):
            case "SUCCESS":
                return JobStatus(JobStage.DONE, finished_at=ended)
            case "FAILURE":
                return JobStatus(JobStage.FAILED, finished_at=ended, error=_error_message(told))
            case "REVOKED":
                return JobStatus(
                    JobStage.FAILED, finished_at=ended, error="a worker put it away: revoked, or past its time"
                )
            case "STARTED":
                return JobStatus(JobStage.RUNNING)
            case "RETRY":
                return JobStatus(JobStage.RUNNING, error=f"it waits for another try: {_error_message(told)}")
        if job_id == self.sent_task_id:
            return JobStatus(JobStage.QUEUED if self.config.task_track_started else JobStage.SENT)
        if await self._run_with_broker_connection(
            lambda _, connection: _is_waiting(connection, self.config.queue, job_id)
        ):
            return JobStatus(JobStage.QUEUED)
        with map_redis_errors():
            return JobStatus(
                JobStage.SENT if await self.result_client.exists(_sent_marker_key(job_id)) else JobStage.LOST
            )

    async def cancel(self, job_id: str) -> bool:
        """What waits can be taken out of Redis; elsewhere it expires."""
        stage = (await self.poll(job_id)).stage
        gone = stage is not JobStage.RUNNING
        if stage in (JobStage.QUEUED, JobStage.SENT):
            gone = await self._run_with_broker_connection(
                lambda _, connection: _remove_message(connection, self.config.queue, job_id)
            )
        if gone:
            await self._delete_result(job_id)
        return gone

    async def _delete_result(self, task_id: str) -> None:
        with map_redis_errors():
            await self.result_client.delete(_result_key(task_id), _sent_marker_key(task_id))

    async def fetch_queue_stats(self) -> QueueStats:
        return (
            await self._run_with_broker_connection(
                lambda _, connection: _fetch_queue_stats(connection, self.config.queue)
            )
            or QueueStats()
        )

    async def _run_with_broker_connection(self, work: Callable[[Any, Any], T]) -> T:
        return await self.config.run_with_broker_connection(self.broker_url, self.timeout_s, work)


def _result_key(task_id: str) -> str:
    return f"celery-task-meta-{task_id}"


def _sent_marker_key(task_id: str) -> str:
    return f"watchdog-canary-{task_id}"


def _create_app(broker: str, timeout_s: float) -> Any:
    """Celery without any code of the users', and with none of its patience."""
    from celery import Celery

    app = Celery("watchdog", broker=broker, set_as_current=False)
    limits = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "max_retries": 0}
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        broker_connection_timeout=timeout_s,
        broker_transport_options=limits,
    )
    return app


# --- on the thread


def _is_redis(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "redis")


def _fetch_queue_stats(connection: Any, queue: str) -> QueueStats | None:
    """None: there is no such queue. Redis has no queues, only messages under a name."""
    channel = connection.default_channel
    if _is_redis(connection):
        lists = _priority_list_names(channel, queue)
        heads = filter(None, (channel.client.lindex(name, -1) for name in lists))
        return QueueStats(sum(channel.client.llen(name) for name in lists), head=_message_digest(next(heads, None)))
    try:
        declared = channel.queue_declare(queue, passive=True)
    except connection.channel_errors as e:
        if getattr(e, "code", None) != 404:
            raise
        return None
    return QueueStats(declared.message_count, consumers=declared.consumer_count)


def _message_digest(message: bytes | None) -> str | None:
    """What no other message has."""
    return None if message is None else blake2b(message, digest_size=16).hexdigest()


def _priority_list_names(channel: Any, queue: str) -> list[str]:
    """Where the messages of each priority wait; those of the first list are taken first."""
    return [channel._q_for_pri(queue, priority) for priority in channel.priority_steps]


def _find_messages(connection: Any, queue: str, task_id: str) -> list[tuple[str, bytes]]:
    if not _is_redis(connection):
        return []
    channel = connection.default_channel
    lists = _priority_list_names(channel, queue)
    return [
        (name, raw)
        for name in lists
        for raw in channel.client.lrange(name, 0, MAX_MESSAGES_SEARCHED - 1)
        if task_id.encode() in raw
    ]


def _is_waiting(connection: Any, queue: str, task_id: str) -> bool:
    return bool(_find_messages(connection, queue, task_id))


def _remove_message(connection: Any, queue: str, task_id: str) -> bool:
    """Whoever takes it out has it: we, or a worker."""
    taken = [
        connection.default_channel.client.lrem(name, 1, raw) for name, raw in _find_messages(connection, queue, task_id)
    ]
    return any(taken)


# --- what the workers left


def _error_message(result: Any) -> str:
    """An exception comes as its type and what it was made of."""
    if not isinstance(result, dict):
        return result if isinstance(result, str) else ""
    args = result.get("exc_message")
    said = ", ".join(map(str, args)) if isinstance(args, list | tuple) else str(args or "")
    return f"{result.get('exc_type', 'error')}: {said}" if said else str(result.get("exc_type", ""))
