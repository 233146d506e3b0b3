"""Driver errors: the database is unavailable, or the statement is at fault."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random
from time import sleep

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from tests.support.store import START_AT, DatabasePair, StoreHarness, make_registered_probe, make_result
from watchdog.probes.base import MAX_PREFER_CEL_EXPRESSION_BYTES
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.store.tables import metadata, outbox, watermarks


def run_statements(database: Database, *statements: str, pause_s: float = 0) -> None:
    """Run the statements in one transaction, with a pause after each."""
    with database.open_write_transaction() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
            sleep(pause_s)


def test_errors_of_a_statement_pass_through(database: Database) -> None:
    with pytest.raises(IntegrityError):
        run_statements(database, "INSERT INTO watermarks (location, claimed_until) VALUES (NULL, 1)")
    with pytest.raises(DBAPIError):
        run_statements(database, "SELEC 1")


@pytest.mark.parametrize("statement", ["SELECT absent FROM nowhere", "SELECT absent FROM outbox"])
def test_a_missing_table_or_column_is_a_missing_schema(database: Database, statement: str) -> None:
    with pytest.raises(WatchdogDatabaseSchemaError, match="no schema of this version: run `watchdog db upgrade`"):
        run_statements(database, statement)
    with pytest.raises(WatchdogDatabaseSchemaError), database.open_read_transaction() as connection:
        connection.execute(sa.text(statement))


def test_a_value_that_fits_no_column_passes_through(databases: DatabasePair) -> None:
    harness = StoreHarness(databases.first, [make_registered_probe()])
    with pytest.raises(Exception, match=r"out of range|too large") as caught:
        harness.record_results(make_result(harness.database_ids[0], START_AT + 1, duration=1 << 70))
    assert not isinstance(caught.value, StoreUnavailableError)
    assert str(1 << 69) not in str(caught.value)


def test_an_error_contains_no_values(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught, database.open_write_transaction() as connection:
        connection.execute(sa.insert(watermarks).values(location="hush-hush", claimed_until=None))
    assert "hush-hush" not in str(caught.value).split("DETAIL")[0]


def test_a_row_too_large_for_its_index_passes_through(on_postgres: DatabasePair) -> None:
    """PostgreSQL's driver calls it operational, but a retry never succeeds."""
    key = "SELECT 1, string_agg(md5(i::text), ''), 'x' FROM generate_series(1, 2000) i"
    with pytest.raises(OperationalError):
        run_statements(on_postgres.first, f"INSERT INTO probe_state (probe, key, value) {key}")


def test_the_longest_preference_fits_the_indexes(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    text = Random(1).randbytes(MAX_PREFER_CEL_EXPRESSION_BYTES).hex()[:MAX_PREFER_CEL_EXPRESSION_BYTES]
    result = make_result(harness.database_ids[0], START_AT + 1, preferences={text: "a is false"})
    assert [transition.subject for transition in harness.record_results(result)] == [text]


def test_a_session_that_the_server_ended_is_unavailable(on_postgres: DatabasePair) -> None:
    """PostgreSQL ends the session of a process that paused inside a transaction; the driver raises InternalError."""
    with pytest.raises(StoreUnavailableError) as caught:
        run_statements(on_postgres.first, "SET LOCAL idle_in_transaction_session_timeout = 20", "SELECT 1", pause_s=0.3)
    assert not isinstance(caught.value.__cause__, OperationalError)


def test_a_server_that_refuses_to_write_is_unavailable(on_postgres: DatabasePair) -> None:
    with pytest.raises(StoreUnavailableError, match="read-only"):
        run_statements(on_postgres.first, "SET TRANSACTION READ ONLY", "DELETE FROM outbox")


def test_a_missing_privilege_is_unavailable(on_postgres: DatabasePair) -> None:
    with pytest.raises(StoreUnavailableError, match="permission denied"):
        run_statements(on_postgres.first, "SET LOCAL ROLE pg_monitor", "DELETE FROM outbox")


def test_a_server_that_is_down_is_unavailable(tmp_path: Path) -> None:
    for url in ("postgresql+psycopg://x@127.0.0.1:9/x", f"sqlite:///{tmp_path}/no/such/folder.db"):
        database = Database(url)
        with pytest.raises(StoreUnavailableError):
            run_statements(database, "SELECT 1")
        with pytest.raises(StoreUnavailableError), database.open_read_transaction():
            pass
        database.close()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("a note, and long enough not to be taken for an empty file" * 20)
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(StoreUnavailableError, match="file is not a database"):
        run_statements(database, "SELECT 1")
    database.close()


def test_text_that_is_not_utf_8_is_unavailable(tmp_path: Path) -> None:
    """The file is damaged. The driver gives this error no code."""
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(StoreUnavailableError, match="decode"), database.open_read_transaction() as connection:
        connection.execute(sa.text("SELECT CAST(x'ff' AS text) AS message")).all()
    database.close()


def test_a_locked_file_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    metadata.create_all(database.writer)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with database.open_read_transaction() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=1")
    with (
        pytest.raises(StoreUnavailableError, match="database is locked"),
        database.open_read_transaction() as connection,
    ):
        connection.execute(sa.delete(outbox))
    other.close()
    database.close()


def test_an_exhausted_pool_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    database.reader = sa.create_engine(
        f"sqlite:///{tmp_path}/a.db", poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with (
        database.open_read_transaction(),
        pytest.raises(StoreUnavailableError, match="QueuePool limit"),
        database.open_read_transaction(),
    ):
        pass
    database.close()


@pytest.mark.parametrize("error", [KeyError("x"), OverflowError(), psycopg.OperationalError("raw")])
def test_other_exceptions_pass_through(database: Database, error: Exception) -> None:
    with pytest.raises(type(error)), database.open_write_transaction():
        raise error
