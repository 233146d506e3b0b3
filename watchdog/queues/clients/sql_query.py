"""Runs one query of the user's on another application's database: read-only, and bounded in time and size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json, JsonScalar
from watchdog.domain.text import truncate_to_single_line
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.received_bytes import count_received_tcp_bytes
from watchdog.net.threads import run_in_daemon_thread
from watchdog.queues.base import QueueConnectContext
from watchdog.queues.clients.database_faults import DatabaseFault, DatabaseFaultError
from watchdog.queues.clients.dialects import external_database_from_url
from watchdog.queues.clients.external_database import (
    ExternalDatabase,
    abort_connections,
    cancel_statements_and_abort_connections,
)
from watchdog.queues.clients.sql_text import escape_other_colons
from watchdog.queues.clients.sql_values import (
    convert_sql_row_to_json,
    estimate_json_size_bytes,
    list_distinct_column_names,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

MAX_QUERY_ROWS = 100
"""Rows that are read."""
MAX_QUERY_RESULT_BYTES = 1 << 20
"""Size of the values that are read, as JSON."""
MAX_RECEIVED_QUERY_BYTES = 16 << 20
"""Bytes that the server may send before the connection is closed: a driver reads a value of any size as a whole."""
RECEIVED_BYTES_CHECK_INTERVAL_S = 0.02
QUERY_DEADLINE_MARGIN_S = 0.5
"""How long before the deadline of the run the server has to cancel the query, so that its own error arrives in time."""
MAX_QUERY_DEADLINE_MARGIN_RATIO = 0.2
"""The margin is at most this share of the time that is left."""

_REASON_BY_DATABASE_FAULT = {
    DatabaseFault.CONNECT_FAILED: "database.connect_failed",
    DatabaseFault.WRONG_PROTOCOL: "database.wrong_protocol",
    DatabaseFault.LOGIN_TIMEOUT: "timeout.login",
    DatabaseFault.LOGIN_REFUSED: "database.login_refused",
    DatabaseFault.TLS_FAILED: "tls.failed",
    DatabaseFault.DATABASE_MISSING: "database.not_found",
    DatabaseFault.FILE_UNREADABLE: "database.file_unreadable",
    DatabaseFault.FILE_INVALID: "database.file_invalid",
    DatabaseFault.TOO_MANY_CONNECTIONS: "database.too_many_connections",
    DatabaseFault.OUT_OF_RESOURCES: "database.out_of_resources",
    DatabaseFault.NOT_READY: "database.not_ready",
    DatabaseFault.QUERY_TIMEOUT: "database.query_timeout",
    DatabaseFault.LOCK_TIMEOUT: "database.lock_timeout",
    DatabaseFault.PERMISSION_DENIED: "database.permission_denied",
    DatabaseFault.TABLE_MISSING: "database.table_missing",
    DatabaseFault.COLUMN_MISSING: "database.column_missing",
    DatabaseFault.WRITE_REFUSED: "database.write_refused",
    DatabaseFault.SEVERAL_STATEMENTS: "database.several_statements",
    DatabaseFault.QUERY_INVALID: "database.query_invalid",
    DatabaseFault.QUERY_FAILED: "database.query_failed",
    DatabaseFault.RESULT_TOO_LARGE: "database.result_too_large",
}
_RETRYABLE_FAULTS = (DatabaseFault.CONNECT_FAILED, DatabaseFault.TOO_MANY_CONNECTIONS, DatabaseFault.NOT_READY)


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A query, and what to read with it."""

    text: str
    parameters: Mapping[str, JsonScalar] = field(default_factory=dict)
    timezone: str = "UTC"
    """Of times that have none."""
    reads_clock: bool = False
    """Whether the time of the database is needed as well."""


class SqlQueryResult(NamedTuple):
    """What a query returned, as far as it was read."""

    rows: list[dict[str, Json]]
    problem: str = ""
    """Why `rows` are not all rows; empty if they are."""
    elapsed_ms: float = 0.0
    """From sending the query until its rows were read."""
    now_epoch_s: float | None = None
    """By the clock of the database; None: it was not read."""


async def run_sql_query(url: str, query: SqlQuery, context: QueueConnectContext) -> SqlQueryResult:
    """Times the phases `dns`, `connect`, `login` and `query`. The server cancels the query before
    `context.ends_at_monotonic`. Raises ProbeError."""
    margin_s = min(QUERY_DEADLINE_MARGIN_S, (context.ends_at_monotonic - monotonic()) * MAX_QUERY_DEADLINE_MARGIN_RATIO)
    database = external_database_from_url(url, statements_end_at=context.ends_at_monotonic - margin_s)
    started = perf_counter()
    address = await _connect_to_find_address(database, context) if database.host else ""
    run = _QueryRun(database, address, query, context)
    try:
        return await run.execute_in_thread()
    except DatabaseFaultError as e:
        error = _build_probe_error(database, e, started)
        error.phase = context.phase_timer.current_phase
        raise error from None


async def _connect_to_find_address(database: ExternalDatabase, context: QueueConnectContext) -> str:
    """Connects once through the address filter: the driver, which has none, connects to the address afterwards."""
    sock = await context.network.connector.connect(
        database.host, database.database_port, context.phase_timer, context.allow_private_addresses
    )
    with sock:
        try:
            return str(sock.getpeername()[0])
        except OSError as e:  # it has no peer any more
            error = build_probe_error_from_exception(e)
            raise (error or ProbeError("connection.closed", "connection closed by the server")) from None


def _build_probe_error(database: ExternalDatabase, error: DatabaseFaultError, started: float) -> ProbeError:
    if error.ssl_error is not None and (tls_error := build_probe_error_from_exception(error.ssl_error)):
        return tls_error
    match error.fault:
        case DatabaseFault.QUERY_TIMEOUT | DatabaseFault.LOGIN_TIMEOUT:
            problem = f"after {format_duration(round((perf_counter() - started) * 1000))}: {error.detail}"
        case DatabaseFault.CONNECTION_LOST:
            return ProbeError("connection.lost", f"connection lost: {error.detail}", retryable=True)
        case DatabaseFault.PERMISSION_DENIED:
            problem = (
                f"{error.detail}; required for {database.database_user_name}: GRANT SELECT, or USAGE on the schema"
            )
        case _:
            problem = error.detail
    reason, retryable = _REASON_BY_DATABASE_FAULT[error.fault], error.fault in _RETRYABLE_FAULTS
    return ProbeError.from_reason(reason, retryable=retryable, problem=problem)


class _QueryRun:
    """One query, whose driver blocks a thread, while the event loop limits what it receives."""

    def __init__(self, database: ExternalDatabase, address: str, query: SqlQuery, context: QueueConnectContext) -> None:
        self._database, self._address, self._query = database, address, query
        self._phase_timer = context.phase_timer
        self._dbapi_connections: list[Any] = []

    async def execute_in_thread(self) -> SqlQueryResult:
        """Raises DatabaseFaultError and ProbeError."""
        self._loop = asyncio.get_running_loop()
        self._phase_timer.start_nestable_phase("login" if self._address else "query")
        thread_name = f"query {self._database.display_name}"
        execution = asyncio.ensure_future(run_in_daemon_thread(self._execute_in_transaction, thread_name))
        try:
            while not (await asyncio.wait({execution}, timeout=RECEIVED_BYTES_CHECK_INTERVAL_S))[0]:
                if self._has_received_too_much():
                    abort_connections(self._database, self._dbapi_connections)  # at once, before more arrives
                    problem = f"the server has sent more than {MAX_RECEIVED_QUERY_BYTES >> 20} MiB"
                    raise DatabaseFaultError(DatabaseFault.RESULT_TOO_LARGE, problem)
        finally:
            if not execution.done():
                execution.cancel()
                cancel_statements_and_abort_connections(self._database, self._dbapi_connections)
        result = execution.result()
        self._phase_timer.end_phase("query")
        return result

    def _has_received_too_much(self) -> bool:
        with suppress(Exception):  # the connection may have ended
            for dbapi_connection in self._dbapi_connections:
                descriptor = self._database.get_socket_descriptor(dbapi_connection)
                return descriptor is not None and count_received_tcp_bytes(descriptor) > MAX_RECEIVED_QUERY_BYTES
        return False

    # --- in the thread

    def _execute_in_transaction(self) -> SqlQueryResult:
        with ExitStack() as stack:
            transaction = self._database.open_transaction_with_faults(self._address, self._dbapi_connections.append)
            with _blame_server_for_driver_errors(DatabaseFault.WRONG_PROTOCOL):
                connection = stack.enter_context(transaction)
            if self._address:
                self._call_in_event_loop(self._replace_login_phase_by_query)
            now_epoch_s = (
                self._database.read_external_database_clock_ms(connection) / 1000 if self._query.reads_clock else None
            )
            started = perf_counter()
            rows, problem = self._execute_and_read_rows(connection)
            return SqlQueryResult(rows, problem, (perf_counter() - started) * 1000, now_epoch_s)

    def _call_in_event_loop(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def _replace_login_phase_by_query(self) -> None:
        if self._phase_timer.current_phase == "login":
            self._phase_timer.end_phase("login")
            self._phase_timer.start_nestable_phase("query")

    def _execute_and_read_rows(self, connection: Connection) -> tuple[list[dict[str, Json]], str]:
        import sqlalchemy as sa

        query = self._query
        # Untyped, so that the server compares a text with numbers and UUIDs too.
        parameters = [sa.bindparam(name, value, sa.types.NullType()) for name, value in query.parameters.items()]
        statement = sa.text(escape_other_colons(query.text, query.parameters)).bindparams(*parameters)
        self._database.limit_query(connection, MAX_QUERY_ROWS + 1, MAX_RECEIVED_QUERY_BYTES)
        with _blame_server_for_driver_errors(DatabaseFault.QUERY_FAILED):
            result = connection.execute(statement)
        with result:
            if not result.returns_rows:
                raise ProbeError.from_reason("database.not_a_query")
            return _read_rows(result, query.timezone)


@contextmanager
def _blame_server_for_driver_errors(fault: DatabaseFault) -> Iterator[None]:
    """For calls of a driver: it raises any error of Python's for what a server should not send, such as a JSON value
    that is nested too deeply. Raises DatabaseFaultError instead."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (DatabaseFaultError, SQLAlchemyError):
        raise
    except Exception as e:
        detail = truncate_to_single_line(f"the driver cannot read the response ({type(e).__name__}: {e})")
        raise DatabaseFaultError(fault, detail) from None


def _fetch_row(result: CursorResult[Any]) -> tuple[Any, ...] | None:
    """None: there are no more rows."""
    with _blame_server_for_driver_errors(DatabaseFault.QUERY_FAILED):
        row = result.fetchone()
    return None if row is None else tuple(row)


def _read_rows(result: CursorResult[Any], timezone: str) -> tuple[list[dict[str, Json]], str]:
    """The first rows, and why they are not all."""
    names = list_distinct_column_names(list(result.keys()))
    rows: list[dict[str, Json]] = []
    size_bytes = 0
    while (values := _fetch_row(result)) is not None:
        if len(rows) == MAX_QUERY_ROWS:
            return rows, f"the query returns more than {MAX_QUERY_ROWS} rows"
        row = convert_sql_row_to_json(names, values, timezone)
        size_bytes += estimate_json_size_bytes(row)
        if size_bytes > MAX_QUERY_RESULT_BYTES:
            return rows, f"the query returns more than {MAX_QUERY_RESULT_BYTES >> 20} MiB"
        rows.append(row)
    return rows, ""
