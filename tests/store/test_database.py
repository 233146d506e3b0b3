"""Options of connections."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.store import DatabasePair
from watchdog.store.database import READER_CACHE_KIB, Database


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
def test_a_server_that_vanishes_is_detected_in_seconds(databases: DatabasePair) -> None:
    with databases.first.read_transaction() as connection:
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


def test_reading_connections_of_sqlite_keep_little_in_memory(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'watchdog.db'}")
    try:
        with database.read_transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA cache_size").scalar() == -READER_CACHE_KIB
        with database.write_transaction() as connection:
            cache_kib = -connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
            assert cache_kib > READER_CACHE_KIB, "its cache stays valid"
    finally:
        database.close()


def test_only_its_owner_reads_the_database(tmp_path: Path) -> None:
    file, mask = tmp_path / "watchdog.db", os.umask(0o022)
    database = Database(f"sqlite:///{file}")
    try:
        with database.write_transaction() as connection:
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
        with database.write_transaction() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x)")
    finally:
        database.close()
    assert file.stat().st_mode & 0o777 == 0o640
