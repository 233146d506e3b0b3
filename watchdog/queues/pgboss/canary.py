"""A canary through pg-boss, sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import NAMESPACE_URL, uuid5

from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.net.errors import ProbeError
from watchdog.queues.base import CanaryConnection, CanaryDriver, ConnectContext, SentinelJob
from watchdog.queues.clients.postgres import PostgresSession, open_postgres_session
from watchdog.queues.pgboss.schema import (
    CANARY_PRIVILEGES_HINT,
    PgbossQueue,
    TableColumns,
    epoch_ms_sql,
    error_message_from_output,
    load_table_columns,
    worker_lost_sql,
)
from watchdog.queues.pgboss.stats import fetch_unfinished_stats

MISSING_PRIVILEGES_SQL = """
    SELECT array(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) p WHERE NOT has_table_privilege(%(job)s, p))
"""


class PgbossCanary(PgbossQueue, CanaryDriver):
    """A canary job in a pg-boss queue. The worker of the queue should recognize its payload and return at once."""

    @asynccontextmanager
    async def connect(self, context: ConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_postgres_session(self, context, CANARY_PRIVILEGES_HINT, read_write=True) as session:
            columns = await load_table_columns(self, session, context)
            ((lacking,),) = await session.fetch_all(MISSING_PRIVILEGES_SQL, {"job": f'"{self.schema_name}".job'})
            if lacking:
                raise ProbeError(
                    "broker.refused",
                    f"PostgreSQL does not allow it: no {', no '.join(lacking)} on job; {CANARY_PRIVILEGES_HINT}",
                )
            yield _PgbossCanaryConnection(self, session, columns)

    def derive_job_id(self, sentinel_id: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"watchdog:{sentinel_id}"))


class _PgbossCanaryConnection:
    def __init__(self, config: PgbossCanary, session: PostgresSession, columns: TableColumns) -> None:
        self.config, self.session, self.columns = config, session, columns
        self.parameters = {"queue": config.queue}

    async def send(self, sentinel: SentinelJob) -> str:
        ref = self.config.derive_job_id(sentinel.id)
        data = {"id": ref, "data": json.dumps(sentinel.payload), "lifetime": sentinel.ttl_ms // 1000}
        if not await self.session.fetch_all(self._insert_sql(), self.parameters | data):
            raise self.config.queue_missing_error
        return ref

    def _insert_sql(self) -> str:
        """Adds the job unless it is there, and wakes who listens instead of looking often. No row: no such queue."""
        schema, queue = self.config.schema_name, self.columns["queue"]
        values = {
            "id": "%(id)s::uuid",
            "name": "q.name",
            "data": "%(data)s::jsonb",
            "policy": "q.policy",
            "retry_limit": "0",
            # by a key of its own it takes no other job's place where only one may wait, and none takes its
            "singleton_key": "CASE WHEN q.policy NOT IN ('standard', 'singleton') THEN %(id)s END",
            "expire_seconds": "%(lifetime)s",
            "expire_in": "%(lifetime)s * interval '1 second'",
            "keep_until": "now() + %(lifetime)s * interval '1 second'",
            "deletion_seconds": "%(lifetime)s",
            "heartbeat_seconds": "q.heartbeat_seconds" if "heartbeat_seconds" in queue else "NULL",
        }
        known = {column: value for column, value in values.items() if column in self.columns["job"]}
        channel = schema if re.fullmatch("[a-z0-9_]+", schema) else f'"{schema}"'
        wakes = f"pg_notify('pgboss_' || left(encode(sha224('{channel}'), 'hex'), 24), name)"
        return f"""
            WITH q AS (SELECT * FROM "{schema}".queue WHERE name = %(queue)s),
            sent AS (
                INSERT INTO "{schema}".job ({", ".join(known)}) SELECT {", ".join(known.values())} FROM q
                ON CONFLICT DO NOTHING
            )
            SELECT {f"CASE WHEN notify THEN {wakes} END" if "notify" in queue else "NULL"} FROM q
        """

    async def poll(self, job_id: str) -> JobStatus:
        rows = await self.session.fetch_all(
            f"""
            SELECT state::text, {epoch_ms_sql("started_on")}, {epoch_ms_sql("completed_on")}, output,
              {worker_lost_sql(self.columns["job"])}
            FROM "{self.config.schema_name}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.parameters | {"id": job_id},
        )
        if not rows:
            return JobStatus(JobStage.LOST)
        state, picked_up, finished, output, expired = rows[0]
        match state:
            case "active":
                return JobStatus(JobStage.RUNNING, picked_up, error="its worker is gone" if expired else "")
            case "completed":
                return JobStatus(JobStage.DONE, picked_up, finished)
            case "failed":
                return JobStatus(JobStage.FAILED, picked_up, finished, error_message_from_output(output))
            case "cancelled":
                return JobStatus(JobStage.FAILED, picked_up, finished, "somebody cancelled it")
        return JobStatus(JobStage.QUEUED)

    async def cancel(self, job_id: str) -> bool:
        ((left,),) = await self.session.fetch_all(
            f"""
            WITH gone AS (
                DELETE FROM "{self.config.schema_name}".job
                WHERE name = %(queue)s AND id = %(id)s AND (state <> 'active' OR {worker_lost_sql(self.columns["job"])})
                RETURNING id
            )
            SELECT count(*) - (SELECT count(*) FROM gone)
            FROM "{self.config.schema_name}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.parameters | {"id": job_id},
        )
        return not left

    async def fetch_queue_stats(self) -> QueueStats:
        return await fetch_unfinished_stats(self.config, self.session, self.columns)
