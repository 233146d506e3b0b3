"""Both clock changes in four zones with six schedules: only runs that did not take place count as missed."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchdog.domain.schedule import CronSchedule, list_missed_job_run_slots

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LONG_AGO = 0


def at(text: str, zone: str) -> int:
    """ "2026-03-28 03:00", in the local time of the zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def clock_times(missed: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M") for ms in missed]


ZONES = {
    "Europe/Berlin": ("2026-03-29 02:00", "2026-10-25 02:00"),
    "America/New_York": ("2026-03-08 02:00", "2026-11-01 01:00"),
    "Australia/Lord_Howe": ("2026-10-04 02:00", "2026-04-05 01:30"),
    "America/St_Johns": ("2026-03-08 02:00", "2026-11-01 01:00"),
}
SCHEDULES = ("*/15 * * * *", "30 * * * *", "30 2 * * *", "0 3 * * *", "15 1 * * *", "0 6 * * 1")
CHANGES = [(zone, local_time) for zone, both in ZONES.items() for local_time in both]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "local_time"), CHANGES, ids=[f"{zone} {local_time}" for zone, local_time in CHANGES])
def test_a_clock_change_makes_no_run_overdue(zone: str, local_time: str, schedule: str) -> None:
    """A scheduler that runs at every slot, up to five seconds late, misses none in the two days around the change."""
    plan, change = CronSchedule(schedule, zone), at(local_time, zone)
    random.seed(f"{zone}{local_time}{schedule}")
    last = plan.find_latest_slot_until(change - DAY)
    due = plan.find_next_slot_after(last)
    for now in range(change - DAY, change + DAY, MIN):
        while due + 5_000 <= now:
            last, due = due + random.randrange(5_000), plan.find_next_slot_after(due)
        assert list_missed_job_run_slots(plan, now, last, MIN, LONG_AGO) == [], clock_times([now], zone)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "local_time"), CHANGES, ids=[f"{zone} {local_time}" for zone, local_time in CHANGES])
def test_a_scheduler_that_handles_the_change_differently_is_not_overdue(
    zone: str, local_time: str, schedule: str
) -> None:
    """Other schedulers run a skipped slot an hour later, run a repeated one twice, or keep the old offset."""
    plan, change = CronSchedule(schedule, zone), at(local_time, zone)
    shift = _shift(plan, change)
    slot = plan.find_next_slot_after(change - HOUR)
    if abs(slot - change) > HOUR:
        return
    assert (
        list_missed_job_run_slots(plan, slot + shift + MIN - 1, plan.find_latest_slot_until(slot - 1), MIN, LONG_AGO)
        == []
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "local_time"), CHANGES, ids=[f"{zone} {local_time}" for zone, local_time in CHANGES])
def test_a_run_missed_at_a_clock_change_is_detected(zone: str, local_time: str, schedule: str) -> None:
    """It is reported no earlier than its grace after its slot, and at most one shift and a minute later."""
    plan, change = CronSchedule(schedule, zone), at(local_time, zone)
    last = plan.find_latest_slot_until(change - MIN)
    due = plan.find_next_slot_after(last)
    missed = next(
        now
        for now in range(due - DAY, due + 10 * DAY, MIN // 2)
        if list_missed_job_run_slots(plan, now, last, MIN, LONG_AGO)
    )
    assert due + MIN <= missed <= due + MIN + HOUR + MIN
    assert (
        list_missed_job_run_slots(plan, missed, last, MIN, LONG_AGO) == [due]
        or plan.find_next_slot_after(due) <= missed
    )


def _shift(plan: CronSchedule, slot: int) -> int:
    """The size of the clock change around a slot, in ms."""
    zone = ZoneInfo(plan.timezone)
    before, after = (datetime.fromtimestamp(slot / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    assert before is not None
    assert after is not None
    return round(abs((after - before).total_seconds()) * 1000)
