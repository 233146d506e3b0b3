"""Celery: jobs in a broker, worked on by Python, their results in Redis. Sent through its own package, off the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from threading import BoundedSemaphore
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool

from watchdog.fields import FROM_FILE, Line
from watchdog.model import Json
from watchdog.queues.base import (
    Canary,
    CanarySystem,
    Depth,
    DepthSystem,
    Look,
    Reach,
    Sentinel,
    Stage,
    System,
    reachable,
    unreachable,
)
from watchdog.queues.redis import RedisUrl, opened, said, spoken
from watchdog.wire.aside import aside
from watchdog.wire.faults import Fault
from watchdog.words import DAY

T = TypeVar("T")

PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
NEWEST = 500
"""Waiting messages among which a sentinel of ours is looked for."""
MOST = 8
THREADS = BoundedSemaphore(MOST)
"""What may wait for brokers at a time, calls that were given up included."""
SLACK = 10_000
"""Milliseconds that sending may take, and by which our clock and that of a worker may differ."""


def _broker_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected redis://host:6379/0 or amqp://user:password@host:5672/vhost")
    return text


class CeleryQueue(System):
    """A queue of Celery."""

    name: ClassVar[str] = "Celery"
    needs: ClassVar[tuple[str, ...]] = ("celery", "redis")
    extra: ClassVar[str] = "celery"

    broker: Annotated[str, AfterValidator(_broker_url), FROM_FILE]
    """redis://user:password@host:6379/0 or amqp://user:password@host:5672/vhost; rediss:// and amqps:// for TLS."""
    queue: Line = "celery"

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @property
    def host(self) -> str:
        return urlsplit(self.broker).hostname or ""

    @property
    def missing(self) -> Fault:
        return Fault("queue.missing", f"the broker has no queue {self.queue!r}")

    def prepare(self) -> None:
        super().prepare()
        _ = _app(self.broker, 1).connection_for_write().transport  # most of Celery is loaded by its first use

    async def knock(self, reach: Reach) -> str:
        """The broker's URL, with the address that passed our filter; TLS is about the name. Raises Fault where nobody
        listens."""
        broker = urlsplit(self.broker)
        address = await reachable(reach, self.host, broker.port or PORTS[broker.scheme])
        if broker.scheme in ("rediss", "amqps"):
            return self.broker
        user, at, _ = broker.netloc.rpartition("@")
        shown = f"[{address}]" if ":" in address else address
        return broker._replace(netloc=f"{user}{at}{shown}:{broker.port or PORTS[broker.scheme]}").geturl()

    async def aside(self, url: str, patience: float, work: Callable[[Any, Any], T]) -> T:
        """What `work` finds, given Celery and a connection to that URL, on a thread of its own: it waits as long as it
        likes, we do not. Raises Fault."""
        from kombu.exceptions import OperationalError

        if not THREADS.acquire(blocking=False):
            raise unreachable("too many earlier calls still wait for an answer")

        def run() -> T:
            try:
                app = _app(url, patience)
                with app.connection_for_write() as connection:
                    return work(app, connection)
            except OperationalError as e:  # whatever goes wrong as something is sent
                raise e.__cause__ or e from None
            finally:
                THREADS.release()

        try:
            async with asyncio.timeout(patience):
                with spoken():
                    return await aside(run, f"ask {self.target}")
        except TimeoutError:
            raise unreachable(f"the broker gives no answer in {patience:g} s") from None
        except Fault:
            raise
        except Exception as e:
            raise unreachable(said(e)) from None


class CeleryDepth(CeleryQueue, DepthSystem):
    """How many jobs wait in a queue of Celery, and on RabbitMQ how many consumers it has: more it does not show.
    In Redis, a queue that is empty and one that is not there are the same."""

    @property
    def hides(self) -> Container[str]:
        hidden = ("active", "delayed", "failed", "oldest", "failure_ratio")
        return (*hidden, "head" if urlsplit(self.broker).scheme.startswith("amqp") else "consumers")

    async def depth(self, reach: Reach, within: int | None) -> Depth:
        url = await self.knock(reach)
        depth = await self.aside(url, reach.patience, lambda _, connection: _depth(connection, self.queue))
        if depth is None:
            raise self.missing
        return depth


class CeleryCanary(CeleryQueue, CanarySystem):
    """A canary job in a queue of Celery. Its workers must keep their results in Redis, as JSON."""

    sends: ClassVar[str] = "args"
    pickup_hint: ClassVar[str] = "say finish_within alone, or tracks_started where the workers have task_track_started"
    blocks_for: ClassVar[int | None] = DAY

    backend: RedisUrl
    """Where the workers keep their results: redis://user:password@host:6379/1."""
    task: Line = "celery.accumulate"
    """The task's name. The default is a part of Celery, so that no worker needs code for it."""
    args: list[Json] = Field(default_factory=list)
    """What the task is called with."""
    tracks_started: StrictBool = False
    """The workers have `task_track_started`: only then does anybody know when a job is picked up."""

    @property
    def shows_pickup(self) -> bool:
        return self.tracks_started

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        url = await self.knock(reach)
        async with opened(self.backend, reach) as results:
            yield _Celery(self, url, reach.patience, results)


class _Celery:
    """What a worker has begun shows no state. A mark beside the results, which goes when the sentinel does or when no
    worker may begin it any more, says that there may be one: whoever sent it."""

    def __init__(self, config: CeleryCanary, url: str, patience: float, results: Any) -> None:
        self.config, self.url, self.patience, self.results = config, url, patience, results
        self.sent = ""

    async def send(self, sentinel: Sentinel) -> str:
        config = self.config

        def publish(app: Any, connection: Any) -> None:
            from kombu.entity import Queue

            if _depth(connection, config.queue) is None:
                raise config.missing
            queue = Queue(config.queue)  # type: ignore[no-untyped-call] # kombu has no types
            app.send_task(
                config.task, args=config.args, task_id=sentinel.id, queue=queue, declare=[],
                expires=sentinel.lifetime / 1000, retry=False, connection=connection,
            )  # fmt: skip

        with spoken():
            await self.results.set(_mark(sentinel.id), "", px=sentinel.lifetime + SLACK)
        try:
            await self._aside(publish)
        except Fault:
            await self._forget(sentinel.id)
            raise
        self.sent = sentinel.id
        return sentinel.id

    async def look(self, ref: str) -> Look:
        with spoken():
            try:
                meta = json.loads(await self.results.get(_key(ref)) or "{}")
            except ValueError:
                raise Fault(
                    "broker.refused", "the result is no JSON: the workers need result_serializer json"
                ) from None
        told, ended = meta.get("result"), _ms(meta.get("date_done"))
        match meta.get("status"):
            case "SUCCESS":
                return Look(Stage.DONE, finished=ended)
            case "FAILURE":
                return Look(Stage.FAILED, finished=ended, error=_error(told))
            case "REVOKED":
                return Look(Stage.FAILED, finished=ended, error="a worker put it away: revoked, or past its time")
            case "STARTED":
                return Look(Stage.RUNNING)
            case "RETRY":
                return Look(Stage.RUNNING, error=f"it waits for another try: {_error(told)}")
        if ref == self.sent:
            return Look(Stage.QUEUED if self.config.tracks_started else Stage.SENT)
        if await self._aside(lambda _, connection: _waiting(connection, self.config.queue, ref)):
            return Look(Stage.QUEUED)
        with spoken():
            return Look(Stage.SENT if await self.results.exists(_mark(ref)) else Stage.LOST)

    async def cancel(self, ref: str) -> bool:
        """What waits can be taken out of Redis; elsewhere it expires."""
        stage = (await self.look(ref)).stage
        gone = stage is not Stage.RUNNING
        if stage in (Stage.QUEUED, Stage.SENT):
            gone = await self._aside(lambda _, connection: _take(connection, self.config.queue, ref))
        if gone:
            await self._forget(ref)
        return gone

    async def _forget(self, id: str) -> None:
        with spoken():
            await self.results.delete(_key(id), _mark(id))

    async def depth(self) -> Depth:
        return await self._aside(lambda _, connection: _depth(connection, self.config.queue)) or Depth()

    async def _aside(self, work: Callable[[Any, Any], T]) -> T:
        return await self.config.aside(self.url, self.patience, work)


def _key(id: str) -> str:
    return f"celery-task-meta-{id}"


def _mark(id: str) -> str:
    return f"watchdog-canary-{id}"


def _app(broker: str, patience: float) -> Any:
    """Celery without any code of the users', and with none of its patience."""
    from celery import Celery

    app = Celery("watchdog", broker=broker, set_as_current=False)
    limits = {"socket_timeout": patience, "socket_connect_timeout": patience, "max_retries": 0}
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        broker_connection_timeout=patience,
        broker_transport_options=limits,
    )
    return app


# --- on the thread


def _is_redis(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "redis")


def _depth(connection: Any, queue: str) -> Depth | None:
    """None: there is no such queue. Redis has no queues, only messages under a name."""
    channel = connection.default_channel
    if _is_redis(connection):
        lists = _lists(channel, queue)
        heads = filter(None, (channel.client.lindex(name, -1) for name in lists))
        return Depth(sum(channel.client.llen(name) for name in lists), head=_told_apart(next(heads, None)))
    try:
        declared = channel.queue_declare(queue, passive=True)
    except connection.channel_errors as e:
        if getattr(e, "code", None) != 404:
            raise
        return None
    return Depth(declared.message_count, consumers=declared.consumer_count)


def _told_apart(message: bytes | None) -> str | None:
    """What no other message has."""
    return None if message is None else blake2b(message, digest_size=16).hexdigest()


def _lists(channel: Any, queue: str) -> list[str]:
    """Where the messages of each priority wait; those of the first list are taken first."""
    return [channel._q_for_pri(queue, priority) for priority in channel.priority_steps]


def _found(connection: Any, queue: str, id: str) -> list[tuple[str, bytes]]:
    if not _is_redis(connection):
        return []
    channel = connection.default_channel
    lists = _lists(channel, queue)
    return [(name, raw) for name in lists for raw in channel.client.lrange(name, 0, NEWEST - 1) if id.encode() in raw]


def _waiting(connection: Any, queue: str, id: str) -> bool:
    return bool(_found(connection, queue, id))


def _take(connection: Any, queue: str, id: str) -> bool:
    """Whoever takes it out has it: we, or a worker."""
    taken = [connection.default_channel.client.lrem(name, 1, raw) for name, raw in _found(connection, queue, id)]
    return any(taken)


# --- what the workers left


def _ms(told: Any) -> int | None:
    try:
        at = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _error(told: Any) -> str:
    """An exception comes as its type and what it was made of."""
    if not isinstance(told, dict):
        return told if isinstance(told, str) else ""
    args = told.get("exc_message")
    said = ", ".join(map(str, args)) if isinstance(args, list | tuple) else str(args or "")
    return f"{told.get('exc_type', 'error')}: {said}" if said else str(told.get("exc_type", ""))
