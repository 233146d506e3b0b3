"""Charts show hours where runs are no longer stored, and state from when on runs are stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import filled_database, read_page_text
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.web.chart_window import (
    MAX_CHART_AGE_MS,
    ChartRangeLink,
    ChartUrlQuery,
    ChartWindow,
    build_chart_range_links,
)

THIS_HOUR = NOW // HOUR_MS * HOUR_MS
NEWEST_OF_PAUSED = THIS_HOUR - 40 * DAY_MS - MINUTE_MS
EDGE = THIS_HOUR - 5 * DAY_MS
"""All runs are stored from here on."""


def add_hour(rows: FixtureRows, probe: int, hour: int, passed: int, failed: int = 0) -> None:
    sums = {"passed": passed, "failed": failed, "errors": 0, "missed": 0, "duration_sum": passed, "duration_max": 1}
    rows.rows["rollups"].append({"probe": probe, "hour": hour, "location": "local", **sums})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Two runs per hour, of which the newest result is stored for any time, and others for 5 days: a probe that was
    paused, and one that runs. Canaries with one run in 6 hours: all of 30 days are stored, and those of the first 10
    days failed; the runs of 30 days failed and are stored, and older ones passed and are not."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    paused, running = rows.add_probe("Paused"), rows.add_probe("Running")
    for i in range(48):
        add_hour(rows, paused, THIS_HOUR - 40 * DAY_MS - (i + 1) * HOUR_MS, 2)
    rows.add_result(paused, NEWEST_OF_PAUSED)
    for i in range(6 * 24):
        hour = THIS_HOUR - (i + 1) * HOUR_MS
        add_hour(rows, running, hour, 1, 1)
        if hour >= EDGE:
            rows.add_result(running, hour + MINUTE_MS)
            rows.add_result(running, hour + 2 * MINUTE_MS, Outcome.FAIL)
    recovered, down = rows.add_probe("Recovered", "canary"), rows.add_probe("Down", "canary")
    for i in range(60 * 4):
        hour = THIS_HOUR - (i + 1) * 6 * HOUR_MS
        if is_stored := i < 30 * 4:
            outcome = Outcome.FAIL if i > 20 * 4 else Outcome.PASS
            rows.add_result(recovered, hour + MINUTE_MS, outcome)
            rows.add_result(down, hour + MINUTE_MS, Outcome.FAIL)
            add_hour(rows, recovered, hour, int(outcome is Outcome.PASS), int(outcome is Outcome.FAIL))
        add_hour(rows, down, hour, int(not is_stored), int(is_stored))
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('complete')}/c.db", rows) as database:
        yield database


def build_path(probe: str, start: int, stop: int) -> str:
    return f"{probe}?from={start}&to={stop}"


@pytest.mark.parametrize(
    ("sentence", "path", "expected"),
    [
        ("only the newest result of a day is stored",
         build_path("paused", NEWEST_OF_PAUSED - DAY_MS + 2 * MINUTE_MS, NEWEST_OF_PAUSED + MINUTE_MS),
         ["mean max", "Passed 48 of 48", "Up the whole time"]),
        ("half of a day is stored", build_path("running", EDGE - 12 * HOUR_MS, EDGE + 12 * HOUR_MS),
         ["mean max", "Passed 24 of 48", "Up the whole time"]),
        ("one hour of two is stored", build_path("running", EDGE - HOUR_MS, EDGE + HOUR_MS),
         ["mean max", "Passed 2 of 4"]),
        ("all of a day is stored", build_path("running", EDGE, EDGE + DAY_MS), ["p50 p95", "Passed 24 of 48"]),
        ("a part of an hour is shown", build_path("running", EDGE + 30 * MINUTE_MS, EDGE + 90 * MINUTE_MS),
         ["p50 p95", "Passed 1 of 2"]),
        ("the newest hour is not rolled up", "running?range=1h", ["p50 p95", "Passed 0 of 0"]),
        ("the newest day", "running?range=24h", ["p50 p95"]),
    ],
)  # fmt: skip
def test_runs_are_shown_if_all_are_stored(database: Database, sentence: str, path: str, expected: list[str]) -> None:
    text = read_page_text(database, f"/probes/{path}")
    assert [part for part in expected if part not in text] == [], sentence


def test_a_chart_does_not_take_the_first_run_that_passed_for_the_first_that_is_stored(database: Database) -> None:
    for path in ("recovered?range=30d", "recovered?range=90d"):
        text = read_page_text(database, f"/probes/{path}")
        assert "Values come from at most one run per" in text, path
        assert "are stored" not in text, path
        assert "None of them passed" not in text, path
    assert "None of them passed." in read_page_text(database, "/probes/down?range=90d")
    assert "None of them passed." not in read_page_text(database, "/probes/down?range=7d")


def test_no_link_leads_to_a_time_that_is_too_old() -> None:
    oldest = NOW - MAX_CHART_AGE_MS
    for start, is_linked in ((oldest, False), (oldest + 4 * MINUTE_MS, False), (oldest + 5 * MINUTE_MS, True)):
        window, query = (
            ChartWindow(start, start + HOUR_MS, MINUTE_MS, 60),
            ChartUrlQuery(start=start, stop=start + HOUR_MS),
        )
        links: list[ChartRangeLink] = list(build_chart_range_links(window, query, NOW))
        assert ("Earlier" in [link.label for link in links]) is is_linked
