"""`./dev prove faces` knows every page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.faces_sites import list_pages
from tests.support.fixture_rows import FixtureRows
from tests.support.web import create_test_app, filled_database
from watchdog.web import ApiKey


def test_each_page_has_an_address(tmp_path: Path) -> None:
    """Add that of a new page to `list_pages`."""
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", FixtureRows()) as database:
        app = create_test_app(database, api_keys=(ApiKey("ops", "operator", "0123456789"),))
        pages = list_pages(app, database)
    assert [path for path, addresses in pages.items() if not addresses] == []
