"""One database of each kind for all tests of the store: emptied for each, so that its statements are compiled once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.store.lab import Databases, empty
from watchdog.store.database import Database


@pytest.fixture(scope="session")
def on_sqlite() -> Iterator[Databases]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        databases = Databases(f"sqlite:///{folder}/watchdog.db")
        yield databases
        databases.close()


@pytest.fixture(scope="session")
def on_postgres(postgres: Postgres) -> Iterator[Databases]:
    with ExitStack() as stack:
        databases = Databases(stack.enter_context(postgres.fresh()))
        stack.callback(databases.close)
        yield databases


@pytest.fixture(params=["on_sqlite", "on_postgres"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """An empty database of each kind, opened twice."""
    found: Databases = request.getfixturevalue(request.param)
    empty(found.first)
    return found


@pytest.fixture
def database(databases: Databases) -> Database:
    """An empty database of each kind: a test that asks for this runs on both."""
    return databases.first
