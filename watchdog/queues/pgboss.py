"""pg-boss: jobs in PostgreSQL, worked on by Node.js. Sent and read with statements of our own on its tables."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias
from urllib.parse import parse_qsl, urlsplit
from uuid import NAMESPACE_URL, uuid5

from pydantic import AfterValidator, Field

from watchdog.fields import FROM_FILE, Line
from watchdog.queues.base import (
    Backlog,
    Canary,
    CanarySystem,
    Look,
    Reach,
    Sentinel,
    Stage,
    System,
    reachable,
    unreachable,
)
from watchdog.wire.faults import Fault
from watchdog.wire.redact import cap

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Error

PORT = 5432
KNOWN = (24, 26, 46)
"""Versions of its schema that this was made for: those of pg-boss 10, 11 and 12."""
COUNTING = 0.8
"""Seconds that counting what waits may take: less than we wait for it, so that the connection lives on."""
RIGHTS = "the role needs USAGE on the schema, SELECT on version, queue and job, INSERT and DELETE on job"

Columns: TypeAlias = Mapping[str, frozenset[str]]
"""Table -> its columns."""


# --- configuration


def postgres_url(text: str) -> str:
    scheme, _, rest = text.partition(":")
    try:
        parts = urlsplit(text)
        usable = scheme in ("postgres", "postgresql", "postgresql+psycopg") and parts.hostname and parts.port != 0
        usable = usable and not re.search("%(?![0-9a-fA-F]{2})", text)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected postgresql://user:password@host/database; encode : / @ % in its password")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("host", "hostaddr", "port", "password", "service"):
            raise ValueError(f"{name} has no place after the '?': postgresql://user:password@host:port/database")
    return f"postgresql:{rest}"


def _schema_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", text):
        raise ValueError("expected the name of a schema: letters, digits, '_' and '-'")
    return text


PostgresUrl = Annotated[str, AfterValidator(postgres_url), FROM_FILE]


class PostgresSystem(System):
    """A system that keeps its jobs in PostgreSQL."""

    needs: ClassVar[tuple[str, ...]] = ("psycopg",)
    extra: ClassVar[str] = "postgres"

    url: PostgresUrl

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or PORT


class PgbossDatabase(PostgresSystem):
    """A database in which pg-boss keeps its jobs."""

    name: ClassVar[str] = "pg-boss"

    url: PostgresUrl
    """postgresql://user:password@host/database, which needs the extra `postgres`. The role needs USAGE on the schema,
    and SELECT on its tables version, queue and job; a canary also INSERT and DELETE on job."""
    in_schema: Annotated[str, AfterValidator(_schema_name)] = Field(default="pgboss", alias="schema")
    """The schema that holds its tables."""


class PgbossCanary(PgbossDatabase, CanarySystem):
    """A canary job in a queue of pg-boss. The queue's worker should know it by its payload, and return at once."""

    queue: Line

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        async with connected(self, reach) as database:
            columns = await tables(self, database, reach)
            ((lacking,),) = await database.ask(LACKING, {"job": f'"{self.in_schema}".job'})
            if lacking:
                raise Fault(
                    "broker_refused", f"PostgreSQL does not allow it: no {', no '.join(lacking)} on job; {RIGHTS}"
                )
            yield _Pgboss(self, database, columns)

    def ref_of(self, sentinel: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"watchdog:{sentinel}"))


# --- the connection


@asynccontextmanager
async def connected(system: PostgresSystem, reach: Reach, rights: str = RIGHTS) -> AsyncIterator[Database]:
    """One connection, to the address that passed our filter. `rights`: what to grant, should any be missing."""
    import psycopg

    address = await reachable(reach, system.host, system.port)
    reach.trace.begin("connect")
    try:
        connection = await psycopg.AsyncConnection.connect(
            system.url, hostaddr=address, connect_timeout=round(reach.patience), fallback_application_name="watchdog",
            autocommit=True, prepare_threshold=None, cursor_factory=psycopg.AsyncClientCursor,
        )  # fmt: skip
    except psycopg.Error as e:
        raise unreachable(said(e)) from None
    reach.trace.end("connect")
    try:
        yield Database(connection, reach.patience, rights)
    finally:
        await connection.close()


class Database:
    """Statements, each with limits that end with it: a pooler may lend the connection to others in between."""

    def __init__(self, connection: AsyncConnection, patience: float, rights: str) -> None:
        self.connection, self.patience, self.rights = connection, patience, rights

    async def ask(
        self, statement: str, values: Mapping[str, Any] = {}, patience: float | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows that come back. Raises Fault, also when none come in time."""
        limit = self.patience if patience is None else patience
        asking = asyncio.create_task(self._ask(statement, values, round(limit * 1000)))
        try:
            await asyncio.wait({asking}, timeout=self.patience)
            if not asking.done():
                raise unreachable(f"PostgreSQL gives no answer in {self.patience:g} s")
        finally:
            if not asking.done():
                self._hang_up()
                await asyncio.wait({asking})
            asking.exception()  # nobody else may come to ask for it
        return asking.result()

    async def _ask(self, statement: str, values: Mapping[str, Any], limit: int) -> list[tuple[Any, ...]]:
        import psycopg

        limits = f"SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit // 2}; "
        try:
            async with self.connection.cursor() as cursor:
                await cursor.execute((limits + statement).encode(), values)  # one message, hence one transaction
                while cursor.nextset():
                    pass
                return await cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as e:
            raise Fault("broker_refused", f"PostgreSQL does not allow it: {said(e)}; {self.rights}") from None
        except psycopg.OperationalError as e:
            raise unreachable(said(e)) from None
        except psycopg.Error as e:
            raise Fault("broker_refused", f"PostgreSQL answers: {said(e)}") from None

    def _hang_up(self) -> None:
        """The driver would first ask the server, which gives no answer, to stop."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def said(error: Error) -> str:
    """PostgreSQL's own words, without where the driver met them."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines() or [type(error).__name__]
    return cap(re.sub(r"^.* failed: ", "", lines[-1]).removeprefix("FATAL:").strip(), 200)


async def tables(system: PgbossDatabase, database: Database, reach: Reach) -> Columns:
    """What pg-boss has there. Raises Fault."""
    columns: dict[str, set[str]] = defaultdict(set)
    for table, column in await database.ask(COLUMNS, {"schema": system.in_schema}):
        columns[table].add(column)
    if missing := [table for table in ("version", "queue", "job") if table not in columns]:
        where = f"no pg-boss in the schema {system.in_schema!r}"
        raise Fault("queue_missing", f"{where}: {f'it has no table {missing[0]}' if columns else 'no such tables'}")
    ((version,),) = await database.ask(f'SELECT max(version) FROM "{system.in_schema}".version')
    if version not in KNOWN:
        reach.facts["schema_version"] = f"{version} is none of {', '.join(map(str, KNOWN))}, which we know"
    return {table: frozenset(names) for table, names in columns.items()}


COLUMNS = """
    SELECT c.relname, a.attname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = %(schema)s AND c.relname IN ('version', 'queue', 'job', 'schedule') AND c.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
"""

LACKING = """
    SELECT array(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) p WHERE NOT has_table_privilege(%(job)s, p))
"""


# --- the canary


class _Pgboss:
    def __init__(self, config: PgbossCanary, database: Database, columns: Columns) -> None:
        self.config, self.database, self.columns = config, database, columns
        self.values = {"queue": config.queue}

    async def send(self, sentinel: Sentinel) -> str:
        ref = self.config.ref_of(sentinel.id)
        data = {"id": ref, "data": json.dumps(sentinel.payload), "lifetime": sentinel.lifetime // 1000}
        if not await self.database.ask(self._sending(), self.values | data):
            raise Fault("queue_missing", f"no queue {self.config.queue!r} in the schema {self.config.in_schema!r}")
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
        rows = await self.database.ask(
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
        ((left,),) = await self.database.ask(
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

    async def backlog(self) -> Backlog:
        ready = "state IN ('created', 'retry') AND start_after <= now()"
        if "blocked" in self.columns["job"]:
            ready += " AND NOT blocked"
        ((waiting, oldest, active),) = await self.database.ask(
            f"""
            SELECT count(*) FILTER (WHERE {ready}),
                (extract(epoch FROM now() - min(start_after) FILTER (WHERE {ready})) * 1000)::bigint,
                count(*) FILTER (WHERE state = 'active')
            FROM "{self.config.in_schema}".job
            WHERE name = %(queue)s AND state IN ('created', 'retry', 'active')
            """,
            self.values,
            COUNTING,
        )
        return Backlog(waiting, oldest, active)


def given_up(job: frozenset[str]) -> str:
    """Whether pg-boss itself would give up a job that is worked on: by then its worker has. `job`: its columns."""
    after = "expire_seconds * interval '1 second'" if "expire_seconds" in job else "expire_in"
    silent = "heartbeat_on + heartbeat_seconds * interval '1 second' < now()"
    beats = f" OR coalesce({silent}, false)" if {"heartbeat_on", "heartbeat_seconds"} <= job else ""
    return f"(coalesce(started_on + {after} < now(), false){beats})"


def error_of(output: Any) -> str:
    """Errors come as objects, anything else that was thrown inside of one."""
    inner = output.get("value", output) if isinstance(output, dict) else output
    told = inner.get("message", inner) if isinstance(inner, dict) else inner
    return told if isinstance(told, str) else "" if told is None else cap(json.dumps(told), 1_000)


def ms(instant: str) -> str:
    """An instant as we count them."""
    return f"round(extract(epoch FROM {instant}) * 1000)::bigint"
