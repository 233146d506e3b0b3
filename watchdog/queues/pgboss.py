"""pg-boss: jobs in PostgreSQL, worked on by Node.js. Where its tables are, and a connection to ask them."""

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

from pydantic import AfterValidator, Field

from watchdog.fields import FROM_FILE, Line
from watchdog.queues.base import (
    Reach,
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
COUNTING_ALL = 2.0
"""The same of all that is kept."""
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


class PgbossQueue(PgbossDatabase):
    """A queue of pg-boss."""

    queue: Line

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @property
    def missing(self) -> Fault:
        return Fault("queue_missing", f"no queue {self.queue!r} in the schema {self.in_schema!r}")


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
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as e:
            raise Fault("query_timeout", f"PostgreSQL took too long: {said(e)}", retryable=True) from None
        except psycopg.OperationalError as e:
            raise unreachable(said(e)) from None
        except psycopg.Error as e:
            raise Fault("broker_refused", f"PostgreSQL answers: {said(e)}") from None

    def _hang_up(self) -> None:
        """The driver would first ask the server, which gives no answer, to stop."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


async def counted(
    database: Database, reach: Reach, statement: str, values: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """A row of figures; None where counting takes too long: what is quick to know is told all the same."""
    try:
        (row,) = await database.ask(statement, values, COUNTING_ALL)
    except Fault as fault:
        if fault.reason != "query_timeout":
            raise
        reach.facts["not_counted"] = fault.message
        return None
    return row


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


# --- what its columns mean


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
