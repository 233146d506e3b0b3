"""Options of connections, and what runs after a transaction."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.model import Outcome
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.store.database import SQLITE_READER_CACHE_KIB, Database, run_after_commit
from watchdog.store.tables import results
from watchdog.store.write.evaluation import AlertEvaluator


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
def test_a_server_that_vanishes_is_detected_in_seconds(databases: DatabasePair) -> None:
    with databases.first.open_read_transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=os.dup(driver.fileno())) as own_socket:
            if own_socket.family == socket.AF_UNIX:
                pytest.skip("this PostgreSQL listens on a Unix socket only, which cannot vanish")
            user_timeout_ms = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            idle_s = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            interval_s = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            count = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert user_timeout_ms <= 15_000
    assert idle_s + interval_s * count <= 15
    assert user_timeout_ms > 0, "0 means the system's default"


def test_the_queries_of_a_reading_transaction_see_the_same_moment(databases: DatabasePair) -> None:
    harness = StoreHarness(databases.first, [make_registered_probe()])
    query = sa.select(sa.func.count()).select_from(results)
    with databases.second.open_read_transaction() as connection:
        before = connection.execute(query).scalar_one()
        harness.record_results(make_result(harness.database_ids[0], START_AT + INTERVAL_MS))
        assert connection.execute(query).scalar_one() == before == 0
    with databases.second.open_write_transaction() as connection:
        assert connection.execute(query).scalar_one() == 1


def test_reading_connections_of_sqlite_keep_little_in_memory(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'watchdog.db'}")
    try:
        with database.open_read_transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA cache_size").scalar() == -SQLITE_READER_CACHE_KIB
        with database.open_write_transaction() as connection:
            cache_kib = -connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
            assert cache_kib > SQLITE_READER_CACHE_KIB, "its cache stays valid"
    finally:
        database.close()


def test_only_its_owner_reads_the_database(tmp_path: Path) -> None:
    file, mask = tmp_path / "watchdog.db", os.umask(0o022)
    database = Database(f"sqlite:///{file}")
    try:
        with database.open_write_transaction() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        database.close()
        os.umask(mask)
    assert modes == {"watchdog.db": 0o600, "watchdog.db-wal": 0o600, "watchdog.db-shm": 0o600}


def test_the_mode_of_an_existing_database_stays(tmp_path: Path) -> None:
    """An administrator may have allowed a group to back it up."""
    file = tmp_path / "watchdog.db"
    file.touch()
    file.chmod(0o640)
    database = Database(f"sqlite:///{file}")
    try:
        with database.open_write_transaction() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
    finally:
        database.close()
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_runs_after_commit_does_not_run_after_a_rollback(database: Database) -> None:
    done: list[str] = []

    def write_and_fail() -> None:
        with database.open_write_transaction() as connection:
            run_after_commit(connection, lambda: done.append("rolled back"))
            raise LookupError

    with pytest.raises(LookupError):
        write_and_fail()
    assert not done
    with database.open_write_transaction() as connection:
        run_after_commit(connection, lambda: done.append("committed"))
        assert not done
    assert done == ["committed"]


def test_an_incident_without_a_destination_is_logged_once_it_is_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is recorded again after a transaction that was rolled back: that must not warn twice."""
    harness = StoreHarness(
        database, [make_registered_probe(failure_threshold=1)], routes=NotificationRoutingTable({"oncall": ()})
    )
    failed = make_result(harness.database_ids[0], START_AT + INTERVAL_MS, Outcome.FAIL)
    with capture_logs() as entries:
        with monkeypatch.context() as patch:
            patch.setattr(
                harness.recorder.evaluator,
                "_flush_pending_evaluation_writes",
                _write_and_fail(harness.recorder.evaluator),
            )
            with pytest.raises(LookupError):
                harness.record_results(failed)
        assert not entries
        harness.record_results(failed)
    assert [entry["event"] for entry in entries] == ["incident_opened", "incident_notifies_no_one"]


def _write_and_fail(evaluator: AlertEvaluator) -> Callable[..., None]:
    write = evaluator._flush_pending_evaluation_writes

    def write_and_fail(*args: Any) -> None:
        write(*args)
        raise LookupError

    return write_and_fail
