"""PostgreSQL in which others keep their jobs: where it is, and a connection to ask it with statements of our own."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from watchdog.config_types import ALLOW_FROM_FILE, INVALID_PERCENT_ENCODING, split_url
from watchdog.domain.text import to_single_line
from watchdog.net.errors import ProbeError
from watchdog.queues.base import ConnectContext, QueueDriver, broker_unreachable_error, resolve_reachable_address

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Error

DEFAULT_POSTGRES_PORT = 5432
COUNT_TIMEOUT_S = 0.8
"""Seconds that counting what waits may take: less than we wait for it, so that the connection lives on."""
FULL_COUNT_TIMEOUT_S = 2.0
"""The same of all that is kept."""


# --- configuration


POSTGRES_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")


def validate_postgres_url(text: str) -> str:
    expected = "postgresql://user:password@host/database; encode : / @ % in the password as %3A %2F %40 %25"
    parts = split_url(text, POSTGRES_SCHEMES, expected, forbidden=INVALID_PERCENT_ENCODING)
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("host", "hostaddr", "port", "password", "service"):
            raise ValueError(
                f"{name} is not supported as a parameter: write postgresql://user:password@host:port/database"
            )
    return f"postgresql:{text.partition(':')[2]}"


PostgresUrl = Annotated[str, AfterValidator(validate_postgres_url), ALLOW_FROM_FILE]


class PostgresQueueDriver(QueueDriver):
    """A system that keeps its jobs in PostgreSQL."""

    required_modules: ClassVar[tuple[str, ...]] = ("psycopg",)
    pip_extra: ClassVar[str] = "postgres"

    url: PostgresUrl
    """`postgresql://user:password@host/database` (requires the extra `postgres`)."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or DEFAULT_POSTGRES_PORT


# --- the connection


@asynccontextmanager
async def open_postgres_session(
    driver: PostgresQueueDriver, context: ConnectContext, privileges_hint: str, *, read_write: bool = False
) -> AsyncIterator[PostgresSession]:
    """One connection, to the address that passed our filter. `rights`: what to grant, should any be missing."""
    import psycopg

    address = await resolve_reachable_address(context, driver.host, driver.port)
    context.trace.start_phase("connect")
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
        raise broker_unreachable_error(postgres_error_message(e)) from None
    context.trace.end_phase("connect")
    try:
        yield PostgresSession(connection, context.timeout_s, privileges_hint, read_write)
    finally:
        await connection.close()


class PostgresSession:
    """Statements, each with limits that end with it: a pooler may lend the connection to others in between."""

    def __init__(self, connection: AsyncConnection, timeout_s: float, privileges_hint: str, read_write: bool) -> None:
        self.connection, self.timeout_s, self.privileges_hint = connection, timeout_s, privileges_hint
        self._access_mode_sql = "" if read_write else "SET LOCAL transaction_read_only = on; "

    @property
    def write_access_warning(self) -> str:
        """What is to be told of a role that could write."""
        return f"{self.connection.info.user} may write, too; {self.privileges_hint}, no more"

    async def fetch_all(
        self, statement: str, parameters: Mapping[str, Any] = {}, timeout_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows that come back. Raises Fault, also when none come in time."""
        limit = self.timeout_s if timeout_s is None else timeout_s
        asking = asyncio.create_task(self._execute(statement, parameters, round(limit * 1000)))
        try:
            await asyncio.wait({asking}, timeout=self.timeout_s)
            if not asking.done():
                raise broker_unreachable_error(f"PostgreSQL gives no answer in {self.timeout_s:g} s")
        finally:
            if not asking.done():
                self._shutdown_socket()
                await asyncio.wait({asking})
            asking.exception()  # nobody else may come to ask for it
        return asking.result()

    async def _execute(self, statement: str, parameters: Mapping[str, Any], timeout_ms: int) -> list[tuple[Any, ...]]:
        import psycopg

        limits = f"SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {timeout_ms // 2}; "
        try:
            async with self.connection.cursor() as cursor:
                await cursor.execute(
                    (self._access_mode_sql + limits + statement).encode(), parameters
                )  # one message, hence one transaction
                while cursor.nextset():
                    pass
                return await cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as e:
            raise ProbeError(
                "broker.refused", f"PostgreSQL does not allow it: {postgres_error_message(e)}; {self.privileges_hint}"
            ) from None
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as e:
            raise ProbeError(
                "database.query_timeout", f"PostgreSQL took too long: {postgres_error_message(e)}", retryable=True
            ) from None
        except psycopg.OperationalError as e:
            raise broker_unreachable_error(postgres_error_message(e)) from None
        except psycopg.Error as e:
            raise ProbeError("broker.refused", f"PostgreSQL answers: {postgres_error_message(e)}") from None

    def _shutdown_socket(self) -> None:
        """The driver would first ask the server, which gives no answer, to stop."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def has_write_access_sql(*tables: str) -> str:
    """Asks whether who we come as could write to one of them, had we not refused to. `tables`: their names, in SQL."""
    may = " OR ".join(f"has_table_privilege({table}, 'INSERT, UPDATE, DELETE, TRUNCATE')" for table in tables)
    return f"({may}) AND NOT pg_is_in_recovery()"


async def fetch_counts(
    session: PostgresSession, context: ConnectContext, statement: str, parameters: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """A row of figures; None where counting takes too long: what is quick to know is told all the same."""
    try:
        (row,) = await session.fetch_all(statement, parameters, FULL_COUNT_TIMEOUT_S)
    except ProbeError as fault:
        if fault.reason != "database.query_timeout":
            raise
        context.facts["counts_unavailable"] = fault.message
        return None
    return row


def postgres_error_message(error: Error) -> str:
    """PostgreSQL's own words, without where the driver met them."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines() or [type(error).__name__]
    return to_single_line(re.sub(r"^.* failed: ", "", lines[-1]).removeprefix("FATAL:"))
