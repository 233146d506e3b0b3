"""Both changes of clocks in four zones with six schedules: no run is owed that came, and one that did not is."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchdog.domain.schedule import CronSchedule, missed_runs

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LONG_AGO = 0


def at(text: str, zone: str) -> int:
    """ "2026-03-28 03:00" on a wall in that zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def walls(missed: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M") for ms in missed]


ZONES = {
    "Europe/Berlin": ("2026-03-29 02:00", "2026-10-25 02:00"),
    "America/New_York": ("2026-03-08 02:00", "2026-11-01 01:00"),
    "Australia/Lord_Howe": ("2026-10-04 02:00", "2026-04-05 01:30"),
    "America/St_Johns": ("2026-03-08 02:00", "2026-11-01 01:00"),
}
SCHEDULES = ("*/15 * * * *", "30 * * * *", "30 2 * * *", "0 3 * * *", "15 1 * * *", "0 6 * * 1")
CHANGES = [(zone, wall) for zone, both in ZONES.items() for wall in both]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "wall"), CHANGES, ids=[f"{zone} {wall}" for zone, wall in CHANGES])
def test_a_change_of_clocks_makes_no_run_overdue(zone: str, wall: str, schedule: str) -> None:
    """A scheduler that runs at every slot, up to five seconds late, is never said to owe one, in two days around it."""
    plan, change = CronSchedule(schedule, zone), at(wall, zone)
    random.seed(f"{zone}{wall}{schedule}")
    last = plan.latest_slot_until(change - DAY)
    due = plan.next_slot_after(last)
    for now in range(change - DAY, change + DAY, MIN):
        while due + 5_000 <= now:
            last, due = due + random.randrange(5_000), plan.next_slot_after(due)
        assert missed_runs(plan, now, last, MIN, LONG_AGO) == [], walls([now], zone)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "wall"), CHANGES, ids=[f"{zone} {wall}" for zone, wall in CHANGES])
def test_a_scheduler_that_reads_the_change_otherwise_is_not_overdue_either(zone: str, wall: str, schedule: str) -> None:
    """Others run what the gap skips an hour later, or twice, or by the old clock, and are right in their way."""
    plan, change = CronSchedule(schedule, zone), at(wall, zone)
    shift = _shift(plan, change)
    slot = plan.next_slot_after(change - HOUR)
    if abs(slot - change) > HOUR:
        return
    assert missed_runs(plan, slot + shift + MIN - 1, plan.latest_slot_until(slot - 1), MIN, LONG_AGO) == []


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "wall"), CHANGES, ids=[f"{zone} {wall}" for zone, wall in CHANGES])
def test_a_run_that_stops_at_a_change_of_clocks_is_found(zone: str, wall: str, schedule: str) -> None:
    """Named at the latest one grace, one shift and a minute after its slot; before its grace never."""
    plan, change = CronSchedule(schedule, zone), at(wall, zone)
    last = plan.latest_slot_until(change - MIN)
    due = plan.next_slot_after(last)
    missed = next(
        now for now in range(due - DAY, due + 10 * DAY, MIN // 2) if missed_runs(plan, now, last, MIN, LONG_AGO)
    )
    assert due + MIN <= missed <= due + MIN + HOUR + MIN
    assert missed_runs(plan, missed, last, MIN, LONG_AGO) == [due] or plan.next_slot_after(due) <= missed


def _shift(plan: CronSchedule, slot: int) -> int:
    """By how much clocks change around a slot."""
    zone = ZoneInfo(plan.timezone)
    before, after = (datetime.fromtimestamp(slot / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    assert before is not None
    assert after is not None
    return round(abs((after - before).total_seconds()) * 1000)
