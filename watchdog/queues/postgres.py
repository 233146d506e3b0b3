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

from watchdog.fields import FROM_FILE
from watchdog.queues.base import Reach, System, reachable, unreachable
from watchdog.wire.faults import Fault
from watchdog.wire.redact import cap

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Error

PORT = 5432
COUNTING = 0.8
"""Seconds that counting what waits may take: less than we wait for it, so that the connection lives on."""
COUNTING_ALL = 2.0
"""The same of all that is kept."""


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


# --- the connection


@asynccontextmanager
async def connected(
    system: PostgresSystem, reach: Reach, rights: str, *, writes: bool = False
) -> AsyncIterator[Session]:
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
        yield Session(connection, reach.patience, rights, writes)
    finally:
        await connection.close()


class Session:
    """Statements, each with limits that end with it: a pooler may lend the connection to others in between."""

    def __init__(self, connection: AsyncConnection, patience: float, rights: str, writes: bool) -> None:
        self.connection, self.patience, self.rights = connection, patience, rights
        self._access = "" if writes else "SET LOCAL transaction_read_only = on; "

    @property
    def writable(self) -> str:
        """What is to be told of a role that could write."""
        return f"{self.connection.info.user} may write, too; {self.rights}, no more"

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
                await cursor.execute(
                    (self._access + limits + statement).encode(), values
                )  # one message, hence one transaction
                while cursor.nextset():
                    pass
                return await cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as e:
            raise Fault("broker.refused", f"PostgreSQL does not allow it: {said(e)}; {self.rights}") from None
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as e:
            raise Fault("database.query_timeout", f"PostgreSQL took too long: {said(e)}", retryable=True) from None
        except psycopg.OperationalError as e:
            raise unreachable(said(e)) from None
        except psycopg.Error as e:
            raise Fault("broker.refused", f"PostgreSQL answers: {said(e)}") from None

    def _hang_up(self) -> None:
        """The driver would first ask the server, which gives no answer, to stop."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def may_write(*tables: str) -> str:
    """Asks whether who we come as could write to one of them, had we not refused to. `tables`: their names, in SQL."""
    may = " OR ".join(f"has_table_privilege({table}, 'INSERT, UPDATE, DELETE, TRUNCATE')" for table in tables)
    return f"({may}) AND NOT pg_is_in_recovery()"


async def counted(session: Session, reach: Reach, statement: str, values: Mapping[str, Any]) -> tuple[int, ...] | None:
    """A row of figures; None where counting takes too long: what is quick to know is told all the same."""
    try:
        (row,) = await session.ask(statement, values, COUNTING_ALL)
    except Fault as fault:
        if fault.reason != "database.query_timeout":
            raise
        reach.facts["not_counted"] = fault.message
        return None
    return row


def said(error: Error) -> str:
    """PostgreSQL's own words, without where the driver met them."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines() or [type(error).__name__]
    return cap(re.sub(r"^.* failed: ", "", lines[-1]).removeprefix("FATAL:").strip(), 200)
