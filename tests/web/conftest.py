"""The fixtures of Acme in a database, read only, and a browser, for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI

from tests.support.browser import find_chromium, running_browser
from tests.support.fixture_rows import FixtureRows
from tests.support.fixtures import acme_rows
from tests.support.page_checks import find_axe_script
from tests.support.web import create_test_app, filled_database
from watchdog.store.database import Database

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("Chromium or Playwright is missing: apt install chromium, pip install playwright")
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    script = find_axe_script()
    if script is None:
        pytest.skip("axe-core is missing: pip install axe-playwright-python")
    return script.read_text()
