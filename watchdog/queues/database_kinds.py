"""The kinds of databases that can be looked into: how each is reached and kept short, and what its errors stand for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import AfterValidator

from watchdog.fields import FROM_FILE
from watchdog.queues.base import unreachable
from watchdog.queues.database import CONNECT, LOCK, STATEMENT, WHAT, Cut, Database
from watchdog.queues.postgres import may_write, postgres_url, said
from watchdog.wire.faults import Fault
from watchdog.wire.redact import cap

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError


class Postgres(Database):
    name = "PostgreSQL"
    module, extra = "psycopg", "postgres"
    port = 5432
    now = "SELECT now()"

    def engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        connect = {"hostaddr": address, "connect_timeout": CONNECT, "prepare_threshold": None}
        engine = sa.create_engine(
            f"postgresql+psycopg:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            use_native_hstore=False, connect_args={"fallback_application_name": "watchdog", **connect},
        )  # fmt: skip

        @sa.event.listens_for(engine, "begin")
        def limit(connection: Connection) -> None:  # for the transaction alone: a pooler may lend the session to others
            limits = {
                "statement_timeout": f"{STATEMENT * 1000:.0f}", "lock_timeout": f"{LOCK * 1000:.0f}", "timezone": "UTC",
            }  # fmt: skip
            connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in limits.items()))

        return engine

    def prepare(self, driver: Any) -> Cut:
        driver.read_only = not self.writes
        return lambda: _shut(driver.fileno())

    def fault(self, error: DBAPIError) -> Fault | None:
        from sqlalchemy.exc import OperationalError

        state, words = getattr(error.orig, "sqlstate", None) or "", self.words(error)
        if state in ("57014", "55P03"):
            return self.slow(words)
        if state == "42501":
            return self.refused(words)
        if state in ("42P01", "3F000"):
            return self.lacks_table(words)
        if state == "42703":
            return self.lacks_column(words)
        away = state[:2] in ("08", "28", "3D", "53", "57") or (not state and isinstance(error, OperationalError))
        return unreachable(words, what=WHAT) if away else None

    def words(self, error: DBAPIError) -> str:
        return said(error.orig)  # type: ignore[arg-type] # SQLAlchemy does not say that it is the driver's

    def writable(self, connection: Connection, table: TableClause) -> bool:
        import sqlalchemy as sa

        name = connection.dialect.identifier_preparer.format_table(table)
        return bool(connection.execute(sa.text(f"SELECT {may_write(':name')}"), {"name": name}).scalar())


class MySql(Database):
    name = "MySQL"
    module, extra = "pymysql", "mysql"
    port = 3306
    now = "SELECT utc_timestamp(3)"

    SLOW = (1205, 1317, 1969, 3024)
    REFUSED = (1142, 1143, 1227)
    AWAY = (1040, 1044, 1045, 1049, 1053, 1129, 1130, 1203, 1226, 1698, 2002, 2003, 2005, 2006, 2013)

    def engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        patience = {"connect_timeout": CONNECT, "read_timeout": 2 * STATEMENT, "write_timeout": 2 * STATEMENT}
        engine = sa.create_engine(
            f"mysql+pymysql:{self.url.partition(':')[2]}", poolclass=sa.pool.NullPool, hide_parameters=True,
            connect_args={**patience, "defer_connect": True, "program_name": "watchdog"},
        )  # fmt: skip

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _record: Any, args: Any, options: Any) -> Any:
            driver = dialect.connect(*args, **options)  # keeps the name, which TLS is about, for the address we found
            driver.connect(socket.create_connection((address, self.at), CONNECT))
            return driver

        return engine

    def prepare(self, driver: Any) -> Cut:
        maria = "maria" in driver.get_server_info().lower()
        limit = f"max_statement_time = {STATEMENT:g}" if maria else f"max_execution_time = {STATEMENT * 1000:.0f}"
        with driver.cursor() as cursor:
            cursor.execute(f"SET SESSION {limit}, time_zone = '+00:00', lock_wait_timeout = 1")
            cursor.execute("SET innodb_lock_wait_timeout = 1" if self.writes else "SET SESSION TRANSACTION READ ONLY")
        return driver._force_close  # type: ignore[no-any-return] # any driver's connection, and this one has it

    def fault(self, error: DBAPIError) -> Fault | None:
        number, words = _number(error), self.words(error)
        if number in self.SLOW:
            return self.slow(words)
        if number in self.REFUSED:
            return self.refused(words)
        if number == 1146:
            return self.lacks_table(words)
        if number == 1054:
            return self.lacks_column(words)
        return unreachable(words, what=WHAT) if number in self.AWAY else None

    def words(self, error: DBAPIError) -> str:
        told = [part for part in getattr(error.orig, "args", ()) if isinstance(part, str)]
        return cap(" ".join(" ".join(told).split()), 200) or super().words(error)

    def writable(self, connection: Connection, table: TableClause) -> bool:
        import sqlalchemy as sa

        views = {
            "user_privileges": "TRUE", "schema_privileges": "table_schema = :schema",
            "table_privileges": "table_schema = :schema AND table_name = :table",
        }  # fmt: skip
        may = "privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'DROP')"
        asked = " UNION ALL ".join(
            f"SELECT 1 FROM information_schema.{view} WHERE {may} AND {place}" for view, place in views.items()
        )
        values = {"schema": table.schema or urlsplit(self.url).path.strip("/"), "table": table.name}
        return connection.execute(sa.text(asked), values).first() is not None


class Sqlite(Database):
    name = "SQLite"
    module = "sqlite3"
    now = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"

    SLOW = ("SQLITE_INTERRUPT", "SQLITE_BUSY", "SQLITE_LOCKED")

    @property
    def file(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def host(self) -> str:
        return ""

    @property
    def shown(self) -> str:
        return self.file.name

    def engine(self, address: str) -> Engine:
        import sqlalchemy as sa

        if not os.access(self.file, os.R_OK):
            why = "may not be read" if self.file.exists() else "is not there"
            raise unreachable(f"the file {self.file} {why}", what=WHAT)
        file = f"file:{quote(str(self.file))}"
        url = sa.URL.create("sqlite", database=file, query={"mode": "rw" if self.writes else "ro", "uri": "true"})
        patience = {"timeout": LOCK, "check_same_thread": False}
        return sa.create_engine(url, poolclass=sa.pool.NullPool, hide_parameters=True, connect_args=patience)

    def prepare(self, driver: Any) -> Cut:
        end = monotonic() + STATEMENT
        driver.text_factory = lambda raw: raw.decode(errors="replace")  # any bytes may be a text here
        driver.set_progress_handler(lambda: monotonic() > end, 10_000)
        return driver.interrupt  # type: ignore[no-any-return] # any driver's connection, and sqlite3's has it

    def fault(self, error: DBAPIError) -> Fault | None:
        kind = getattr(error.orig, "sqlite_errorname", "")
        if kind.startswith(self.SLOW):
            return self.slow(self.words(error))
        return unreachable(self.words(error), what=WHAT) if kind.startswith("SQLITE_CANTOPEN") else None


KINDS: Mapping[str, type[Database]] = {"postgresql": Postgres, "mysql": MySql, "sqlite": Sqlite}


def database(url: str, table: str = "", *, writes: bool = False) -> Database:
    return KINDS[url.partition(":")[0]](url, table, writes=writes)


def _number(error: DBAPIError) -> int:
    first = next(iter(getattr(error.orig, "args", ())), 0)
    return first if isinstance(first, int) else 0


def _shut(fileno: int) -> None:
    """The driver would first ask the server, which gives no answer, to stop."""
    with socket.socket(fileno=os.dup(fileno)) as line:
        line.shutdown(socket.SHUT_RDWR)


# --- configuration


def _database_url(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme == "sqlite":
        if not rest.startswith("///") or not rest[3:] or "?" in rest or ":memory:" in rest:
            raise ValueError("expected the path of a file: sqlite:///app.db, or sqlite:////var/lib/app.db")
        return text
    if scheme.partition("+")[0] in ("mysql", "mariadb"):
        return f"mysql:{_usable(rest)}"
    if scheme.startswith("postgres"):
        return postgres_url(text)
    raise ValueError("expected postgresql:// or mysql://user:password@host/database, or sqlite:///file.db")


def _usable(rest: str) -> str:
    try:
        parts = urlsplit(rest)
        usable = bool(parts.hostname and parts.port != 0 and parts.path.strip("/"))
        usable = usable and not re.search("%(?![0-9a-fA-F]{2})", rest)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected mysql://user:password@host/database; encode : / @ % in its password")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ("charset", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname"):
            raise ValueError(f"{name} has no place after the '?': charset and ssl_ca have, ssl_cert, ssl_key, ...")
    return rest


DatabaseUrl = Annotated[str, AfterValidator(_database_url), FROM_FILE]
