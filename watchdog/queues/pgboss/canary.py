"""Canary jobs of pg-boss, sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar
from uuid import NAMESPACE_URL, uuid5

from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.net.errors import ProbeError
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    CanaryJobRequest,
    QueueConnectContext,
    build_canary_job_poll_result,
)
from watchdog.queues.clients.postgres import PostgresQueueSession, open_postgres_queue_session
from watchdog.queues.pgboss.schema import (
    PGBOSS_CANARY_PRIVILEGES_HINT,
    PgbossQueueConfig,
    PgbossTableColumns,
    build_epoch_ms_sql,
    build_pgboss_worker_lost_condition_sql,
    format_pgboss_job_error,
    load_pgboss_table_columns,
)
from watchdog.queues.pgboss.stats import fetch_pgboss_unfinished_stats

CANARY_STAGE_BY_PGBOSS_STATE = {
    "active": CanaryJobStage.RUNNING,
    "completed": CanaryJobStage.DONE,
    "failed": CanaryJobStage.FAILED,
    "cancelled": CanaryJobStage.FAILED,
}
"""The other states are those of waiting jobs."""
PGBOSS_MISSING_PRIVILEGES_SQL = """
    SELECT array(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) p WHERE NOT has_table_privilege(%(job)s, p))
"""


class PgbossCanary(PgbossQueueConfig, CanaryDriver):
    """A canary job in a pg-boss queue. The worker should recognize the job's payload and return immediately."""

    example: ClassVar[str] = """
        probes:
          - name: Report pipeline
            every: 5m
            canary:
              pgboss: {url: "${APP_DB_URL}", queue: report}
              finish_within: 1m
    """

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_postgres_queue_session(
            self, context, PGBOSS_CANARY_PRIVILEGES_HINT, read_write=True
        ) as session:
            columns = await load_pgboss_table_columns(self, session, context)
            ((missing,),) = await session.fetch_all(PGBOSS_MISSING_PRIVILEGES_SQL, {"job": f'"{self.schema_name}".job'})
            if missing:
                message = (
                    f"PostgreSQL denies access: no {', no '.join(missing)} on job; {PGBOSS_CANARY_PRIVILEGES_HINT}"
                )
                raise ProbeError("broker.refused", message)
            yield _PgbossCanaryConnection(self, session, columns)

    def derive_job_id(self, sentinel_id: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"watchdog:{sentinel_id}"))


class _PgbossCanaryConnection:
    def __init__(self, config: PgbossCanary, session: PostgresQueueSession, columns: PgbossTableColumns) -> None:
        self.config, self.session, self.columns = config, session, columns
        self.parameters = {"queue": config.queue}

    async def send(self, sentinel: CanaryJobRequest) -> str:
        job_id = self.config.derive_job_id(sentinel.id)
        job = {"id": job_id, "data": json.dumps(sentinel.payload), "ttl_s": sentinel.ttl_ms // 1000}
        if not await self.session.fetch_all(self._build_insert_canary_job_sql(), self.parameters | job):
            raise self.config.queue_missing_error
        return job_id

    def _build_insert_canary_job_sql(self) -> str:
        """Adds the job unless it exists, and notifies workers that listen instead of polling. Returns no row if the
        queue does not exist."""
        schema, queue = self.config.schema_name, self.columns["queue"]
        values = {
            "id": "%(id)s::uuid",
            "name": "q.name",
            "data": "%(data)s::jsonb",
            "policy": "q.policy",
            "retry_limit": "0",
            # Policies that allow one waiting job apply per key: with its own, the sentinel and other jobs do not
            # exclude each other.
            "singleton_key": "CASE WHEN q.policy NOT IN ('standard', 'singleton') THEN %(id)s END",
            "expire_seconds": "%(ttl_s)s",
            "expire_in": "%(ttl_s)s * interval '1 second'",
            "keep_until": "now() + %(ttl_s)s * interval '1 second'",
            "deletion_seconds": "%(ttl_s)s",
            "heartbeat_seconds": "q.heartbeat_seconds" if "heartbeat_seconds" in queue else "NULL",
        }
        values = {column: value for column, value in values.items() if column in self.columns["job"]}
        channel = schema if re.fullmatch("[a-z0-9_]+", schema) else f'"{schema}"'
        notify = f"pg_notify('pgboss_' || left(encode(sha224('{channel}'), 'hex'), 24), name)"
        return f"""
            WITH q AS (SELECT * FROM "{schema}".queue WHERE name = %(queue)s),
            inserted AS (
                INSERT INTO "{schema}".job ({", ".join(values)}) SELECT {", ".join(values.values())} FROM q
                ON CONFLICT DO NOTHING
            )
            SELECT {f"CASE WHEN notify THEN {notify} END" if "notify" in queue else "NULL"} FROM q
        """

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        rows = await self.session.fetch_all(
            f"""
            SELECT state::text, {build_epoch_ms_sql("started_on")}, {build_epoch_ms_sql("completed_on")}, output,
              {build_pgboss_worker_lost_condition_sql(self.columns["job"])}
            FROM "{self.config.schema_name}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.parameters | {"id": job_id},
        )
        if not rows:
            return CanaryJobPollResult(CanaryJobStage.LOST)
        state, picked_up_at, finished_at, output, worker_lost = rows[0]
        stage = CANARY_STAGE_BY_PGBOSS_STATE.get(state, CanaryJobStage.QUEUED)
        error = format_pgboss_job_error(output) if state == "failed" else "it was cancelled"
        return build_canary_job_poll_result(stage, picked_up_at, finished_at, error, worker_lost=worker_lost)

    async def cancel(self, job_id: str) -> bool:
        ((remaining,),) = await self.session.fetch_all(
            f"""
            WITH deleted AS (
                DELETE FROM "{self.config.schema_name}".job
                WHERE name = %(queue)s AND id = %(id)s
                  AND (state <> 'active' OR {build_pgboss_worker_lost_condition_sql(self.columns["job"])})
                RETURNING id
            )
            SELECT count(*) - (SELECT count(*) FROM deleted)
            FROM "{self.config.schema_name}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.parameters | {"id": job_id},
        )
        return not remaining

    async def fetch_queue_stats(self) -> QueueStats:
        return await fetch_pgboss_unfinished_stats(self.config, self.session, self.columns)
