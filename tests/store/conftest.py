"""One database of each kind for all tests of the store: emptied for each, so that its statements are compiled once."""

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
    """An empty database of each kind, opened twice."""
    found: DatabasePair = request.getfixturevalue(request.param)
    delete_all_rows(found.first)
    return found


@pytest.fixture
def database(databases: DatabasePair) -> Database:
    """An empty database of each kind: a test that asks for this runs on both."""
    return databases.first
