"""One database of each kind for all tests of the store, emptied for each test: its statements are compiled once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.store import DatabasePair, delete_all_rows
from watchdog.store.database import Database


@pytest.fixture(scope="session")
def on_sqlite() -> Iterator[DatabasePair]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        databases = DatabasePair(f"sqlite:///{folder}/watchdog.db")
        yield databases
        databases.close()


@pytest.fixture(scope="session")
def on_postgres(postgres: PostgresServer) -> Iterator[DatabasePair]:
    with ExitStack() as stack:
        databases = DatabasePair(stack.enter_context(postgres.temporary_database()))
        stack.callback(databases.close)
        yield databases


@pytest.fixture(params=["on_sqlite", "on_postgres"])
def databases(request: pytest.FixtureRequest) -> DatabasePair:
    """An empty database, opened twice: runs the test on each kind."""
    pair: DatabasePair = request.getfixturevalue(request.param)
    delete_all_rows(pair.first)
    return pair


@pytest.fixture
def database(databases: DatabasePair) -> Database:
    """An empty database: runs the test on each kind."""
    return databases.first
