"""Queue statistics of pg-boss."""

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
from watchdog.queues.pgboss.schema import PgbossQueueConfig, PgbossTableColumns, load_pgboss_table_columns

PGBOSS_STATS_PRIVILEGES_HINT = "the role needs USAGE on the schema, SELECT on version, queue and job"


class PgbossQueueStatsSource(PgbossQueueConfig, QueueStatsSource):
    """A pg-boss queue. `consumers` is not available."""

    example: ClassVar[str] = """
        probes:
          - name: Report backlog
            queue: {pgboss: {url: "${APP_DB_URL}", queue: report}}
    """

    @property
    def unsupported_metrics(self) -> Container[str]:
        return ("consumers",)

    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        async with open_postgres_queue_session(self, context, PGBOSS_STATS_PRIVILEGES_HINT) as session:
            columns = await load_pgboss_table_columns(self, session, context)
            queue_sql = f'SELECT 1 FROM "{self.schema_name}".queue WHERE name = %(queue)s'
            if not await session.fetch_all(queue_sql, {"queue": self.queue}):
                raise self.queue_missing_error
            stats = await fetch_pgboss_unfinished_stats(self, session, columns)
            parameters = {"queue": self.queue, "window_ms": window_ms or 0}
            counts = await fetch_job_counts_or_none_on_timeout(
                session, context, PGBOSS_FINISHED_COUNTS_SQL.format(self.schema_name), parameters
            )
            if counts is None:
                return stats
            failed, failed_in_window, completed_in_window = counts
            completed = None if window_ms is None else RecentlyEndedJobCounts(failed_in_window, completed_in_window)
            return replace(stats, failed=failed, completed=completed)


async def fetch_pgboss_unfinished_stats(
    config: PgbossQueueConfig, session: PostgresQueueSession, columns: PgbossTableColumns
) -> QueueStats:
    """Waiting, delayed and active jobs: those that are cheap to count."""
    ready = "state IN ('created', 'retry') AND start_after <= now()"
    if "blocked" in columns["job"]:
        ready += " AND NOT blocked"
    ((waiting, oldest, active, delayed, head),) = await session.fetch_all(
        f"""
        SELECT count(*) FILTER (WHERE {ready}),
            (extract(epoch FROM now() - min(start_after) FILTER (WHERE {ready})) * 1000)::bigint,
            count(*) FILTER (WHERE state = 'active'),
            count(*) FILTER (WHERE state <> 'active' AND start_after > now()),
            (
                SELECT id::text FROM "{config.schema_name}".job WHERE name = %(queue)s AND {ready}
                ORDER BY priority DESC, created_on, id LIMIT 1
            )
        FROM "{config.schema_name}".job
        WHERE name = %(queue)s AND state IN ('created', 'retry', 'active')
        """,
        {"queue": config.queue},
        UNFINISHED_JOBS_COUNT_TIMEOUT_S,
    )
    return QueueStats(waiting, active, delayed, oldest=oldest, head=head)


PGBOSS_FINISHED_COUNTS_SQL = """
    SELECT count(*) FILTER (WHERE state = 'failed'),
        count(*) FILTER (WHERE state = 'failed' AND completed_on > now() - %(window_ms)s * interval '1 ms'),
        count(*) FILTER (WHERE state = 'completed' AND completed_on > now() - %(window_ms)s * interval '1 ms')
    FROM "{}".job WHERE name = %(queue)s AND state IN ('completed', 'failed')
"""
