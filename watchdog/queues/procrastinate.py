"""Procrastinate: jobs in PostgreSQL, worked on by Python. Sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from watchdog.fields import Line
from watchdog.model import Json
from watchdog.queues.base import Backlog, Canary, CanarySystem, Look, Reach, Sentinel, Stage
from watchdog.queues.pgboss import COUNTING, Database, PostgresSystem, PostgresUrl, connected
from watchdog.wire.faults import Fault

NO_CODE = "builtin:procrastinate.builtin_tasks.remove_old_jobs"
HARMLESS: dict[str, Json] = {"max_hours": 876_000, "queue": "__watchdog__"}
"""Removes what is a century old in a queue that is none."""
RECENT = 50_000
"""The newest jobs, among which one that is over is looked for: no index leads to it."""
BEATS = "interval '30 seconds'"
"""A worker gives a sign of life every ten seconds. Procrastinate itself takes one for dead after this."""
RIGHTS = (
    "the role needs SELECT, INSERT and DELETE on procrastinate_jobs, SELECT and INSERT on procrastinate_events, USAGE "
    "on the sequences of both, SELECT and UPDATE on procrastinate_periodic_defers, SELECT on procrastinate_workers"
)


class ProcrastinateDatabase(PostgresSystem):
    """A database in which Procrastinate keeps its jobs."""

    name: ClassVar[str] = "Procrastinate"

    url: PostgresUrl
    """postgresql://user:password@host/database, which needs the extra `postgres`. Tables in a schema of their own:
    `?options=-csearch_path%3Djobs`."""


class ProcrastinateCanary(ProcrastinateDatabase, CanarySystem):
    """A canary job in a queue of Procrastinate 3. Its workers must keep what is done, as they do by default."""

    sends: ClassVar[str] = "args"

    queue: Line
    task: Line = NO_CODE
    """The task's name. The default is a part of Procrastinate, so that no worker needs code for it."""
    args: dict[str, Json] | None = None
    """What the task is called with; default: nothing, or what makes the default task do nothing."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with connected(self, reach, RIGHTS) as database:
            await there(database)
            yield _Procrastinate(self, database)

    @property
    def call(self) -> dict[str, Json]:
        return HARMLESS if self.args is None and self.task == NO_CODE else self.args or {}


async def there(database: Database) -> None:
    """Raises Fault where there is no Procrastinate, or one that is too old."""
    ((jobs, workers),) = await database.ask(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL, to_regclass('procrastinate_workers') IS NOT NULL"
    )
    if not jobs:
        raise Fault("queue_missing", "no Procrastinate in this database: it has no table procrastinate_jobs")
    if not workers:
        raise Fault("queue_missing", "Procrastinate 3 is needed: there is no table procrastinate_workers")


GONE = f"""
    NOT EXISTS (SELECT 1 FROM procrastinate_workers w WHERE w.id = j.worker_id AND w.last_heartbeat > now() - {BEATS})
"""
FIND = f"""
    SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(ref)s AND status = 'todo'
    UNION ALL
    SELECT id FROM procrastinate_jobs WHERE lock = %(ref)s AND status = 'doing'
    UNION ALL
    SELECT id FROM procrastinate_jobs
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {RECENT} AND queueing_lock = %(ref)s
"""
SEND = f"""
    WITH found AS ({FIND}), sent AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
        SELECT %(queue)s, %(task)s, %(ref)s, %(ref)s, %(args)s::jsonb WHERE NOT EXISTS (SELECT FROM found)
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT id FROM found UNION ALL SELECT id FROM sent
"""
LOOK = f"""
    SELECT status::text, attempts, {GONE},
        (SELECT round(extract(epoch FROM max(at)) * 1000)::bigint FROM procrastinate_events
         WHERE job_id = j.id AND type = 'started'),
        (SELECT round(extract(epoch FROM max(at)) * 1000)::bigint FROM procrastinate_events
         WHERE job_id = j.id AND type IN ('succeeded', 'failed', 'cancelled', 'aborted'))
    FROM procrastinate_jobs j WHERE id = %(id)s
"""
CANCEL = f"""
    WITH gone AS (DELETE FROM procrastinate_jobs j WHERE id = %(id)s AND (status <> 'doing' OR {GONE}) RETURNING id)
    SELECT count(*) - (SELECT count(*) FROM gone) FROM procrastinate_jobs WHERE id = %(id)s
"""
COUNT = f"""
    SELECT count(*) FILTER (WHERE status = 'todo'), count(*) FILTER (WHERE status = 'doing'),
        (extract(epoch FROM now() - min(coalesce(scheduled_at, (
            SELECT min(at) FROM procrastinate_events WHERE job_id = j.id
        ))) FILTER (WHERE status = 'todo')) * 1000)::bigint,
        EXISTS (SELECT 1 FROM procrastinate_workers WHERE last_heartbeat > now() - {BEATS})
    FROM procrastinate_jobs j
    WHERE queue_name = %(queue)s AND (status = 'doing' OR status = 'todo' AND coalesce(scheduled_at, now()) <= now())
"""


class _Procrastinate:
    """A sentinel has its id as both of its locks: nobody else has that one, and an index leads to it."""

    def __init__(self, config: ProcrastinateCanary, database: Database) -> None:
        self.config, self.database = config, database
        self._ids: dict[str, int] = {}

    async def send(self, sentinel: Sentinel) -> str:
        config = self.config
        values = {"queue": config.queue, "task": config.task, "args": json.dumps(config.call)}
        for (id,) in await self.database.ask(SEND, {"ref": sentinel.id, **values}):
            self._ids[sentinel.id] = id
        return sentinel.id

    async def _id(self, ref: str) -> int:
        """0: it is not there."""
        if ref not in self._ids:
            for (id,) in await self.database.ask(FIND, {"ref": ref}):
                self._ids[ref] = id
        return self._ids.get(ref, 0)

    async def look(self, ref: str) -> Look:
        rows = await self.database.ask(LOOK, {"id": await self._id(ref)})
        if not rows:
            return Look(Stage.LOST)
        status, attempts, gone, started, ended = rows[0]
        match status:
            case "doing":
                return Look(Stage.RUNNING, started, error="its worker is gone" if gone else "")
            case "succeeded":
                return Look(Stage.DONE, started, ended)
            case "failed":
                return Look(Stage.FAILED, started, ended, "Procrastinate does not keep the reason")
            case "cancelled" | "aborted":
                return Look(Stage.FAILED, started, ended, "somebody cancelled it")
        return Look(Stage.RUNNING, started, error="it failed, and waits for another try") if attempts else QUEUED

    async def cancel(self, ref: str) -> bool:
        ((left,),) = await self.database.ask(CANCEL, {"id": await self._id(ref)})
        return not left

    async def backlog(self) -> Backlog:
        """Which queues a worker works on is not written anywhere: what is known is whether there is any."""
        ((waiting, active, oldest, any_worker),) = await self.database.ask(
            COUNT, {"queue": self.config.queue}, COUNTING
        )
        return Backlog(waiting, oldest, active, None if any_worker else 0)


QUEUED = Look(Stage.QUEUED)
