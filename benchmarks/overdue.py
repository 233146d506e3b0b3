"""A year of jobs whose runs start at varying times within their grace, and sometimes not at all: what is reported?

Each run is evaluated just before its grace ends, and a minute after. One run in a hundred is skipped, if its grace ends
before the next run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from benchmarks.measurements import Measurement
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import SavedScheduledJobState
from watchdog.domain.rules.job import judge_job_facts, merge_job_facts_and_saved_state
from watchdog.domain.schedule import CronSchedule

MINUTE_MS, DAY_MS = 60_000, 86_400_000
JOB_COUNT = 500
YEAR_START_AT = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
SIMULATED_YEAR = (YEAR_START_AT, YEAR_START_AT + 365 * DAY_MS)
GRACE_MS, TICK_MS = 5 * MINUTE_MS, MINUTE_MS
MAX_EARLY_START_MS, MAX_LATE_START_MS = 5_000, 4 * MINUTE_MS
"""How early and how late a run may start."""
CLOCK_CHANGE_DATES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "America/St_Johns": ("2026-03-08", "2026-11-01"),
    "UTC": (),
}
FREQUENT_CRONS = ("*/15 * * * *", "30 * * * *")
INFREQUENT_CRONS = ("30 2 * * *", "0 3 * * *", "15 1 * * *", "0 6 * * 1", "0 6 1 * *", "0 9 * * 1-5")


class OverdueDetectionCounts(NamedTuple):
    runs: int = 0
    skipped_runs: int = 0
    false_alarms: int = 0
    """Evaluations that reported a run as overdue that was not."""
    undetected_runs: int = 0
    """Skipped runs that were not reported a minute after their grace."""


def simulate_jobs(job_seeds: Iterable[int], *, full_year: bool = True) -> OverdueDetectionCounts:
    """Simulate one job for each seed. Unless `full_year`, jobs that run every hour or more often are simulated only for
    four days around each change of clocks."""
    return _sum_counts(_simulate_job(job, full_year=full_year) for job in job_seeds)


def _sum_counts(counts: Iterable[OverdueDetectionCounts]) -> OverdueDetectionCounts:
    return OverdueDetectionCounts(*map(sum, zip(*counts, strict=True)))


def _simulate_job(job_seed: int, *, full_year: bool) -> OverdueDetectionCounts:
    rng = random.Random(job_seed)
    return _sum_counts(_simulate_period(rng, period) for period in _random_job_periods(rng, full_year=full_year))


class SimulatedPeriod(NamedTuple):
    cron: CronSchedule
    start_at: int
    end_at: int


def _random_job_periods(rng: random.Random, *, full_year: bool) -> list[SimulatedPeriod]:
    zone = rng.choice(list(CLOCK_CHANGE_DATES))
    expression = rng.choice((*FREQUENT_CRONS, *INFREQUENT_CRONS))
    plan = CronSchedule(expression, zone)
    if full_year or expression in INFREQUENT_CRONS:
        return [SimulatedPeriod(plan, *SIMULATED_YEAR)]
    days = CLOCK_CHANGE_DATES[zone] or ("2026-06-01",)
    noons = [round(datetime.fromisoformat(f"{day}T12:00:00Z").timestamp() * 1000) for day in days]
    return [SimulatedPeriod(plan, noon - 2 * DAY_MS, noon + 2 * DAY_MS) for noon in noons]


def _simulate_period(rng: random.Random, period: SimulatedPeriod) -> OverdueDetectionCounts:
    plan, limits = period.cron, ScheduledJobLimits(grace=GRACE_MS)
    state: SavedScheduledJobState | None = None
    due, last = plan.find_next_slot_after(period.start_at), plan.find_latest_slot_until(period.start_at)
    runs = skipped_runs = false_alarms = undetected_runs = 0

    def is_overdue(now: int) -> bool:
        nonlocal state
        facts = ScheduledJobFacts("job", cron=plan.expression, timezone=plan.timezone, last_start=last)
        facts, state = merge_job_facts_and_saved_state(facts, limits, state, now)
        facts = facts._replace(expected_from=state.expected_from)
        return judge_job_facts(facts, limits, now).reason == "job.overdue"

    is_overdue(period.start_at)
    while due < period.end_at:
        following = plan.find_next_slot_after(due)
        deadline = due + GRACE_MS + _clock_change_ms(plan, due)
        starts = deadline + TICK_MS >= following - MAX_EARLY_START_MS or rng.random() >= 0.01
        before = min(deadline, following - MAX_EARLY_START_MS) - 1
        if starts:
            last = due + rng.randrange(-MAX_EARLY_START_MS, MAX_LATE_START_MS)
        false_alarms += is_overdue(before)
        if not starts:
            undetected_runs += not is_overdue(deadline + TICK_MS)
            last = deadline + TICK_MS  # started by hand
        elif deadline + TICK_MS < following - MAX_EARLY_START_MS:
            false_alarms += is_overdue(deadline + TICK_MS)
        runs, skipped_runs = runs + 1, skipped_runs + (not starts)
        due = following
    return OverdueDetectionCounts(runs, skipped_runs, false_alarms, undetected_runs)


def _clock_change_ms(cron: CronSchedule, at: int) -> int:
    """The change of clocks within three hours of an instant, in ms: it extends the grace."""
    zone = ZoneInfo(cron.timezone)
    before, after = (datetime.fromtimestamp(at / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    return round(abs((after - before).total_seconds()) * 1000) if before is not None and after is not None else 0


def prove() -> Iterator[Measurement]:
    with ProcessPoolExecutor() as processes:
        counts = _sum_counts(processes.map(simulate_jobs, [range(n, JOB_COUNT, 50) for n in range(50)]))
    yield Measurement("jobs simulated for a year", JOB_COUNT)
    yield Measurement("runs", counts.runs)
    yield Measurement("skipped runs", counts.skipped_runs)
    yield Measurement("runs reported as overdue that were not", counts.false_alarms, "", 0)
    yield Measurement("skipped runs not reported a minute after their grace", counts.undetected_runs, "", 0)
