"""When the verdict on a job changes although nothing more is reported of it, one case per row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules.job import judge_job_facts
from watchdog.domain.rules.job_deadlines import find_next_deadline_of_job
from watchdog.domain.rules.lost_run import compute_job_run_end_deadline
from watchdog.domain.schedule import MIN_CHECK_IN_RETRY_DURATION_MS, CronSchedule, IntervalSchedule

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOON = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
NIGHTLY = ScheduledJobLimits(schedule=CronSchedule("0 3 * * *"), grace=30 * MIN)
LAST_RUN: dict[str, Any] = {"last_start": NOON - 9 * HOUR, "last_end": NOON - 8 * HOUR, "last_ok": NOON - 8 * HOUR}
TONIGHT = NOON + 15 * HOUR

TABLE: list[tuple[str, dict[str, Any], ScheduledJobLimits, list[tuple[int, int]], int | None]] = [
    ("the next run is overdue after its grace", LAST_RUN, NIGHTLY, [], TONIGHT + 30 * MIN),
    ("the run is due, within its grace", {"last_start": NOON - 24 * HOUR},
     ScheduledJobLimits(schedule=CronSchedule("55 11 * * *"), grace=6 * MIN), [], NOON + MIN),
    ("an interval counts from the last run", {"last_start": NOON - 4_000},
     ScheduledJobLimits(interval=10_000, grace=6_000), [], NOON + 12_000),
    ("an interval counts from when the job was first seen", {"expected_from": NOON - 4_000},
     ScheduledJobLimits(interval=10_000, grace=6_000), [], NOON + 12_000),
    ("never seen before", {"expected_from": None}, ScheduledJobLimits(interval=HOUR, grace=MIN), [], NOON + HOUR + MIN),
    ("it is overdue: the next run counts", {"last_start": NOON - 3 * HOUR},
     ScheduledJobLimits(interval=HOUR, grace=MIN), [], NOON + MIN),
    ("the run in progress has a limit", {**LAST_RUN, "last_start": NOON - MIN, "running_since": NOON - MIN},
     ScheduledJobLimits(schedule=NIGHTLY.schedule, max_runtime=2 * MIN), [], NOON + MIN + 1),
    ("the run in progress has exceeded its limit",
     {**LAST_RUN, "last_start": NOON - HOUR, "running_since": NOON - HOUR},
     ScheduledJobLimits(schedule=NIGHTLY.schedule, grace=0, max_runtime=2 * MIN), [], TONIGHT),
    ("the run in progress has no limit: it may be lost after one period",
     {**LAST_RUN, "last_start": NOON - MIN, "running_since": NOON - 20 * HOUR}, NIGHTLY, [], NOON + 4 * HOUR + 1),
    ("Watchdog was down until just now", LAST_RUN, NIGHTLY, [(NOON - 9_000, NOON - 1_000)],
     NOON - 1_000 + MIN_CHECK_IN_RETRY_DURATION_MS),
    ("Watchdog was down when the run was due: it may have run until then",
     {"last_start": NOON - 110 * MIN}, ScheduledJobLimits(interval=HOUR, grace=MIN), [(NOON - HOUR, NOON - 20 * MIN)],
     NOON + 41 * MIN),
    ("it is disabled", {**LAST_RUN, "enabled": False}, NIGHTLY, [], None),
    ("it has no schedule", LAST_RUN, ScheduledJobLimits(), [], None),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "limits", "gaps", "deadline"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_deadlines(
    facts: dict[str, Any], limits: ScheduledJobLimits, gaps: list[tuple[int, int]], deadline: int | None
) -> None:
    job = ScheduledJobFacts("backup", **{"expected_from": NOON - 30 * DAY, **facts})
    assert find_next_deadline_of_job(job, limits, NOON, gaps, reason="") == deadline


def test_a_job_that_is_overdue_has_no_further_deadline_until_it_runs() -> None:
    job, limits = ScheduledJobFacts("backup", last_start=NOON - DAY, expected_from=0), ScheduledJobLimits(interval=HOUR)
    assert find_next_deadline_of_job(job, limits, NOON, reason="job.overdue") is None
    running = job._replace(running_since=NOON - MIN)
    assert find_next_deadline_of_job(running, limits, NOON, reason="job.overdue") == NOON + 59 * MIN + 1


def test_a_change_of_clocks_postpones_the_deadline() -> None:
    schedule = CronSchedule("30 2 * * *", "Europe/Berlin")
    due = schedule.find_next_slot_after(NOON - 36 * DAY)  # 28 March; clocks go forward in the next night
    job, limits = (
        ScheduledJobFacts("backup", last_start=due, expected_from=due),
        ScheduledJobLimits(schedule=schedule, grace=MIN),
    )
    changed = schedule.find_next_slot_after(due)
    assert find_next_deadline_of_job(job, limits, due + HOUR, reason="") == changed + MIN + HOUR
    assert find_next_deadline_of_job(job, limits, changed + 2 * MIN, reason="") == changed + MIN + HOUR
    assert not judge_job_facts(job, limits, changed + MIN + HOUR - 1).reason
    assert judge_job_facts(job, limits, changed + MIN + HOUR).reason == "job.overdue"


@pytest.mark.parametrize("facts", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_no_verdict_changes_before_the_deadline(facts: dict[str, Any]) -> None:
    """A property: from one deadline to the next, the reason stays the same."""
    job = ScheduledJobFacts("backup", **{"expected_from": NOON - 30 * DAY, **facts})
    limits = ScheduledJobLimits(interval=10 * MIN, grace=90_000, max_runtime=7 * MIN)
    now = NOON
    for _ in range(20):
        deadline = find_next_deadline_of_job(job, limits, now, reason="")
        if deadline is None:
            return
        assert judge_job_facts(job, limits, deadline - 1).reason == judge_job_facts(job, limits, now).reason
        now = deadline


@pytest.mark.parametrize(
    ("sentence", "facts", "limits", "after"),
    [
        ("max_runtime", {"cron": "0 3 * * *"}, ScheduledJobLimits(max_runtime=MIN), MIN),
        ("the period of the configured schedule", {"cron": "* * * * *"}, NIGHTLY, DAY),
        ("the period of the source's cron expression", {"cron": "0 */6 * * *"}, ScheduledJobLimits(), 6 * HOUR),
        ("the source's interval", {"every": 2 * HOUR}, ScheduledJobLimits(), 2 * HOUR),
        ("the configured interval", {"cron": "0 3 * * *"}, ScheduledJobLimits(interval=5 * HOUR), 5 * HOUR),
        ("at least an hour", {"every": MIN}, ScheduledJobLimits(), HOUR),
        ("an hour without a schedule", {}, ScheduledJobLimits(), HOUR),
    ],
)
def test_when_a_run_should_have_ended(
    sentence: str, facts: dict[str, Any], limits: ScheduledJobLimits, after: int
) -> None:
    assert compute_job_run_end_deadline(ScheduledJobFacts("backup", **facts), limits, NOON) == NOON + after, sentence


def test_the_period_of_a_schedule() -> None:
    weekdays = CronSchedule("0 9 * * 1-5")
    assert weekdays.compute_slot_interval_ms_at(NOON) == 3 * DAY  # 2 May 2026 is a Saturday
    assert weekdays.compute_slot_interval_ms_at(NOON + 2 * DAY) == DAY
    assert IntervalSchedule(HOUR).compute_slot_interval_ms_at(NOON) == HOUR
