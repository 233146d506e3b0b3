"""What means that the database is away, and what is our own fault."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import sleep

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.support.store import START_AT, DatabasePair, StoreHarness, make_registered_probe, make_result
from watchdog.store.database import Database, is_unavailable
from watchdog.store.tables import metadata, outbox, watermarks


def fault(database: Database, *statements: str, pause: float = 0) -> DBAPIError:
    """What comes of these statements in one transaction, with a pause after each."""
    try:
        with database.write_transaction() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))
                sleep(pause)
    except DBAPIError as e:
        return e
    raise AssertionError("nothing came of them")


def test_faults_of_our_own_are_no_absence(database: Database) -> None:
    empty = "INSERT INTO watermarks (location, claimed_until) VALUES (NULL, 1)"
    assert not is_unavailable(fault(database, empty)), "an integrity error"
    assert not is_unavailable(fault(database, "SELECT nothing FROM nowhere"))
    assert not is_unavailable(fault(database, "SELEC 1"))


def test_values_that_fit_no_column_are_no_absence(databases: DatabasePair) -> None:
    lab = StoreHarness(databases.first, [make_registered_probe()])
    with pytest.raises(Exception, match=r"out of range|too large") as caught:
        lab.record_results(make_result(lab.database_ids[0], START_AT + 1, duration=1 << 70))
    assert not is_unavailable(caught.value)
    assert str(1 << 69) not in str(caught.value)


def test_an_error_tells_no_values(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught, database.write_transaction() as connection:
        connection.execute(sa.insert(watermarks).values(location="hush-hush", claimed_until=None))
    assert "hush-hush" not in str(caught.value).split("DETAIL")[0]


def test_a_row_too_large_for_its_index_is_no_absence(on_postgres: DatabasePair) -> None:
    """PostgreSQL's driver calls it operational; no later try fares better."""
    key = "SELECT 1, string_agg(md5(i::text), ''), 'x' FROM generate_series(1, 2000) i"
    error = fault(on_postgres.first, f"INSERT INTO probe_state (probe, key, value) {key}")
    assert isinstance(error, OperationalError)
    assert not is_unavailable(error)


def test_a_server_that_ends_our_session_is_away(on_postgres: DatabasePair) -> None:
    """As it does when we stood still inside a transaction; the driver calls that an internal error."""
    error = fault(on_postgres.first, "SET LOCAL idle_in_transaction_session_timeout = 20", "SELECT 1", pause=0.3)
    assert not isinstance(error, OperationalError)
    assert is_unavailable(error)


def test_nobody_listens(tmp_path: Path) -> None:
    for url in ("postgresql+psycopg://x@127.0.0.1:9/x", f"sqlite:///{tmp_path}/no/such/folder.db"):
        database = Database(url)
        assert is_unavailable(fault(database, "SELECT 1"))
        database.close()


def test_a_file_that_is_locked_is_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    metadata.create_all(database.writer)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with database.reader.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=1")
        with pytest.raises(DBAPIError) as caught:
            connection.execute(sa.delete(outbox))
    assert is_unavailable(caught.value)
    other.close()
    database.close()


@pytest.mark.parametrize("error", [KeyError("x"), OverflowError(), psycopg.OperationalError("raw")])
def test_anything_else_is_ours(error: Exception) -> None:
    assert not is_unavailable(error)
