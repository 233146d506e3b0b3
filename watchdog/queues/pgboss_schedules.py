"""The schedules of pg-boss: what makes jobs on time, and what came of the jobs that it made."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import takewhile
from typing import Any, NamedTuple

from watchdog.queues.base import JobFacts, JobSource, Reach, Snapshot
from watchdog.queues.pgboss import Columns, PgbossDatabase, error_of, given_up, ms, tables
from watchdog.queues.postgres import Session, connected, may_write
from watchdog.wire.faults import Fault

MOST = 2_000
"""Schedules that are read."""
RECENT = 100
"""Newest jobs of a queue that are looked through for runs of its schedule."""
RIGHTS = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"


class PgbossJobs(PgbossDatabase, JobSource):
    """The schedules of pg-boss. The role needs SELECT on its table schedule, too."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.in_schema}"

    async def snapshot(self, reach: Reach) -> Snapshot:
        async with connected(self, reach, RIGHTS) as session:
            columns = await tables(self, session, reach)
            if "schedule" not in columns:
                raise Fault("queue.missing", f"no schedules in the schema {self.in_schema!r}: it has no such table")
            return await _schedules(self.in_schema, session, columns, reach)


class _Run(NamedTuple):
    """One job of a queue that has a schedule, times in ms."""

    queue: str
    id: str
    state: str
    due: int
    begun: int | None
    ended: int | None
    output: Any
    gone: bool
    """Its worker is."""


async def _schedules(schema: str, session: Session, columns: Columns, reach: Reach) -> Snapshot:
    """Every schedule, by the newest jobs of its queue.

    A job does not say which schedule made it: where a queue has several, only the one that each names as its last is
    surely its own, and older versions name none.
    """
    beats = f'(SELECT {ms("max(cron_on)")} FROM "{schema}".version)' if "cron_on" in columns["version"] else "NULL"
    writable = may_write(*(f"""'"{schema}".{table}'""" for table in ("schedule", "job")))
    ((now, alive, writes),) = await session.ask(f"SELECT {ms('now()')}, {beats}, {writable}")
    if writes:
        reach.facts["writable"] = session.writable
    key, last = (name if name in columns["schedule"] else "NULL" for name in ("key", "last_job_id"))
    schedules = await session.ask(
        f"""
        SELECT name, coalesce({key}, ''), cron, coalesce(timezone, 'UTC'), {ms("updated_on")}, {last}::text
        FROM "{schema}".schedule ORDER BY 1, 2 LIMIT {MOST}
        """
    )
    times = ", ".join(map(ms, ("start_after", "started_on", "completed_on")))
    job = f"""
        SELECT name, id::text, state::text, {times}, CASE WHEN state = 'failed' THEN output END,
            state = 'active' AND {given_up(columns["job"])}
        FROM "{schema}".job
    """
    rows = await session.ask(
        f"""
        SELECT r.* FROM unnest(%(queues)s::text[]) AS q (queue),
            LATERAL ({job} WHERE name = q.queue ORDER BY created_on DESC LIMIT {RECENT}) r
        UNION ALL SELECT * FROM ({job} WHERE (name, id) IN (SELECT name, {last}::uuid FROM "{schema}".schedule)) r
        """,
        {"queues": sorted({row[0] for row in schedules})},
    )
    runs: dict[str, dict[str, _Run]] = defaultdict(dict)
    for run in map(_Run._make, rows):
        runs[run.queue][run.id] = run
    sharing = Counter(row[0] for row in schedules)
    if shared := [queue for queue, n in sharing.items() if n > 1 and last == "NULL"]:
        reach.facts["shared"] = f"schedules of one queue are not told apart before pg-boss 12: {', '.join(shared[:5])}"
    jobs = []
    for queue, name, cron, timezone, edited, ref in schedules:
        newest = runs[queue].get(ref)
        alone = sharing[queue] == 1 or last == "NULL"
        plan = JobFacts(f"{queue}/{name}" if name else queue, cron=cron, timezone=timezone, since=edited)
        own = list(runs[queue].values()) if alone else [newest] if newest else []
        jobs.append(_scheduled(plan, own, newest, now if alone else 0))
    return Snapshot(now, tuple(jobs), alive)


def _scheduled(plan: JobFacts, runs: list[_Run], newest: _Run | None, until: int) -> JobFacts:
    """A schedule with its runs. What was due by `until` and waits makes it late; what is due later may be others'."""
    begun = [run.begun for run in ([newest] if newest and newest.begun else runs) if run.begun is not None]
    at_work = min(
        (r for r in runs if r.state == "active" and r.begun is not None), key=lambda r: r.begun or 0, default=None
    )
    over = [run for run in runs if run.state in ("completed", "failed") and run.ended is not None]
    over.sort(key=lambda run: run.ended or 0, reverse=True)
    last = over[0] if over else None
    waiting = [run.due for run in runs if run.state in ("created", "retry") and run.due <= until]
    return plan._replace(
        since=plan.since if begun else None,  # jobs are kept for days only
        next_due=min(waiting, default=None),
        last_start=max(begun, default=None),
        last_end=last.ended if last else None,
        last_ok=next((run.ended for run in over if run.state == "completed"), None),
        running_since=at_work.begun if at_work else None,
        duration=(last.ended or 0) - last.begun if last and last.begun is not None else None,
        failures=len(list(takewhile(lambda run: run.state == "failed", over))),
        error=error_of(last.output) if last else "",
        stalled=at_work is not None and at_work.gone,
    )
