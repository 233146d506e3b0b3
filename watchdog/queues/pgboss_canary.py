"""A canary through pg-boss, sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import NAMESPACE_URL, uuid5

from watchdog.queues.base import Canary, CanarySystem, Depth, Look, Reach, Sentinel, Stage
from watchdog.queues.pgboss import RIGHTS, Columns, PgbossQueue, error_of, given_up, ms, tables
from watchdog.queues.pgboss_depth import under_way
from watchdog.queues.postgres import Session, connected
from watchdog.wire.faults import Fault

LACKING = """
    SELECT array(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) p WHERE NOT has_table_privilege(%(job)s, p))
"""


class PgbossCanary(PgbossQueue, CanarySystem):
    """A canary job in a queue of pg-boss. The queue's worker should know it by its payload, and return at once."""

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with connected(self, reach, RIGHTS, writes=True) as session:
            columns = await tables(self, session, reach)
            ((lacking,),) = await session.ask(LACKING, {"job": f'"{self.in_schema}".job'})
            if lacking:
                raise Fault(
                    "broker.refused", f"PostgreSQL does not allow it: no {', no '.join(lacking)} on job; {RIGHTS}"
                )
            yield _Pgboss(self, session, columns)

    def ref_of(self, sentinel: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"watchdog:{sentinel}"))


class _Pgboss:
    def __init__(self, config: PgbossCanary, session: Session, columns: Columns) -> None:
        self.config, self.session, self.columns = config, session, columns
        self.values = {"queue": config.queue}

    async def send(self, sentinel: Sentinel) -> str:
        ref = self.config.ref_of(sentinel.id)
        data = {"id": ref, "data": json.dumps(sentinel.payload), "lifetime": sentinel.lifetime // 1000}
        if not await self.session.ask(self._sending(), self.values | data):
            raise self.config.missing
        return ref

    def _sending(self) -> str:
        """Adds the job unless it is there, and wakes who listens instead of looking often. No row: no such queue."""
        schema, queue = self.config.in_schema, self.columns["queue"]
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

    async def look(self, ref: str) -> Look:
        rows = await self.session.ask(
            f"""
            SELECT state::text, {ms("started_on")}, {ms("completed_on")}, output, {given_up(self.columns["job"])}
            FROM "{self.config.in_schema}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.values | {"id": ref},
        )
        if not rows:
            return Look(Stage.LOST)
        state, picked_up, finished, output, expired = rows[0]
        match state:
            case "active":
                return Look(Stage.RUNNING, picked_up, error="its worker is gone" if expired else "")
            case "completed":
                return Look(Stage.DONE, picked_up, finished)
            case "failed":
                return Look(Stage.FAILED, picked_up, finished, error_of(output))
            case "cancelled":
                return Look(Stage.FAILED, picked_up, finished, "somebody cancelled it")
        return Look(Stage.QUEUED)

    async def cancel(self, ref: str) -> bool:
        ((left,),) = await self.session.ask(
            f"""
            WITH gone AS (
                DELETE FROM "{self.config.in_schema}".job
                WHERE name = %(queue)s AND id = %(id)s AND (state <> 'active' OR {given_up(self.columns["job"])})
                RETURNING id
            )
            SELECT count(*) - (SELECT count(*) FROM gone)
            FROM "{self.config.in_schema}".job WHERE name = %(queue)s AND id = %(id)s
            """,
            self.values | {"id": ref},
        )
        return not left

    async def depth(self) -> Depth:
        return await under_way(self.config, self.session, self.columns)
