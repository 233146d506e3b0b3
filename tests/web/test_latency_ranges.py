"""The ranges of the chart of latency: which data each reads, what its links lead to, and what a bad URL gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.query_plans import plans, recorded_statements
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.store.read.rollups import HourlyRollup
from watchdog.store.read.status import ResultRow
from watchdog.web.chart_window import (
    CHART_RANGES_MS,
    MAX_CHART_POINTS,
    ChartUrlQuery,
    build_chart_range_links,
    build_chart_window_of_runs,
    build_chart_window_of_whole_hours,
    parse_chart_url_query,
)
from watchdog.web.latency_points import add_newest_runs_to_hours, compute_points_of_hours, compute_points_of_runs

LAST_HOUR = NOW // HOUR_MS * HOUR_MS - HOUR_MS
"""The newest hour that is rolled up."""
OLD = NOW - 40 * DAY_MS
"""Of this time, only roll-ups are stored."""


def add_hours(rows: FixtureRows, probe: int, runs_per_hour: int = 60) -> None:
    """90 days of roll-ups, with failures 40 days ago."""
    for hour in range(LAST_HOUR - 90 * DAY_MS, LAST_HOUR + 1, HOUR_MS):
        failed = 7 if hour == OLD // HOUR_MS * HOUR_MS else 0
        passed = max(0, runs_per_hour - failed)
        sums = {"passed": passed, "failed": failed, "errors": 0, "missed": 0}
        durations = {"duration_sum": passed * 200, "duration_max": 900}
        rows.rows["rollups"].append({"probe": probe, "hour": hour, "location": "local", **sums, **durations})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("API")
    rows.add_passing_results(id, count=5 * 60)  # older runs are no longer stored
    add_hours(rows, id)
    rows.add_probe("New")
    rows.add_passing_results(rows.add_probe("Rare"), count=1, newest_ago_s=2 * DAY_MS // SECOND_MS)
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('ranges')}/r.db", rows) as database:
        yield database


def get_text(database: Database, query: str, probe: str = "api") -> str:
    response = request_page(create_test_app(database), f"/probes/{probe}{query}")
    assert response.status_code == 200
    assert find_html_problems(response.text) == []
    return visible_text(response.text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "Latency, last 6 h p50 p95"),
        ("?range=1h", "Latency, last 1 h p50 p95"),
        ("?range=24h", "Latency, last 24 h mean max"),
        (f"?from={NOW - 5 * HOUR_MS}&to={NOW - HOUR_MS}", "Latency, 21 Nov 21:00 to 02:00 mean max"),
        ("?range=7d", "Latency, last 7 days mean max"),
        ("?range=30d", "Latency, last 30 days mean max"),
        ("?range=90d", "Latency, last 90 days mean max"),
        (f"?from={NOW - 2 * HOUR_MS}&to={NOW - HOUR_MS}", "Latency, 00:29 to 01:29 p50 p95"),
        (f"?from={OLD}&to={OLD + 2 * HOUR_MS}", "Latency, 13 Oct 02:00 to 13 Oct 05:00 mean max"),
        (f"?from={NOW - 3 * DAY_MS}&to={NOW - DAY_MS}", "Latency, 19 Nov 02:00 to 21 Nov 03:00 mean max"),
        ("?range=2y", "Latency, last 6 h p50"),
        ("?range=", "Latency, last 6 h p50"),
        ("?range=7d%00%F0%9F%92%A5<script>", "Latency, last 6 h p50"),
        (f"?from={NOW}&to={NOW + DAY_MS}", "Latency, last 6 h p50"),
        (f"?from={NOW - DAY_MS}", "Latency, last 6 h p50"),
        (f"?from={NOW}&to={NOW - DAY_MS}", "Latency, last 6 h p50"),
        (f"?from={NOW - MINUTE_MS}&to={NOW}", "Latency, last 6 h p50"),
        ("?from=-5&to=1e9", "Latency, last 6 h p50"),
        (f"?from=0&to={10**15 - 1}", "Latency, 24 Aug 02:00 to 02:29 mean"),
        ("?from=x&to=y&range=7d", "Latency, last 7 days mean"),
    ],
)
def test_the_url_chooses_the_range(database: Database, query: str, expected: str) -> None:
    assert expected in get_text(database, query)


def test_a_long_range_has_means_and_failures_of_hours(database: Database) -> None:
    text = get_text(database, "?range=90d")
    assert "mean 200 ms max 900 ms" in text
    assert "One point per 12 h." in text
    old = get_text(database, f"?from={OLD}&to={OLD + 2 * HOUR_MS}")
    assert "Passed 173 of 180" in old
    assert "13 Oct 02:00:00 200 ms 900 ms 7" in old
    hour = OLD // HOUR_MS * HOUR_MS
    part = get_text(database, f"?from={hour + 10 * MINUTE_MS}&to={hour + 15 * MINUTE_MS}")
    assert "Latency, 13 Oct 02:00 to 13 Oct 03:00" in part, "the title names the hour that is counted"
    assert "Passed 53 of 60" in part


def test_links_keep_the_other_parameters(database: Database) -> None:
    html = request_page(create_test_app(database), "/probes/api?failed&range=7d").text
    links = [unescape(link) for link in re.findall(r'href="(\?[^"]*)"', html)]
    assert {"?range=30d&failed#charts", "?all&range=7d#results", "?range=7d#results"} <= set(links)
    assert '<a class="chip" href="?range=7d&amp;failed#charts" aria-current="true">7\u00a0days</a>' in html
    zoomed = request_page(create_test_app(database), f"/probes/api?all&from={OLD}&to={OLD + 2 * HOUR_MS}").text
    assert re.findall(">(Earlier|Later)<", zoomed) == ["Earlier", "Later"]
    assert '<a class="chip" href="?all#charts">Newest</a>' in zoomed


@pytest.mark.parametrize(
    ("start_ago", "labels"),
    [
        (90 * DAY_MS, ["Later", "Newest"]),
        (90 * DAY_MS - 4 * MINUTE_MS, ["Later", "Newest"]),
        (90 * DAY_MS - 5 * MINUTE_MS, ["Earlier", "Later", "Newest"]),
        (DAY_MS, ["Earlier", "Later", "Newest"]),
        (HOUR_MS, ["Earlier", "Newest"]),
    ],
)
def test_no_link_leads_to_a_time_without_charts(start_ago: int, labels: list[str]) -> None:
    query = ChartUrlQuery(start=NOW - start_ago, stop=NOW - start_ago + HOUR_MS)
    window = build_chart_window_of_runs([], NOW - start_ago, NOW - start_ago + HOUR_MS)
    links = list(build_chart_range_links(window, query, NOW))[len(CHART_RANGES_MS) :]
    assert [link.label for link in links] == labels
    for link in links[:-1]:
        start, stop = map(int, re.findall(r"=(\d+)", link.query_string))
        assert parse_chart_url_query("", start, stop, NOW).parameters, "the link works"


def test_each_row_of_a_long_range_leads_to_its_part(database: Database) -> None:
    html = request_page(create_test_app(database), "/probes/api?range=90d").text
    rows = re.findall(r'<th role="rowheader" scope="row"><a href="\?from=(\d+)&amp;to=(\d+)#latency">', html)
    assert len(rows) > 170
    newest, oldest = [tuple(map(int, row)) for row in (rows[0], rows[-1])]
    assert newest[1] == NOW
    assert oldest[1] - oldest[0] == 12 * HOUR_MS
    assert "One point per 1 min." in get_text(database, f"?from={newest[0]}&to={newest[1]}")


def test_a_probe_without_recent_runs(database: Database) -> None:
    assert "No run in the last 24 hours." in get_text(database, "", "rare")
    text = get_text(database, "?range=24h", "rare")
    assert "No run in this time has a verdict." in text
    assert "Show as a table" not in text


def test_a_probe_that_has_never_run(database: Database) -> None:
    text = get_text(database, "?range=90d", "new")
    assert "No run yet." in text
    assert [part for part in ("Latency,", "Passed", "State,") if part in text] == []


def test_every_range_searches_by_an_index(database: Database) -> None:
    app = create_test_app(database)
    with recorded_statements(database) as statements:
        for query in (*(f"range={name}" for name in CHART_RANGES_MS), f"from={OLD}&to={OLD + HOUR_MS}"):
            request_page(app, f"/probes/api?{query}")
    lines = plans(database, [each for each in statements if "rollups" in each[0] or "results" in each[0]])
    assert any(line.startswith("SEARCH rollups USING PRIMARY KEY (probe=? AND hour>? AND hour<?)") for line, _ in lines)
    assert [line for line, _ in lines if line.startswith(("SCAN rollups", "SCAN results"))] == []


def run(ago: int, outcome: Outcome = Outcome.PASS, duration: int | None = 100, slot_count: int = 1) -> ResultRow:
    return ResultRow(NOW - ago, "local", outcome, "", "", duration, slot_count, NOW)


def test_runs_stand_for_the_hours_that_are_not_rolled_up() -> None:
    """Once each: not those of an hour that is rolled up."""
    window = build_chart_window_of_whole_hours(NOW - 7 * DAY_MS, NOW, NOW)
    hours = [HourlyRollup(LAST_HOUR, 59, 1, 2, 3, 59 * 100, 400)]
    in_hour, later = NOW - LAST_HOUR - MINUTE_MS, 5 * MINUTE_MS
    newest = [
        run(in_hour), run(later), run(later - 1, Outcome.FAIL), run(later - 2, Outcome.MISSED, None, slot_count=9),
        run(later - 3, Outcome.ERROR, None), run(later - 4, duration=None), run(-1),
    ]  # fmt: skip
    points = compute_points_of_hours(add_newest_runs_to_hours(hours, newest, window), window)
    assert (points.passed_count, points.failed_count, points.no_verdict_count) == (61, 2, 15)
    assert (points.total_lower, points.total_upper) == (100, 400)
    assert sum(window.sum_counts_by_chart_point(points.failures)) == 2


def test_points_without_any_data() -> None:
    empty = compute_points_of_hours([], build_chart_window_of_whole_hours(NOW - 30 * DAY_MS, NOW, NOW))
    assert (empty.total_lower, empty.total_upper, empty.passed_count) == (None, None, 0)
    assert set(empty.lower) == {None}
    none = compute_points_of_runs([], build_chart_window_of_runs([], NOW - HOUR_MS, NOW))
    assert (none.no_verdict_period, none.total_lower) == (None, None)


@pytest.mark.parametrize("length", [5 * MINUTE_MS, 7 * MINUTE_MS + 13, HOUR_MS, DAY_MS, 2 * DAY_MS, 90 * DAY_MS])
def test_a_chart_has_few_points(length: int) -> None:
    for window in (
        build_chart_window_of_runs([], NOW - length, NOW),
        build_chart_window_of_whole_hours(NOW - length, NOW, NOW),
    ):
        assert 1 <= window.point_count <= MAX_CHART_POINTS + 1
        assert window.start <= NOW - length
        assert window.get_chart_point_start_ms(window.point_count) >= window.stop


def test_a_period_is_cut_to_what_is_stored() -> None:
    assert parse_chart_url_query("", 0, NOW + 1, NOW) == ChartUrlQuery(start=NOW - 90 * DAY_MS, stop=NOW)
    assert parse_chart_url_query("7d", NOW - 100 * DAY_MS, NOW - 95 * DAY_MS, NOW) == ChartUrlQuery("7d")
