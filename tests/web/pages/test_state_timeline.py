"""The timeline of a probe's states: one case per row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from markupsafe import Markup

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.html_checks import visible_text
from tests.support.web import filled_database, read_page_text
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.maintenance import MaintenancePeriods
from watchdog.domain.model import HealthState, Outcome
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.store.database import Database
from watchdog.store.read.rollups import HourlyRollup
from watchdog.web.pages import state_timeline
from watchdog.web.pages.state_timeline import (
    TimelineRunOrHour,
    build_state_timeline,
    condense_intervals_into_equal_parts_of_worst_state,
    convert_sightings_to_up_or_no_data_intervals,
    list_timeline_runs_or_hours,
    overlay_state_intervals,
    replace_state_during_maintenance_by_unknown,
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
    assert (
        convert_sightings_to_up_or_no_data_intervals([TimelineRunOrHour(*each) for each in sightings], 100, 200)
        == expected
    ), sentence


@pytest.mark.parametrize(
    ("sentence", "parts", "expected"),
    [
        ("hours without missed slots", [(0, 1, 0), (3, 1, 0)], [(0, True), (3, True)]),
        ("the slots missed in an hour may be those of later hours", [(0, 30, 9), (3, 1, 0)],
         [(0, True), (1, False), (3, True)]),
        ("at the end", [(0, 1, 0), (1, 30, 9)], [(0, True), (1, True), (2, False)]),
        ("the next hour has results", [(0, 30, 9), (1, 1, 0)], [(0, True), (1, True)]),
        ("no hour", [], []),
    ],
)  # fmt: skip
def test_an_hour_with_missed_slots(
    sentence: str, parts: list[tuple[int, int, int]], expected: list[tuple[int, bool]]
) -> None:
    rollups = [HourlyRollup(hour * HOUR_MS, passed, 0, 0, missed, 0, None) for hour, passed, missed in parts]
    assert [(at // HOUR_MS, is_judged) for at, is_judged in list_timeline_runs_or_hours(rollups)] == expected, sentence


def test_maintenance_counts_neither_as_up_nor_as_a_problem() -> None:
    minutes = NOW // MINUTE_MS * MINUTE_MS - 200 * MINUTE_MS

    def at(minute: int) -> int:
        return minutes + minute * MINUTE_MS

    maintenance = MaintenancePeriods([(at(120), at(130)), (at(150), at(400)), (at(0), at(101))])
    measured = spans((UP, at(100), at(160)), (UNKNOWN, at(160), at(170)), (UP, at(170), at(200)))
    base = replace_state_during_maintenance_by_unknown(measured, maintenance, at(100), at(200))
    assert base == spans(
        (UNKNOWN, at(100), at(101)), (UP, at(101), at(120)), (UNKNOWN, at(120), at(130)), (UP, at(130), at(150)),
        (UNKNOWN, at(150), at(200)),
    )  # fmt: skip
    timeline = build_state_timeline(base, Markup("last 2 h"), NOW, maintenance)
    assert [(state, visible_text(text)) for state, text in timeline.entries] == [
        (None, "In maintenance 1 h 1 min: nothing was judged"), (UP, "the rest · 39 min")
    ]  # fmt: skip
    assert 'aria-label="In maintenance 1' in timeline.chart
    assert replace_state_during_maintenance_by_unknown(measured, MaintenancePeriods(), at(100), at(200)) == measured


def test_problems_beyond_the_first_ones_are_counted_without_a_state() -> None:
    start = NOW - 20 * MINUTE_MS
    intervals = [
        HealthStateInterval(UP if i % 2 else DOWN, start + i * MINUTE_MS, start + (i + 1) * MINUTE_MS)
        for i in range(20)
    ]
    timeline = build_state_timeline(intervals, Markup("last 20 min"), NOW)
    assert [state for state, _ in timeline.entries] == [DOWN] * 6 + [None, UP]
    assert ", and 4 more, up the rest" in timeline.chart


def test_problems_hide_what_was_measured() -> None:
    measured = spans((UP, 100, 150), (UNKNOWN, 150, 200))
    problems = spans((DOWN, 0, 110), (DEGRADED, 140, 160), (PAUSED, 190, 300))
    assert overlay_state_intervals(measured, problems, 100, 200) == spans(
        (DOWN, 100, 110), (UP, 110, 140), (DEGRADED, 140, 160), (UNKNOWN, 160, 190), (PAUSED, 190, 200)
    )
    assert overlay_state_intervals(measured, [], 100, 200) == measured


def test_a_drawing_has_few_parts() -> None:
    many = [HealthStateInterval(DOWN if i % 50 == 7 else UP, i, i + 1) for i in range(1_000)]
    assert condense_intervals_into_equal_parts_of_worst_state(many[:3], 3) == many[:3]
    merged = condense_intervals_into_equal_parts_of_worst_state(many, 10)
    assert merged == spans((DOWN, 0, 1_000)), "each part has a problem"
    rare = spans((UP, 0, 500), (DOWN, 500, 501), (DEGRADED, 501, 599), (UP, 599, 1_000))
    assert condense_intervals_into_equal_parts_of_worst_state(rare, 3) == spans(
        (UP, 0, 333), (DOWN, 333, 666), (UP, 666, 1_000)
    )


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
    assert state is DOWN
    assert f"Down {visible_text(text)}" == expected, sentence
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
    assert "newest incidents are shown" not in all_shown
    assert "Only the 2 newest incidents are shown." in text
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


@pytest.fixture(scope="module")
def gaps_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Watchdog did not run for two days, and yesterday for 15 hours; it was restarted once. The database could not be
    written for 2.5 days."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for start, stop in (
        (epoch_ms("00:00", 4), epoch_ms("00:00", 2)),
        (epoch_ms("05:00", 1), epoch_ms("20:00", 1)),
        (epoch_ms("00:30"), epoch_ms("00:30:10")),
    ):
        rows.rows["downtime"].append({"location": "local", "started_at": start, "ended_at": stop})
    off = rows.add_probe("Off")
    rows.add_rollup_history(off, 9, skip_days=(3, 4))
    rows.add_result(off, NOW - MINUTE_MS)
    stuck = rows.add_probe("Stuck")
    rows.add_rollup_history(stuck, 9, skip_days=(6, 7))
    rows.add_passing_rollup(stuck, epoch_ms("00:00", 7))
    rows.rows["rollups"][-1] |= {"passed": 30, "missed": 2_910}
    rows.add_result(stuck, NOW - MINUTE_MS)
    runs = rows.add_probe("Runs")
    for newest_ago, count in ((0, 39), (22 * HOUR_MS, 12)):
        rows.add_passing_results(runs, newest_ago_s=newest_ago // 1_000 + 9, count=count, interval_ms=10 * MINUTE_MS)
    maintained = rows.add_probe("Maintained")
    rows.add_maintenance([maintained], NOW - 3 * HOUR_MS, NOW - HOUR_MS)
    for minute in range(6 * 60):
        outcome = Outcome.FAIL if 60 <= minute < 180 else Outcome.PASS
        rows.add_result(maintained, NOW - minute * MINUTE_MS, outcome)
    rows.add_incident(maintained, "availability", "late", NOW - HOUR_MS, resolved_at=NOW - 30 * MINUTE_MS)
    asleep = rows.add_probe("Asleep")
    rows.add_result(asleep, NOW - 40 * DAY_MS)
    rows.add_pause(asleep, NOW - 40 * DAY_MS)
    rows.add_probe("New")
    own_fault = rows.add_probe("Own fault")
    rows.add_passing_results(own_fault, newest_ago_s=120)
    rows.add_result(own_fault, NOW - MINUTE_MS, Outcome.ERROR, "no network", WATCHDOG_NETWORK_FAULT_REASON)
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('gaps')}/g.db", rows) as database:
        yield database


@pytest.mark.parametrize(
    ("sentence", "path", "expected", "unexpected"),
    [
        ("days without Watchdog", "off?range=7d", "No data 18 Nov 00:00 to 20 Nov 00:00 · 2 days", "the whole time"),
        ("slots that were missed in later hours", "stuck?range=30d",
         "No data 15 Nov 01:00 to 17 Nov 00:00 · 47 h", "the whole time"),
        ("hours of a day", "runs?range=24h", "No data 05:00 to 20:00 · 15 h", "00:30"),
        ("a restart", "runs?range=1h", "Up the whole time", "No data"),
        ("maintenance", "maintained?range=6h", "In maintenance 2 h: nothing was judged Up the rest", "No data"),
        ("a problem after the time that is shown", f"maintained?from={NOW - 6 * HOUR_MS}&to={NOW - 4 * HOUR_MS}",
         "State, 21 Nov 20:29 to 21 Nov 22:29", "Down"),
        ("paused for 40 days", "asleep", "State, last 24 h Paused until now · 24 h", "Up the"),
        ("no run yet", "new?range=90d", "No data yet", "Passed 0 of 0"),
        ("no run yet has no timeline", "new?range=90d", "No run yet", "State, last"),
        ("a fault of the network of Watchdog", "own-fault", "Own fault No data", "No data yet"),
    ],
)  # fmt: skip
def test_no_time_without_results_is_shown_as_up(
    gaps_database: Database, sentence: str, path: str, expected: str, unexpected: str
) -> None:
    text = read_page_text(gaps_database, f"/probes/{path}")
    assert expected in text, sentence
    assert unexpected not in text.partition("Results")[0] + text.partition("State, ")[2].partition("Incidents")[0], (
        sentence
    )


def test_the_incidents_of_an_old_day_do_not_depend_on_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than the limit, one that began before the first that is shown, and ended after it, is shown too."""
    monkeypatch.setattr(state_timeline, "MAX_STATE_TIMELINE_INCIDENTS", 2)
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("API")
    rows.add_rollup_history(id, 9)
    rows.add_passing_results(id, count=10)
    for hour in range(4):
        since = epoch_ms(f"{hour + 4:02}:00", 1)
        rows.add_incident(id, "availability", "HTTP 503", since, resolved_at=since + MINUTE_MS)
    rows.add_incident(id, "preference", "slow", epoch_ms("03:00", 1), resolved_at=epoch_ms("06:30", 1))
    with filled_database(f"sqlite:///{tmp_path}/t.db", rows) as database:
        start = epoch_ms("00:00", 5)
        old = read_page_text(database, f"/probes/api?from={start}&to={start + DAY_MS}")
        text = read_page_text(database, "/probes/api?range=7d")
    assert "Up the whole time" in old
    assert "newest incidents are shown" not in old
    assert "Degraded 21 Nov 06:01 to 21 Nov 06:30 · 29 min" in text
    assert "Only the 2 newest incidents are shown." in text
