"""The database systems of other applications: how Watchdog connects to each, limits it and reads its errors."""

from __future__ import annotations

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
from watchdog.net.errors import ProbeError
from watchdog.queues.base import build_broker_unreachable_error
from watchdog.queues.clients.external_database import (
    EXTERNAL_DATABASE_CONNECT_TIMEOUT_S,
    EXTERNAL_DATABASE_LABEL_IN_ERRORS,
    EXTERNAL_DATABASE_LOCK_TIMEOUT_S,
    EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S,
    ConnectionAborter,
    ExternalDatabase,
)
from watchdog.queues.clients.postgres import (
    build_write_access_condition_sql,
    format_postgres_error,
    shutdown_socket,
    validate_postgres_url,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError


class ExternalPostgresDatabase(ExternalDatabase):
    """PostgreSQL: a read-only transaction with a statement timeout."""

    name = "PostgreSQL"
    driver_module, pip_extra = "psycopg", "postgres"
    default_port = 5432
    current_time_sql = "SELECT now()"

    POSTGRES_UNAVAILABLE_SQLSTATE_CLASSES = ("08", "28", "3D", "53", "57")

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        connect = {
            "hostaddr": address,
            "connect_timeout": EXTERNAL_DATABASE_CONNECT_TIMEOUT_S,
            "prepare_threshold": None,
        }
        engine = sa.create_engine(
            f"postgresql+psycopg:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            use_native_hstore=False, connect_args={"fallback_application_name": "watchdog", **connect},
        )  # fmt: skip

        @sa.event.listens_for(engine, "begin")
        def set_limits(connection: Connection) -> None:
            settings = {
                "statement_timeout": f"{EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S * 1000:.0f}",
                "lock_timeout": f"{EXTERNAL_DATABASE_LOCK_TIMEOUT_S * 1000:.0f}",
                "timezone": "UTC",
            }
            # LOCAL, because a pooler may give the session to another client after the transaction.
            connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items()))

        return engine

    def restrict_connection_and_get_aborter(self, dbapi_connection: Any) -> ConnectionAborter:
        dbapi_connection.read_only = not self.read_write
        return lambda: shutdown_socket(dbapi_connection.fileno())

    def translate_error(self, error: DBAPIError) -> ProbeError | None:
        from sqlalchemy.exc import OperationalError

        sqlstate, message = getattr(error.orig, "sqlstate", None) or "", self.format_database_driver_error(error)
        if sqlstate in ("57014", "55P03"):
            return self.build_query_timeout_error(message)
        if sqlstate == "42501":
            return self.build_permission_denied_error(message)
        if sqlstate in ("42P01", "3F000"):
            return self.build_missing_table_error(message)
        if sqlstate == "42703":
            return self.build_missing_column_error(message)
        is_unavailable = sqlstate[:2] in self.POSTGRES_UNAVAILABLE_SQLSTATE_CLASSES or (
            not sqlstate and isinstance(error, OperationalError)
        )
        return (
            build_broker_unreachable_error(message, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS) if is_unavailable else None
        )

    def format_database_driver_error(self, error: DBAPIError) -> str:
        return format_postgres_error(error.orig)  # type: ignore[arg-type] # SQLAlchemy types it as any exception

    def has_write_access(self, connection: Connection, table: TableClause) -> bool:
        import sqlalchemy as sa

        name = connection.dialect.identifier_preparer.format_table(table)
        return bool(
            connection.execute(sa.text(f"SELECT {build_write_access_condition_sql(':name')}"), {"name": name}).scalar()
        )


class ExternalMySqlDatabase(ExternalDatabase):
    """MySQL and MariaDB: a read-only transaction with a limit on execution time, which the two name differently."""

    name = "MySQL"
    driver_module, pip_extra = "pymysql", "mysql"
    default_port = 3306
    current_time_sql = "SELECT utc_timestamp(3)"

    MYSQL_TIMEOUT_ERROR_CODES = (1205, 1317, 1969, 3024)
    MYSQL_PERMISSION_ERROR_CODES = (1142, 1143, 1227)
    MYSQL_UNAVAILABLE_ERROR_CODES = (
        1040,
        1044,
        1045,
        1049,
        1053,
        1129,
        1130,
        1203,
        1226,
        1698,
        2002,
        2003,
        2005,
        2006,
        2013,
    )

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        timeouts = {
            "connect_timeout": EXTERNAL_DATABASE_CONNECT_TIMEOUT_S,
            "read_timeout": 2 * EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S,
            "write_timeout": 2 * EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S,
        }
        engine = sa.create_engine(
            f"mysql+pymysql:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            connect_args={**timeouts, "defer_connect": True, "program_name": "watchdog"},
        )  # fmt: skip

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _record: Any, args: Any, options: Any) -> Any:
            driver = dialect.connect(*args, **options)  # keeps the host's name, which TLS verifies
            driver.connect(socket.create_connection((address, self.database_port), EXTERNAL_DATABASE_CONNECT_TIMEOUT_S))
            return driver

        return engine

    def restrict_connection_and_get_aborter(self, dbapi_connection: Any) -> ConnectionAborter:
        is_mariadb = "maria" in dbapi_connection.get_server_info().lower()
        timeout = (
            f"max_statement_time = {EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S:g}"
            if is_mariadb
            else f"max_execution_time = {EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S * 1000:.0f}"
        )
        with dbapi_connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {timeout}, time_zone = '+00:00', lock_wait_timeout = 1")
            cursor.execute(
                "SET innodb_lock_wait_timeout = 1" if self.read_write else "SET SESSION TRANSACTION READ ONLY"
            )
        abort: ConnectionAborter = dbapi_connection._force_close
        return abort

    def translate_error(self, error: DBAPIError) -> ProbeError | None:
        code, message = _get_mysql_error_code(error), self.format_database_driver_error(error)
        if code in self.MYSQL_TIMEOUT_ERROR_CODES:
            return self.build_query_timeout_error(message)
        if code in self.MYSQL_PERMISSION_ERROR_CODES:
            return self.build_permission_denied_error(message)
        if code == 1146:
            return self.build_missing_table_error(message)
        if code == 1054:
            return self.build_missing_column_error(message)
        return (
            build_broker_unreachable_error(message, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS)
            if code in self.MYSQL_UNAVAILABLE_ERROR_CODES
            else None
        )

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

    SQLITE_TIMEOUT_ERROR_NAMES = ("SQLITE_INTERRUPT", "SQLITE_BUSY", "SQLITE_LOCKED")

    @property
    def file_path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def host(self) -> str:
        return ""

    def create_engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        if not os.access(self.file_path, os.R_OK):
            problem = "is not readable" if self.file_path.exists() else "does not exist"
            raise build_broker_unreachable_error(
                f"the file {self.file_path} {problem}", label=EXTERNAL_DATABASE_LABEL_IN_ERRORS
            )
        file = f"file:{quote(str(self.file_path))}"
        url = sa.URL.create("sqlite", database=file, query={"mode": "rw" if self.read_write else "ro", "uri": "true"})
        options = {"timeout": EXTERNAL_DATABASE_LOCK_TIMEOUT_S, "check_same_thread": False}
        return sa.create_engine(url, poolclass=sa.pool.NullPool, hide_parameters=True, connect_args=options)

    def restrict_connection_and_get_aborter(self, dbapi_connection: Any) -> ConnectionAborter:
        deadline = monotonic() + EXTERNAL_DATABASE_STATEMENT_TIMEOUT_S
        dbapi_connection.text_factory = lambda raw: raw.decode(errors="replace")  # SQLite does not check encodings
        dbapi_connection.set_progress_handler(lambda: monotonic() > deadline, 10_000)
        abort: ConnectionAborter = dbapi_connection.interrupt
        return abort

    def translate_error(self, error: DBAPIError) -> ProbeError | None:
        name, message = getattr(error.orig, "sqlite_errorname", ""), self.format_database_driver_error(error)
        if name.startswith(self.SQLITE_TIMEOUT_ERROR_NAMES):
            return self.build_query_timeout_error(message)
        return (
            build_broker_unreachable_error(message, label=EXTERNAL_DATABASE_LABEL_IN_ERRORS)
            if name.startswith("SQLITE_CANTOPEN")
            else None
        )


EXTERNAL_DATABASE_CLASS_BY_SCHEME: Mapping[str, type[ExternalDatabase]] = {
    "postgresql": ExternalPostgresDatabase,
    "mysql": ExternalMySqlDatabase,
    "sqlite": ExternalSqliteDatabase,
}


def external_database_from_url(url: str, table: str = "", *, read_write: bool = False) -> ExternalDatabase:
    """`url`: a validated `ExternalDatabaseUrl`."""
    return EXTERNAL_DATABASE_CLASS_BY_SCHEME[url.partition(":")[0]](url, table, read_write=read_write)


def _get_mysql_error_code(error: DBAPIError) -> int:
    first = next(iter(getattr(error.orig, "args", ())), 0)
    return first if isinstance(first, int) else 0


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
