"""Two databases behind one door: engines, transactions, and the few statements that differ.

SQLite: WAL, one writer engine whose transactions are BEGIN IMMEDIATE, and a reader engine with deferred BEGIN (an open
read on the writer would lock writers out). PostgreSQL: READ COMMITTED, one writer per probe by advisory lock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.store.errors import translate_driver_errors
from watchdog.store.tables import metadata, results

ADVISORY_LOCK_NAMESPACE = 7_402
"""The class of our advisory locks: the second half of the key is a probe's id."""


_TCP_KEEPALIVE_OPTIONS = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""A server that vanishes without a word is found out in 15 s; the system's own patience is a quarter of an hour, for
which our one writing thread would stand still."""


class Database:
    """An open database. `url` is normalised: sqlite:///path or postgresql+psycopg://..."""

    def __init__(self, url: str):
        self.is_postgres = url.startswith("postgresql")
        if self.is_postgres:
            options = {"pool_size": 5, "max_overflow": 5, "pool_pre_ping": True, "hide_parameters": True}
            session = "-c idle_in_transaction_session_timeout=5s -c lock_timeout=5s -c timezone=UTC"
            connect = {
                "options": session,
                "connect_timeout": 5,
                "application_name": "watchdog",
                **_TCP_KEEPALIVE_OPTIONS,
            }
            self.writer = self.reader = sa.create_engine(url, connect_args=connect, **options)
        else:
            file = {"poolclass": sa.pool.QueuePool, "hide_parameters": True}
            self.writer = sa.create_engine(url, pool_size=1, max_overflow=1, **file)
            self.reader = sa.create_engine(url, pool_size=4, max_overflow=0, **file)
            _configure_sqlite_connections(self.writer, "BEGIN IMMEDIATE")
            _configure_sqlite_connections(self.reader, "BEGIN DEFERRED")

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()

    @contextmanager
    def write_transaction(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is committed, or none."""
        with translate_driver_errors(), self.writer.begin() as connection:
            yield connection

    @contextmanager
    def read_transaction(self) -> Iterator[sa.Connection]:
        with translate_driver_errors(), self.reader.connect() as connection, connection.begin():
            yield connection

    def lock_probes(self, connection: sa.Connection, probes: Iterable[int], *, wait: bool = True) -> list[int]:
        """Become the one writer of these probes; returns those it became (all, when it waits).

        Taken in one order and as a statement of its own: what follows sees what the last holder committed. `FOR
        UPDATE` would write a tuple a result.
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
        """Wait up to a minute for whoever else is at the same work. `key`: no probe's id."""
        if self.is_postgres:
            connection.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:c, :k)"), {"c": ADVISORY_LOCK_NAMESPACE, "k": lock_key}
            )

    def insert_statement(self, table: sa.Table) -> Any:
        """INSERT with ON CONFLICT, in either dialect."""
        return postgresql.insert(table) if self.is_postgres else sqlite.insert(table)

    def insert_new_rows(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> set[Any]:
        """The primary keys that were new. PostgreSQL takes one JSON parameter: bound ones cost four times as much."""
        if self.is_postgres:
            return set(map(tuple, connection.execute(_pg_insert_from_json_sql(table), {"j": json.dumps(rows)})))
        statement = sqlite.insert(table).on_conflict_do_nothing().returning(*table.primary_key.columns)
        return set(map(tuple, connection.execute(statement, rows)))

    def load_results_after(self, connection: sa.Connection, after_slots: Mapping[int, int]) -> Iterator[sa.Row[Any]]:
        """Judgeable rows of each probe after a slot, by probe and slot: a seek for each."""
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


RESULT_COLUMNS = tuple(c.name for c in results.c if c.name != "recorded_at")
_RESULT_COLUMNS_SQL = ", ".join(f"r.{name}" for name in RESULT_COLUMNS)
_POSTGRES_TYPE_COMPILER = postgresql.dialect().type_compiler_instance  # type: ignore[no-untyped-call] # SQLAlchemy's, untyped
_PG_PROBE_SLOT_PAIRS_SQL = "unnest(CAST(:p AS bigint[]), CAST(:s AS bigint[])) v(p, s)"
_PG_RESULTS_AFTER_SQL = sa.text(
    f"SELECT {_RESULT_COLUMNS_SQL} FROM {_PG_PROBE_SLOT_PAIRS_SQL} "
    "JOIN results r ON r.probe = v.p AND r.slot > v.s AND NOT r.late"
    " ORDER BY r.probe, r.slot, r.location"
)
_SQLITE_RESULTS_AFTER_SQL = sa.text(
    f"SELECT {_RESULT_COLUMNS_SQL} FROM json_each(:v) v CROSS JOIN results r"
    " ON r.probe = v.value ->> 0 AND r.slot > v.value ->> 1 AND NOT r.late ORDER BY r.probe, r.slot, r.location"
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
def _pg_insert_from_json_sql(table: sa.Table) -> sa.TextClause:
    typed = ", ".join(f"{column.name} {_POSTGRES_TYPE_COMPILER.process(column.type)}" for column in table.c)
    keys = ", ".join(column.name for column in table.primary_key.columns)
    return sa.text(
        f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) SELECT * FROM jsonb_to_recordset(CAST(:j AS jsonb))"
        f" AS x({typed}) ON CONFLICT DO NOTHING RETURNING {keys}"
    )


def _enable_wal(dbapi_connection: Any) -> None:
    """Processes that open a new database at once get in each other's way here, and SQLite does not wait."""
    patience = monotonic() + 10
    while True:
        try:
            dbapi_connection.execute("PRAGMA journal_mode=wal")
        except sqlite3.OperationalError:
            if monotonic() > patience:
                raise
            sleep(0.01)
        else:
            return


def _configure_sqlite_connections(engine: sa.Engine, begin_statement: str) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(driver: Any, _record: Any) -> None:
        driver.isolation_level = None
        for pragma in ("busy_timeout=10000", "synchronous=normal"):
            driver.execute(f"PRAGMA {pragma}")
        _enable_wal(driver)

    @sa.event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin_statement)


__all__ = ["RESULT_COLUMNS", "Database", "metadata"]
