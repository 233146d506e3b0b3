"""pg-boss: jobs in PostgreSQL, worked on by Node.js. Where its tables are, and what their columns mean."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Field

from watchdog.config_types import SingleLineText
from watchdog.domain.text import truncate
from watchdog.net.errors import ProbeError
from watchdog.queues.base import ConnectContext
from watchdog.queues.clients.postgres import PostgresQueueDriver, PostgresSession, PostgresUrl

SUPPORTED_SCHEMA_VERSIONS = (24, 26, 46)
"""Versions of its schema that this was made for: those of pg-boss 10, 11 and 12."""
CANARY_PRIVILEGES_HINT = (
    "the role needs USAGE on the schema, SELECT on version, queue and job, INSERT and DELETE on job"
)

TableColumns: TypeAlias = Mapping[str, frozenset[str]]
"""Table -> its columns."""


# --- configuration


def _validate_schema_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", text):
        raise ValueError("expected a schema name of letters, digits, '_' and '-'")
    return text


class PgbossDatabase(PostgresQueueDriver):
    """A database in which pg-boss keeps its jobs."""

    kind: ClassVar[str] = "pgboss"
    name: ClassVar[str] = "pg-boss"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the extra `postgres`). The role needs USAGE on the schema
    and SELECT on its tables `version`, `queue` and `job`; for a canary also INSERT and DELETE on `job`."""
    schema_name: Annotated[str, AfterValidator(_validate_schema_name)] = Field(default="pgboss", alias="schema")
    """The database schema of pg-boss."""


class PgbossQueue(PgbossDatabase):
    """A queue of pg-boss."""

    queue: SingleLineText
    """The name of the queue."""

    @property
    def target(self) -> str:
        return f"{self.host}/{self.queue}"

    @property
    def queue_missing_error(self) -> ProbeError:
        return ProbeError("queue.missing", f"no queue {self.queue!r} in the schema {self.schema_name!r}")


# --- what it has


async def load_table_columns(driver: PgbossDatabase, session: PostgresSession, context: ConnectContext) -> TableColumns:
    """What pg-boss has there. Raises Fault."""
    columns: dict[str, set[str]] = defaultdict(set)
    for table, column in await session.fetch_all(TABLE_COLUMNS_SQL, {"schema": driver.schema_name}):
        columns[table].add(column)
    if missing := [table for table in ("version", "queue", "job") if table not in columns]:
        where = f"no pg-boss in the schema {driver.schema_name!r}"
        raise ProbeError(
            "queue.missing", f"{where}: {f'it has no table {missing[0]}' if columns else 'no such tables'}"
        )
    ((version,),) = await session.fetch_all(f'SELECT max(version) FROM "{driver.schema_name}".version')
    if version not in SUPPORTED_SCHEMA_VERSIONS:
        context.facts["schema_version"] = (
            f"{version} is none of {', '.join(map(str, SUPPORTED_SCHEMA_VERSIONS))}, which we know"
        )
    return {table: frozenset(names) for table, names in columns.items()}


TABLE_COLUMNS_SQL = """
    SELECT c.relname, a.attname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = %(schema)s AND c.relname IN ('version', 'queue', 'job', 'schedule') AND c.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
"""


# --- what its columns mean


def worker_lost_sql(job_columns: frozenset[str]) -> str:
    """Whether pg-boss itself would give up a job that is worked on: by then its worker has. `job`: its columns."""
    after = "expire_seconds * interval '1 second'" if "expire_seconds" in job_columns else "expire_in"
    silent = "heartbeat_on + heartbeat_seconds * interval '1 second' < now()"
    beats = f" OR coalesce({silent}, false)" if {"heartbeat_on", "heartbeat_seconds"} <= job_columns else ""
    return f"(coalesce(started_on + {after} < now(), false){beats})"


def error_message_from_output(output: Any) -> str:
    """Errors come as objects, anything else that was thrown inside of one."""
    inner = output.get("value", output) if isinstance(output, dict) else output
    told = inner.get("message", inner) if isinstance(inner, dict) else inner
    return told if isinstance(told, str) else "" if told is None else truncate(json.dumps(told), 1_000)


def epoch_ms_sql(expression: str) -> str:
    """An instant as we count them."""
    return f"round(extract(epoch FROM {expression}) * 1000)::bigint"
