"""The list of probes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.model import Outcome
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.store.database import Database
from watchdog.web.pages.probe import ProbePageUrlQuery, load_probe_page
from watchdog.web.pages.probes import (
    MAX_SPARKLINE_RUNS,
    ProbesPage,
    ProbesPageFilter,
    ProbesPageRow,
    load_probes_page,
)


def row_of_heartbeat(folder: Path, kinds: str, duration: int | None) -> ProbesPageRow:
    """The row of a heartbeat whose job has reported these ends, and which has been looked at every minute."""
    rows = FixtureRows()
    id = rows.add_probe("Nightly backup", "heartbeat", "Core")
    for ago, kind in enumerate(reversed(kinds.split()), 1):
        rows.add_check_in(id, NOW - ago * 60 * MINUTE_MS, kind, duration=duration if kind == "ok" else None)
    for minute in range(60):
        rows.add_result(id, NOW - minute * MINUTE_MS, duration_ms=None)
    with (
        filled_database(f"sqlite:///{folder / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        page = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
    [(_, _, [row])] = [(section.name, section.total, section.rows) for section in page.sections]
    return row


@pytest.mark.parametrize(
    ("kinds", "duration", "text"),
    [
        ("ok ok fail ok", 14 * MINUTE_MS, "1 of 4 failed, median 14\N{NO-BREAK SPACE}min"),
        ("ok fail fail", None, "2 of 3 failed"),
        ("ok ok", None, "none of 2 failed"),
        ("", None, "no runs"),
    ],
)
def test_the_sparkline_of_a_heartbeat_shows_the_runs_of_the_job(
    tmp_path: Path, kinds: str, duration: int | None, text: str
) -> None:
    row = row_of_heartbeat(tmp_path, kinds, duration)
    assert row.sparkline_text == text
    assert row.sparkline.count("l4 4m0-4l-4 4") == kinds.count("fail")
    assert ('class="none"' in row.sparkline) == (kinds == ""), "a run without duration is drawn on the baseline"


def test_the_list_is_current_after_a_run(tmp_path: Path) -> None:
    rows, later = FixtureRows(), FixtureRows()
    id = rows.add_probe("API")
    rows.add_passing_results(id, count=MAX_SPARKLINE_RUNS)
    later.add_result(id, NOW, Outcome.FAIL)
    with filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database:
        with database.open_read_transaction() as connection:
            before = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
        with database.open_write_transaction() as connection:
            later.insert_into(connection)
        with database.open_read_transaction() as connection:
            after = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
    texts = [page.sections[0].rows[0].sparkline_text for page in (before, after)]
    assert ["failed" in text for text in texts] == [False, True]
    assert texts[1].startswith(f"1 of {after.max_sparkline_runs} failed")
    assert 'class="x-mark"' in after.sections[0].rows[0].sparkline
    assert after.sections[0].rows[0].last_run_at == NOW


def test_a_paused_probe_is_listed_apart_with_its_open_incident(tmp_path: Path) -> None:
    rows = FixtureRows()
    for name in ("API", "Search"):
        id = rows.add_probe(name)
        rows.add_incident(id, "availability", "HTTP 503", NOW - 2 * HOUR_MS)
    rows.add_pause(1, NOW - HOUR_MS, ends_at=NOW + HOUR_MS, comment="moved")
    with (
        filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        page = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
        only_paused = load_probes_page(connection, ProbesPageFilter(state="paused"), 1, NOW)
        probe = load_probe_page(connection, "api", ProbePageUrlQuery(), NOW)
    assert [(section.name, [row.name for row in section.rows]) for section in page.sections] == [
        ("Needs attention", ["Search"]),
        ("Not judged", ["API"]),
    ]
    (row,) = only_paused.sections[0].rows
    assert visible_text(row.problem_text) == "paused until 03:29 UTC by Ana: moved · HTTP 503 · for 2 h"
    assert row.next_run_text == ""
    assert probe is not None
    assert (probe.state_label, probe.next_run_text) == ("Paused for 1\N{NO-BREAK SPACE}h", "")
    assert [visible_text(banner.title) for banner in probe.banners] == [
        "Paused until 03:29 UTC by Ana: moved",
        "HTTP 503",
    ]
    assert probe.can_resume


def load_rows_of_states(folder: Path, probe_filter: ProbesPageFilter) -> ProbesPage:
    """Probes in each state, and three in maintenance: one is fine, one has an open incident, one is paused."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for name in ("Fine", "Down", "Paused", "Upgraded", "Upgraded and down", "Upgraded and paused"):
        rows.add_passing_results(rows.add_probe(name), count=3)
    rows.add_probe("New")
    fault = rows.add_probe("Own fault")
    rows.add_result(fault, NOW - 2 * MINUTE_MS)
    rows.add_result(fault, NOW - MINUTE_MS, Outcome.ERROR, "network", WATCHDOG_NETWORK_FAULT_REASON, None)
    for name in ("Down", "Upgraded and down"):
        rows.add_incident(rows.probe_by_name[name], "availability", "HTTP 503", NOW - HOUR_MS)
    for name in ("Paused", "Upgraded and paused"):
        rows.add_pause(rows.probe_by_name[name], NOW - HOUR_MS)
    upgraded = [id for name, id in rows.probe_by_name.items() if name.startswith("Upgraded")]
    rows.add_maintenance(upgraded, NOW - HOUR_MS, NOW + HOUR_MS)
    with (
        filled_database(f"sqlite:///{folder / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        return load_probes_page(connection, probe_filter, 1, NOW)


def test_what_is_not_judged_is_listed_last(tmp_path: Path) -> None:
    page = load_rows_of_states(tmp_path, ProbesPageFilter())
    listed = [
        (section.name, [(visible_text(row.state_badge), row.name) for row in section.rows]) for section in page.sections
    ]
    assert listed == [
        ("Needs attention", [("Down", "Down"), ("Down", "Upgraded and down")]),
        ("Up", [("Up", "Fine")]),
        (
            "Not judged",
            [
                ("No data", "New"),
                ("No data", "Own fault"),
                ("Maintenance", "Upgraded"),
                ("Paused", "Paused"),
                ("Paused", "Upgraded and paused"),
            ],
        ),
    ]
    assert page.headline == "8\N{NO-BREAK SPACE}probes, 2 need attention"
    assert [(state.label, count) for state, count in page.state_counts] == [
        ("Down", 2), ("Degraded", 0), ("No data", 2), ("Maintenance", 3), ("Paused", 2), ("Up", 1),
    ]  # fmt: skip
    marks = {row.name: [visible_text(mark) for mark in row.marks] for section in page.sections for row in section.rows}
    assert marks["Upgraded"] == marks["Upgraded and down"] == ["in maintenance until 03:29 UTC"]
    badges = {row.name: "is-maint" in "".join(row.marks) for section in page.sections for row in section.rows}
    assert [name for name, has_badge in badges.items() if has_badge] == ["Upgraded and down", "Upgraded and paused"]


@pytest.mark.parametrize(
    ("state", "search", "expected"),
    [
        ("maintenance", "", ["Upgraded and down", "Upgraded", "Upgraded and paused"]),
        ("down", "", ["Down", "Upgraded and down"]),
        ("up", "", ["Fine"]),
        ("paused", "", ["Paused", "Upgraded and paused"]),
        ("unknown", "", ["New", "Own fault"]),
        ("", "state:maintenance", ["Upgraded and down", "Upgraded", "Upgraded and paused"]),
        ("", "state:down state:maint", ["Upgraded and down"]),
        ("maint", "", []),
    ],
)
def test_maintenance_is_a_filter(tmp_path: Path, state: str, search: str, expected: list[str]) -> None:
    page = load_rows_of_states(tmp_path, ProbesPageFilter(search, state))
    assert [row.name for section in page.sections for row in section.rows] == expected


@pytest.fixture(name="five_probes", scope="module")
def create_five_probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    rows = FixtureRows()
    for name, kind, group, next_due, last_minutes_ago, incident_count in (
        ("beta", "http", "Core", NOW + 2, 3, 1),
        ("Alpha", "mcp", "Zeta", NOW + 1, 9, 0),
        ("delta", "http", "", NOW + 5, 1, 2),
        ("Gamma", "jobs", "core", NOW + 3, None, 0),
        ("epsilon", "mcp", "Alpha", NOW - 1, 2, 0),
    ):
        id = rows.add_probe(name, kind, group, next_due=next_due)
        if last_minutes_ago is not None:
            rows.add_result(id, NOW - last_minutes_ago * MINUTE_MS)
        for _ in range(incident_count):
            rows.add_incident(id, "availability", "HTTP 503", NOW - 2 * HOUR_MS, resolved_at=NOW - HOUR_MS)
    database_url = f"sqlite:///{tmp_path_factory.mktemp('five') / 'watchdog.db'}"
    with filled_database(database_url, rows) as database:
        yield database


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", "Alpha beta delta epsilon Gamma"),
        ("group", "delta epsilon beta Gamma Alpha"),
        ("kind", "beta delta Gamma Alpha epsilon"),
        ("last", "Gamma Alpha beta epsilon delta"),
        ("next", "epsilon Alpha beta Gamma delta"),
        ("incidents", "delta beta Alpha epsilon Gamma"),
    ],
)
def test_the_list_has_the_order_that_its_url_names(five_probes: Database, order: str, names: str) -> None:
    with five_probes.open_read_transaction() as connection:
        page = load_probes_page(connection, ProbesPageFilter(sort=order), 1, NOW)
        of_one_kind = load_probes_page(connection, ProbesPageFilter(sort=order, kind="http"), 1, NOW)
    [section] = page.sections
    assert (section.name, section.total) == ("All", 5)
    assert [row.name for row in section.rows] == names.split()
    assert [row.name for row in of_one_kind.sections[0].rows] == [n for n in names.split() if n in ("beta", "delta")]


def test_links_of_filters_and_pages_keep_the_order(five_probes: Database) -> None:
    app = create_test_app(five_probes)
    html = request_page(app, "/probes?sort=next&kind=mcp&q=a").text
    assert 'href="?q=a&amp;state=up&amp;kind=mcp&amp;sort=next"' in html
    assert 'href="?q=a&amp;kind=mcp"' in html, "the link to the list with the worst first"
    assert '<input type="hidden" name="sort" value="next">' in html
    assert "Order: next run first" in visible_text(html)
    assert 'href="/api/v1/probes?q=a&amp;kind=mcp"' in html
    assert "Order: worst first" in visible_text(request_page(app, "/probes?sort=colour").text)
    assert 'href="/api/v1/probes"' in request_page(app, "/probes").text


@pytest.mark.parametrize("query", ["state=maintenance", "q=tag:prod"])
def test_a_list_that_the_api_cannot_filter_has_no_link_to_it(five_probes: Database, query: str) -> None:
    assert "/api/v1/probes" not in request_page(create_test_app(five_probes), f"/probes?{query}").text
