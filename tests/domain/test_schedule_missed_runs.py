"""Missed runs of jobs that another scheduler starts, one case per row."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchdog.domain.schedule import (
    MAX_COUNTED_MISSED_JOB_RUNS,
    MIN_CHECK_IN_RETRY_DURATION_MS,
    CronSchedule,
    IntervalSchedule,
    extend_deadline_and_find_long_downtime_gap,
    find_common_job_start_delay_ms,
    list_missed_job_run_slots,
)
from watchdog.domain.uptime_clock import DowntimeGap

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LONG_AGO = 0


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """ "2026-03-28 03:00", in the local time of the zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def clock_times(missed: list[int], zone: str = "UTC") -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M") for ms in missed]


NIGHTLY = CronSchedule("0 3 * * *")
TABLE = [
    ("it ran for the newest slot", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:00", 0, []),
    ("it ran late", NIGHTLY, "2026-05-02 12:00", "2026-05-02 03:20", 0, []),
    ("it ran a minute early", NIGHTLY, "2026-05-02 12:00", "2026-05-02 02:59", 0, []),
    (
        "a run six minutes early does not count for the slot",
        NIGHTLY,
        "2026-05-02 12:00",
        "2026-05-02 02:54",
        0,
        ["05-02 03:00"],
    ),
    ("within the grace", NIGHTLY, "2026-05-02 03:29", "2026-05-01 03:00", 30 * MIN, []),
    ("at the end of the grace", NIGHTLY, "2026-05-02 03:30", "2026-05-01 03:00", 30 * MIN, ["05-02 03:00"]),
    ("two nights missed", NIGHTLY, "2026-05-03 12:00", "2026-05-01 03:00", 0, ["05-03 03:00", "05-02 03:00"]),
    ("monthly, three weeks after its run", CronSchedule("0 6 1 * *"), "2026-05-22 00:00", "2026-05-01 06:00", 0, []),
    (
        "weekdays: no run is due on a Sunday",
        CronSchedule("0 9 * * 1-5"),
        "2026-05-03 12:00",
        "2026-05-01 09:00",
        0,
        [],
    ),
    (
        "every minute, one missed",
        CronSchedule("* * * * *"),
        "2026-05-02 12:02",
        "2026-05-02 12:00",
        30_000,
        ["05-02 12:01"],
    ),
    (
        "every minute, without grace",
        CronSchedule("* * * * *"),
        "2026-05-02 12:01",
        "2026-05-02 12:00",
        0,
        ["05-02 12:01"],
    ),
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
def test_missed_runs(
    plan: CronSchedule | IntervalSchedule, now: str, last: str, grace: int, expected: list[str]
) -> None:
    assert clock_times(list_missed_job_run_slots(plan, at(now), at(last), grace, LONG_AGO)) == expected


def test_slots_before_the_schedule_was_first_seen_or_edited_are_not_missed() -> None:
    now, first_seen = at("2026-05-05 12:00"), at("2026-05-04 00:00")
    assert clock_times(list_missed_job_run_slots(NIGHTLY, now, None, 0, first_seen)) == ["05-05 03:00", "05-04 03:00"]
    assert clock_times(list_missed_job_run_slots(NIGHTLY, now, None, 0, at("2026-05-05 03:00"))) == ["05-05 03:00"]
    assert list_missed_job_run_slots(NIGHTLY, now, None, 0, at("2026-05-05 03:00") + 1) == []
    assert list_missed_job_run_slots(NIGHTLY, now, None, 0, now) == []
    assert list_missed_job_run_slots(NIGHTLY, now, at("2026-04-01 03:00"), 0, now) == []


def test_the_number_of_missed_runs_is_limited() -> None:
    assert (
        len(list_missed_job_run_slots(CronSchedule("* * * * *"), at("2026-05-05 12:00"), None, 0, LONG_AGO))
        == MAX_COUNTED_MISSED_JOB_RUNS
    )


BERLIN = CronSchedule("30 2 * * *", "Europe/Berlin")


@pytest.mark.parametrize(
    ("sentence", "night", "shift"),
    [
        ("clocks go forward", "2026-03-29", HOUR),
        ("clocks go back", "2026-10-25", HOUR),
        ("the night before", "2026-03-28", 0),
        ("the night after", "2026-03-30", 0),
    ],
)
def test_a_clock_change_extends_the_grace(sentence: str, night: str, shift: int) -> None:
    due = BERLIN.find_next_slot_after(at(f"{night} 00:00", "Europe/Berlin"))
    last = BERLIN.find_latest_slot_until(due - 1)
    end = due + 5 * MIN + shift
    assert list_missed_job_run_slots(BERLIN, end - 1, last, 5 * MIN, LONG_AGO) == [], sentence
    assert list_missed_job_run_slots(BERLIN, end, last, 5 * MIN, LONG_AGO) == [due], sentence


@pytest.mark.parametrize(
    ("plan", "hours", "shift"),
    [
        (CronSchedule("0 0 * * *", "Europe/Berlin"), "within three hours of the change", HOUR),
        (CronSchedule("0 23 * * *", "Europe/Berlin"), "three hours before the change", HOUR),
        (CronSchedule("59 59 22 * * *", "Europe/Berlin"), "a second earlier than three hours before the change", 0),
        (CronSchedule("59 59 5 * * *", "Europe/Berlin"), "less than three hours after the change", HOUR),
        (CronSchedule("0 6 * * *", "Europe/Berlin"), "three hours after the change", 0),
        (CronSchedule("0 0 * * *", "UTC"), "no clock changes in UTC", 0),
        (IntervalSchedule(DAY, HOUR // 2), "an interval has no clock", 0),
        (CronSchedule("0 2 * * *", "Australia/Lord_Howe"), "clocks change by half an hour", HOUR // 2),
    ],
)
def test_the_extension_depends_on_the_distance_to_the_change(
    plan: CronSchedule | IntervalSchedule, hours: str, shift: int
) -> None:
    """The night of 29 March 2026 in Berlin; on Lord Howe Island that of 5 April."""
    day = "2026-04-05 00:00" if plan.description.endswith("Lord_Howe") else "2026-03-28 22:00"
    due = plan.find_next_slot_after(at(day, plan.timezone if isinstance(plan, CronSchedule) else "UTC") - 1)
    last = plan.find_latest_slot_until(due - 1)
    assert list_missed_job_run_slots(plan, due + MIN + shift - 1, last, MIN, LONG_AGO) == [], hours
    assert list_missed_job_run_slots(plan, due + MIN + shift, last, MIN, LONG_AGO) == [due], hours


def test_the_allowed_earliness_depends_on_the_interval_before_the_slot() -> None:
    """It is a tenth of the interval since the previous slot, at most 5 minutes."""
    twice, now = CronSchedule("0,1 3 * * *"), at("2026-05-02 12:00")
    early = at("2026-05-02 02:55")
    assert clock_times(list_missed_job_run_slots(twice, now, early, 0, LONG_AGO)) == ["05-02 03:01"]
    assert clock_times(list_missed_job_run_slots(twice, now, early - 1, 0, LONG_AGO)) == ["05-02 03:01", "05-02 03:00"]
    early = at("2026-05-02 03:00:54")
    assert clock_times(list_missed_job_run_slots(twice, now, early, 0, LONG_AGO)) == []
    assert clock_times(list_missed_job_run_slots(twice, now, early - 1, 0, LONG_AGO)) == ["05-02 03:01"]


@pytest.mark.parametrize(
    ("sentence", "started", "early", "missed"),
    [
        ("a minute earlier than allowed", "2026-05-02 01:59", HOUR, ["05-02 03:00"]),
        ("as early as allowed", "2026-05-02 02:00", HOUR, []),
        ("nothing is allowed", "2026-05-02 02:59", 0, ["05-02 03:00"]),
        ("nothing is allowed, on time", "2026-05-02 03:00", 0, []),
        ("at most half a period", "2026-05-01 15:00", 2 * DAY, []),
        ("before the middle of the period", "2026-05-01 14:59", 2 * DAY, ["05-02 03:00"]),
    ],
)
def test_the_configured_earliness(sentence: str, started: str, early: int, missed: list[str]) -> None:
    now = at("2026-05-02 12:00")
    assert (
        clock_times(list_missed_job_run_slots(NIGHTLY, now, at(started), 0, at("2026-05-01 12:00"), early=early))
        == missed
    ), sentence


@pytest.mark.parametrize(
    ("sentence", "starts", "delay"),
    [
        ("always an hour late", ["05-01 04:00", "05-02 04:00:40", "05-03 04:00:20"], HOUR),
        ("always two hours early", ["05-01 01:00", "05-02 01:00:40"], -2 * HOUR),
        ("on time, give or take some seconds", ["05-01 02:59:50", "05-02 03:00:10"], None),
        ("late by different times", ["05-01 04:00", "05-02 04:02"], None),
        ("late by times that differ by a minute at most", ["05-01 04:00", "05-02 04:01"], HOUR),
        ("halfway between two slots: late", ["05-01 15:00", "05-02 15:00"], 12 * HOUR),
        ("no run is known", [], None),
    ],
)
def test_the_common_delay_of_runs(sentence: str, starts: list[str], delay: int | None) -> None:
    assert find_common_job_start_delay_ms(NIGHTLY, [at(f"2026-{start}") for start in starts]) == delay, sentence


def test_a_grace_of_a_day_is_not_counted_through_slot_by_slot() -> None:
    seconds = CronSchedule("* * * * * *")
    now = at("2026-05-02 12:00")
    assert list_missed_job_run_slots(seconds, now, now - DAY - 2_000, DAY, LONG_AGO) == [now - DAY, now - DAY - 1_000]


S = 1_000
LONG = (120 * S, 120 * S + MIN_CHECK_IN_RETRY_DURATION_MS + 1)
DOWNTIMES: list[tuple[str, list[DowntimeGap], tuple[int, DowntimeGap | None]]] = [
    ("no downtime", [], (200 * S, None)),
    ("downtime before the period", [(0, 100 * S - 1)], (200 * S, None)),
    ("downtime after the period", [(200 * S + 1, 900 * S)], (200 * S, None)),
    ("long downtime until the start of the period", [(0, 100 * S)], (200 * S, (0, 100 * S))),
    ("long downtime from the end of the period on", [(200 * S, 900 * S)], (200 * S, (200 * S, 900 * S))),
    ("downtime as long as the retry window", [(120 * S, 120 * S + MIN_CHECK_IN_RETRY_DURATION_MS)], (200 * S, None)),
    ("downtime longer than the retry window", [LONG], (200 * S, LONG)),
    (
        "short downtime near the end: extended by the retry window",
        [(180 * S, 190 * S)],
        (190 * S + MIN_CHECK_IN_RETRY_DURATION_MS, None),
    ),
    (
        "two short downtimes near the end",
        [(180 * S, 190 * S), (215 * S, 225 * S)],
        (225 * S + MIN_CHECK_IN_RETRY_DURATION_MS, None),
    ),
    (
        "short downtime, then a long one during the retries",
        [(180 * S, 190 * S), (215 * S, 900 * S)],
        (190 * S + MIN_CHECK_IN_RETRY_DURATION_MS, (215 * S, 900 * S)),
    ),
    (
        "downtimes before, short within, and after the period",
        [(0, 50 * S), (110 * S, 111 * S), (500 * S, 900 * S)],
        (200 * S, None),
    ),
]


@pytest.mark.parametrize(("gaps", "expected"), [row[1:] for row in DOWNTIMES], ids=[row[0] for row in DOWNTIMES])
def test_extended_deadlines(gaps: list[DowntimeGap], expected: tuple[int, DowntimeGap | None]) -> None:
    """For a check-in that is due between 100 s and 200 s."""
    assert extend_deadline_and_find_long_downtime_gap(100 * S, 200 * S, gaps) == expected


def test_a_run_that_could_not_be_reported_is_not_missed() -> None:
    now, last = at("2026-05-03 12:00"), at("2026-05-01 03:00")
    night = (at("2026-05-02 02:55"), at("2026-05-02 02:56"))
    before = (night[0] - MIN, night[0] - 1)
    assert clock_times(list_missed_job_run_slots(NIGHTLY, now, last, MIN, LONG_AGO, [before])) == [
        "05-03 03:00",
        "05-02 03:00",
    ]
    assert clock_times(list_missed_job_run_slots(NIGHTLY, now, last, MIN, LONG_AGO, [night])) == ["05-03 03:00"]
    next_night = (night[0] + DAY, night[1] + DAY)
    assert clock_times(list_missed_job_run_slots(NIGHTLY, now, last, MIN, LONG_AGO, [night, next_night])) == [
        "05-02 03:00"
    ]
    assert list_missed_job_run_slots(NIGHTLY, now, last, MIN, LONG_AGO, [(night[0], next_night[1])]) == []
    restart = (at("2026-05-02 03:00:50"), at("2026-05-02 03:01:00"))
    back = restart[1] + MIN_CHECK_IN_RETRY_DURATION_MS
    assert list_missed_job_run_slots(NIGHTLY, back - 1, last, MIN, LONG_AGO, [restart]) == []
    assert clock_times(list_missed_job_run_slots(NIGHTLY, back, last, MIN, LONG_AGO, [restart])) == ["05-02 03:00"]
