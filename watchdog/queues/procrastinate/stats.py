"""Queue statistics of Procrastinate."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import ClassVar

from watchdog.domain.observations import QueueStats, RecentlyEndedJobCounts
from watchdog.queues.base import QueueConnectContext, QueueStatsSource
from watchdog.queues.clients.postgres import (
    UNFINISHED_JOBS_COUNT_TIMEOUT_S,
    PostgresQueueSession,
    fetch_job_counts_or_none_on_timeout,
    open_postgres_queue_session,
)
from watchdog.queues.procrastinate.schema import (
    MAX_PROCRASTINATE_JOBS_SEARCHED,
    PROCRASTINATE_HEARTBEAT_TIMEOUT_INTERVAL_SQL,
    ProcrastinateQueueConfig,
    build_procrastinate_last_event_ms_sql,
    require_procrastinate_tables,
)

PROCRASTINATE_STATS_PRIVILEGES_HINT = "the role needs SELECT on procrastinate_jobs, _events and _workers"

PROCRASTINATE_UNFINISHED_STATS_SQL = f"""
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
        EXISTS (
            SELECT 1 FROM procrastinate_workers
            WHERE last_heartbeat > now() - {PROCRASTINATE_HEARTBEAT_TIMEOUT_INTERVAL_SQL}
        )
    FROM jobs j
"""
PROCRASTINATE_FAILED_COUNT_SQL = (
    "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status = 'failed'"
)
PROCRASTINATE_FINISHED_COUNTS_SQL = f"""
    WITH finished AS (
        SELECT status, {build_procrastinate_last_event_ms_sql("succeeded", "failed")}
          > (extract(epoch FROM now()) * 1000)::bigint - %(window_ms)s AS in_window
        FROM procrastinate_jobs j
        WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_PROCRASTINATE_JOBS_SEARCHED}
            AND queue_name = %(queue)s AND status IN ('succeeded', 'failed')
    )
    SELECT count(*) FILTER (WHERE in_window AND status = 'failed'),
        count(*) FILTER (WHERE in_window AND status <> 'failed'),
        count(*) FILTER (WHERE status <> 'failed')
    FROM finished
"""


class ProcrastinateQueueStatsSource(ProcrastinateQueueConfig, QueueStatsSource):
    """A Procrastinate 3 queue. `consumers` is not available. An empty queue looks the same as a missing one."""

    example: ClassVar[str] = """
        probes:
          - name: Invoice backlog
            queue: {procrastinate: {url: "${APP_DB_URL}", queue: default}}
    """

    @property
    def unsupported_metrics(self) -> Container[str]:
        return ("consumers",)

    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        async with open_postgres_queue_session(self, context, PROCRASTINATE_STATS_PRIVILEGES_HINT) as session:
            await require_procrastinate_tables(session)
            stats = await fetch_procrastinate_unfinished_stats(session, self.queue)
            stats = replace(stats, consumers=None)  # the workers of any queue count, hence not reported
            queue = {"queue": self.queue}
            if failed_count := await fetch_job_counts_or_none_on_timeout(
                session, context, PROCRASTINATE_FAILED_COUNT_SQL, queue
            ):
                stats = replace(stats, failed=failed_count[0])
            if window_ms is None:
                return stats
            parameters = {**queue, "window_ms": window_ms}
            if counts := await fetch_job_counts_or_none_on_timeout(
                session, context, PROCRASTINATE_FINISHED_COUNTS_SQL, parameters
            ):
                failed, succeeded, kept_succeeded = counts
                stats = replace(stats, completed=RecentlyEndedJobCounts(failed, succeeded if kept_succeeded else None))
            return stats


async def fetch_procrastinate_unfinished_stats(session: PostgresQueueSession, queue: str) -> QueueStats:
    """Waiting, delayed and active jobs. `consumers` is 0 if no worker is running at all, else None: Procrastinate does
    not store which queues a worker serves."""
    ((waiting, active, delayed, oldest, head, any_worker),) = await session.fetch_all(
        PROCRASTINATE_UNFINISHED_STATS_SQL, {"queue": queue}, UNFINISHED_JOBS_COUNT_TIMEOUT_S
    )
    return QueueStats(waiting, active, delayed, oldest=oldest, consumers=None if any_worker else 0, head=head)
