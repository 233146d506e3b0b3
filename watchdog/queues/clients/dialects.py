"""The database systems of other applications: how Watchdog connects to each, limits it and reads its errors."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import AfterValidator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, INVALID_DATABASE_URL_PATTERN, split_and_validate_url
from watchdog.domain.text import truncate_to_single_line
from watchdog.queues.clients.database_faults import (
    DatabaseFault,
    DatabaseFaultError,
    classify_mysql_error,
    classify_postgres_error,
    classify_sqlite_error,
)
from watchdog.queues.clients.external_database import EXTERNAL_DATABASE_CANCEL_TIMEOUT_S, ExternalDatabase
from watchdog.queues.clients.postgres import (
    build_write_access_condition_sql,
    format_postgres_error,
    shutdown_socket,
    validate_postgres_url,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext, TableClause
    from sqlalchemy.exc import DBAPIError


POSTGRES_ROWS_PER_FETCH = 10
"""The driver holds the rows of one fetch at a time."""


class ExternalPostgresDatabase(ExternalDatabase):
    """PostgreSQL: a read-only transaction with a statement timeout."""

    name = "PostgreSQL"
    driver_module, pip_extra = "psycopg", "postgres"
    default_port = 5432
    current_time_sql = "SELECT now()"

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        connect = {
            "hostaddr": address,
            "connect_timeout": math.ceil(self.connect_timeout_s),
            "prepare_threshold": None,
        }
        engine = sa.create_engine(
            f"postgresql+psycopg:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            use_native_hstore=False, connect_args={"fallback_application_name": "watchdog", **connect},
        )  # fmt: skip

        @sa.event.listens_for(engine, "begin")
        def set_limits(connection: Connection) -> None:
            settings = {
                "statement_timeout": f"{self.statement_timeout_s * 1000:.0f}",
                "lock_timeout": f"{self.lock_timeout_s * 1000:.0f}",
                "timezone": "UTC",
            }
            # LOCAL, because a pooler may give the session to another client after the transaction.
            connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items()))

        return engine

    def restrict_connection(self, dbapi_connection: Any) -> None:
        dbapi_connection.read_only = not self.read_write

    def limit_query(self, connection: Connection, max_rows: int, max_bytes: int) -> None:
        """A server-side cursor: its protocol accepts a single statement, and few rows are sent at a time."""
        import sqlalchemy as sa

        connection.execution_options(stream_results=True, max_row_buffer=POSTGRES_ROWS_PER_FETCH)
        sa.event.listen(connection.engine, "handle_error", _close_postgres_cursor_locally)

    def abort_connection(self, dbapi_connection: Any) -> None:
        shutdown_socket(dbapi_connection.fileno())

    def cancel_statement(self, dbapi_connection: Any) -> None:
        dbapi_connection.cancel_safe(timeout=EXTERNAL_DATABASE_CANCEL_TIMEOUT_S)

    def get_socket_descriptor(self, dbapi_connection: Any) -> int | None:
        return int(dbapi_connection.fileno())

    def classify_error(self, error: DBAPIError) -> DatabaseFault:
        return classify_postgres_error(error, self.format_database_driver_error(error))

    def format_database_driver_error(self, error: DBAPIError) -> str:
        return format_postgres_error(error.orig)  # type: ignore[arg-type] # SQLAlchemy types it as any exception

    def has_write_access(self, connection: Connection, table: TableClause) -> bool:
        import sqlalchemy as sa

        name = connection.dialect.identifier_preparer.format_table(table)
        return bool(
            connection.execute(sa.text(f"SELECT {build_write_access_condition_sql(':name')}"), {"name": name}).scalar()
        )


def _close_postgres_cursor_locally(context: ExceptionContext) -> None:
    """After an error, its own method would send something to the server, which may be gone."""
    import psycopg

    cursor = getattr(context.execution_context, "cursor", None)
    if isinstance(cursor, psycopg.ServerCursor):
        psycopg.Cursor.close(cursor)


class ExternalMySqlDatabase(ExternalDatabase):
    """MySQL and MariaDB: a read-only transaction with a limit on execution time, which the two name differently."""

    name = "MySQL"
    driver_module, pip_extra = "pymysql", "mysql"
    default_port = 3306
    current_time_sql = "SELECT utc_timestamp(3)"

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        engine = sa.create_engine(
            f"mysql+pymysql:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            connect_args={"defer_connect": True, "program_name": "watchdog"},
        )  # fmt: skip

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _record: Any, args: Any, options: Any) -> Any:
            def log_in(timeout_s: float) -> Any:
                timeouts = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), timeout_s)
                driver = dialect.connect(*args, **options, **timeouts)  # keeps the host's name, which TLS verifies
                driver.connect(socket.create_connection((address, self.database_port), timeout_s))
                return driver

            self._log_in_again = log_in
            driver = log_in(self.connect_timeout_s)
            driver._read_timeout = driver._write_timeout = 2 * self.statement_timeout_s
            return driver

        return engine

    def restrict_connection(self, dbapi_connection: Any) -> None:
        is_mariadb = "maria" in dbapi_connection.get_server_info().lower()
        timeout = (
            f"max_statement_time = {self.statement_timeout_s:.3f}"
            if is_mariadb
            else f"max_execution_time = {self.statement_timeout_s * 1000:.0f}"
        )
        with dbapi_connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {timeout}, time_zone = '+00:00', lock_wait_timeout = 1")
            cursor.execute(
                "SET innodb_lock_wait_timeout = 1" if self.read_write else "SET SESSION TRANSACTION READ ONLY"
            )

    def limit_query(self, connection: Connection, max_rows: int, max_bytes: int) -> None:
        connection.exec_driver_sql(f"SET SESSION sql_select_limit = {max_rows}")  # a LIMIT of the query comes first

    def abort_connection(self, dbapi_connection: Any) -> None:
        shutdown_socket(dbapi_connection._sock.fileno())  # the driver's own methods would wait for the reading thread

    def cancel_statement(self, dbapi_connection: Any) -> None:
        other = self._log_in_again(EXTERNAL_DATABASE_CANCEL_TIMEOUT_S)
        with other, other.cursor() as cursor:
            cursor.execute(f"KILL QUERY {int(dbapi_connection.thread_id())}")

    def get_socket_descriptor(self, dbapi_connection: Any) -> int | None:
        return int(dbapi_connection._sock.fileno())

    def classify_error(self, error: DBAPIError) -> DatabaseFault:
        return classify_mysql_error(error, self.format_database_driver_error(error))

    def format_database_driver_error(self, error: DBAPIError) -> str:
        texts = [part for part in getattr(error.orig, "args", ()) if isinstance(part, str)]
        return truncate_to_single_line(" ".join(texts)) or super().format_database_driver_error(error)

    def has_write_access(self, connection: Connection, table: TableClause) -> bool:
        import sqlalchemy as sa

        scopes = {
            "user_privileges": "TRUE", "schema_privileges": "table_schema = :schema",
            "table_privileges": "table_schema = :schema AND table_name = :table",
        }  # fmt: skip
        can_write = "privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'DROP')"
        statement = " UNION ALL ".join(
            f"SELECT 1 FROM information_schema.{view} WHERE {can_write} AND {scope}" for view, scope in scopes.items()
        )
        parameters = {"schema": table.schema or urlsplit(self.url).path.strip("/"), "table": table.name}
        return connection.execute(sa.text(statement), parameters).first() is not None


class ExternalSqliteDatabase(ExternalDatabase):
    """A SQLite file, opened read-only; a statement is interrupted at its limit."""

    name = "SQLite"
    driver_module = "sqlite3"
    current_time_sql = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"

    @property
    def file_path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def host(self) -> str:
        return ""

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        if not self.file_path.exists():
            raise DatabaseFaultError(DatabaseFault.DATABASE_MISSING, f"the file {self.file_path} does not exist")
        if not os.access(self.file_path, os.R_OK):
            raise DatabaseFaultError(DatabaseFault.FILE_UNREADABLE, f"the file {self.file_path} is not readable")
        file = f"file:{quote(str(self.file_path))}"
        url = sa.URL.create("sqlite", database=file, query={"mode": "rw" if self.read_write else "ro", "uri": "true"})
        options = {"timeout": self.lock_timeout_s, "check_same_thread": False}
        return sa.create_engine(url, poolclass=sa.pool.NullPool, hide_parameters=True, connect_args=options)

    def restrict_connection(self, dbapi_connection: Any) -> None:
        deadline = monotonic() + self.statement_timeout_s
        dbapi_connection.text_factory = lambda raw: raw.decode(errors="replace")  # SQLite does not check encodings
        dbapi_connection.set_progress_handler(lambda: monotonic() > deadline, 10_000)

    def limit_query(self, connection: Connection, max_rows: int, max_bytes: int) -> None:
        import sqlite3

        driver: Any = connection.connection.driver_connection
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_bytes)
        driver.set_authorizer(_authorize_reading_sqlite)  # a read-only connection could still attach another file

    def abort_connection(self, dbapi_connection: Any) -> None:
        dbapi_connection.interrupt()

    def classify_error(self, error: DBAPIError) -> DatabaseFault:
        return classify_sqlite_error(error, self.format_database_driver_error(error))


def _authorize_reading_sqlite(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    import sqlite3

    if action == sqlite3.SQLITE_PRAGMA:
        is_allowed = value is None or (name or "").endswith(("_info", "_xinfo", "_list", "_check"))
    elif action == sqlite3.SQLITE_UPDATE:
        is_allowed = name == "sqlite_master"  # how a table-valued function, such as json_each, declares its columns
    else:
        reading = ("SELECT", "READ", "FUNCTION", "RECURSIVE", "TRANSACTION")
        is_allowed = action in [getattr(sqlite3, f"SQLITE_{what}") for what in reading]
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


EXTERNAL_DATABASE_CLASS_BY_SCHEME: Mapping[str, type[ExternalDatabase]] = {
    "postgresql": ExternalPostgresDatabase,
    "mysql": ExternalMySqlDatabase,
    "sqlite": ExternalSqliteDatabase,
}


def external_database_from_url(
    url: str, table: str = "", *, read_write: bool = False, statements_end_at: float | None = None
) -> ExternalDatabase:
    """`url`: a validated `ExternalDatabaseUrl`. The other parameters are those of `ExternalDatabase`."""
    database_class = EXTERNAL_DATABASE_CLASS_BY_SCHEME[url.partition(":")[0]]
    return database_class(url, table, read_write=read_write, statements_end_at=statements_end_at)


# --- configuration

ALLOWED_MYSQL_URL_PARAMETERS = ("charset", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname")


def _validate_external_database_url(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme == "sqlite":
        if not rest.startswith("///") or not rest[3:] or "?" in rest or ":memory:" in rest:
            raise ValueError("expected the path of a file: sqlite:///app.db, or sqlite:////var/lib/app.db")
        return text
    if scheme.partition("+")[0] in ("mysql", "mariadb"):
        return _validate_mysql_url(f"mysql:{rest}")
    if scheme.startswith("postgres"):
        return validate_postgres_url(text)
    raise ValueError("expected postgresql:// or mysql://user:password@host/database, or sqlite:///file.db")


def _validate_mysql_url(text: str) -> str:
    expected = "mysql://user:password@host/database; encode : / @ % in the password as %3A %2F %40 %25"
    parts = split_and_validate_url(text, ("mysql",), expected, forbidden=INVALID_DATABASE_URL_PATTERN)
    if not parts.path.strip("/"):
        raise ValueError(f"expected {expected}")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ALLOWED_MYSQL_URL_PARAMETERS:
            raise ValueError(
                f"unsupported parameter {name}; valid parameters: {', '.join(ALLOWED_MYSQL_URL_PARAMETERS)}"
            )
    return text


ExternalDatabaseUrl = Annotated[str, AfterValidator(_validate_external_database_url), FILE_BACKED_FIELD_MARKER]
