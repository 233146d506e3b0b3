"""Databases of other applications: short transactions on a connection that is read-only unless a remediation needs to
write, every failure a ProbeError."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from time import monotonic
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
from watchdog.queues.clients.database_faults import (
    DATABASE_UNAVAILABLE_FAULTS,
    DatabaseFault,
    DatabaseFaultError,
    find_ssl_error,
)
from watchdog.queues.clients.timestamps import parse_database_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

EXTERNAL_DATABASE_LABEL_IN_ERRORS = "database"
EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S = 2.0
EXTERNAL_DATABASE_LOCK_TIMEOUT_S = 0.5
EXTERNAL_DATABASE_CONNECT_TIMEOUT_S = 3
EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S = 8.0
"""For connecting and the whole transaction, enforced here: a server may ignore the limits above."""
MIN_EXTERNAL_DATABASE_TIMEOUT_S = 0.05
EXTERNAL_DATABASE_CANCEL_TIMEOUT_S = 1.0


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

    def __init__(
        self, url: str, table: str = "", *, read_write: bool = False, statements_end_at: float | None = None
    ) -> None:
        """`url`: a validated `ExternalDatabaseUrl`. `table`: the table that is read, named in hints on privileges.
        `statements_end_at`: when the server has to end the last statement, by the monotonic clock; default: each has
        EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S."""
        self.url, self.table, self.read_write = url, table, read_write
        self._statements_end_at = statements_end_at

    @property
    def remaining_s(self) -> float:
        """Seconds until the last statement has to end."""
        return math.inf if self._statements_end_at is None else self._statements_end_at - monotonic()

    @property
    def statement_timeout_s(self) -> float:
        """For a statement that starts now."""
        limit = EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S if self._statements_end_at is None else self.remaining_s
        return max(limit, MIN_EXTERNAL_DATABASE_TIMEOUT_S)

    @property
    def lock_timeout_s(self) -> float:
        return EXTERNAL_DATABASE_LOCK_TIMEOUT_S

    @property
    def connect_timeout_s(self) -> float:
        """For the login."""
        return max(min(EXTERNAL_DATABASE_CONNECT_TIMEOUT_S, self.remaining_s), MIN_EXTERNAL_DATABASE_TIMEOUT_S)

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
        """`address`: the address of the host that passed the address filter. Raises DatabaseFaultError."""

    @abstractmethod
    def restrict_connection(self, dbapi_connection: Any) -> None:
        """Limits a new connection in time and, unless `read_write`, to reading."""

    @abstractmethod
    def limit_query(self, connection: Connection, max_rows: int, max_bytes: int) -> None:
        """Prepares for one query of a user's, as far as the system can: the server sends at most `max_rows` rows and
        values of at most `max_bytes`, and the statement can neither end the transaction nor write."""

    @abstractmethod
    def abort_connection(self, dbapi_connection: Any) -> None:
        """Ends a connection at once, called from another thread. Raises any exception if it has ended by itself."""

    def cancel_statement(self, dbapi_connection: Any) -> None:
        """Has the server cancel the statement in progress: it may not notice that its client is gone. Blocks for about
        EXTERNAL_DATABASE_CANCEL_TIMEOUT_S at most. Raises any exception if that is impossible."""
        return

    def get_socket_descriptor(self, dbapi_connection: Any) -> int | None:
        """None: the database is a file. Raises any exception if the connection has ended."""
        return None

    @abstractmethod
    def classify_error(self, error: DBAPIError) -> DatabaseFault:
        """What an error of the driver means."""

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
        self, address: str = "", register_connection: Callable[[Any], None] = lambda _: None
    ) -> Iterator[Connection]:
        """A transaction on a new connection. `register_connection` receives the connection of the driver, for
        `abort_connection`. Raises ProbeError."""
        try:
            with self.open_transaction_with_faults(address, register_connection) as connection:
                yield connection
        except DatabaseFaultError as e:
            raise self._build_probe_error(e) from None

    @contextmanager
    def open_transaction_with_faults(
        self, address: str, register_connection: Callable[[Any], None]
    ) -> Iterator[Connection]:
        """As `open_transaction`, but raises DatabaseFaultError."""
        import sqlalchemy as sa

        engine = self.create_engine(address)

        def restrict_and_register_connection(dbapi_connection: Any, _: Any) -> None:
            self.restrict_connection(dbapi_connection)
            register_connection(dbapi_connection)

        sa.event.listen(engine, "connect", restrict_and_register_connection)
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as e:
            detail = self.format_database_driver_error(e)
            raise DatabaseFaultError(self.classify_error(e), detail, find_ssl_error(e)) from None
        except OSError as e:
            error = build_probe_error_from_exception(e)
            raise DatabaseFaultError(DatabaseFault.CONNECT_FAILED, error.message if error else str(e)) from None
        finally:
            engine.dispose()

    def _build_probe_error(self, error: DatabaseFaultError) -> ProbeError:
        """For a table with jobs: the reasons of queue systems."""
        match error.fault:
            case fault if fault in DATABASE_UNAVAILABLE_FAULTS:
                return build_broker_unreachable_error(error.detail, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS)
            case DatabaseFault.QUERY_TIMEOUT | DatabaseFault.LOCK_TIMEOUT:
                return self.build_query_timeout_error(error.detail)
            case DatabaseFault.PERMISSION_DENIED:
                return self.build_permission_denied_error(error.detail)
            case DatabaseFault.TABLE_MISSING:
                return self.build_missing_table_error(error.detail)
            case DatabaseFault.COLUMN_MISSING:
                return self.build_missing_column_error(error.detail)
        return self.build_generic_database_error(error.detail)

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
    connections: list[Any] = []

    def run_work_in_transaction() -> T:
        with database.open_transaction(address, connections.append) as connection:
            return work(connection)

    context.phase_timer.start_nestable_phase("query")
    try:
        async with asyncio.timeout(EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S):
            result = await run_in_daemon_thread(run_work_in_transaction, f"query {database.display_name}")
    except (TimeoutError, asyncio.CancelledError) as e:
        cancel_statements_and_abort_connections(database, connections)
        if isinstance(e, TimeoutError):
            message = f"{database.name} did not respond within {EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S:g} s"
            raise build_broker_unreachable_error(message, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS) from None
        raise
    context.phase_timer.end_phase("query")
    return result


def abort_connections(database: ExternalDatabase, dbapi_connections: Iterable[Any]) -> None:
    """Ends connections at once. The thread that uses them gets an error."""
    for dbapi_connection in dbapi_connections:
        with suppress(Exception):  # the connection may have ended by itself
            database.abort_connection(dbapi_connection)


def cancel_statements_and_abort_connections(database: ExternalDatabase, dbapi_connections: Sequence[Any]) -> None:
    """As `abort_connections`, once the server has cancelled what it executes, or has not done so in time. Does not
    wait for that."""

    def cancel_and_abort() -> None:
        for dbapi_connection in dbapi_connections:
            with suppress(Exception):  # the server does not respond
                database.cancel_statement(dbapi_connection)
        abort_connections(database, dbapi_connections)

    if dbapi_connections:
        Thread(target=cancel_and_abort, name=f"cancel query {database.display_name}", daemon=True).start()


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
