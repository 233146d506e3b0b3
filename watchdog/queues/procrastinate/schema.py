"""Procrastinate 3: jobs in PostgreSQL, run by Python workers. Its tables, and what their columns mean."""

from __future__ import annotations

from typing import ClassVar

from watchdog.config_types import SingleLineText
from watchdog.net.errors import ProbeError
from watchdog.net.redact import describe_queue_target
from watchdog.queues.clients.postgres import PostgresQueueSession, PostgresQueueSystemConfig, PostgresUrl

MAX_PROCRASTINATE_JOBS_SEARCHED = 50_000
"""The newest jobs that are searched for a finished one, which no index leads to."""
PROCRASTINATE_HEARTBEAT_TIMEOUT_INTERVAL_SQL = "interval '30 seconds'"
"""Workers send a heartbeat every ten seconds. Procrastinate itself gives a worker up after this time."""
PROCRASTINATE_WORKER_LOST_CONDITION_SQL = f"""
    NOT EXISTS (SELECT 1 FROM procrastinate_workers w
      WHERE w.id = j.worker_id AND w.last_heartbeat > now() - {PROCRASTINATE_HEARTBEAT_TIMEOUT_INTERVAL_SQL})
"""
PROCRASTINATE_UNKNOWN_FAILURE_REASON_MESSAGE = "Procrastinate does not store the reason"


class ProcrastinateDatabaseConfig(PostgresQueueSystemConfig):
    """A database in which Procrastinate keeps its jobs."""

    form_fields: ClassVar[tuple[str, ...]] = ("url",)
    kind: ClassVar[str] = "procrastinate"
    name: ClassVar[str] = "Procrastinate"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the `postgres` extra). If the tables are in a separate
    schema, append `?options=-csearch_path%3DSCHEMA`."""


class ProcrastinateQueueConfig(ProcrastinateDatabaseConfig):
    """A queue of Procrastinate 3."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "queue")

    queue: SingleLineText
    """The name of the queue."""

    @property
    def target(self) -> str:
        return describe_queue_target(self.url, self.queue)


async def require_procrastinate_tables(session: PostgresQueueSession) -> None:
    """Raises ProbeError if the tables of Procrastinate 3 do not exist."""
    ((has_jobs, has_workers),) = await session.fetch_all(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL, to_regclass('procrastinate_workers') IS NOT NULL"
    )
    if not has_jobs:
        raise ProbeError("queue.missing", "Procrastinate is not in this database: table procrastinate_jobs is missing")
    if not has_workers:
        raise ProbeError("queue.missing", "Procrastinate 3 is required: table procrastinate_workers is missing")


def build_procrastinate_last_event_ms_sql(*events: str) -> str:
    """The time of a job's newest event of these types."""
    types = ", ".join(f"'{event}'" for event in events)
    return f"""(
        SELECT round(extract(epoch FROM max(at)) * 1000)::bigint FROM procrastinate_events
        WHERE job_id = j.id AND type IN ({types})
    )"""
