"""The broker of Celery, Redis or RabbitMQ, through Celery's own package. Its calls block, hence they run in threads."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from threading import BoundedSemaphore
from time import monotonic
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, SingleLineText, split_and_validate_url
from watchdog.domain.observations import QueueStats
from watchdog.net.errors import ProbeError
from watchdog.net.redact import describe_queue_target
from watchdog.net.threads import run_in_daemon_thread
from watchdog.queues.base import (
    QueueConnectContext,
    QueueSystemConfig,
    build_broker_unreachable_error,
    connect_once_to_find_reachable_address,
)
from watchdog.queues.clients.redis import format_redis_error, translate_redis_errors

T = TypeVar("T")

DEFAULT_CELERY_BROKER_PORT_BY_SCHEME = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
CELERY_WORKER_RESPONSE_TIMEOUT_S = 0.5
"""How long workers have to respond to a command."""
MAX_CELERY_MESSAGES_SEARCHED = 500
"""Waiting messages that are searched for a sentinel."""
MAX_CELERY_BROKER_THREADS = 8
"""Threads that may wait for brokers at a time, including those of calls that were given up."""
CELERY_BROKER_THREAD_SEMAPHORE = BoundedSemaphore(MAX_CELERY_BROKER_THREADS)
CELERY_BROKER_FREE_THREAD_POLL_INTERVAL_S = 0.02
"""How often a call that waits looks for a free thread: threads end outside the event loop."""


def _validate_broker_url(text: str) -> str:
    split_and_validate_url(
        text, DEFAULT_CELERY_BROKER_PORT_BY_SCHEME, "redis://host:6379/0 or amqp://user:password@host:5672/vhost"
    )
    return text


class CeleryQueueConfig(QueueSystemConfig):
    """A Celery queue: a name at a broker."""

    form_fields: ClassVar[tuple[str, ...]] = ("broker", "queue")
    kind: ClassVar[str] = "celery"
    name: ClassVar[str] = "Celery"
    required_modules: ClassVar[tuple[str, ...]] = ("celery", "redis")
    pip_extra: ClassVar[str] = "celery"

    broker: Annotated[str, AfterValidator(_validate_broker_url), FILE_BACKED_FIELD_MARKER]
    """`redis://user:password@host:6379/0` or `amqp://user:password@host:5672/vhost`; `rediss://` and `amqps://` for
    TLS."""
    queue: SingleLineText = "celery"
    """The name of the queue."""

    @property
    def target(self) -> str:
        return describe_queue_target(self.broker, self.queue)

    @property
    def host(self) -> str:
        return urlsplit(self.broker).hostname or ""

    @property
    def queue_missing_error(self) -> ProbeError:
        return ProbeError("queue.missing", f"queue {self.queue!r} does not exist at the broker")

    def preload(self) -> None:
        super().preload()
        _ = _create_celery_app(self.broker, 1).connection_for_write().transport  # imports most of Celery

    async def build_address_pinned_broker_url(self, context: QueueConnectContext) -> str:
        """The broker's URL with the address that passed the address filter; with TLS, the URL as configured, because
        certificates name the host. Raises ProbeError if the broker cannot be reached."""
        broker = urlsplit(self.broker)
        port = broker.port or DEFAULT_CELERY_BROKER_PORT_BY_SCHEME[broker.scheme]
        address = await connect_once_to_find_reachable_address(context, self.host, port)
        if broker.scheme in ("rediss", "amqps"):
            return self.broker
        credentials, at, _ = broker.netloc.rpartition("@")
        host = f"[{address}]" if ":" in address else address
        return broker._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()

    async def run_with_broker_connection(self, url: str, timeout_s: float, work: Callable[[Any, Any], T]) -> T:
        """Returns the result of `work(app, connection)`, which runs in a thread with a Celery app and a connection.

        A thread that blocks is left behind after `timeout_s`, of which half may be spent waiting for a free thread.
        Raises ProbeError.
        """
        import asyncio

        from kombu.exceptions import OperationalError

        timeout_s -= await _wait_for_celery_broker_thread(timeout_s / 2)

        def call_work_with_broker_connection() -> T:
            try:
                app = _create_celery_app(url, timeout_s)
                with app.connection_for_write() as connection:
                    return work(app, connection)
            except OperationalError as e:  # wraps every error of the transport
                raise e.__cause__ or e from None
            finally:
                CELERY_BROKER_THREAD_SEMAPHORE.release()

        try:
            async with asyncio.timeout(timeout_s):
                with translate_redis_errors():
                    return await run_in_daemon_thread(call_work_with_broker_connection, f"call {self.target}")
        except TimeoutError:
            raise build_broker_unreachable_error(
                f"the broker did not respond within {round(timeout_s, 1):g} s"
            ) from None
        except ProbeError:
            raise
        except Exception as e:
            raise build_broker_unreachable_error(format_redis_error(e)) from None


async def _wait_for_celery_broker_thread(timeout_s: float) -> float:
    """Takes one of the threads, and returns how long it was waited for, in seconds. Raises ProbeError."""
    import asyncio

    started = monotonic()
    while not CELERY_BROKER_THREAD_SEMAPHORE.acquire(blocking=False):
        if monotonic() - started >= timeout_s:
            raise ProbeError.from_reason(
                "watchdog.broker_calls_busy", retryable=True, limit=str(MAX_CELERY_BROKER_THREADS)
            )
        await asyncio.sleep(CELERY_BROKER_FREE_THREAD_POLL_INTERVAL_S)
    return monotonic() - started


def _create_celery_app(broker_url: str, timeout_s: float) -> Any:
    """A Celery app without tasks, whose calls do not retry and give up after `timeout_s`."""
    from celery import Celery

    app = Celery("watchdog", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        broker_connection_timeout=timeout_s,
        broker_transport_options={
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "max_retries": 0,
        },
    )
    return app


# --- in the thread


def fetch_celery_waiting_stats(connection: Any, queue: str) -> QueueStats | None:
    """None: the queue does not exist. In Redis every queue exists, as lists of messages that may be empty."""
    channel = connection.default_channel
    if _is_redis_broker(connection):
        lists = _list_celery_priority_list_names(channel, queue)
        heads = filter(None, (channel.client.lindex(name, -1) for name in lists))
        waiting = sum(channel.client.llen(name) for name in lists)
        return QueueStats(waiting, head=_digest_celery_message(next(heads, None)))
    try:
        declared = channel.queue_declare(queue, passive=True)
    except connection.channel_errors as e:
        if getattr(e, "code", None) != 404:
            raise
        return None
    return QueueStats(declared.message_count, consumers=declared.consumer_count)


def read_whether_celery_task_waits(connection: Any, queue: str, task_id: str) -> bool:
    """Whether a task's message waits in Redis; False for RabbitMQ, whose messages cannot be read without taking
    them."""
    return bool(_find_celery_task_messages(connection, queue, task_id))


def try_remove_celery_message(connection: Any, queue: str, task_id: str) -> bool:
    """Whether the message was removed from Redis. LREM decides who gets it: Watchdog or a worker."""
    client = connection.default_channel.client
    removed = [
        client.lrem(name, 1, message) for name, message in _find_celery_task_messages(connection, queue, task_id)
    ]
    return any(removed)


def is_celery_task_worker_gone(app: Any, connection: Any, task_id: str, worker: str) -> bool:
    """Whether no worker runs a task any more that `worker` started.

    A worker that responds without listing the task was restarted. One that does not respond may be busy: without child
    processes it responds to nothing while it runs a task. So it is gone only if all that listen have responded.
    RabbitMQ does not show how many listen.
    """
    listener_count = _count_celery_control_listeners(connection) if _is_redis_broker(connection) else None
    if listener_count == 0:
        return True
    responses: list[dict[str, Any]] = app.control.broadcast(
        "query_task",
        arguments={"ids": [task_id]},
        reply=True,
        timeout=CELERY_WORKER_RESPONSE_TIMEOUT_S,
        limit=listener_count,
        connection=connection,
    )
    tasks_by_worker = {name: tasks for response in responses for name, tasks in response.items()}
    if any(task_id in tasks for tasks in tasks_by_worker.values()):
        return False
    return worker in tasks_by_worker or len(responses) == listener_count


def _count_celery_control_listeners(connection: Any) -> int:
    """The processes that listen for commands to workers, and for the events of workers."""
    with connection.channel() as channel:  # the command keeps its own busy
        client = channel.client
        database = str(client.connection_pool.connection_kwargs.get("db") or 0)
        return sum(entry.get("db") == database and entry.get("psub", "0") != "0" for entry in client.client_list())


def _is_redis_broker(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "redis")


def _digest_celery_message(message: bytes | None) -> str | None:
    return None if message is None else blake2b(message, digest_size=16).hexdigest()


def _list_celery_priority_list_names(channel: Any, queue: str) -> list[str]:
    """The Redis lists of a queue, one per priority, in the order in which workers read them."""
    return [channel._q_for_pri(queue, priority) for priority in channel.priority_steps]


def _find_celery_task_messages(connection: Any, queue: str, task_id: str) -> list[tuple[str, bytes]]:
    if not _is_redis_broker(connection):
        return []
    channel = connection.default_channel
    return [
        (name, message)
        for name in _list_celery_priority_list_names(channel, queue)
        for message in channel.client.lrange(name, 0, MAX_CELERY_MESSAGES_SEARCHED - 1)
        if task_id.encode() in message
    ]
