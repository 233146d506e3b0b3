"""From incidents to days and uptime, a sentence a row."""

from __future__ import annotations

import pytest

from watchdog.model import State
from watchdog.web.status import percent_text
from watchdog.web.timeline import Day, Span, days, episodes, flatten, uptime
from watchdog.words import DAY, HOUR, MINUTE

UP, DEGRADED, UNKNOWN, DOWN = State
TODAY = 20_000


def spans(*parts: tuple[State, int, int]) -> list[Span]:
    return [Span(*part) for part in parts]


@pytest.mark.parametrize(
    ("sentence", "given", "flat"),
    [
        ("nothing stays nothing", spans(), spans()),
        ("one inside stays as it is", spans((DOWN, 20, 30)), spans((DOWN, 20, 30))),
        ("what reaches out is cut", spans((DOWN, 0, 15), (DOWN, 95, 200)), spans((DOWN, 10, 15), (DOWN, 95, 100))),
        ("what lies outside is left out", spans((DOWN, 0, 10), (DOWN, 100, 120)), spans()),
        ("the worse one wins where two overlap", spans((DEGRADED, 20, 60), (DOWN, 30, 40)),
         spans((DEGRADED, 20, 30), (DOWN, 30, 40), (DEGRADED, 40, 60))),
        ("unknown hides degraded", spans((DEGRADED, 20, 60), (UNKNOWN, 30, 40)),
         spans((DEGRADED, 20, 30), (UNKNOWN, 30, 40), (DEGRADED, 40, 60))),
        ("down hides unknown", spans((UNKNOWN, 20, 60), (DOWN, 20, 60)), spans((DOWN, 20, 60))),
        ("equal neighbours are joined", spans((DOWN, 20, 30), (DOWN, 30, 40)), spans((DOWN, 20, 40))),
        ("overlapping equals are counted once", spans((DOWN, 20, 40), (DOWN, 30, 50)), spans((DOWN, 20, 50))),
        ("a span of no length does not show", spans((DOWN, 30, 30)), spans()),
    ],
)  # fmt: skip
def test_flatten(sentence: str, given: list[Span], flat: list[Span]) -> None:
    assert flatten(given, 10, 100) == flat, sentence


def test_episodes_join_what_touches_in_its_worst_state_newest_first() -> None:
    given = spans((DEGRADED, 10, 20), (DOWN, 15, 30), (DEGRADED, 30, 40), (DEGRADED, 50, 60))
    assert episodes(given) == spans((DEGRADED, 50, 60), (DOWN, 10, 40))


def test_a_day_is_as_bad_as_its_worst_minute_and_counts_each_state() -> None:
    start = TODAY * DAY
    trouble = spans((DEGRADED, start, start + 2 * HOUR), (DOWN, start + HOUR, start + HOUR + MINUTE))
    (day,) = days(trouble, {TODAY}, 0, start + 10 * HOUR, 1)
    assert day == Day(start, DOWN, 10 * HOUR, MINUTE, 2 * HOUR - MINUTE)


def test_trouble_over_midnight_counts_for_both_days() -> None:
    now = TODAY * DAY + 12 * HOUR
    line = days(spans((DOWN, TODAY * DAY - HOUR, TODAY * DAY + MINUTE)), {TODAY - 1, TODAY}, 0, now, 2)
    assert [(day.state, day.down) for day in line] == [(DOWN, HOUR), (DOWN, MINUTE)]


def test_a_day_without_data_is_unknown_whatever_was_open_then() -> None:
    now = TODAY * DAY + 12 * HOUR
    line = days(spans((DOWN, (TODAY - 1) * DAY, now)), {TODAY}, 0, now, 2)
    assert line[0] == Day((TODAY - 1) * DAY, UNKNOWN, 0, 0, 0)
    assert line[1].state is DOWN


def test_an_unknown_stretch_alone_leaves_a_measured_day_up() -> None:
    now = TODAY * DAY + 12 * HOUR
    (day,) = days(spans((UNKNOWN, TODAY * DAY, TODAY * DAY + HOUR)), {TODAY}, 0, now, 1)
    assert day.state is UP


def test_the_first_day_counts_from_the_probe_s_beginning() -> None:
    first = (TODAY - 1) * DAY + 18 * HOUR
    line = days([], {TODAY - 1, TODAY}, first, TODAY * DAY + HOUR, 2)
    assert [day.measured for day in line] == [6 * HOUR, HOUR]


@pytest.mark.parametrize(
    ("sentence", "down", "measured", "text"),
    [
        ("no downtime is 100 %", 0, 90 * DAY, "100\u00a0%"),
        ("a second of downtime in 90 days is not 100 %", 1_000, 90 * DAY, "99.99\u00a0%"),
        ("99.999 % is rounded down", 77_760, 90 * DAY, "99.99\u00a0%"),
        ("64 minutes in 90 days", 64 * MINUTE, 90 * DAY, "99.95\u00a0%"),
        ("half a day is down", DAY // 2, DAY, "50\u00a0%"),
        ("more down than measured is still 0 %", 2 * DAY, DAY, "0\u00a0%"),
        ("a tenth keeps two decimals", 99, 1000, "90.10\u00a0%"),
        ("nothing measured says nothing", 0, 0, ""),
    ],
)
def test_uptime_is_never_rounded_up(sentence: str, down: int, measured: int, text: str) -> None:
    assert percent_text(uptime([Day(0, DOWN, measured, down, 0)])) == text, sentence
