"""pg-boss: jobs in PostgreSQL, worked on by Node.js. Where its tables are, and what their columns mean."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Field

from watchdog.fields import Line
from watchdog.queues.base import Reach
from watchdog.queues.postgres import PostgresSystem, PostgresUrl, Session
from watchdog.wire.faults import Fault
from watchdog.wire.redact import cap

KNOWN = (24, 26, 46)
"""Versions of its schema that this was made for: those of pg-boss 10, 11 and 12."""
RIGHTS = "the role needs USAGE on the schema, SELECT on version, queue and job, INSERT and DELETE on job"

Columns: TypeAlias = Mapping[str, frozenset[str]]
"""Table -> its columns."""


# --- configuration


def _schema_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", text):
        raise ValueError("expected the name of a schema: letters, digits, '_' and '-'")
    return text


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
        return Fault("queue.missing", f"no queue {self.queue!r} in the schema {self.in_schema!r}")


# --- what it has


async def tables(system: PgbossDatabase, session: Session, reach: Reach) -> Columns:
    """What pg-boss has there. Raises Fault."""
    columns: dict[str, set[str]] = defaultdict(set)
    for table, column in await session.ask(COLUMNS, {"schema": system.in_schema}):
        columns[table].add(column)
    if missing := [table for table in ("version", "queue", "job") if table not in columns]:
        where = f"no pg-boss in the schema {system.in_schema!r}"
        raise Fault("queue.missing", f"{where}: {f'it has no table {missing[0]}' if columns else 'no such tables'}")
    ((version,),) = await session.ask(f'SELECT max(version) FROM "{system.in_schema}".version')
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
