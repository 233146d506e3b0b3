"""Procrastinate: jobs in PostgreSQL, worked on by Python. Sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import ClassVar, NamedTuple

from watchdog.fields import Line
from watchdog.model import Json
from watchdog.queues.base import (
    Canary,
    CanarySystem,
    Depth,
    JobFacts,
    JobSource,
    Look,
    Reach,
    Sentinel,
    Snapshot,
    Stage,
)
from watchdog.queues.postgres import COUNTING, PostgresSystem, PostgresUrl, Session, connected, may_write
from watchdog.wire.faults import Fault

NO_CODE = "builtin:procrastinate.builtin_tasks.remove_old_jobs"
HARMLESS: dict[str, Json] = {"max_hours": 876_000, "queue": "__watchdog__"}
"""Removes what is a century old in a queue that is none."""
RECENT = 50_000
"""The newest jobs, among which one that is over is looked for: no index leads to it."""
BEATS = "interval '30 seconds'"
"""A worker gives a sign of life every ten seconds. Procrastinate itself takes one for dead after this."""
RUNS = 1_000
"""Runs of periodic tasks that are looked at, all tasks together."""
READING = "the role needs SELECT on procrastinate_jobs, _events, _workers and _periodic_defers"
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


class ProcrastinateQueue(ProcrastinateDatabase):
    """A queue of Procrastinate 3."""

    queue: Line

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"


class ProcrastinateCanary(ProcrastinateQueue, CanarySystem):
    """A canary job in a queue of Procrastinate 3. Its workers must keep what is done, as they do by default."""

    sends: ClassVar[str] = "args"

    task: Line = NO_CODE
    """The task's name. The default is a part of Procrastinate, so that no worker needs code for it."""
    args: dict[str, Json] | None = None
    """What the task is called with; default: nothing, or what makes the default task do nothing."""

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with connected(self, reach, RIGHTS, writes=True) as session:
            await there(session)
            yield _Procrastinate(self, session)

    @property
    def call(self) -> dict[str, Json]:
        return HARMLESS if self.args is None and self.task == NO_CODE else self.args or {}


async def there(session: Session) -> None:
    """Raises Fault where there is no Procrastinate, or one that is too old."""
    ((jobs, workers),) = await session.ask(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL, to_regclass('procrastinate_workers') IS NOT NULL"
    )
    if not jobs:
        raise Fault("queue.missing", "no Procrastinate in this database: it has no table procrastinate_jobs")
    if not workers:
        raise Fault("queue.missing", "Procrastinate 3 is needed: there is no table procrastinate_workers")


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


def at(*events: str) -> str:
    """When one of these last happened to a job."""
    kinds = ", ".join(f"'{event}'" for event in events)
    return f"""(
        SELECT round(extract(epoch FROM max(at)) * 1000)::bigint FROM procrastinate_events
        WHERE job_id = j.id AND type IN ({kinds})
    )"""


LOOK = f"""
    SELECT status::text, attempts, {GONE}, {at("started")}, {at("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j WHERE id = %(id)s
"""
CANCEL = f"""
    WITH gone AS (DELETE FROM procrastinate_jobs j WHERE id = %(id)s AND (status <> 'doing' OR {GONE}) RETURNING id)
    SELECT count(*) - (SELECT count(*) FROM gone) FROM procrastinate_jobs WHERE id = %(id)s
"""
COUNT = f"""
    WITH jobs AS (
        SELECT j.*, status = 'todo' AND coalesce(scheduled_at, now()) <= now() AS ready FROM procrastinate_jobs j
        WHERE queue_name = %(queue)s AND status IN ('todo', 'doing')
    )
    SELECT count(*) FILTER (WHERE ready), count(*) FILTER (WHERE status = 'doing'),
        count(*) FILTER (WHERE status = 'todo' AND NOT ready),
        (extract(epoch FROM now() - min(coalesce(scheduled_at, (
            SELECT min(at) FROM procrastinate_events WHERE job_id = j.id
        ))) FILTER (WHERE ready)) * 1000)::bigint,
        (
            SELECT id::text FROM jobs r
            WHERE ready AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE lock = r.lock AND status = 'doing')
            ORDER BY priority DESC, id LIMIT 1
        ),
        EXISTS (SELECT 1 FROM procrastinate_workers WHERE last_heartbeat > now() - {BEATS})
    FROM jobs j
"""


async def under_way(session: Session, queue: str) -> Depth:
    """What waits and what is being worked on. Which queues a worker works on is not written anywhere: what is known is
    whether there is any."""
    ((waiting, active, delayed, oldest, head, any_worker),) = await session.ask(COUNT, {"queue": queue}, COUNTING)
    return Depth(waiting, active, delayed, oldest=oldest, consumers=None if any_worker else 0, head=head)


class _Procrastinate:
    """A sentinel has its id as both of its locks: nobody else has that one, and an index leads to it."""

    def __init__(self, config: ProcrastinateCanary, session: Session) -> None:
        self.config, self.session = config, session
        self._ids: dict[str, int] = {}

    async def send(self, sentinel: Sentinel) -> str:
        config = self.config
        values = {"queue": config.queue, "task": config.task, "args": json.dumps(config.call)}
        for (id,) in await self.session.ask(SEND, {"ref": sentinel.id, **values}):
            self._ids[sentinel.id] = id
        return sentinel.id

    async def _id(self, ref: str) -> int:
        """0: it is not there."""
        if ref not in self._ids:
            for (id,) in await self.session.ask(FIND, {"ref": ref}):
                self._ids[ref] = id
        return self._ids.get(ref, 0)

    async def look(self, ref: str) -> Look:
        rows = await self.session.ask(LOOK, {"id": await self._id(ref)})
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
        ((left,),) = await self.session.ask(CANCEL, {"id": await self._id(ref)})
        return not left

    async def depth(self) -> Depth:
        return await under_way(self.session, self.config.queue)


QUEUED = Look(Stage.QUEUED)


class ProcrastinateJobs(ProcrastinateDatabase, JobSource):
    """The periodic tasks of Procrastinate 3. When they should run stands in the code of the workers alone: `watch`
    says it, or only runs that wait, fail or never end are told of."""

    @property
    def target(self) -> str:
        return self.host

    async def snapshot(self, reach: Reach) -> Snapshot:
        """A slot is one row, the newest of its task; its run is a job that carries the slot's time."""
        async with connected(self, reach, READING) as session:
            await there(session)
            ((now, alive, writes),) = await session.ask(ALIVE)
            if writes:
                reach.facts["writable"] = session.writable
            slots = await session.ask(SLOTS)
            if slots and alive is None:
                why = "no worker of Procrastinate is running, and it is the workers that begin periodic tasks"
                raise Fault("job.scheduler_dead", why)
            runs: dict[str, list[_Run]] = defaultdict(list)
            for task, *told in await session.ask(PERIODIC, {"tasks": sorted({slot[0] for slot in slots})}):
                runs[task].append(_Run(*told))
        sharing = Counter(task for task, _, _, _ in slots)
        jobs = []
        for task, name, due, id in slots:
            own = [run for run in runs[task] if sharing[task] == 1 or run.id == id]
            jobs.append(_periodic(f"{task}/{name}" if name else task, due, id, own))
        return Snapshot(now, tuple(jobs), alive)


class _Run(NamedTuple):
    id: int
    status: str
    gone: bool
    begun: int | None
    ended: int | None


def _periodic(name: str, due: int, id: int | None, runs: list[_Run]) -> JobFacts:
    """`id`: of the newest run; None: it was deleted, as workers may be told to do with those that end well. `runs`: the
    newest first. One that waits makes the task late."""
    waits = any(run.id == id and run.status == "todo" for run in runs)
    at_work = next((run for run in runs if run.status == "doing"), None)
    over = [run for run in runs if run.status in ("succeeded", "failed")]
    newest = over[0] if over else None
    failures = 0 if id is None else len(list(takewhile(lambda run: run.status == "failed", over)))
    return JobFacts(
        name,
        next_due=due if waits else None,
        last_start=max((run.begun for run in runs if run.begun is not None), default=None),
        last_end=newest.ended if newest else None,
        last_ok=next((run.ended for run in over if run.status == "succeeded"), None),
        running_since=at_work.begun if at_work else None,
        duration=newest.ended - newest.begun if newest and newest.ended and newest.begun else None,
        failures=failures,
        error="Procrastinate does not keep the reason" if failures else "",
        stalled=at_work is not None and at_work.gone,
    )


ALIVE = f"""
    SELECT (extract(epoch FROM now()) * 1000)::bigint,
        (SELECT (extract(epoch FROM max(last_heartbeat)) * 1000)::bigint FROM procrastinate_workers),
        {may_write("'procrastinate_jobs'", "'procrastinate_periodic_defers'")}
"""
SLOTS = """
    SELECT DISTINCT ON (task_name, periodic_id) task_name, periodic_id, defer_timestamp * 1000, job_id
    FROM procrastinate_periodic_defers ORDER BY task_name, periodic_id, defer_timestamp DESC LIMIT 500
"""
PERIODIC = f"""
    SELECT task_name, id, status::text, {GONE}, {at("started")}, {at("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {RECENT}
        AND task_name = ANY(%(tasks)s::text[]) AND args->>'timestamp' IS NOT NULL
    ORDER BY id DESC LIMIT {RUNS}
"""
