"""Databases of other applications: short transactions on a connection that is read-only unless a remediation needs to
write, every failure a ProbeError."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import Json
from watchdog.domain.text import truncate_to_single_line
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.threads import run_in_daemon_thread
from watchdog.queues.base import (
    QueueConnectContext,
    build_broker_unreachable_error,
    connect_once_to_find_reachable_address,
)
from watchdog.queues.clients.timestamps import parse_database_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
ConnectionAborter = Callable[[], None]
"""Ends a connection, called from another thread."""

EXTERNAL_DATABASE_LABEL_IN_ERRORS = "database"
EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S = 2.0
EXTERNAL_DATABASE_LOCK_TIMEOUT_S = 0.5
EXTERNAL_DATABASE_CONNECT_TIMEOUT_S = 3
EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S = 8.0
"""For connecting and the whole transaction, enforced here: a server may ignore the limits above."""


class ExternalDatabase(ABC):
    """One database that belongs to another application; a subclass for each database system.

    Opens a connection for each transaction and keeps none. Connections are read-only (unless `read_write`) and have
    limits on statements and locks, so that Watchdog neither changes nor blocks the application.
    """

    name: ClassVar[str]
    driver_module: ClassVar[str]
    pip_extra: ClassVar[str] = ""
    """The extra of our package that installs the driver."""
    default_port: ClassVar[int] = 0
    current_time_sql: ClassVar[str]
    """Selects the database's current time, with a zone or in UTC."""

    def __init__(self, url: str, table: str = "", *, read_write: bool = False) -> None:
        """`url`: a validated `ExternalDatabaseUrl`. `table`: the table that is read, named in hints on privileges."""
        self.url, self.table, self.read_write = url, table, read_write

    @property
    def host(self) -> str:
        """Empty for a file."""
        return urlsplit(self.url).hostname or ""

    @property
    def schema(self) -> str | None:
        return self.table.rpartition(".")[0] or None

    @property
    def database_port(self) -> int:
        return urlsplit(self.url).port or self.default_port

    @property
    def display_name(self) -> str:
        """The URL without credentials and query."""
        return strip_url_to_scheme_host_and_path(self.url)

    @property
    def database_user_name(self) -> str:
        return unquote(urlsplit(self.url).username or "") or "this role"

    @abstractmethod
    def create_engine(self, address: str) -> Engine:
        """`address`: the address of the host that passed the address filter."""

    @abstractmethod
    def restrict_connection_and_get_aborter(self, dbapi_connection: Any) -> ConnectionAborter:
        """Limits a new connection in time and, unless `read_write`, to reading. Returns how to end it."""

    @abstractmethod
    def translate_error(self, error: DBAPIError) -> ProbeError | None:
        """The ProbeError for an error of the driver; None if it has no specific one."""

    def read_external_database_clock_ms(self, connection: Connection) -> int:
        """By the database's clock, in ms since the epoch."""
        import sqlalchemy as sa

        value = connection.execute(sa.text(self.current_time_sql)).scalar()
        return parse_database_timestamp_ms(value, "UTC", "the clock") or 0

    def has_write_access(self, connection: Connection, table: TableClause) -> bool:
        """Whether the role could write to the table if the connection were not read-only."""
        return False

    def build_write_access_note(self, connection: Connection, table: TableClause) -> dict[str, Json]:
        """A note if the role could write; else empty."""
        if not self.has_write_access(connection, table):
            return {}
        return {"write_access": f"{self.database_user_name} can write to {table.name}; SELECT is enough"}

    @contextmanager
    def open_transaction(
        self, address: str = "", register_aborter: Callable[[ConnectionAborter], None] = lambda _: None
    ) -> Iterator[Connection]:
        """A transaction on a new connection. `register_aborter` receives the connection's aborter. Raises
        ProbeError."""
        import sqlalchemy as sa

        engine = self.create_engine(address)
        sa.event.listen(
            engine, "connect", lambda driver, _: register_aborter(self.restrict_connection_and_get_aborter(driver))
        )
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as e:
            raise self.translate_error(e) or self.build_generic_database_error(
                self.format_database_driver_error(e)
            ) from None
        except OSError as e:
            error = build_probe_error_from_exception(e)
            raise build_broker_unreachable_error(
                error.message if error else str(e), label=EXTERNAL_DATABASE_LABEL_IN_ERRORS
            ) from None
        finally:
            engine.dispose()

    def format_database_driver_error(self, error: DBAPIError) -> str:
        return truncate_to_single_line(str(error.orig))

    def build_generic_database_error(self, detail: str) -> ProbeError:
        return ProbeError("broker.refused", f"{self.name} returned an error: {detail}")

    def build_permission_denied_error(self, detail: str) -> ProbeError:
        if self.read_write:
            return self.build_generic_database_error(detail)
        privilege = f"USAGE ON SCHEMA {self.schema}" if "for schema" in detail else f"SELECT ON {self.table}"
        required = f"required: GRANT {privilege} TO {self.database_user_name}"
        return ProbeError("broker.refused", f"{self.name} denies access: {detail}; {required}")

    def build_missing_table_error(self, detail: str) -> ProbeError:
        if self.read_write:
            return self.build_generic_database_error(detail)
        return ProbeError("database.table_missing", f"table {self.table} does not exist: {detail}")

    def build_missing_column_error(self, detail: str) -> ProbeError:
        if self.read_write:
            return self.build_generic_database_error(detail)
        return ProbeError("database.column_missing", f"a column of {self.table} does not exist: {detail}")

    def build_query_timeout_error(self, detail: str) -> ProbeError:
        return ProbeError(
            "database.query_timeout",
            f"{self.name} exceeded the limit of {EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S:g} s: {detail}",
        )


async def run_external_database_transaction(
    database: ExternalDatabase, context: QueueConnectContext, work: Callable[[Connection], T]
) -> T:
    """Returns the result of `work`, which runs in a thread because drivers block. Raises ProbeError."""
    import asyncio

    address = ""
    if database.host:
        address = await connect_once_to_find_reachable_address(
            context, database.host, database.database_port, EXTERNAL_DATABASE_LABEL_IN_ERRORS
        )
    aborters: list[ConnectionAborter] = []

    def run_work_in_transaction() -> T:
        with database.open_transaction(address, aborters.append) as connection:
            return work(connection)

    context.phase_timer.start_nestable_phase("query")
    try:
        async with asyncio.timeout(EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S):
            result = await run_in_daemon_thread(run_work_in_transaction, f"query {database.display_name}")
    except (TimeoutError, asyncio.CancelledError) as e:
        for abort in aborters:
            with suppress(Exception):  # the connection may have ended by itself
                abort()
        if isinstance(e, TimeoutError):
            message = f"{database.name} did not respond within {EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S:g} s"
            raise build_broker_unreachable_error(message, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS) from None
        raise
    context.phase_timer.end_phase("query")
    return result


async def execute_external_database_update(
    database: ExternalDatabase,
    context: QueueConnectContext,
    statement: str,
    parameters: Mapping[str, str],
    max_rows: int,
    *,
    dry_run: bool,
) -> int:
    """Runs one statement of the user's in a transaction of its own and returns how many rows it changed.

    Rolls back if that is more than `max_rows`, or on a dry run. `parameters`: values of the statement's `:name`s.
    Raises ProbeError.
    """
    import sqlalchemy as sa

    # Untyped, so that the server compares a text with numbers and UUIDs too.
    untyped = [sa.bindparam(name, value, sa.types.NullType()) for name, value in parameters.items()]
    prepared = sa.text(statement).bindparams(*untyped)

    def execute_update_limited_to_max_rows(connection: Connection) -> int:
        changed = max(connection.execute(prepared).rowcount, 0)
        if changed > max_rows:
            message = (
                f"the statement changes {format_count_with_noun(changed, 'row')}, more than {max_rows}: rolled back"
            )
            raise ProbeError("remediation.too_many_rows", message)
        if dry_run:
            connection.rollback()
        return changed

    return await run_external_database_transaction(database, context, execute_update_limited_to_max_rows)
