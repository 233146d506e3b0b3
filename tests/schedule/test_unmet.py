"""Which runs somebody else's scheduler owes: exact, over time zones, schedules and both changes of clocks."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchdog.schedule import MOST_UNMET, Cron, Interval, unmet

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LONG_AGO = 0


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """ "2026-03-28 03:00" on a wall in that zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def walls(found: list[int], zone: str = "UTC") -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M") for ms in found]


NIGHTLY = Cron("0 3 * * *")
TABLE = [
    ("it ran for the newest slot", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:00", 0, []),
    ("it ran a little late", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:20", 0, []),
    ("it ran a little early, by its own clock", NIGHTLY, "2026-05-02 12:00", "2026-05-02 02:59", 0, []),
    ("too early is the run of the night before", NIGHTLY, "2026-05-02 12:00", "2026-05-02 02:55", 0, ["05-02 03:00"]),
    ("grace is not over", NIGHTLY, "2026-05-02 03:29", "2026-05-01 03:00", 30 * MIN, []),
    ("grace is over", NIGHTLY, "2026-05-02 03:30", "2026-05-01 03:00", 30 * MIN, ["05-02 03:00"]),
    ("two nights", NIGHTLY, "2026-05-03 12:00", "2026-05-01 03:00", 0, ["05-03 03:00", "05-02 03:00"]),
    ("monthly, three weeks after its run", Cron("0 6 1 * *"), "2026-05-22 00:00", "2026-05-01 06:00", 0, []),
    ("weekdays: no run is owed on a Sunday", Cron("0 9 * * 1-5"), "2026-05-03 12:00", "2026-05-01 09:00", 0, []),
    ("every minute, one late", Cron("* * * * *"), "2026-05-02 12:02", "2026-05-02 12:00", 30_000, ["05-02 12:01"]),
    ("a minute without grace", Cron("* * * * *"), "2026-05-02 12:01", "2026-05-02 12:00", 0, ["05-02 12:01"]),
    ("an interval", Interval(15 * MIN), "2026-05-02 12:40", "2026-05-02 12:00", MIN, ["05-02 12:30", "05-02 12:15"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "now", "last", "grace", "owed"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_is_owed(plan: Cron | Interval, now: str, last: str, grace: int, owed: list[str]) -> None:
    assert walls(unmet(plan, at(now), at(last), grace, LONG_AGO)) == owed


def test_what_lies_before_the_schedule_was_seen_or_edited_was_never_owed() -> None:
    now, seen = at("2026-05-05 12:00"), at("2026-05-04 00:00")
    assert walls(unmet(NIGHTLY, now, None, 0, seen)) == ["05-05 03:00", "05-04 03:00"]
    assert unmet(NIGHTLY, now, None, 0, now) == []
    assert unmet(NIGHTLY, now, at("2026-04-01 03:00"), 0, now) == []


def test_counting_comes_to_an_end() -> None:
    assert len(unmet(Cron("* * * * *"), at("2026-05-05 12:00"), None, 0, LONG_AGO)) == MOST_UNMET


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
    plan, change = Cron(schedule, zone), at(wall, zone)
    random.seed(f"{zone}{wall}{schedule}")
    last = plan.before(change - DAY)
    due = plan.after(last)
    for now in range(change - DAY, change + DAY, MIN):
        while due + 5_000 <= now:
            last, due = due + random.randrange(5_000), plan.after(due)
        assert unmet(plan, now, last, MIN, LONG_AGO) == [], walls([now], zone)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "wall"), CHANGES, ids=[f"{zone} {wall}" for zone, wall in CHANGES])
def test_a_scheduler_that_reads_the_change_otherwise_is_not_overdue_either(zone: str, wall: str, schedule: str) -> None:
    """Others run what the gap skips an hour later, or twice, or by the old clock, and are right in their way."""
    plan, change = Cron(schedule, zone), at(wall, zone)
    shift = _shift(plan, change)
    slot = plan.after(change - HOUR)
    if abs(slot - change) > HOUR:
        return
    assert unmet(plan, slot + shift + MIN - 1, plan.before(slot - 1), MIN, LONG_AGO) == []


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("zone", "wall"), CHANGES, ids=[f"{zone} {wall}" for zone, wall in CHANGES])
def test_a_run_that_stops_at_a_change_of_clocks_is_found(zone: str, wall: str, schedule: str) -> None:
    """Named at the latest one grace, one shift and a minute after its slot; before its grace never."""
    plan, change = Cron(schedule, zone), at(wall, zone)
    last = plan.before(change - MIN)
    due = plan.after(last)
    found = next(now for now in range(due - DAY, due + 10 * DAY, MIN // 2) if unmet(plan, now, last, MIN, LONG_AGO))
    assert due + MIN <= found <= due + MIN + HOUR + MIN
    assert unmet(plan, found, last, MIN, LONG_AGO) == [due] or plan.after(due) <= found


def test_a_year_of_five_hundred_jobs_without_one_false_word() -> None:
    """Every job runs at each slot with jitter, and is looked at now and then; one run in a hundred is left out, and
    only those are named."""
    made = random.Random(7)
    begin = at("2026-01-01 00:00")
    for n in range(500):
        zone = made.choice([*ZONES, "UTC"])
        schedule = made.choice([*SCHEDULES, "0 6 1 * *", "0 9 * * 1-5"])
        plan, grace = Cron(schedule, zone), 5 * MIN
        due = plan.after(begin + made.randrange(360 * DAY))
        last = plan.before(due - 1)
        for _ in range(12):
            skipped = made.random() < 0.01
            if not skipped:
                last = due + made.randrange(-5_000, 4 * MIN)
            following = plan.after(due)
            look = min(due + grace + HOUR, following - 1)
            named = due in unmet(plan, look, last, grace, LONG_AGO)
            assert named == (skipped and look >= due + grace + _shift(plan, due)), (n, schedule, zone)
            due = following


def _shift(plan: Cron, slot: int) -> int:
    """By how much clocks change around a slot."""
    zone = ZoneInfo(plan.timezone)
    before, after = (datetime.fromtimestamp(slot / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    assert before is not None
    assert after is not None
    return round(abs((after - before).total_seconds()) * 1000)
