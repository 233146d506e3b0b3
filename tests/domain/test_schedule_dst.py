"""Cron at clock changes: which slots exist, and that the previous and the next slot of any instant are consistent."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.domain.schedule import CronSchedule

MIN = 60_000
HOUR = 60 * MIN


class Change(NamedTuple):
    zone: str
    at: str
    """The instant of the change, in UTC."""

    @property
    def ms(self) -> int:
        return int(datetime.fromisoformat(self.at).replace(tzinfo=UTC).timestamp() * 1000)


BERLIN_SPRING, BERLIN_AUTUMN = Change("Europe/Berlin", "2026-03-29 01:00"), Change("Europe/Berlin", "2026-10-25 01:00")
NEW_YORK_SPRING = Change("America/New_York", "2026-03-08 07:00")
NEW_YORK_AUTUMN = Change("America/New_York", "2026-11-01 06:00")
HALF_HOUR_SPRING = Change("Australia/Lord_Howe", "2026-10-03 15:30")
HALF_HOUR_AUTUMN = Change("Australia/Lord_Howe", "2026-04-04 15:00")
MIDNIGHT_SPRING, MIDNIGHT_AUTUMN = (
    Change("America/Havana", "2026-03-08 05:00"),
    Change("America/Havana", "2026-11-01 05:00"),
)
CHANGES = [
    BERLIN_SPRING, BERLIN_AUTUMN, NEW_YORK_SPRING, NEW_YORK_AUTUMN, HALF_HOUR_SPRING, HALF_HOUR_AUTUMN,
    MIDNIGHT_SPRING, MIDNIGHT_AUTUMN,
]  # fmt: skip


def local(plan: CronSchedule, at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, ZoneInfo(plan.timezone)):%H:%M%z}"


class Row(NamedTuple):
    sentence: str
    change: Change
    expression: str
    slots: list[str]
    """All slots from two hours before the change until two hours after it, with their offset from UTC."""


TABLE = [
    Row("a skipped time runs at the first instant after the gap", BERLIN_SPRING, "30 2 * * *", ["03:00+0200"]),
    Row("the first skipped time runs at the first instant after the gap", BERLIN_SPRING, "0 2 * * *", ["03:00+0200"]),
    Row("two skipped times are one run", BERLIN_SPRING, "0,30 2 * * *", ["03:00+0200"]),
    Row("a skipped time and the time that it moves to are one run", BERLIN_SPRING, "0 2,3 * * *", ["03:00+0200"]),
    Row("times around the gap are unchanged", BERLIN_SPRING, "15 1-4 * * *",
        ["01:15+0100", "03:00+0200", "03:15+0200", "04:15+0200"]),
    Row("stars follow the clock across the gap", BERLIN_SPRING, "*/30 * * * *",
        ["00:00+0100", "00:30+0100", "01:00+0100", "01:30+0100",
         "03:00+0200", "03:30+0200", "04:00+0200", "04:30+0200"]),
    Row("a star in the minute follows the clock even with a fixed hour", BERLIN_SPRING, "*/20 2 * * *", []),
    Row("a star in the hour follows the clock even with a fixed minute", BERLIN_SPRING, "30 */2 * * *",
        ["00:30+0100", "04:30+0200"]),
    Row("a repeated time runs the first time", BERLIN_AUTUMN, "30 2 * * *", ["02:30+0200"]),
    Row("the hour after a repeated hour runs once", BERLIN_AUTUMN, "0 3 * * *", ["03:00+0100"]),
    Row("each of several repeated times runs the first time", BERLIN_AUTUMN, "15,45 1-3 * * *",
        ["01:15+0200", "01:45+0200", "02:15+0200", "02:45+0200", "03:15+0100", "03:45+0100"]),
    Row("stars follow the clock through both repeated hours", BERLIN_AUTUMN, "30 * * * *",
        ["01:30+0200", "02:30+0200", "02:30+0100", "03:30+0100"]),
    Row("stars follow the clock through both hours with a fixed hour", BERLIN_AUTUMN, "*/30 2 * * *",
        ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
    Row("in America the skipped hour differs", NEW_YORK_SPRING, "30 2 * * *", ["03:00-0400"]),
    Row("in America the repeated hour differs", NEW_YORK_AUTUMN, "30 1 * * *", ["01:30-0400"]),
    Row("half an hour is skipped", HALF_HOUR_SPRING, "15 2 * * *", ["02:30+1100"]),
    Row("a time after a skipped half hour is unchanged", HALF_HOUR_SPRING, "45 2 * * *", ["02:45+1100"]),
    Row("half an hour is repeated", HALF_HOUR_AUTUMN, "*/15 1 * * *",
        ["01:00+1100", "01:15+1100", "01:30+1100", "01:45+1100", "01:30+1030", "01:45+1030"]),
    Row("fixed times in a repeated half hour run the first time", HALF_HOUR_AUTUMN, "45 1 * * *", ["01:45+1100"]),
    Row("midnight is skipped: the day still starts once", MIDNIGHT_SPRING, "0 0 * * *", ["01:00-0400"]),
    Row("midnight is repeated: the day starts once", MIDNIGHT_AUTUMN, "0 0 * * *", ["00:00-0400"]),
    Row("seconds make no difference at a gap", BERLIN_SPRING, "15,45 30 2 * * *", ["03:00+0200"]),
    Row("seconds make no difference at a repeated hour", BERLIN_AUTUMN, "0 30 2 * * *", ["02:30+0200"]),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.expression} {row.change.zone} {row.sentence}")
def test_slots_around_a_change(row: Row) -> None:
    plan = CronSchedule(row.expression, row.change.zone)
    at, slots = row.change.ms - 2 * HOUR - 1, []
    while (at := plan.find_next_slot_after(at)) < row.change.ms + 2 * HOUR:
        slots.append(local(plan, at))
    assert slots == row.slots


EXPRESSIONS = [
    "30 2 * * *", "0 3 * * *", "0 0 * * *", "15,45 1-3 * * *", "*/5 2 * * *", "30 * * * *", "*/20 * * * *",
    "*/10 0 * * *", "0 */2 * * *", "10 1 * * *", "59 23 * * *", "* * * * *", "*/15 1,2 * * *", "0 0 1 * *",
    "30 30 1 * * *", "@hourly", "0 1,2,3 ? * SUN",
]  # fmt: skip


@cache
def slots_around(change: Change, expression: str) -> list[int]:
    """Every slot of the two days around a change, each from the one before."""
    plan = CronSchedule(expression, change.zone)
    slots = [plan.find_latest_slot_until(change.ms - 24 * HOUR)]
    while slots[-1] < change.ms + 24 * HOUR:
        slots.append(plan.find_next_slot_after(slots[-1]))
    return slots


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CHANGES), st.sampled_from(EXPRESSIONS), st.integers(-3 * HOUR, 3 * HOUR))
def test_previous_and_next_slots_are_consistent(change: Change, expression: str, offset: int) -> None:
    plan, slots, at = CronSchedule(expression, change.zone), slots_around(change, expression), change.ms + offset
    assert slots == sorted(set(slots)), "slots increase"
    assert plan.find_latest_slot_until(at) == slots[bisect_right(slots, at) - 1]
    assert plan.find_next_slot_after(at) == slots[bisect_right(slots, at)]
    assert plan.find_latest_slot_until(plan.find_next_slot_after(at)) == plan.find_next_slot_after(at)
    assert plan.find_next_slot_after(plan.find_latest_slot_until(at) - 1) == plan.find_latest_slot_until(at)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([c for c in CHANGES if "Lord_Howe" not in c.zone and "Havana" not in c.zone]),
    st.sampled_from([e for e in EXPRESSIONS if len(e.split()) == 5 and "?" not in e]),
    st.integers(-3 * HOUR, 3 * HOUR),
)
def test_changes_of_a_whole_hour_at_night_are_handled_as_by_debians_cron(
    change: Change, expression: str, offset: int
) -> None:
    """cronsim follows Debian's rules; within a repeated hour it returns earlier slots."""
    start = datetime.fromtimestamp((change.ms + offset) // 1000, ZoneInfo(change.zone))
    theirs = [int(slot.timestamp()) * 1000 for slot, _ in zip(CronSim(expression, start), range(3), strict=False)]
    ours = [slot for slot in theirs if slot > change.ms + offset]
    assert CronSchedule(expression, change.zone).find_next_slot_after(change.ms + offset) == ours[0]


def test_far_from_a_change_slots_follow_the_clock() -> None:
    plan = CronSchedule("30 2 * * *", "Europe/Berlin")
    slots = slots_around(BERLIN_AUTUMN, "30 2 * * *")
    assert [local(plan, slot) for slot in slots] == ["02:30+0200", "02:30+0200", "02:30+0100"]
