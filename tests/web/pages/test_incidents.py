"""The list of incidents: filters, a search, and older resolved incidents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.model import Severity
from watchdog.store.database import Database
from watchdog.web.pages import incidents as incidents_page
from watchdog.web.pages.incidents import IncidentListPosition, IncidentsPage, IncidentsPageFilter, load_incidents_page


def add_incidents(rows: FixtureRows) -> None:
    """Open: API (critical) and Search (warning). Resolved: two of each, the newest one hour ago."""
    api = rows.add_probe("API", "http", "Core", tags=("prod",))
    search = rows.add_probe("Search MCP", "mcp", "Search")
    critical = Severity.CRITICAL
    rows.add_incident(api, "availability", "HTTP 503, expected 200", NOW - 10 * MINUTE_MS, severity=critical)
    rows.add_incident(search, "stale", "nightly: last run 3 h ago", NOW - 5 * MINUTE_MS, subject="nightly")
    for hours in (1, 2):
        since, resolved_at = NOW - hours * HOUR_MS, NOW - hours * HOUR_MS + 5 * MINUTE_MS
        rows.add_incident(api, "availability", "refused", since, resolved_at=resolved_at, severity=critical)
        rows.add_incident(search, "availability", "p95 4.1 s", since - MINUTE_MS, resolved_at=resolved_at)


@pytest.fixture(name="database")
def create_database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    add_incidents(rows)
    with filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database:
        yield database


@pytest.fixture(name="app")
def create_app(database: Database) -> FastAPI:
    return create_test_app(database)


LoadPage = Callable[..., IncidentsPage]


@pytest.fixture(name="load")
def create_loader(database: Database) -> Iterator[LoadPage]:
    with database.open_read_transaction() as connection:
        yield lambda incident_filter, **options: load_incidents_page(connection, incident_filter, NOW, **options)


@pytest.mark.parametrize(
    ("incident_filter", "open_count", "resolved_count"),
    [
        (IncidentsPageFilter(), 2, 4),
        (IncidentsPageFilter(state="open"), 2, 0),
        (IncidentsPageFilter(state="resolved"), 0, 4),
        (IncidentsPageFilter(severity="critical"), 1, 2),
        (IncidentsPageFilter(severity="info"), 0, 0),
        (IncidentsPageFilter(probe="search-mcp"), 1, 2),
        (IncidentsPageFilter(probe="search-mcp", severity="critical"), 0, 0),
        (IncidentsPageFilter(probe="no-such-probe"), 0, 0),
        (IncidentsPageFilter(search="REFUSED"), 0, 2),
        (IncidentsPageFilter(search="refused 503"), 0, 0),
        (IncidentsPageFilter(search="search p95"), 0, 2),
        (IncidentsPageFilter(search="nightly"), 1, 0),
        (IncidentsPageFilter(search="stale"), 1, 0),
        (IncidentsPageFilter(search="group:core"), 1, 2),
        (IncidentsPageFilter(search="tag:prod http"), 1, 0),
        (IncidentsPageFilter(search="kind:mcp", state="resolved"), 0, 2),
        (IncidentsPageFilter(search="%"), 0, 0),
    ],
)
def test_filters_and_the_words_of_a_search_must_all_match(
    load: LoadPage, incident_filter: IncidentsPageFilter, open_count: int, resolved_count: int
) -> None:
    page = load(incident_filter)
    assert (len(page.open_incidents), len(page.resolved_incidents)) == (open_count, resolved_count)
    assert page.older_from is None


def list_all_pages(load: LoadPage, incident_filter: IncidentsPageFilter) -> list[list[str]]:
    """The ids of the resolved incidents on each page, from the newest by the links to older ones."""
    pages, after = [], None
    while True:
        page = load(incident_filter, after=after)
        pages.append([row.id for row in page.resolved_incidents])
        if page.older_from is None:
            return pages
        assert after != page.older_from
        after = page.older_from


@pytest.mark.parametrize(("per_page", "expected"), [(1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1]), (4, [4])])
def test_the_links_to_older_incidents_lead_to_every_resolved_incident_once(
    load: LoadPage, monkeypatch: pytest.MonkeyPatch, per_page: int, expected: list[int]
) -> None:
    monkeypatch.setattr(incidents_page, "MAX_RESOLVED_INCIDENTS_ON_PAGE", per_page)
    monkeypatch.setattr(incidents_page, "RESOLVED_INCIDENTS_PER_SEARCH_STEP", per_page + 1)
    pages = list_all_pages(load, IncidentsPageFilter())
    assert list(map(len, pages)) == expected
    assert len({id for page in pages for id in page}) == 4


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_search_that_reads_its_limit_states_how_far_it_came_and_goes_on_from_there(
    load: LoadPage, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(incidents_page, "RESOLVED_INCIDENTS_PER_SEARCH_STEP", step)
    monkeypatch.setattr(incidents_page, "MAX_RESOLVED_INCIDENT_SEARCH_STEPS", 1)
    first = load(IncidentsPageFilter(search="refused"))
    assert first.older_from is not None
    assert first.searched_back_to == first.older_from.opened_at
    ids = [id for page in list_all_pages(load, IncidentsPageFilter(search="refused")) for id in page]
    assert len(ids) == len(set(ids)) == 2


def test_incidents_of_the_same_instant_are_on_one_page_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = FixtureRows()
    for number in range(5):
        probe = rows.add_probe(f"API {number}")
        rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS, resolved_at=NOW - MINUTE_MS)
    monkeypatch.setattr(incidents_page, "MAX_RESOLVED_INCIDENTS_ON_PAGE", 2)
    monkeypatch.setattr(incidents_page, "RESOLVED_INCIDENTS_PER_SEARCH_STEP", 3)
    with (
        filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        pages = list_all_pages(
            lambda incident_filter, **options: load_incidents_page(connection, incident_filter, NOW, **options),
            IncidentsPageFilter(),
        )
    assert list(map(len, pages)) == [2, 2, 1]
    assert len({id for page in pages for id in page}) == 5


@pytest.mark.parametrize(
    ("path", "present", "absent"),
    [
        ("/incidents?severity=critical", ["HTTP 503", "refused"], ["p95 4.1 s"]),
        ("/incidents?severity=fatal", ["HTTP 503", "p95 4.1 s"], ["No incident matches"]),
        ("/incidents?probe=search-mcp", ["Only Search MCP", "p95 4.1 s"], ["HTTP 503"]),
        ("/incidents?probe=gone", ["Only gone", "No incident matches. Show all"], ["HTTP 503"]),
        ("/incidents?q=nothing-like-it", ["No incident matches. Show all"], ["HTTP 503"]),
        ("/incidents?before=1-0", ["No older incidents.", "newest"], ["HTTP 503"]),
        ("/incidents?before=yesterday", ["HTTP 503", "p95 4.1 s"], ["No older incidents."]),
    ],
)
def test_the_page_shows_what_its_url_asks_for(app: FastAPI, path: str, present: list[str], absent: list[str]) -> None:
    text = visible_text(request_page(app, path).text)
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_each_link_of_a_filter_keeps_the_others(app: FastAPI) -> None:
    html = request_page(app, "/incidents?q=http&severity=critical&probe=api").text
    assert 'href="?q=http&amp;state=open&amp;severity=critical&amp;probe=api"' in html
    assert 'href="?q=http&amp;severity=warning&amp;probe=api"' in html
    assert 'href="?q=http&amp;severity=critical"' in html, "the link that drops the probe"
    assert '<input type="hidden" name="severity" value="critical">' in html
    assert "/api/v1/incidents" not in html, "the API has no search"
    html = request_page(app, "/incidents?severity=critical&probe=api").text
    assert 'href="/api/v1/incidents?severity=critical&amp;probe=api"' in html


NO_POSITIONS = ["", "1", "1-", "-a", "1-A", "x-a", f"{10**15}-a", "1-a-b", "1-a\n", "\N{ARABIC-INDIC DIGIT ONE}-a"]


@pytest.mark.parametrize("text", NO_POSITIONS)
def test_a_position_that_no_link_has_is_ignored(text: str) -> None:
    assert IncidentListPosition.parse_url_value(text) is None


def test_a_position_survives_its_url() -> None:
    position = IncidentListPosition(NOW, "0123456789abcdef01234567")
    assert IncidentListPosition.parse_url_value(position.url_value) == position


def test_a_probe_that_no_database_can_store_is_unknown(database_url: str) -> None:
    rows = FixtureRows()
    add_incidents(rows)
    with filled_database(database_url, rows) as database:
        response = request_page(create_test_app(database), "/incidents?probe=%00&q=%00")
    assert (response.status_code, "No incident matches." in response.text) == (200, True)
