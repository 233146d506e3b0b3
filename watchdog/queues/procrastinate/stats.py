"""What is in a queue of Procrastinate."""

from __future__ import annotations

from collections.abc import Container

from watchdog.domain.observations import CompletedCounts, QueueStats
from watchdog.queues.base import ConnectContext, QueueStatsSource
from watchdog.queues.clients.postgres import fetch_counts, open_postgres_session
from watchdog.queues.procrastinate.jobs import (
    MAX_JOBS_SEARCHED,
    ProcrastinateQueue,
    fetch_unfinished_stats,
    last_event_ms_sql,
    require_procrastinate_tables,
)

STATS_PRIVILEGES_HINT = "the role needs SELECT on procrastinate_jobs, _events and _workers"


class ProcrastinateStatsSource(ProcrastinateQueue, QueueStatsSource):
    """A Procrastinate 3 queue. `consumers` is not available. An empty queue cannot be told from one that does not
    exist."""

    @property
    def unsupported_metrics(self) -> Container[str]:
        return ("consumers",)

    async def fetch_queue_stats(self, context: ConnectContext, window_ms: int | None) -> QueueStats:
        async with open_postgres_session(self, context, STATS_PRIVILEGES_HINT) as session:
            await require_procrastinate_tables(session)
            depth = (await fetch_unfinished_stats(session, self.queue))._replace(
                consumers=None
            )  # of any queue, hence not of this
            if told := await fetch_counts(session, context, FAILED_COUNT_SQL, {"queue": self.queue}):
                depth = depth._replace(failed=told[0])
            if window_ms is None:
                return depth
            if told := await fetch_counts(
                session, context, FINISHED_COUNTS_SQL, {"queue": self.queue, "within": window_ms}
            ):
                failed, well, kept = told
                depth = depth._replace(completed=CompletedCounts(failed, well if kept else None))
            return depth


FAILED_COUNT_SQL = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status = 'failed'"
FINISHED_COUNTS_SQL = f"""
    WITH ended AS (
        SELECT status, {last_event_ms_sql("succeeded", "failed")}
          > (extract(epoch FROM now()) * 1000)::bigint - %(within)s AS lately
        FROM procrastinate_jobs j
        WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_JOBS_SEARCHED}
            AND queue_name = %(queue)s AND status IN ('succeeded', 'failed')
    )
    SELECT count(*) FILTER (WHERE lately AND status = 'failed'), count(*) FILTER (WHERE lately AND status <> 'failed'),
        count(*) FILTER (WHERE status <> 'failed')
    FROM ended
"""
