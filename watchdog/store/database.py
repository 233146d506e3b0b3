"""One interface to two databases: engines, transactions, and the few statements that differ.

SQLite: WAL, one writer engine whose transactions are BEGIN IMMEDIATE, and a reader engine with BEGIN DEFERRED (an open
read on the writer would lock writers out). PostgreSQL: READ COMMITTED, one writer per probe by advisory lock; a
reader's transaction is REPEATABLE READ, so that all its queries see the same moment, as in SQLite.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.store.bulk import execute_for_rows
from watchdog.store.errors import StoreUnavailableError, translate_store_driver_errors
from watchdog.store.sqlite_file import SqliteFileWatch
from watchdog.store.tables import RESULT_COLUMNS

ADVISORY_LOCK_NAMESPACE = 7_402
"""First half of the key of every advisory lock; the second half is a probe's id or a key that is no probe's id."""
MAX_ADVISORY_LOCK_WAIT_S = 60
SQLITE_WAL_ENABLE_TIMEOUT_S = 10

_POSTGRES_KEEPALIVE_OPTIONS = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""A server that vanishes without closing its connections is detected in 15 s. The system's default is 15 minutes, for
which the one writing thread would block."""

SQLITE_WRITER_CACHE_KIB, SQLITE_READER_CACHE_KIB = 1024, 512
"""SQLite's cache of each connection; every write invalidates that of a reader. The default of 2 MB is filled only after
hours, so that memory appears to grow without end."""

_ACTIONS_AFTER_COMMIT_KEY = "watchdog_actions_after_commit"
"""Key of what a connection runs after its write transaction."""


class Database:
    """An open database. `url`: sqlite:///path or postgresql+psycopg://...

    Owns the connection pools; every statement of the store runs in a transaction from here. A transaction
    raises StoreUnavailableError while the database cannot serve, and WatchdogDatabaseSchemaError where its schema is of
    another version.
    """

    def __init__(self, url: str):
        self.is_postgres = url.startswith("postgresql")
        self.check_before_write: Callable[[sa.Connection], None] = lambda _: None
        """What each write transaction does first; it may raise, and then nothing is written."""
        self._file_watch: SqliteFileWatch | None = None
        if self.is_postgres:
            options = {"pool_size": 5, "max_overflow": 5, "pool_pre_ping": True, "hide_parameters": True}
            from watchdog.store.postgres_connection import (
                POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_S,
                POSTGRES_STATEMENT_TIMEOUT_S,
                use_bounded_wait_postgres_connections,
            )

            session = (
                f"-c idle_in_transaction_session_timeout={POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_S}s"
                f" -c statement_timeout={POSTGRES_STATEMENT_TIMEOUT_S}s -c lock_timeout=5s -c timezone=UTC"
            )
            connect = {
                "options": session,
                "connect_timeout": 5,
                "application_name": "watchdog",
                **_POSTGRES_KEEPALIVE_OPTIONS,
            }
            self.writer = sa.create_engine(url, connect_args=connect, **options)
            use_bounded_wait_postgres_connections(self.writer)
            self.reader: sa.Engine = self.writer.execution_options(isolation_level="REPEATABLE READ")
        else:
            file = {"poolclass": sa.pool.QueuePool, "hide_parameters": True}
            self.writer = sa.create_engine(url, pool_size=1, max_overflow=1, **file)
            self.reader = sa.create_engine(url, pool_size=4, max_overflow=0, **file)
            for engine in (self.writer, self.reader):
                sa.event.listen(engine, "do_connect", self._create_private_sqlite_file_if_missing)
            _configure_sqlite_connections(self.writer, "BEGIN IMMEDIATE", SQLITE_WRITER_CACHE_KIB)
            _configure_sqlite_connections(self.reader, "BEGIN DEFERRED", SQLITE_READER_CACHE_KIB)

    def _create_private_sqlite_file_if_missing(
        self, _dialect: Any, _record: Any, arguments: Any, _options: Any
    ) -> None:
        """Create a file that others may not read: SQLite would create it with another mode, and gives its other files
        the same one. A file that is watched and was deleted is not created again."""
        if self._file_watch is not None and not Path(arguments[0]).exists():
            raise sqlite3.OperationalError("the database file was deleted")
        with suppress(OSError):  # it exists, or SQLite reports why it cannot be created
            os.close(os.open(arguments[0], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()
        if self._file_watch is not None:
            self._file_watch.close()
            self._file_watch = None

    def check_file(self) -> None:
        """Check that an SQLite file is the same as at the first call, and not damaged in header or schema.

        PostgreSQL does this itself. Raises WatchdogDatabaseDamagedError.
        """
        file = self.writer.url.database
        if self.is_postgres or not file:
            return
        if self._file_watch is None:
            self._file_watch = SqliteFileWatch(Path(file))
        self._file_watch.check()

    @contextmanager
    def open_write_transaction(self, *, is_checked: bool = True) -> Iterator[sa.Connection]:
        """A transaction that commits everything or nothing. Raises StoreUnavailableError and
        WatchdogDatabaseSchemaError. `is_checked`: after `check_before_write`."""
        actions: list[Callable[[], None]] = []
        with translate_store_driver_errors(), self.writer.begin() as connection:
            connection.info[_ACTIONS_AFTER_COMMIT_KEY] = actions
            if is_checked:
                self.check_before_write(connection)
            yield connection
        for action in actions:
            action()

    @contextmanager
    def open_read_transaction(self) -> Iterator[sa.Connection]:
        """A consistent view of the database. Raises StoreUnavailableError and WatchdogDatabaseSchemaError."""
        with translate_store_driver_errors(), self.reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def open_autocommit_connection(self) -> Iterator[sa.Connection]:
        """For VACUUM, which no transaction may contain. Raises StoreUnavailableError and
        WatchdogDatabaseSchemaError."""
        options = {"isolation_level": "AUTOCOMMIT"} if self.is_postgres else {_WITHOUT_BEGIN_EXECUTION_OPTION: True}
        with translate_store_driver_errors(), self.writer.connect() as connection:
            yield connection.execution_options(**options)

    @contextmanager
    def allow_long_statements(self, connection: sa.Connection) -> Iterator[None]:
        """No limit on the time of a statement, or between two: for migrations and VACUUM."""
        if not self.is_postgres:
            yield
            return
        from watchdog.store.postgres_connection import allow_longer_postgres_wait

        connection.exec_driver_sql("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        with allow_longer_postgres_wait(connection, math.inf):
            yield
        connection.exec_driver_sql("RESET statement_timeout; RESET idle_in_transaction_session_timeout")

    def sync_to_disk(self) -> None:
        """Return once everything committed so far survives a power cut. Raises StoreUnavailableError.

        PostgreSQL syncs each commit. SQLite does not (`synchronous=normal`), so its WAL is synced here; SQLite holds
        no locks on that file, which closing it would release. What a deleted file contains survives nothing.
        """
        file = self.writer.url.database
        if self.is_postgres or not file:
            return
        if self._file_watch is not None:
            self._file_watch.require_file_not_deleted_or_replaced()
        try:
            for path in (f"{file}-wal", str(Path(file).parent)):
                _fsync_path(path)
        except OSError as e:
            raise StoreUnavailableError(
                f"the database cannot be synced to disk: {(e.strerror or str(e)).lower()}"
            ) from e

    def read_database_server_clock_ms(self) -> int | None:
        """The server's clock, epoch ms; None for SQLite, which has no server."""
        if not self.is_postgres:
            return None
        with self.open_read_transaction() as connection:
            query = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)")
            return int(connection.execute(query).scalar_one())

    def lock_probes(self, connection: sa.Connection, probes: Iterable[int], *, wait: bool = True) -> list[int]:
        """Become the only writer of these probes until the transaction ends; returns the probes that are now locked.

        With `wait`, that is all of them. Locks are taken in one order, which prevents deadlocks, and in a statement of
        their own, so that the next one sees what the previous holder committed. `FOR UPDATE` would write a tuple for
        every result.
        """
        ids = sorted(probes)
        if not self.is_postgres:
            return ids
        if wait:
            lock = "SELECT count(pg_advisory_xact_lock(:c, p)) FROM unnest(CAST(:p AS int[])) p"
            connection.execute(sa.text(lock), {"c": ADVISORY_LOCK_NAMESPACE, "p": ids})
            return ids
        attempt = "SELECT p FROM unnest(CAST(:p AS int[])) p WHERE pg_try_advisory_xact_lock(:c, p)"
        return list(connection.execute(sa.text(attempt), {"c": ADVISORY_LOCK_NAMESPACE, "p": ids}).scalars())

    def acquire_advisory_lock(self, connection: sa.Connection, lock_key: int) -> None:
        """Wait up to a minute for the lock. `lock_key`: not the id of a probe."""
        if not self.is_postgres:
            return
        from watchdog.store.postgres_connection import MAX_POSTGRES_RESPONSE_WAIT_S, allow_longer_postgres_wait

        timeout_s = MAX_ADVISORY_LOCK_WAIT_S
        limits = f"SET LOCAL lock_timeout = '{timeout_s}s'; SET LOCAL statement_timeout = '{2 * timeout_s}s'"
        connection.exec_driver_sql(limits)
        with allow_longer_postgres_wait(connection, timeout_s + MAX_POSTGRES_RESPONSE_WAIT_S):
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:c, :k)"), {"c": ADVISORY_LOCK_NAMESPACE, "k": lock_key}
            )

    def build_insert_statement(self, table: sa.Table) -> Any:
        """An INSERT that supports ON CONFLICT, in the dialect of this database."""
        return postgresql.insert(table) if self.is_postgres else sqlite.insert(table)

    def insert_new_rows(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> set[Any]:
        """Insert the rows that do not exist yet; returns their primary keys.

        PostgreSQL gets all rows as one JSON parameter: bound parameters cost four times as much.
        """
        if self.is_postgres:
            return set(map(tuple, connection.execute(_build_pg_insert_from_json_sql(table), {"j": json.dumps(rows)})))
        insert, key_names = _build_sqlite_insert(table), [column.name for column in table.primary_key.columns]
        connection.exec_driver_sql("SAVEPOINT new_rows")
        if execute_for_rows(connection, insert, rows) == len(rows):  # the usual case
            connection.exec_driver_sql("RELEASE new_rows")
            return {tuple([row[name] for name in key_names]) for row in rows}
        connection.exec_driver_sql("ROLLBACK TO new_rows")
        connection.exec_driver_sql("RELEASE new_rows")
        return set(map(tuple, connection.execute(insert.returning(*table.primary_key.columns), rows)))

    def load_punctual_results_after(
        self, connection: sa.Connection, after_slots: Mapping[int, int]
    ) -> Iterator[sa.Row[Any]]:
        """Rows of RESULT_COLUMNS, without late ones, of each probe after its slot; one index seek a probe.

        `after_slots`: probe -> slot. Ordered by probe and slot.
        """
        if self.is_postgres:
            values = {"p": list(after_slots), "s": list(after_slots.values())}
            return iter(connection.execute(_PG_RESULTS_AFTER_SQL, values))
        return iter(connection.execute(_SQLITE_RESULTS_AFTER_SQL, {"v": json.dumps(list(after_slots.items()))}))

    def load_recorded_slots(
        self, connection: sa.Connection, keys: Sequence[tuple[int, int]], location: str
    ) -> set[tuple[int, int]]:
        """Which of these (probe, slot) have a result of this location."""
        if not keys:
            return set()
        values: dict[str, Any] = {"l": location}
        if self.is_postgres:
            values |= {"p": [probe for probe, _ in keys], "s": [slot for _, slot in keys]}
            return set(map(tuple, connection.execute(_PG_RECORDED_SLOTS_SQL, values)))
        return set(map(tuple, connection.execute(_SQLITE_RECORDED_SLOTS_SQL, values | {"v": json.dumps(keys)})))


def run_after_commit(connection: sa.Connection, action: Callable[[], None]) -> None:
    """Runs the action once the write transaction of this connection has committed; never if it is rolled back."""
    connection.info[_ACTIONS_AFTER_COMMIT_KEY].append(action)


_WITHOUT_BEGIN_EXECUTION_OPTION = "watchdog_without_begin"
_RESULT_COLUMNS_SQL = ", ".join(f"r.{column.name}" for column in RESULT_COLUMNS)
_POSTGRES_TYPE_COMPILER = postgresql.dialect().type_compiler_instance  # type: ignore[no-untyped-call] # SQLAlchemy's, untyped
_PG_PROBE_SLOT_PAIRS_SQL = "unnest(CAST(:p AS bigint[]), CAST(:s AS bigint[])) v(p, s)"
_IS_VALID_AFTER_CLOCK_STEPS_SQL = (  # as is_effective_result
    "r.slot <= COALESCE((SELECT valid_until FROM clock_steps WHERE ended_timeline = r.location), r.slot)"
)
_PG_RESULTS_AFTER_SQL = sa.text(
    f"SELECT {_RESULT_COLUMNS_SQL} FROM {_PG_PROBE_SLOT_PAIRS_SQL} "
    f"JOIN results r ON r.probe = v.p AND r.slot > v.s AND NOT r.late AND {_IS_VALID_AFTER_CLOCK_STEPS_SQL}"
    " ORDER BY r.probe, r.slot, r.location"
)
_SQLITE_RESULTS_AFTER_SQL = sa.text(
    f"SELECT {_RESULT_COLUMNS_SQL} FROM json_each(:v) v CROSS JOIN results r"
    f" ON r.probe = v.value ->> 0 AND r.slot > v.value ->> 1 AND NOT r.late AND {_IS_VALID_AFTER_CLOCK_STEPS_SQL}"
    " ORDER BY r.probe, r.slot, r.location"
)
_PG_RECORDED_SLOTS_SQL = sa.text(
    f"SELECT r.probe, r.slot FROM {_PG_PROBE_SLOT_PAIRS_SQL} "
    "JOIN results r ON r.probe = v.p AND r.slot = v.s AND r.location = :l"
)
_SQLITE_RECORDED_SLOTS_SQL = sa.text(
    "SELECT r.probe, r.slot FROM json_each(:v) v CROSS JOIN results r"
    " ON r.probe = v.value ->> 0 AND r.slot = v.value ->> 1 AND r.location = :l"
)


@cache
def _build_sqlite_insert(table: sa.Table) -> sqlite.Insert:
    return (
        sqlite.insert(table)
        .values({column.name: sa.bindparam(column.name) for column in table.c})
        .on_conflict_do_nothing()
    )


@cache
def _build_pg_insert_from_json_sql(table: sa.Table) -> sa.TextClause:
    typed = ", ".join(f"{column.name} {_POSTGRES_TYPE_COMPILER.process(column.type)}" for column in table.c)
    keys = ", ".join(column.name for column in table.primary_key.columns)
    return sa.text(
        f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) SELECT * FROM jsonb_to_recordset(CAST(:j AS jsonb))"
        f" AS x({typed}) ON CONFLICT DO NOTHING RETURNING {keys}"
    )


def _fsync_path(path: str) -> None:
    with suppress(FileNotFoundError):  # without a WAL, everything is in the database file, and synced
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _enable_wal(dbapi_connection: Any) -> None:
    """Processes that open a new database at the same time conflict here, and SQLite's busy timeout does not apply."""
    deadline = monotonic() + SQLITE_WAL_ENABLE_TIMEOUT_S
    while True:
        try:
            dbapi_connection.execute("PRAGMA journal_mode=wal")
        except sqlite3.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(0.01)
        else:
            return


def _configure_sqlite_connections(engine: sa.Engine, begin_statement: str, cache_kib: int) -> None:
    @sa.event.listens_for(engine, "connect")
    def set_sqlite_connection_pragmas(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # sqlite3 would begin transactions by itself
        for pragma in ("busy_timeout=10000", "synchronous=normal", f"cache_size=-{cache_kib}"):
            dbapi_connection.execute(f"PRAGMA {pragma}")
        _enable_wal(dbapi_connection)

    @sa.event.listens_for(engine, "begin")
    def execute_begin_statement(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get(_WITHOUT_BEGIN_EXECUTION_OPTION):
            connection.exec_driver_sql(begin_statement)
