"""The fixtures of Acme in a database, read only, for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import FixtureRows
from tests.support.fixtures import acme_rows
from tests.support.web import create_test_app, filled_database
from watchdog.store.database import Database


@pytest.fixture(scope="session")
def acme() -> FixtureRows:
    return acme_rows()


@pytest.fixture(scope="session")
def acme_database(acme: FixtureRows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('story') / 'watchdog.db'}", acme) as database:
        yield database


@pytest.fixture(scope="session")
def app(acme_database: Database) -> FastAPI:
    return create_test_app(acme_database)
