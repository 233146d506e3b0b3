"""The schedules of pg-boss, and how the jobs that they created ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.net.errors import ProbeError
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.queues.base import JobSource, QueueConnectContext, select_oldest_job_run_in_progress
from watchdog.queues.clients.postgres import (
    PostgresQueueSession,
    build_write_access_condition_sql,
    open_postgres_queue_session,
)
from watchdog.queues.pgboss.schema import (
    PgbossDatabaseConfig,
    PgbossTableColumns,
    build_epoch_ms_sql,
    build_pgboss_worker_lost_condition_sql,
    format_pgboss_job_error,
    load_pgboss_table_columns,
)

MAX_PGBOSS_JOBS_READ_PER_QUEUE = 100
"""The newest jobs of a queue that are searched for runs of its schedules."""
PGBOSS_SCHEDULER_HEARTBEAT_TIMEOUT_MS = 120_000
"""pg-boss records every 30 s, by default, that it looks for schedules that are due."""
PGBOSS_SCHEDULE_PRIVILEGES_HINT = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"


class PgbossScheduleJobSource(PgbossDatabaseConfig, JobSource):
    """pg-boss schedules. The role also needs SELECT on the `schedule` table."""

    example: ClassVar[str] = """
        probes:
          - name: Report schedules
            jobs: {pgboss: {url: "${APP_DB_URL}"}}
    """

    @property
    def target(self) -> str:
        return f"{strip_url_to_scheme_host_and_path(self.url)}, schema {self.schema_name}"

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        async with open_postgres_queue_session(self, context, PGBOSS_SCHEDULE_PRIVILEGES_HINT) as session:
            columns = await load_pgboss_table_columns(self, session, context)
            if "schedule" not in columns:
                message = f"pg-boss in schema {self.schema_name!r} has no schedules: table schedule is missing"
                raise ProbeError("queue.missing", message)
            return await _read_pgboss_schedules_snapshot(self.schema_name, session, columns, context)


class _PgbossJobRun(NamedTuple):
    """A job of a queue that has a schedule."""

    queue: str
    id: str
    state: str
    due_at: int
    started_at: int | None
    finished_at: int | None
    output: Any
    worker_lost: bool


class _PgbossSchedule(NamedTuple):
    queue: str
    key: str
    """Distinguishes several schedules of one queue; may be empty."""
    cron: str
    timezone: str
    updated_at: int
    last_job_id: str | None
    """None: it has created no job yet, or the version of pg-boss does not store it."""

    @property
    def name(self) -> str:
        return f"{self.queue}/{self.key}" if self.key else self.queue


async def _read_pgboss_schedules_snapshot(
    schema: str, session: PostgresQueueSession, columns: PgbossTableColumns, context: QueueConnectContext
) -> JobSourceSnapshot:
    """Every schedule with the jobs that it created.

    A job does not name the schedule that created it. If a queue has several schedules, only the job that a schedule
    names as its last one is known to be its own; before pg-boss 12, schedules do not name any.
    """
    heartbeat = f'(SELECT {build_epoch_ms_sql("max(cron_on)")} FROM "{schema}".version)'
    if "cron_on" not in columns["version"]:
        heartbeat = "NULL"
    can_write_sql = build_write_access_condition_sql(*(f"""'"{schema}".{table}'""" for table in ("schedule", "job")))
    ((now, heartbeat_at, can_write),) = await session.fetch_all(
        f"SELECT {build_epoch_ms_sql('now()')}, {heartbeat}, {can_write_sql}"
    )
    if can_write:
        context.facts["write_access"] = session.warning_text_for_role_that_can_write
    key, last_job_id = (name if name in columns["schedule"] else "NULL" for name in ("key", "last_job_id"))
    rows = await session.fetch_all(
        f"""
        SELECT name, coalesce({key}, ''), cron, coalesce(timezone, 'UTC'), {build_epoch_ms_sql("updated_on")},
            {last_job_id}::text
        FROM "{schema}".schedule ORDER BY 1, 2 LIMIT {PgbossScheduleJobSource.max_jobs + 1}
        """
    )
    schedules = list(map(_PgbossSchedule._make, rows))
    runs = await _read_pgboss_jobs_by_queue(schema, session, columns, schedules, last_job_id)
    names_last_job = last_job_id != "NULL"
    schedule_counts = Counter(schedule.queue for schedule in schedules)
    if shared := [queue for queue, count in schedule_counts.items() if count > 1 and not names_last_job]:
        queues = ", ".join(shared[:5])
        context.facts["shared_queues"] = f"{queues}: pg-boss before 12 does not distinguish the schedules of one queue"
    jobs = []
    for schedule in schedules:
        queue_runs = runs.get(schedule.queue, {})
        last_run = queue_runs.get(schedule.last_job_id) if schedule.last_job_id is not None else None
        owns_queue = schedule_counts[schedule.queue] == 1 or not names_last_job
        own_runs = list(queue_runs.values()) if owns_queue else [last_run] if last_run else []
        jobs.append(_build_pgboss_schedule_facts(schedule, own_runs, last_run, late_until=now if owns_queue else 0))
    is_known = heartbeat_at is not None
    scheduler = (
        SchedulerLiveness("pg-boss scheduler", PGBOSS_SCHEDULER_HEARTBEAT_TIMEOUT_MS, heartbeat_at)
        if is_known
        else None
    )
    return JobSourceSnapshot(now, tuple(jobs), scheduler, location=f"table {schema}.schedule is empty")


async def _read_pgboss_jobs_by_queue(
    schema: str,
    session: PostgresQueueSession,
    columns: PgbossTableColumns,
    schedules: list[_PgbossSchedule],
    last_job_id: str,
) -> dict[str, dict[str, _PgbossJobRun]]:
    """Queue -> id -> job: the newest jobs, and those that schedules name as their last."""
    times = ", ".join(map(build_epoch_ms_sql, ("start_after", "started_on", "completed_on")))
    select_jobs = f"""
        SELECT name, id::text, state::text, {times}, CASE WHEN state = 'failed' THEN output END,
            state = 'active' AND {build_pgboss_worker_lost_condition_sql(columns["job"])}
        FROM "{schema}".job
    """
    last_jobs = f'SELECT name, {last_job_id}::uuid FROM "{schema}".schedule'
    rows = await session.fetch_all(
        f"""
        SELECT r.* FROM unnest(%(queues)s::text[]) AS q (queue),
            LATERAL ({select_jobs} WHERE name = q.queue
                ORDER BY created_on DESC LIMIT {MAX_PGBOSS_JOBS_READ_PER_QUEUE}) r
        UNION ALL SELECT * FROM ({select_jobs} WHERE (name, id) IN ({last_jobs})) r
        """,
        {"queues": sorted({schedule.queue for schedule in schedules})},
    )
    runs: dict[str, dict[str, _PgbossJobRun]] = defaultdict(dict)
    for run in map(_PgbossJobRun._make, rows):
        runs[run.queue][run.id] = run
    return runs


def _build_pgboss_schedule_facts(
    schedule: _PgbossSchedule, runs: list[_PgbossJobRun], last_run: _PgbossJobRun | None, *, late_until: int
) -> ScheduledJobFacts:
    """A waiting job makes the schedule late if it was due by `late_until`: a later one may be another schedule's."""
    started = [last_run] if last_run and last_run.started_at else runs
    started_at = [run.started_at for run in started if run.started_at is not None]
    finished = [run for run in runs if run.state in ("completed", "failed") and run.finished_at is not None]
    finished.sort(key=lambda run: run.finished_at or 0, reverse=True)
    newest = finished[0] if finished else None
    running = select_oldest_job_run_in_progress(
        (run for run in runs if run.state == "active" and run.started_at is not None),
        lambda run: run.started_at,
        lambda run: not run.worker_lost,
        max((run.started_at or 0 for run in finished if run.state == "completed"), default=None),
    )
    waiting = [run.due_at for run in runs if run.state in ("created", "retry") and run.due_at <= late_until]
    return ScheduledJobFacts(
        schedule.name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        schedule_since=schedule.updated_at if started_at else None,  # pg-boss deletes jobs after some days
        next_due=min(waiting, default=None),
        last_start=max(started_at, default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=next((run.finished_at for run in finished if run.state == "completed"), None),
        running_since=running.started_at if running else None,
        duration=(newest.finished_at or 0) - newest.started_at if newest and newest.started_at is not None else None,
        failures=len(list(takewhile(lambda run: run.state == "failed", finished))),
        error=format_pgboss_job_error(newest.output) if newest else "",
        stalled=running is not None and running.worker_lost,
        sent=bool(waiting),
    )
