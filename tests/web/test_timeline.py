"""Days and uptime computed from incidents, one case per row."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.maintenance import MaintenancePeriods
from watchdog.domain.model import HealthState
from watchdog.web.pages.status_services import format_basis_points_as_percent
from watchdog.web.pages.timeline import (
    DailyUptime,
    HealthStateInterval,
    compute_daily_uptime,
    compute_uptime_basis_points,
    flatten_to_worst_states,
    merge_touching_intervals_into_worst_state,
)

UP, DEGRADED, UNKNOWN, DOWN, PAUSED = HealthState
TODAY = 20_000


def spans(*parts: tuple[HealthState, int, int]) -> list[HealthStateInterval]:
    return [HealthStateInterval(*part) for part in parts]


@pytest.mark.parametrize(
    ("sentence", "given", "flat"),
    [
        ("no spans", spans(), spans()),
        ("a span inside the period is unchanged", spans((DOWN, 20, 30)), spans((DOWN, 20, 30))),
        ("a span across the border is cut",
         spans((DOWN, 0, 15), (DOWN, 95, 200)), spans((DOWN, 10, 15), (DOWN, 95, 100))),
        ("a span outside is omitted", spans((DOWN, 0, 10), (DOWN, 100, 120)), spans()),
        ("the worse state takes precedence where two overlap", spans((DEGRADED, 20, 60), (DOWN, 30, 40)),
         spans((DEGRADED, 20, 30), (DOWN, 30, 40), (DEGRADED, 40, 60))),
        ("unknown hides degraded", spans((DEGRADED, 20, 60), (UNKNOWN, 30, 40)),
         spans((DEGRADED, 20, 30), (UNKNOWN, 30, 40), (DEGRADED, 40, 60))),
        ("down hides unknown", spans((UNKNOWN, 20, 60), (DOWN, 20, 60)), spans((DOWN, 20, 60))),
        ("paused hides every other state", spans((DOWN, 20, 60), (PAUSED, 30, 70)),
         spans((DOWN, 20, 30), (PAUSED, 30, 70))),
        ("equal neighbours are joined", spans((DOWN, 20, 30), (DOWN, 30, 40)), spans((DOWN, 20, 40))),
        ("overlapping equals are counted once", spans((DOWN, 20, 40), (DOWN, 30, 50)), spans((DOWN, 20, 50))),
        ("a span of length 0 is omitted", spans((DOWN, 30, 30)), spans()),
    ],
)  # fmt: skip
def test_flatten(sentence: str, given: list[HealthStateInterval], flat: list[HealthStateInterval]) -> None:
    assert flatten_to_worst_states(given, 10, 100) == flat, sentence


def test_episodes_join_adjacent_incidents_in_the_worst_state() -> None:
    given = spans((DEGRADED, 10, 20), (DOWN, 15, 30), (DEGRADED, 30, 40), (DEGRADED, 50, 60))
    assert merge_touching_intervals_into_worst_state(given) == spans((DEGRADED, 50, 60), (DOWN, 10, 40))


def test_a_day_has_its_worst_state_and_counts_each_state() -> None:
    start = TODAY * DAY_MS
    trouble = spans((DEGRADED, start, start + 2 * HOUR_MS), (DOWN, start + HOUR_MS, start + HOUR_MS + MINUTE_MS))
    (day,) = compute_daily_uptime(trouble, {TODAY}, 0, start + 10 * HOUR_MS, 1)
    assert day == DailyUptime(start, DOWN, 10 * HOUR_MS, MINUTE_MS, 2 * HOUR_MS - MINUTE_MS)


def test_an_incident_over_midnight_counts_for_both_days() -> None:
    now = TODAY * DAY_MS + 12 * HOUR_MS
    line = compute_daily_uptime(
        spans((DOWN, TODAY * DAY_MS - HOUR_MS, TODAY * DAY_MS + MINUTE_MS)), {TODAY - 1, TODAY}, 0, now, 2
    )
    assert [(day.state, day.down_ms) for day in line] == [(DOWN, HOUR_MS), (DOWN, MINUTE_MS)]


def test_a_day_without_data_is_unknown_regardless_of_incidents() -> None:
    now = TODAY * DAY_MS + 12 * HOUR_MS
    line = compute_daily_uptime(spans((DOWN, (TODAY - 1) * DAY_MS, now)), {TODAY}, 0, now, 2)
    assert line[0] == DailyUptime((TODAY - 1) * DAY_MS, UNKNOWN, 0, 0, 0)
    assert line[1].state is DOWN


def test_a_day_with_data_and_an_unknown_period_is_up() -> None:
    now = TODAY * DAY_MS + 12 * HOUR_MS
    (day,) = compute_daily_uptime(spans((UNKNOWN, TODAY * DAY_MS, TODAY * DAY_MS + HOUR_MS)), {TODAY}, 0, now, 1)
    assert day.state is UP


def test_the_time_in_which_a_probe_was_in_maintenance_does_not_count() -> None:
    start = TODAY * DAY_MS
    trouble = spans((DOWN, start + HOUR_MS, start + 4 * HOUR_MS), (PAUSED, start + 2 * HOUR_MS, start + 6 * HOUR_MS))
    windows = [(start - HOUR_MS, start + 90 * MINUTE_MS), (start + 5 * HOUR_MS, start + 7 * HOUR_MS)]
    maintenance = MaintenancePeriods(windows)
    (day,) = compute_daily_uptime(trouble, {TODAY}, 0, start + 8 * HOUR_MS, 1, maintenance=maintenance)
    assert day == DailyUptime(start, DOWN, 90 * MINUTE_MS, 30 * MINUTE_MS, 0)
    whole_day = MaintenancePeriods([(start - HOUR_MS, start + DAY_MS)])
    (day,) = compute_daily_uptime(trouble, {TODAY}, 0, start + 8 * HOUR_MS, 1, maintenance=whole_day)
    assert day == DailyUptime(start, UP, 0, 0, 0)


def test_the_time_in_which_a_probe_was_paused_does_not_count() -> None:
    start = TODAY * DAY_MS
    trouble = spans((DOWN, start + HOUR_MS, start + 4 * HOUR_MS), (PAUSED, start + 2 * HOUR_MS, start + 6 * HOUR_MS))
    (day,) = compute_daily_uptime(trouble, {TODAY}, 0, start + 8 * HOUR_MS, 1)
    assert day == DailyUptime(start, DOWN, 4 * HOUR_MS, HOUR_MS, 0)
    (day,) = compute_daily_uptime(spans((PAUSED, start - HOUR_MS, start + DAY_MS)), {TODAY}, 0, start + 8 * HOUR_MS, 1)
    assert day == DailyUptime(start, UP, 0, 0, 0)


def test_the_first_day_counts_from_its_start_instant() -> None:
    first = (TODAY - 1) * DAY_MS + 18 * HOUR_MS
    line = compute_daily_uptime([], {TODAY - 1, TODAY}, first, TODAY * DAY_MS + HOUR_MS, 2)
    assert [day.measured_ms for day in line] == [6 * HOUR_MS, HOUR_MS]


@pytest.mark.parametrize(
    ("sentence", "down", "measured", "text"),
    [
        ("no downtime is 100 %", 0, 90 * DAY_MS, "100\u00a0%"),
        ("a second of downtime in 90 days is not 100 %", 1_000, 90 * DAY_MS, "99.99\u00a0%"),
        ("99.999 % is rounded down", 77_760, 90 * DAY_MS, "99.99\u00a0%"),
        ("64 minutes in 90 days", 64 * MINUTE_MS, 90 * DAY_MS, "99.95\u00a0%"),
        ("half a day is down", DAY_MS // 2, DAY_MS, "50\u00a0%"),
        ("more downtime than measured is 0 %", 2 * DAY_MS, DAY_MS, "0\u00a0%"),
        ("a tenth has two decimals", 99, 1000, "90.10\u00a0%"),
        ("no measured time, no uptime", 0, 0, ""),
    ],
)
def test_uptime_is_never_rounded_up(sentence: str, down: int, measured: int, text: str) -> None:
    assert (
        format_basis_points_as_percent(compute_uptime_basis_points([DailyUptime(0, DOWN, measured, down, 0)])) == text
    ), sentence
