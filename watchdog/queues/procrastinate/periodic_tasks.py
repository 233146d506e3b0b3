"""The periodic tasks of Procrastinate, by the jobs that its workers have created for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import takewhile
from typing import ClassVar, NamedTuple

from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.queues.base import JobSource, QueueConnectContext, select_oldest_job_run_in_progress
from watchdog.queues.clients.postgres import (
    PostgresQueueSession,
    build_write_access_condition_sql,
    open_postgres_queue_session,
)
from watchdog.queues.procrastinate.schema import (
    MAX_PROCRASTINATE_JOBS_SEARCHED,
    PROCRASTINATE_UNKNOWN_FAILURE_REASON_MESSAGE,
    PROCRASTINATE_WORKER_LOST_CONDITION_SQL,
    ProcrastinateDatabaseConfig,
    build_procrastinate_last_event_ms_sql,
    require_procrastinate_tables,
)

PROCRASTINATE_WORKER_HEARTBEAT_TIMEOUT_MS = 30_000
"""Workers, which start the periodic tasks, report every ten seconds. Procrastinate gives one up after this time."""
MAX_PROCRASTINATE_PERIODIC_TASKS = 500
MAX_PROCRASTINATE_PERIODIC_RUNS = 1_000
"""The newest runs, of all periodic tasks together."""
PROCRASTINATE_READ_PRIVILEGES_HINT = (
    "the role needs SELECT on procrastinate_jobs, _events, _workers and _periodic_defers"
)

PROCRASTINATE_CLOCK_AND_HEARTBEAT_SQL = f"""
    SELECT (extract(epoch FROM now()) * 1000)::bigint,
        (SELECT (extract(epoch FROM max(last_heartbeat)) * 1000)::bigint FROM procrastinate_workers),
        {build_write_access_condition_sql("'procrastinate_jobs'", "'procrastinate_periodic_defers'")}
"""
PROCRASTINATE_LATEST_DEFERRED_JOB_IDS_SQL = f"""
    SELECT DISTINCT ON (task_name, periodic_id) task_name, periodic_id, job_id
    FROM procrastinate_periodic_defers ORDER BY task_name, periodic_id, defer_timestamp DESC
    LIMIT {MAX_PROCRASTINATE_PERIODIC_TASKS + 1}
"""
PROCRASTINATE_PERIODIC_RUNS_SQL = f"""
    SELECT task_name, id, jsonb_build_array(args - 'timestamp', queue_name, lock, queueing_lock)::text,
      status::text, {PROCRASTINATE_WORKER_LOST_CONDITION_SQL},
      CASE WHEN jsonb_typeof(args->'timestamp') = 'number' THEN ((args->>'timestamp')::numeric * 1000)::bigint END,
      {build_procrastinate_last_event_ms_sql("started")},
      {build_procrastinate_last_event_ms_sql("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_PROCRASTINATE_JOBS_SEARCHED}
        AND task_name = ANY(%(tasks)s::text[]) AND args->>'timestamp' IS NOT NULL
    ORDER BY id DESC
    LIMIT {MAX_PROCRASTINATE_PERIODIC_RUNS}
"""


class ProcrastinatePeriodicJobSource(ProcrastinateDatabaseConfig, JobSource):
    """Procrastinate 3 periodic tasks. Their schedules are defined only in the workers' code: repeat them in
    `watch`. Without a schedule, Watchdog reports only runs that wait too long, fail or never end."""

    example: ClassVar[str] = """
        probes:
          - name: Periodic tasks
            jobs:
              procrastinate: {url: "${APP_DB_URL}"}
              watch: {app.tasks.digest: {schedule: "0 6 * * *"}}
    """
    max_jobs: ClassVar[int] = MAX_PROCRASTINATE_PERIODIC_TASKS

    @property
    def target(self) -> str:
        return strip_url_to_scheme_host_and_path(self.url)

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        async with open_postgres_queue_session(self, context, PROCRASTINATE_READ_PRIVILEGES_HINT) as session:
            await require_procrastinate_tables(session)
            return await _read_procrastinate_tasks_snapshot(session, context)


class _ProcrastinateJobRun(NamedTuple):
    id: int
    options: str
    """The arguments, the queue and the locks. The periodic ids of one task often differ in them."""
    status: str
    worker_lost: bool
    due_at: int | None
    started_at: int | None
    finished_at: int | None

    @property
    def waiting_since(self) -> int | None:
        """When it was due, if it has never started. A run that waits for a retry has."""
        return self.due_at if self.status == "todo" and self.started_at is None else None


async def _read_procrastinate_tasks_snapshot(
    session: PostgresQueueSession, context: QueueConnectContext
) -> JobSourceSnapshot:
    """The newest defer of a task holds the id of its job; older jobs hold their task's name and its options only."""
    ((now, heartbeat_at, can_write),) = await session.fetch_all(PROCRASTINATE_CLOCK_AND_HEARTBEAT_SQL)
    if can_write:
        context.facts["write_access"] = session.warning_text_for_role_that_can_write
    defers = await session.fetch_all(PROCRASTINATE_LATEST_DEFERRED_JOB_IDS_SQL)
    runs: dict[str, list[_ProcrastinateJobRun]] = defaultdict(list)
    for task, *run in await session.fetch_all(
        PROCRASTINATE_PERIODIC_RUNS_SQL, {"tasks": sorted({defer[0] for defer in defers})}
    ):
        runs[task].append(_ProcrastinateJobRun(*run))
    newest_ids: dict[str, list[int | None]] = defaultdict(list)
    for task, _, job_id in defers:
        newest_ids[task].append(job_id)
    jobs = []
    for task, periodic_id, job_id in defers:
        name = f"{task}/{periodic_id}" if periodic_id else task
        jobs.append(
            _build_procrastinate_task_facts(
                name, job_id, _filter_procrastinate_runs_by_periodic_id(runs[task], job_id, newest_ids[task])
            )
        )
    scheduler = SchedulerLiveness("Procrastinate worker", PROCRASTINATE_WORKER_HEARTBEAT_TIMEOUT_MS, heartbeat_at)
    return JobSourceSnapshot(now, tuple(jobs), scheduler, location="table procrastinate_periodic_defers is empty")


def _filter_procrastinate_runs_by_periodic_id(
    runs: list[_ProcrastinateJobRun], newest_id: int | None, newest_ids: Collection[int | None]
) -> list[_ProcrastinateJobRun]:
    """The runs of one periodic id of a task, newest first. `newest_ids`: of the newest run of each id of the task.

    If the task has several ids, the older runs are those with the options of the newest. If another id may have the
    same options, it is not known which of the two an older run belongs to. But an older run that waits delays all
    that are behind it, so it counts for each id whose newest run waits.
    """
    if len(newest_ids) == 1:
        return runs
    newest = next((run for run in runs if run.id == newest_id), None)
    if newest is None:
        return []
    similar = [run for run in runs if run.options == newest.options]
    is_shared = None in newest_ids or any(run.id in newest_ids and run.id != newest_id for run in similar)
    waits = newest.waiting_since is not None
    return [
        run
        for run in similar
        if run.id == newest_id
        or (run.id not in newest_ids and (not is_shared or (waits and run.waiting_since is not None)))
    ]


def _build_procrastinate_task_facts(
    name: str, last_run_id: int | None, runs: list[_ProcrastinateJobRun]
) -> ScheduledJobFacts:
    """A run that waits makes the task late.

    `last_run_id`: None if the newest run was deleted, which workers can be configured to do with jobs that succeed.
    `runs`: newest first.
    """
    waiting_since = min((at for run in runs if (at := run.waiting_since) is not None), default=None)
    finished = [run for run in runs if run.status in ("succeeded", "failed")]
    newest = finished[0] if finished else None
    running = select_oldest_job_run_in_progress(
        [run for run in runs if run.status == "doing"][:1],
        lambda run: run.started_at,
        lambda run: not run.worker_lost,
        max((run.started_at or 0 for run in finished if run.status == "succeeded"), default=None),
    )
    failures = 0 if last_run_id is None else len(list(takewhile(lambda run: run.status == "failed", finished)))
    duration = newest.finished_at - newest.started_at if newest and newest.finished_at and newest.started_at else None
    return ScheduledJobFacts(
        name,
        next_due=waiting_since,
        last_start=max((run.started_at for run in runs if run.started_at is not None), default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=next((run.finished_at for run in finished if run.status == "succeeded"), None),
        running_since=running.started_at if running else None,
        duration=duration,
        failures=failures,
        error=PROCRASTINATE_UNKNOWN_FAILURE_REASON_MESSAGE if failures else "",
        stalled=running is not None and running.worker_lost,
        sent=waiting_since is not None,
    )
