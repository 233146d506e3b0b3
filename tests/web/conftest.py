"""The story in a database, read only: shared by all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.web.book import Book
from tests.web.serving import app_of, filled
from tests.web.story import acme
from watchdog.store.database import Database


@pytest.fixture(scope="session")
def story() -> Book:
    return acme()


@pytest.fixture(scope="session")
def told_story(story: Book, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with filled(f"sqlite:///{tmp_path_factory.mktemp('story') / 'watchdog.db'}", story) as database:
        yield database


@pytest.fixture(scope="session")
def app(told_story: Database) -> FastAPI:
    return app_of(told_story)
