"""PostgreSQL as queue systems use it: one connection per run, and statements of our own on the system's tables."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, INVALID_DATABASE_URL_PATTERN, split_and_validate_url
from watchdog.domain.text import truncate_to_single_line
from watchdog.net.errors import ProbeError
from watchdog.queues.base import (
    QueueConnectContext,
    QueueSystemConfig,
    build_broker_unreachable_error,
    connect_once_to_find_reachable_address,
)

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Error

DEFAULT_POSTGRES_PORT = 5432
UNFINISHED_JOBS_COUNT_TIMEOUT_S = 0.8
"""For counting unfinished jobs. Shorter than the timeout of a call, so that the connection survives."""
STORED_JOBS_COUNT_TIMEOUT_S = 2.0
"""For counting all jobs that are kept."""


# --- configuration


POSTGRES_URL_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")


def validate_postgres_url(text: str) -> str:
    expected = "postgresql://user:password@host/database; encode : / @ % in the password as %3A %2F %40 %25"
    parts = split_and_validate_url(text, POSTGRES_URL_SCHEMES, expected, forbidden=INVALID_DATABASE_URL_PATTERN)
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("host", "hostaddr", "port", "password", "service"):
            raise ValueError(
                f"{name} is not supported as a parameter: write postgresql://user:password@host:port/database"
            )
    return f"postgresql:{text.partition(':')[2]}"


PostgresUrl = Annotated[str, AfterValidator(validate_postgres_url), FILE_BACKED_FIELD_MARKER]


class PostgresQueueSystemConfig(QueueSystemConfig):
    """A queue system that keeps its jobs in PostgreSQL."""

    required_modules: ClassVar[tuple[str, ...]] = ("psycopg",)
    pip_extra: ClassVar[str] = "postgres"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the `postgres` extra)."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def database_url(self) -> str:
        return self.url

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or DEFAULT_POSTGRES_PORT


# --- the connection


@asynccontextmanager
async def open_postgres_queue_session(
    driver: PostgresQueueSystemConfig, context: QueueConnectContext, privileges_hint: str, *, read_write: bool = False
) -> AsyncIterator[PostgresQueueSession]:
    """Connects to the address that passed the address filter. `privileges_hint`: appended to a permission error."""
    import psycopg

    address = await connect_once_to_find_reachable_address(context, driver.host, driver.port)
    context.phase_timer.start_nestable_phase("connect")
    try:
        connection = await psycopg.AsyncConnection.connect(
            driver.url,
            hostaddr=address,
            connect_timeout=round(context.timeout_s),
            fallback_application_name="watchdog",
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.AsyncClientCursor,
        )
    except psycopg.Error as e:
        raise build_broker_unreachable_error(format_postgres_error(e)) from None
    context.phase_timer.end_phase("connect")
    try:
        yield PostgresQueueSession(connection, context.timeout_s, privileges_hint, read_write)
    finally:
        await connection.close()


class PostgresQueueSession:
    """Runs statements on one connection, each as a transaction of its own.

    Limits on time and, unless `read_write`, on access are set for that transaction only: a pooler may give the
    connection to another client in between. A server that stops responding costs at most `timeout_s` per statement.
    """

    def __init__(self, connection: AsyncConnection, timeout_s: float, privileges_hint: str, read_write: bool) -> None:
        self.connection, self.timeout_s, self.privileges_hint = connection, timeout_s, privileges_hint
        self._access_mode_sql = "" if read_write else "SET LOCAL transaction_read_only = on; "

    @property
    def warning_text_for_role_that_can_write(self) -> str:
        """The note for a role that could write."""
        return f"{self.connection.info.user} can write; {self.privileges_hint} only"

    async def fetch_all(
        self, statement: str, parameters: Mapping[str, Any] = {}, timeout_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """The statement's rows. Raises ProbeError, also if the server does not respond in time.

        `timeout_s`: the server's limit on the statement; default: the timeout of a call.
        """
        import asyncio

        limit = self.timeout_s if timeout_s is None else timeout_s
        query = asyncio.create_task(self._execute(statement, parameters, round(limit * 1000)))
        try:
            await asyncio.wait({query}, timeout=self.timeout_s)
            if not query.done():
                raise build_broker_unreachable_error(f"PostgreSQL did not respond within {self.timeout_s:g} s")
        finally:
            if not query.done():
                shutdown_socket(self.connection.fileno())
                await asyncio.wait({query})
            query.exception()  # marks it as retrieved, even if this call ends otherwise
        return query.result()

    async def _execute(self, statement: str, parameters: Mapping[str, Any], timeout_ms: int) -> list[tuple[Any, ...]]:
        import psycopg

        limits = f"SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {timeout_ms // 2}; "
        try:
            async with self.connection.cursor() as cursor:
                # One message is one transaction, hence the limits apply to the statement.
                await cursor.execute((self._access_mode_sql + limits + statement).encode(), parameters)
                while cursor.nextset():
                    pass
                return await cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as e:
            message = f"PostgreSQL denies access: {format_postgres_error(e)}; {self.privileges_hint}"
            raise ProbeError("broker.refused", message) from None
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as e:
            message = f"PostgreSQL timed out: {format_postgres_error(e)}"
            raise ProbeError("database.query_timeout", message, retryable=True) from None
        except psycopg.OperationalError as e:
            raise build_broker_unreachable_error(format_postgres_error(e)) from None
        except psycopg.Error as e:
            raise ProbeError("broker.refused", f"PostgreSQL returned an error: {format_postgres_error(e)}") from None


def shutdown_socket(fileno: int) -> None:
    """Ends a connection at once: the driver's own close first sends a message to the server."""
    with socket.socket(fileno=os.dup(fileno)) as duplicate, suppress(OSError):  # it has ended by itself
        duplicate.shutdown(socket.SHUT_RDWR)


def build_write_access_condition_sql(*tables: str) -> str:
    """A condition: the role could write to one of the tables, given as SQL, if the session were not read-only."""
    can_write = " OR ".join(f"has_table_privilege({table}, 'INSERT, UPDATE, DELETE, TRUNCATE')" for table in tables)
    return f"({can_write}) AND NOT pg_is_in_recovery()"


async def fetch_job_counts_or_none_on_timeout(
    session: PostgresQueueSession, context: QueueConnectContext, statement: str, parameters: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """The only row of a statement that counts. None, with evidence, if counting takes too long: the cheaper metrics
    are still reported."""
    try:
        (row,) = await session.fetch_all(statement, parameters, STORED_JOBS_COUNT_TIMEOUT_S)
    except ProbeError as error:
        if error.reason != "database.query_timeout":
            raise
        context.facts["counts_unavailable"] = error.message
        return None
    return row


POSTGRES_CONNECTION_CLOSED_TEXT = "server closed the connection unexpectedly"


def format_postgres_error(error: Error) -> str:
    """PostgreSQL's message without the driver's prefix."""
    text = error.diag.message_primary or str(error)
    if POSTGRES_CONNECTION_CLOSED_TEXT in text:  # the last line would not state it
        return POSTGRES_CONNECTION_CLOSED_TEXT
    lines = text.strip().splitlines() or [type(error).__name__]
    return truncate_to_single_line(re.sub(r"^.* failed: ", "", lines[-1]).removeprefix("FATAL:"))
