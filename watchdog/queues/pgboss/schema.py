"""pg-boss: jobs in PostgreSQL, run by Node.js workers. The schema of its tables, and the meaning of their columns."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Field

from watchdog.config_types import SingleLineText
from watchdog.domain.text import truncate_with_note
from watchdog.net.errors import ProbeError
from watchdog.net.redact import describe_queue_target
from watchdog.queues.base import QueueConnectContext
from watchdog.queues.clients.postgres import PostgresQueueSession, PostgresQueueSystemConfig, PostgresUrl

TESTED_PGBOSS_SCHEMA_VERSIONS = (24, 26, 46)
"""The schema versions of pg-boss 10, 11 and 12, which Watchdog is tested with."""
PGBOSS_CANARY_PRIVILEGES_HINT = (
    "the role needs USAGE on the schema, SELECT on version, queue and job, INSERT and DELETE on job"
)

PgbossTableColumns: TypeAlias = Mapping[str, frozenset[str]]
"""Table -> its columns."""


# --- configuration


def _validate_pgboss_schema_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", text):
        raise ValueError("expected a schema name of letters, digits, '_' and '-'")
    return text


class PgbossDatabaseConfig(PostgresQueueSystemConfig):
    """A database in which pg-boss keeps its jobs."""

    form_fields: ClassVar[tuple[str, ...]] = ("url",)
    kind: ClassVar[str] = "pgboss"
    name: ClassVar[str] = "pg-boss"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the `postgres` extra). The role needs USAGE on the schema
    and SELECT on its tables `version`, `queue` and `job`; for a canary, also INSERT and DELETE on `job`."""
    schema_name: Annotated[str, AfterValidator(_validate_pgboss_schema_name)] = Field(default="pgboss", alias="schema")
    """The database schema of pg-boss."""


class PgbossQueueConfig(PgbossDatabaseConfig):
    """A pg-boss queue."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "queue")

    queue: SingleLineText
    """The name of the queue."""

    @property
    def target(self) -> str:
        return describe_queue_target(self.url, self.queue)

    @property
    def queue_missing_error(self) -> ProbeError:
        return ProbeError("queue.missing", f"queue {self.queue!r} does not exist in schema {self.schema_name!r}")


# --- tables


async def load_pgboss_table_columns(
    driver: PgbossDatabaseConfig, session: PostgresQueueSession, context: QueueConnectContext
) -> PgbossTableColumns:
    """The tables that exist. Raises ProbeError if pg-boss is not there; adds evidence for an untested version."""
    columns: dict[str, set[str]] = defaultdict(set)
    for table, column in await session.fetch_all(PGBOSS_TABLE_COLUMNS_SQL, {"schema": driver.schema_name}):
        columns[table].add(column)
    if missing := [table for table in ("version", "queue", "job") if table not in columns]:
        problem = f"table {missing[0]} is missing" if columns else "its tables do not exist"
        raise ProbeError("queue.missing", f"pg-boss is not in schema {driver.schema_name!r}: {problem}")
    ((version,),) = await session.fetch_all(f'SELECT max(version) FROM "{driver.schema_name}".version')
    if version not in TESTED_PGBOSS_SCHEMA_VERSIONS:
        tested = ", ".join(map(str, TESTED_PGBOSS_SCHEMA_VERSIONS))
        context.facts["schema_version"] = f"{version} is untested (tested: {tested})"
    return {table: frozenset(names) for table, names in columns.items()}


PGBOSS_TABLE_COLUMNS_SQL = """
    SELECT c.relname, a.attname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = %(schema)s AND c.relname IN ('version', 'queue', 'job', 'schedule') AND c.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
"""


# --- columns


def build_pgboss_worker_lost_condition_sql(job_columns: frozenset[str]) -> str:
    """A condition: pg-boss itself would give up this active job, because its time or its heartbeat has expired."""
    timeout = "expire_seconds * interval '1 second'" if "expire_seconds" in job_columns else "expire_in"
    heartbeat_expired = "heartbeat_on + heartbeat_seconds * interval '1 second' < now()"
    has_heartbeats = {"heartbeat_on", "heartbeat_seconds"} <= job_columns
    or_heartbeat_expired = f" OR coalesce({heartbeat_expired}, false)" if has_heartbeats else ""
    return f"(coalesce(started_on + {timeout} < now(), false){or_heartbeat_expired})"


def format_pgboss_job_error(output: Any) -> str:
    """pg-boss stores errors as objects, and other thrown values inside of one."""
    value = output.get("value", output) if isinstance(output, dict) else output
    message = value.get("message", value) if isinstance(value, dict) else value
    return (
        message
        if isinstance(message, str)
        else ""
        if message is None
        else truncate_with_note(json.dumps(message), 1_000)
    )


def build_epoch_ms_sql(expression: str) -> str:
    """A timestamp in ms since the epoch."""
    return f"round(extract(epoch FROM {expression}) * 1000)::bigint"
