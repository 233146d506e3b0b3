"""Procrastinate: jobs in PostgreSQL, worked on by Python. Sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import ClassVar, NamedTuple

from watchdog.config_types import SingleLineText
from watchdog.domain.model import Json
from watchdog.domain.observations import JobFacts, JobSourceSnapshot, JobStage, JobStatus, QueueStats
from watchdog.net.errors import ProbeError
from watchdog.queues.base import CanaryConnection, CanaryDriver, ConnectContext, JobSource, SentinelJob
from watchdog.queues.clients.postgres import (
    COUNT_TIMEOUT_S,
    PostgresQueueDriver,
    PostgresSession,
    PostgresUrl,
    has_write_access_sql,
    open_postgres_session,
)

DEFAULT_TASK_NAME = "builtin:procrastinate.builtin_tasks.remove_old_jobs"
DEFAULT_TASK_ARGS: dict[str, Json] = {"max_hours": 876_000, "queue": "__watchdog__"}
"""Removes what is a century old in a queue that is none."""
MAX_JOBS_SEARCHED = 50_000
"""The newest jobs, among which one that is over is looked for: no index leads to it."""
WORKER_HEARTBEAT_TIMEOUT_SQL = "interval '30 seconds'"
"""A worker gives a sign of life every ten seconds. Procrastinate itself takes one for dead after this."""
MAX_PERIODIC_RUNS = 1_000
"""Runs of periodic tasks that are looked at, all tasks together."""
READ_PRIVILEGES_HINT = "the role needs SELECT on procrastinate_jobs, _events, _workers and _periodic_defers"
CANARY_PRIVILEGES_HINT = (
    "the role needs SELECT, INSERT and DELETE on procrastinate_jobs, SELECT and INSERT on procrastinate_events, USAGE "
    "on the sequences of both, SELECT and UPDATE on procrastinate_periodic_defers, SELECT on procrastinate_workers"
)


class ProcrastinateDatabase(PostgresQueueDriver):
    """A database in which Procrastinate keeps its jobs."""

    kind: ClassVar[str] = "procrastinate"
    name: ClassVar[str] = "Procrastinate"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the extra `postgres`). If the tables are in a schema of
    their own, append `?options=-csearch_path%3DSCHEMA`."""


class ProcrastinateQueue(ProcrastinateDatabase):
    """A queue of Procrastinate 3."""

    queue: SingleLineText
    """The name of the queue."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"


class ProcrastinateCanary(ProcrastinateQueue, CanaryDriver):
    """A canary job in a Procrastinate 3 queue. The workers must keep finished jobs, as they do by default."""

    payload_field: ClassVar[str] = "args"

    task: SingleLineText = DEFAULT_TASK_NAME
    """The name of the task. The default is part of Procrastinate, so workers need no code for it."""
    args: dict[str, Json] | None = None
    """The arguments of the task; default: none, or those with which the default task does nothing."""

    @asynccontextmanager
    async def connect(self, context: ConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_postgres_session(self, context, CANARY_PRIVILEGES_HINT, read_write=True) as session:
            await require_procrastinate_tables(session)
            yield _ProcrastinateCanaryConnection(self, session)

    @property
    def task_args(self) -> dict[str, Json]:
        return DEFAULT_TASK_ARGS if self.args is None and self.task == DEFAULT_TASK_NAME else self.args or {}


async def require_procrastinate_tables(session: PostgresSession) -> None:
    """Raises Fault where there is no Procrastinate, or one that is too old."""
    ((jobs, workers),) = await session.fetch_all(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL, to_regclass('procrastinate_workers') IS NOT NULL"
    )
    if not jobs:
        raise ProbeError("queue.missing", "no Procrastinate in this database: it has no table procrastinate_jobs")
    if not workers:
        raise ProbeError("queue.missing", "Procrastinate 3 is needed: there is no table procrastinate_workers")


WORKER_LOST_SQL = f"""
    NOT EXISTS (SELECT 1 FROM procrastinate_workers w
      WHERE w.id = j.worker_id AND w.last_heartbeat > now() - {WORKER_HEARTBEAT_TIMEOUT_SQL})
"""
FIND_SENTINEL_SQL = f"""
    SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(ref)s AND status = 'todo'
    UNION ALL
    SELECT id FROM procrastinate_jobs WHERE lock = %(ref)s AND status = 'doing'
    UNION ALL
    SELECT id FROM procrastinate_jobs
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_JOBS_SEARCHED} AND queueing_lock = %(ref)s
"""
INSERT_SENTINEL_SQL = f"""
    WITH found AS ({FIND_SENTINEL_SQL}), sent AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
        SELECT %(queue)s, %(task)s, %(ref)s, %(ref)s, %(args)s::jsonb WHERE NOT EXISTS (SELECT FROM found)
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT id FROM found UNION ALL SELECT id FROM sent
"""


def last_event_ms_sql(*events: str) -> str:
    """When one of these last happened to a job."""
    kinds = ", ".join(f"'{event}'" for event in events)
    return f"""(
        SELECT round(extract(epoch FROM max(at)) * 1000)::bigint FROM procrastinate_events
        WHERE job_id = j.id AND type IN ({kinds})
    )"""


SENTINEL_STATUS_SQL = f"""
    SELECT status::text, attempts, {WORKER_LOST_SQL}, {last_event_ms_sql("started")},
      {last_event_ms_sql("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j WHERE id = %(id)s
"""
DELETE_SENTINEL_SQL = f"""
    WITH gone AS (DELETE FROM procrastinate_jobs j WHERE id = %(id)s AND (status <> 'doing' OR {WORKER_LOST_SQL})
      RETURNING id)
    SELECT count(*) - (SELECT count(*) FROM gone) FROM procrastinate_jobs WHERE id = %(id)s
"""
UNFINISHED_STATS_SQL = f"""
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
        EXISTS (SELECT 1 FROM procrastinate_workers WHERE last_heartbeat > now() - {WORKER_HEARTBEAT_TIMEOUT_SQL})
    FROM jobs j
"""


async def fetch_unfinished_stats(session: PostgresSession, queue: str) -> QueueStats:
    """What waits and what is being worked on. Which queues a worker works on is not written anywhere: what is known is
    whether there is any."""
    ((waiting, active, delayed, oldest, head, any_worker),) = await session.fetch_all(
        UNFINISHED_STATS_SQL, {"queue": queue}, COUNT_TIMEOUT_S
    )
    return QueueStats(waiting, active, delayed, oldest=oldest, consumers=None if any_worker else 0, head=head)


class _ProcrastinateCanaryConnection:
    """A sentinel has its id as both of its locks: nobody else has that one, and an index leads to it."""

    def __init__(self, config: ProcrastinateCanary, session: PostgresSession) -> None:
        self.config, self.session = config, session
        self._row_ids: dict[str, int] = {}

    async def send(self, sentinel: SentinelJob) -> str:
        config = self.config
        values = {"queue": config.queue, "task": config.task, "args": json.dumps(config.task_args)}
        for (id,) in await self.session.fetch_all(INSERT_SENTINEL_SQL, {"ref": sentinel.id, **values}):
            self._row_ids[sentinel.id] = id
        return sentinel.id

    async def _find_row_id(self, job_id: str) -> int:
        """0: it is not there."""
        if job_id not in self._row_ids:
            for (id,) in await self.session.fetch_all(FIND_SENTINEL_SQL, {"ref": job_id}):
                self._row_ids[job_id] = id
        return self._row_ids.get(job_id, 0)

    async def poll(self, job_id: str) -> JobStatus:
        rows = await self.session.fetch_all(SENTINEL_STATUS_SQL, {"id": await self._find_row_id(job_id)})
        if not rows:
            return JobStatus(JobStage.LOST)
        status, attempts, gone, started, ended = rows[0]
        match status:
            case "doing":
                return JobStatus(JobStage.RUNNING, started, error="its worker is gone" if gone else "")
            case "succeeded":
                return JobStatus(JobStage.DONE, started, ended)
            case "failed":
                return JobStatus(JobStage.FAILED, started, ended, "Procrastinate does not keep the reason")
            case "cancelled" | "aborted":
                return JobStatus(JobStage.FAILED, started, ended, "somebody cancelled it")
        return (
            JobStatus(JobStage.RUNNING, started, error="it failed, and waits for another try")
            if attempts
            else QUEUED_STATUS
        )

    async def cancel(self, job_id: str) -> bool:
        ((left,),) = await self.session.fetch_all(DELETE_SENTINEL_SQL, {"id": await self._find_row_id(job_id)})
        return not left

    async def fetch_queue_stats(self) -> QueueStats:
        return await fetch_unfinished_stats(self.session, self.config.queue)


QUEUED_STATUS = JobStatus(JobStage.QUEUED)


class ProcrastinateJobSource(ProcrastinateDatabase, JobSource):
    """The periodic tasks of Procrastinate 3. Their schedules are only in the code of the workers: set them in `watch`.
    Without, only runs that wait too long, fail or never end are reported."""

    @property
    def target(self) -> str:
        return self.host

    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        """A slot is one row, the newest of its task; its run is a job that carries the slot's time."""
        async with open_postgres_session(self, context, READ_PRIVILEGES_HINT) as session:
            await require_procrastinate_tables(session)
            ((now, alive, writes),) = await session.fetch_all(CLOCK_AND_WORKER_HEARTBEAT_SQL)
            if writes:
                context.facts["write_access"] = session.write_access_warning
            slots = await session.fetch_all(LATEST_PERIODIC_DEFERS_SQL)
            if slots and alive is None:
                why = "no worker of Procrastinate is running, and it is the workers that begin periodic tasks"
                raise ProbeError("job.scheduler_dead", why)
            runs: dict[str, list[_ProcrastinateRun]] = defaultdict(list)
            for task, *told in await session.fetch_all(
                PERIODIC_RUNS_SQL, {"tasks": sorted({slot[0] for slot in slots})}
            ):
                runs[task].append(_ProcrastinateRun(*told))
        sharing = Counter(task for task, _, _, _ in slots)
        jobs = []
        for task, name, due, id in slots:
            own = [run for run in runs[task] if sharing[task] == 1 or run.id == id]
            jobs.append(_job_facts(f"{task}/{name}" if name else task, due, id, own))
        return JobSourceSnapshot(now, tuple(jobs), alive)


class _ProcrastinateRun(NamedTuple):
    id: int
    status: str
    worker_lost: bool
    started_at: int | None
    finished_at: int | None


def _job_facts(name: str, due_at: int, last_run_id: int | None, runs: list[_ProcrastinateRun]) -> JobFacts:
    """`id`: of the newest run; None: it was deleted, as workers may be told to do with those that end well. `runs`: the
    newest first. One that waits makes the task late."""
    waits = any(run.id == last_run_id and run.status == "todo" for run in runs)
    at_work = next((run for run in runs if run.status == "doing"), None)
    over = [run for run in runs if run.status in ("succeeded", "failed")]
    newest = over[0] if over else None
    failures = 0 if last_run_id is None else len(list(takewhile(lambda run: run.status == "failed", over)))
    return JobFacts(
        name,
        next_due=due_at if waits else None,
        last_start=max((run.started_at for run in runs if run.started_at is not None), default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=next((run.finished_at for run in over if run.status == "succeeded"), None),
        running_since=at_work.started_at if at_work else None,
        duration=newest.finished_at - newest.started_at
        if newest and newest.finished_at and newest.started_at
        else None,
        failures=failures,
        error="Procrastinate does not keep the reason" if failures else "",
        stalled=at_work is not None and at_work.worker_lost,
    )


CLOCK_AND_WORKER_HEARTBEAT_SQL = f"""
    SELECT (extract(epoch FROM now()) * 1000)::bigint,
        (SELECT (extract(epoch FROM max(last_heartbeat)) * 1000)::bigint FROM procrastinate_workers),
        {has_write_access_sql("'procrastinate_jobs'", "'procrastinate_periodic_defers'")}
"""
LATEST_PERIODIC_DEFERS_SQL = """
    SELECT DISTINCT ON (task_name, periodic_id) task_name, periodic_id, defer_timestamp * 1000, job_id
    FROM procrastinate_periodic_defers ORDER BY task_name, periodic_id, defer_timestamp DESC LIMIT 500
"""
PERIODIC_RUNS_SQL = f"""
    SELECT task_name, id, status::text, {WORKER_LOST_SQL}, {last_event_ms_sql("started")},
      {last_event_ms_sql("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_JOBS_SEARCHED}
        AND task_name = ANY(%(tasks)s::text[]) AND args->>'timestamp' IS NOT NULL
    ORDER BY id DESC LIMIT {MAX_PERIODIC_RUNS}
"""
