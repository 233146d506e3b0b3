"""A database with data of every kind, read only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.support.api import rows_of_every_kind
from tests.support.web import create_test_app, filled_database
from watchdog.store.database import Database


@pytest.fixture(scope="session")
def full_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with filled_database(
        f"sqlite:///{tmp_path_factory.mktemp('api') / 'watchdog.db'}", rows_of_every_kind()
    ) as database:
        yield database


@pytest.fixture(scope="session")
def api(full_database: Database) -> FastAPI:
    return create_test_app(full_database)
