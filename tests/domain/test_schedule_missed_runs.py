"""Which runs somebody else's scheduler owes, a sentence per row."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchdog.domain.schedule import (
    MAX_MISSED_RUNS,
    SENDER_RETRY_WINDOW_MS,
    CronSchedule,
    Gap,
    IntervalSchedule,
    extend_deadline_over_gaps,
    missed_runs,
)

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LONG_AGO = 0


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """ "2026-03-28 03:00" on a wall in that zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def walls(missed: list[int], zone: str = "UTC") -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M") for ms in missed]


NIGHTLY = CronSchedule("0 3 * * *")
TABLE = [
    ("it ran for the newest slot", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:00", 0, []),
    ("it ran a little late", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:20", 0, []),
    ("it ran a little early, by its own clock", NIGHTLY, "2026-05-02 12:00", "2026-05-02 02:59", 0, []),
    ("too early is the run of the night before", NIGHTLY, "2026-05-02 12:00", "2026-05-02 02:55", 0, ["05-02 03:00"]),
    ("grace is not over", NIGHTLY, "2026-05-02 03:29", "2026-05-01 03:00", 30 * MIN, []),
    ("grace is over", NIGHTLY, "2026-05-02 03:30", "2026-05-01 03:00", 30 * MIN, ["05-02 03:00"]),
    ("two nights", NIGHTLY, "2026-05-03 12:00", "2026-05-01 03:00", 0, ["05-03 03:00", "05-02 03:00"]),
    ("monthly, three weeks after its run", CronSchedule("0 6 1 * *"), "2026-05-22 00:00", "2026-05-01 06:00", 0, []),
    (
        "weekdays: no run is owed on a Sunday",
        CronSchedule("0 9 * * 1-5"),
        "2026-05-03 12:00",
        "2026-05-01 09:00",
        0,
        [],
    ),
    (
        "every minute, one late",
        CronSchedule("* * * * *"),
        "2026-05-02 12:02",
        "2026-05-02 12:00",
        30_000,
        ["05-02 12:01"],
    ),
    ("a minute without grace", CronSchedule("* * * * *"), "2026-05-02 12:01", "2026-05-02 12:00", 0, ["05-02 12:01"]),
    (
        "an interval",
        IntervalSchedule(15 * MIN),
        "2026-05-02 12:40",
        "2026-05-02 12:00",
        MIN,
        ["05-02 12:30", "05-02 12:15"],
    ),
]


@pytest.mark.parametrize(
    ("plan", "now", "last", "grace", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_is_owed(
    plan: CronSchedule | IntervalSchedule, now: str, last: str, grace: int, expected: list[str]
) -> None:
    assert walls(missed_runs(plan, at(now), at(last), grace, LONG_AGO)) == expected


def test_what_lies_before_the_schedule_was_seen_or_edited_was_never_owed() -> None:
    now, first_seen = at("2026-05-05 12:00"), at("2026-05-04 00:00")
    assert walls(missed_runs(NIGHTLY, now, None, 0, first_seen)) == ["05-05 03:00", "05-04 03:00"]
    assert walls(missed_runs(NIGHTLY, now, None, 0, at("2026-05-05 03:00"))) == ["05-05 03:00"]
    assert missed_runs(NIGHTLY, now, None, 0, at("2026-05-05 03:00") + 1) == []
    assert missed_runs(NIGHTLY, now, None, 0, now) == []
    assert missed_runs(NIGHTLY, now, at("2026-04-01 03:00"), 0, now) == []


def test_counting_comes_to_an_end() -> None:
    assert len(missed_runs(CronSchedule("* * * * *"), at("2026-05-05 12:00"), None, 0, LONG_AGO)) == MAX_MISSED_RUNS


BERLIN = CronSchedule("30 2 * * *", "Europe/Berlin")


@pytest.mark.parametrize(
    ("sentence", "night", "shift"),
    [
        ("clocks go forward that night", "2026-03-29", HOUR),
        ("they go back", "2026-10-25", HOUR),
        ("the night before", "2026-03-28", 0),
        ("the night after", "2026-03-30", 0),
    ],
)
def test_where_clocks_change_there_is_as_much_more_grace(sentence: str, night: str, shift: int) -> None:
    due = BERLIN.next_slot_after(at(f"{night} 00:00", "Europe/Berlin"))
    last = BERLIN.latest_slot_until(due - 1)
    end = due + 5 * MIN + shift
    assert missed_runs(BERLIN, end - 1, last, 5 * MIN, LONG_AGO) == [], sentence
    assert missed_runs(BERLIN, end, last, 5 * MIN, LONG_AGO) == [due], sentence


@pytest.mark.parametrize(
    ("plan", "hours", "shift"),
    [
        (CronSchedule("0 0 * * *", "Europe/Berlin"), "within three hours of the change", HOUR),
        (CronSchedule("0 23 * * *", "Europe/Berlin"), "three hours before it", HOUR),
        (CronSchedule("59 59 22 * * *", "Europe/Berlin"), "a second more", 0),
        (CronSchedule("59 59 5 * * *", "Europe/Berlin"), "less than three hours after it", HOUR),
        (CronSchedule("0 6 * * *", "Europe/Berlin"), "three hours after it", 0),
        (CronSchedule("0 0 * * *", "UTC"), "no clocks change there", 0),
        (IntervalSchedule(DAY, HOUR // 2), "clocks do not matter", 0),
        (CronSchedule("0 2 * * *", "Australia/Lord_Howe"), "they change by half an hour", HOUR // 2),
    ],
)
def test_how_much_and_how_near(plan: CronSchedule | IntervalSchedule, hours: str, shift: int) -> None:
    """The night of 29 March 2026 in Berlin; on Lord Howe Island that of 5 April."""
    day = "2026-04-05 00:00" if plan.description.endswith("Lord_Howe") else "2026-03-28 22:00"
    due = plan.next_slot_after(at(day, plan.timezone if isinstance(plan, CronSchedule) else "UTC") - 1)
    last = plan.latest_slot_until(due - 1)
    assert missed_runs(plan, due + MIN + shift - 1, last, MIN, LONG_AGO) == [], hours
    assert missed_runs(plan, due + MIN + shift, last, MIN, LONG_AGO) == [due], hours


def test_how_early_is_on_time_depends_on_the_slot_and_not_on_the_newest() -> None:
    """A tenth of the way from the slot before, and a minute and a half at most."""
    twice, now = CronSchedule("0,1 3 * * *"), at("2026-05-02 12:00")
    early = at("2026-05-02 02:58:30")
    assert walls(missed_runs(twice, now, early, 0, LONG_AGO)) == ["05-02 03:01"]
    assert walls(missed_runs(twice, now, early - 1, 0, LONG_AGO)) == ["05-02 03:01", "05-02 03:00"]
    early = at("2026-05-02 03:00:54")
    assert walls(missed_runs(twice, now, early, 0, LONG_AGO)) == []
    assert walls(missed_runs(twice, now, early - 1, 0, LONG_AGO)) == ["05-02 03:01"]


def test_grace_of_a_day_costs_no_day_of_slots() -> None:
    seconds = CronSchedule("* * * * * *")
    now = at("2026-05-02 12:00")
    assert missed_runs(seconds, now, now - DAY - 2_000, DAY, LONG_AGO) == [now - DAY, now - DAY - 1_000]


S = 1_000
LONG = (120 * S, 120 * S + SENDER_RETRY_WINDOW_MS + 1)
SILENCE: list[tuple[str, list[Gap], tuple[int, Gap | None]]] = [
    ("we were there", [], (200 * S, None)),
    ("away before it", [(0, 100 * S - 1)], (200 * S, None)),
    ("away after it", [(200 * S + 1, 900 * S)], (200 * S, None)),
    ("away for long until it began", [(0, 100 * S)], (200 * S, (0, 100 * S))),
    ("away for long from its end on", [(200 * S, 900 * S)], (200 * S, (200 * S, 900 * S))),
    ("away for as long as is bridged", [(120 * S, 120 * S + SENDER_RETRY_WINDOW_MS)], (200 * S, None)),
    ("a little longer", [LONG], (200 * S, LONG)),
    (
        "away shortly before its end: there is time to try again",
        [(180 * S, 190 * S)],
        (190 * S + SENDER_RETRY_WINDOW_MS, None),
    ),
    ("twice", [(180 * S, 190 * S), (215 * S, 225 * S)], (225 * S + SENDER_RETRY_WINDOW_MS, None)),
    (
        "shortly, and for long while they tried again",
        [(180 * S, 190 * S), (215 * S, 900 * S)],
        (190 * S + SENDER_RETRY_WINDOW_MS, (215 * S, 900 * S)),
    ),
    ("long ago, shortly, and later", [(0, 50 * S), (110 * S, 111 * S), (500 * S, 900 * S)], (200 * S, None)),
]


@pytest.mark.parametrize(("gaps", "expected"), [row[1:] for row in SILENCE], ids=[row[0] for row in SILENCE])
def test_from_when_on_silence_means_something(gaps: list[Gap], expected: tuple[int, Gap | None]) -> None:
    """Of something that should have been heard between 100 s and 200 s."""
    assert extend_deadline_over_gaps(100 * S, 200 * S, gaps) == expected


def test_a_run_that_could_not_be_reported_is_not_missed() -> None:
    now, last = at("2026-05-03 12:00"), at("2026-05-01 03:00")
    night = (at("2026-05-02 02:58:30"), at("2026-05-02 02:59:30"))
    before = (night[0] - MIN, night[0] - 1)
    assert walls(missed_runs(NIGHTLY, now, last, MIN, LONG_AGO, [before])) == ["05-03 03:00", "05-02 03:00"]
    assert walls(missed_runs(NIGHTLY, now, last, MIN, LONG_AGO, [night])) == ["05-03 03:00"]
    next_night = (night[0] + DAY, night[1] + DAY)
    assert walls(missed_runs(NIGHTLY, now, last, MIN, LONG_AGO, [night, next_night])) == ["05-02 03:00"]
    assert missed_runs(NIGHTLY, now, last, MIN, LONG_AGO, [(night[0], next_night[1])]) == []
    restart = (at("2026-05-02 03:00:50"), at("2026-05-02 03:01:00"))
    back = restart[1] + SENDER_RETRY_WINDOW_MS
    assert missed_runs(NIGHTLY, back - 1, last, MIN, LONG_AGO, [restart]) == []
    assert walls(missed_runs(NIGHTLY, back, last, MIN, LONG_AGO, [restart])) == ["05-02 03:00"]
