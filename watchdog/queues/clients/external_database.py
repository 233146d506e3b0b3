"""Other people's databases: one connection that cannot write unless it has to, one short transaction, and every
trouble a named reason."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from watchdog.domain.model import Json
from watchdog.domain.text import to_single_line
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.threads import run_in_daemon_thread
from watchdog.queues.base import ConnectContext, broker_unreachable_error, resolve_reachable_address
from watchdog.queues.clients.timestamps import parse_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
ConnectionAborter = Callable[[], None]
"""Ends a connection from another thread."""

DATABASE_LABEL = "database"
STATEMENT_TIMEOUT_S = 2.0
"""Seconds that a statement may take."""
LOCK_TIMEOUT_S = 0.5
"""Seconds that it may wait for a lock."""
CONNECT_TIMEOUT_S = 3
"""Seconds until a connection must stand."""
TOTAL_TIMEOUT_S = 8.0
"""Seconds for everything, however little the server keeps of its limits."""


class ExternalDatabase(ABC):
    """Where a database is, as whom we come, and what is peculiar to its kind."""

    name: ClassVar[str]
    driver_module: ClassVar[str]
    pip_extra: ClassVar[str] = ""
    """What brings the module."""
    default_port: ClassVar[int] = 0
    current_time_sql: ClassVar[str]
    """Asks for its clock: the answer has a zone, or is in UTC."""

    def __init__(self, url: str, table: str = "", *, read_write: bool = False) -> None:
        """`url`: as `DatabaseUrl` gives it. `table`: the one that is read, with or without its schema."""
        self.url, self.table, self.read_write = url, table, read_write

    @property
    def host(self) -> str:
        """Empty: it is a file."""
        return urlsplit(self.url).hostname or ""

    @property
    def schema(self) -> str | None:
        return self.table.rpartition(".")[0] or None

    @property
    def connect_port(self) -> int:
        return urlsplit(self.url).port or self.default_port

    @property
    def display_name(self) -> str:
        return self.host

    @property
    def role_name(self) -> str:
        return unquote(urlsplit(self.url).username or "") or "this role"

    @abstractmethod
    def create_engine(self, address: str) -> Engine:
        """`address`: where the host was found to be."""

    @abstractmethod
    def restrict_connection(self, dbapi_connection: Any) -> ConnectionAborter:
        """Takes a new connection the means to linger, and to write where it need not."""

    @abstractmethod
    def translate_error(self, error: DBAPIError) -> ProbeError | None:
        """What an error stands for; None: for nothing in particular."""

    def current_time(self, connection: Connection) -> int:
        """By the database's clock, in ms since the epoch."""
        import sqlalchemy as sa

        value = connection.execute(sa.text(self.current_time_sql)).scalar()
        return parse_timestamp_ms(value, "UTC", "the clock") or 0

    def has_write_access(self, connection: Connection, table: TableClause) -> bool:
        """Whether who we come as could write to the table, had we not refused to."""
        return False

    def write_access_evidence(self, connection: Connection, table: TableClause) -> dict[str, Json]:
        """What is to be told of a role that could write."""
        if not self.has_write_access(connection, table):
            return {}
        return {"write_access": f"{self.role_name} may write to {table.name}, too; SELECT is all it takes"}

    @contextmanager
    def open_transaction(
        self, address: str = "", register_aborter: Callable[[ConnectionAborter], None] = lambda _: None
    ) -> Iterator[Connection]:
        """A transaction on a connection of its own. `hold` is told how to end it. Raises Fault."""
        import sqlalchemy as sa

        engine = self.create_engine(address)
        sa.event.listen(engine, "connect", lambda driver, _: register_aborter(self.restrict_connection(driver)))
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as e:
            raise self.translate_error(e) or self.refused_error(self.error_message(e)) from None
        except OSError as e:
            known = error_from_exception(e)
            raise broker_unreachable_error(known.message if known else str(e), label=DATABASE_LABEL) from None
        finally:
            engine.dispose()

    def error_message(self, error: DBAPIError) -> str:
        return to_single_line(str(error.orig))

    def refused_error(self, detail: str) -> ProbeError:
        return ProbeError("broker.refused", f"{self.name} answers: {detail}")

    def permission_denied_error(self, detail: str) -> ProbeError:
        if self.read_write:
            return self.refused_error(detail)
        right = f"USAGE ON SCHEMA {self.schema}" if "for schema" in detail else f"SELECT ON {self.table}"
        return ProbeError(
            "broker.refused",
            f"{self.name} does not allow it: {detail}; all it takes: GRANT {right} TO {self.role_name}",
        )

    def missing_table_error(self, detail: str) -> ProbeError:
        return (
            self.refused_error(detail)
            if self.read_write
            else ProbeError("database.table_missing", f"no table {self.table}: {detail}")
        )

    def missing_column_error(self, detail: str) -> ProbeError:
        return (
            self.refused_error(detail)
            if self.read_write
            else ProbeError("database.column_missing", f"{self.table} lacks a column: {detail}")
        )

    def query_timeout_error(self, detail: str) -> ProbeError:
        return ProbeError(
            "database.query_timeout", f"{self.name} took too long, limit {STATEMENT_TIMEOUT_S:g} s: {detail}"
        )


async def run_transaction(database: ExternalDatabase, context: ConnectContext, work: Callable[[Connection], T]) -> T:
    """What `work` finds, on a thread of its own: a driver that waits holds up nobody else. Raises Fault."""
    address = (
        await resolve_reachable_address(context, database.host, database.connect_port, DATABASE_LABEL)
        if database.host
        else ""
    )
    cuts: list[ConnectionAborter] = []

    def run() -> T:
        with database.open_transaction(address, cuts.append) as connection:
            return work(connection)

    context.trace.start_phase("query")
    try:
        async with asyncio.timeout(TOTAL_TIMEOUT_S):
            found = await run_in_daemon_thread(run, f"look at {database.display_name}")
    except (TimeoutError, asyncio.CancelledError) as e:
        for cut in cuts:
            with suppress(Exception):  # it has just ended
                cut()
        if isinstance(e, TimeoutError):
            raise broker_unreachable_error(
                f"{database.name} gives no answer in {TOTAL_TIMEOUT_S:g} s", label=DATABASE_LABEL
            ) from None
        raise
    context.trace.end_phase("query")
    return found
