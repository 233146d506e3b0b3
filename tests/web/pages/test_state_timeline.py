"""The timeline of a probe's states: one case per row."""

from __future__ import annotations

from pathlib import Path

import pytest
from markupsafe import Markup

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.html_checks import visible_text
from tests.support.web import filled_database, read_page_text
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import HealthState, Outcome
from watchdog.web.pages import state_timeline
from watchdog.web.pages.state_timeline import (
    Sighting,
    build_state_timeline,
    measure_state_intervals,
    merge_into_parts,
    overlay_state_intervals,
)
from watchdog.web.pages.timeline import HealthStateInterval

UP, DEGRADED, UNKNOWN, DOWN, PAUSED = HealthState


def spans(*parts: tuple[HealthState, int, int]) -> list[HealthStateInterval]:
    return [HealthStateInterval(*part) for part in parts]


@pytest.mark.parametrize(
    ("sentence", "sightings", "expected"),
    [
        ("no sighting", [], spans((UNKNOWN, 100, 200))),
        ("each stands for the time until the next", [(100, True), (110, True), (120, True)], spans((UP, 100, 200))),
        ("one without a verdict", [(100, True), (110, False), (120, True)],
         spans((UP, 100, 110), (UNKNOWN, 110, 120), (UP, 120, 200))),
        ("a short time before the first", [(105, True), (115, True)], spans((UP, 100, 200))),
        ("a long time before the first", [(130, True), (140, True)], spans((UNKNOWN, 100, 130), (UP, 130, 200))),
        ("one from before the beginning", [(90, True)], spans((UP, 100, 200))),
        ("one from before the beginning, without a verdict", [(90, False), (150, True)],
         spans((UNKNOWN, 100, 150), (UP, 150, 200))),
        ("a long time before the first, which has no verdict", [(130, False), (140, True)],
         spans((UNKNOWN, 100, 140), (UP, 140, 200))),
        ("one at the end", [(200, True)], spans((UNKNOWN, 100, 200))),
    ],
)  # fmt: skip
def test_what_was_measured(
    sentence: str, sightings: list[tuple[int, bool]], expected: list[HealthStateInterval]
) -> None:
    assert measure_state_intervals([Sighting(*each) for each in sightings], 100, 200) == expected, sentence


def test_problems_hide_what_was_measured() -> None:
    measured = spans((UP, 100, 150), (UNKNOWN, 150, 200))
    problems = spans((DOWN, 0, 110), (DEGRADED, 140, 160), (PAUSED, 190, 300))
    assert overlay_state_intervals(measured, problems, 100, 200) == spans(
        (DOWN, 100, 110), (UP, 110, 140), (DEGRADED, 140, 160), (UNKNOWN, 160, 190), (PAUSED, 190, 200)
    )
    assert overlay_state_intervals(measured, [], 100, 200) == measured


def test_a_drawing_has_few_parts() -> None:
    many = [HealthStateInterval(DOWN if i % 50 == 7 else UP, i, i + 1) for i in range(1_000)]
    assert merge_into_parts(many[:3], 3) == many[:3]
    merged = merge_into_parts(many, 10)
    assert merged == spans((DOWN, 0, 1_000)), "each part has a problem"
    rare = spans((UP, 0, 500), (DOWN, 500, 501), (DEGRADED, 501, 599), (UP, 599, 1_000))
    assert merge_into_parts(rare, 3) == spans((UP, 0, 333), (DOWN, 333, 666), (UP, 666, 1_000))


@pytest.mark.parametrize(
    ("sentence", "length", "stop", "expected"),
    [
        ("seconds within an hour", 30 * MINUTE_MS, NOW, "Down 02:09:14 to 02:14:14 · 5 min"),
        ("times within a day", DAY_MS, NOW, "Down 02:09 to 02:14 · 5 min"),
        ("dates before that", 7 * DAY_MS, NOW - DAY_MS, "Down 21 Nov 02:09 to 21 Nov 02:14 · 5 min"),
    ],
)
def test_the_times_of_a_problem(sentence: str, length: int, stop: int, expected: str) -> None:
    start, end = stop - 20 * MINUTE_MS, stop - 15 * MINUTE_MS
    intervals = spans((UP, stop - length, start), (DOWN, start, end), (UP, end, stop))
    timeline = build_state_timeline(intervals, Markup("last 7 days"), NOW)
    state, text = timeline.entries[0]
    assert f"{state.value.capitalize()} {visible_text(text)}" == expected, sentence
    assert f'aria-label="{expected}, up the rest' in timeline.chart.replace("\N{NO-BREAK SPACE}", " ")


def test_of_many_incidents_those_that_began_last_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An incident that is open is shown even if it began long before."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("API")
    rows.add_rollup_history(id, 9)
    rows.add_passing_results(id, count=10)
    rows.add_incident(id, "preference", "slow", NOW - 6 * DAY_MS)
    for days in (5, 4, 3):
        since = NOW - days * DAY_MS
        rows.add_incident(id, "availability", "HTTP 503", since, resolved_at=since + HOUR_MS)
    with filled_database(f"sqlite:///{tmp_path}/t.db", rows) as database:
        all_shown = read_page_text(database, "/probes/api?range=7d")
        monkeypatch.setattr(state_timeline, "MAX_STATE_TIMELINE_INCIDENTS", 2)
        text = read_page_text(database, "/probes/api?range=7d")
    assert "Down 17 Nov 02:29 to 17 Nov 03:29 · 1 h" in all_shown
    assert "incidents that began last" not in all_shown
    assert "Only the 2 incidents that began last are shown." in text
    assert "Down 18 Nov 02:29 to 18 Nov 03:29 · 1 h" in text
    assert "Degraded 18 Nov 03:29 to 19 Nov 02:29 · 23 h" in text
    assert "No data until 18 Nov 02:29 · 3 days" in text


def test_a_pause_and_a_gap_are_shown(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("API")
    rows.add_rollup_history(id, 6)
    (gap,) = (row for row in rows.rows["rollups"] if row["hour"] == epoch_ms("06:00", 4))
    gap |= {"passed": 0, "errors": 60}
    rows.add_pause(id, NOW - 2 * DAY_MS, ended_at=NOW - DAY_MS)
    rows.add_result(id, NOW - MINUTE_MS, Outcome.FAIL)
    with filled_database(f"sqlite:///{tmp_path}/t.db", rows) as database:
        text = read_page_text(database, "/probes/api?range=7d")
    assert "No data 18 Nov 06:00 to 18 Nov 07:00 · 1 h" in text
    assert "Paused 20 Nov 02:29 to 21 Nov 02:29 · 24 h" in text
    assert "No data until 17 Nov 00:00" in text
