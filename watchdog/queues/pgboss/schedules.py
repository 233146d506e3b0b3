"""The schedules of pg-boss: what makes jobs on time, and what came of the jobs that it made."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import takewhile
from typing import Any, NamedTuple

from watchdog.domain.observations import JobFacts, JobSourceSnapshot
from watchdog.net.errors import ProbeError
from watchdog.queues.base import ConnectContext, JobSource
from watchdog.queues.clients.postgres import PostgresSession, has_write_access_sql, open_postgres_session
from watchdog.queues.pgboss.schema import (
    PgbossDatabase,
    TableColumns,
    epoch_ms_sql,
    error_message_from_output,
    load_table_columns,
    worker_lost_sql,
)

MAX_SCHEDULES = 2_000
"""Schedules that are read."""
MAX_JOBS_PER_QUEUE = 100
"""Newest jobs of a queue that are looked through for runs of its schedule."""
SCHEDULE_PRIVILEGES_HINT = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"


class PgbossJobSource(PgbossDatabase, JobSource):
    """The schedules of pg-boss. The role also needs SELECT on the table `schedule`."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.schema_name}"

    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        async with open_postgres_session(self, context, SCHEDULE_PRIVILEGES_HINT) as session:
            columns = await load_table_columns(self, session, context)
            if "schedule" not in columns:
                raise ProbeError(
                    "queue.missing", f"no schedules in the schema {self.schema_name!r}: it has no such table"
                )
            return await _read_snapshot(self.schema_name, session, columns, context)


class _PgbossRun(NamedTuple):
    """One job of a queue that has a schedule, times in ms."""

    queue: str
    id: str
    state: str
    due_at: int
    started_at: int | None
    finished_at: int | None
    output: Any
    worker_lost: bool
    """Its worker is."""


async def _read_snapshot(
    schema: str, session: PostgresSession, columns: TableColumns, context: ConnectContext
) -> JobSourceSnapshot:
    """Every schedule, by the newest jobs of its queue.

    A job does not say which schedule made it: where a queue has several, only the one that each names as its last is
    surely its own, and older versions name none.
    """
    beats = (
        f'(SELECT {epoch_ms_sql("max(cron_on)")} FROM "{schema}".version)'
        if "cron_on" in columns["version"]
        else "NULL"
    )
    writable = has_write_access_sql(*(f"""'"{schema}".{table}'""" for table in ("schedule", "job")))
    ((now, alive, writes),) = await session.fetch_all(f"SELECT {epoch_ms_sql('now()')}, {beats}, {writable}")
    if writes:
        context.facts["write_access"] = session.write_access_warning
    key, last = (name if name in columns["schedule"] else "NULL" for name in ("key", "last_job_id"))
    schedules = await session.fetch_all(
        f"""
        SELECT name, coalesce({key}, ''), cron, coalesce(timezone, 'UTC'), {epoch_ms_sql("updated_on")}, {last}::text
        FROM "{schema}".schedule ORDER BY 1, 2 LIMIT {MAX_SCHEDULES}
        """
    )
    times = ", ".join(map(epoch_ms_sql, ("start_after", "started_on", "completed_on")))
    job = f"""
        SELECT name, id::text, state::text, {times}, CASE WHEN state = 'failed' THEN output END,
            state = 'active' AND {worker_lost_sql(columns["job"])}
        FROM "{schema}".job
    """
    rows = await session.fetch_all(
        f"""
        SELECT r.* FROM unnest(%(queues)s::text[]) AS q (queue),
            LATERAL ({job} WHERE name = q.queue ORDER BY created_on DESC LIMIT {MAX_JOBS_PER_QUEUE}) r
        UNION ALL SELECT * FROM ({job} WHERE (name, id) IN (SELECT name, {last}::uuid FROM "{schema}".schedule)) r
        """,
        {"queues": sorted({row[0] for row in schedules})},
    )
    runs: dict[str, dict[str, _PgbossRun]] = defaultdict(dict)
    for run in map(_PgbossRun._make, rows):
        runs[run.queue][run.id] = run
    sharing = Counter(row[0] for row in schedules)
    if shared := [queue for queue, n in sharing.items() if n > 1 and last == "NULL"]:
        context.facts["shared_queues"] = (
            f"schedules of one queue are not told apart before pg-boss 12: {', '.join(shared[:5])}"
        )
    jobs = []
    for queue, name, cron, timezone, edited, ref in schedules:
        newest = runs[queue].get(ref)
        alone = sharing[queue] == 1 or last == "NULL"
        plan = JobFacts(f"{queue}/{name}" if name else queue, cron=cron, timezone=timezone, schedule_since=edited)
        own = list(runs[queue].values()) if alone else [newest] if newest else []
        jobs.append(_job_facts(plan, own, newest, now if alone else 0))
    return JobSourceSnapshot(now, tuple(jobs), alive)


def _job_facts(
    schedule_facts: JobFacts, runs: list[_PgbossRun], last_run: _PgbossRun | None, late_until: int
) -> JobFacts:
    """A schedule with its runs. What was due by `until` and waits makes it late; what is due later may be others'."""
    begun = [
        run.started_at
        for run in ([last_run] if last_run and last_run.started_at else runs)
        if run.started_at is not None
    ]
    at_work = min(
        (r for r in runs if r.state == "active" and r.started_at is not None),
        key=lambda r: r.started_at or 0,
        default=None,
    )
    over = [run for run in runs if run.state in ("completed", "failed") and run.finished_at is not None]
    over.sort(key=lambda run: run.finished_at or 0, reverse=True)
    last = over[0] if over else None
    waiting = [run.due_at for run in runs if run.state in ("created", "retry") and run.due_at <= late_until]
    return schedule_facts._replace(
        schedule_since=schedule_facts.schedule_since if begun else None,  # jobs are kept for days only
        next_due=min(waiting, default=None),
        last_start=max(begun, default=None),
        last_end=last.finished_at if last else None,
        last_ok=next((run.finished_at for run in over if run.state == "completed"), None),
        running_since=at_work.started_at if at_work else None,
        duration=(last.finished_at or 0) - last.started_at if last and last.started_at is not None else None,
        failures=len(list(takewhile(lambda run: run.state == "failed", over))),
        error=error_message_from_output(last.output) if last else "",
        stalled=at_work is not None and at_work.worker_lost,
    )
