"""A year of jobs whose runs wander within their grace, and now and then fail to come: who is called late, and when?

Every run is looked at just before its grace ends, and a minute after. One in a hundred is left out, where its grace
ends before the next one comes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from benchmarks.table import Measurement
from watchdog.domain.observations import JobFacts
from watchdog.domain.probe_state import JobState
from watchdog.domain.rules.job import JobLimits, evaluate_job_facts, merge_job_state
from watchdog.domain.schedule import CronSchedule

MINUTE_MS, DAY_MS = 60_000, 86_400_000
JOB_COUNT = 500
YEAR_START_AT = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
SIMULATED_YEAR = (YEAR_START_AT, YEAR_START_AT + 365 * DAY_MS)
GRACE_MS, TICK_MS = 5 * MINUTE_MS, MINUTE_MS
MAX_EARLY_START_MS, MAX_LATE_START_MS = 5_000, 4 * MINUTE_MS
"""How much runs wander, in ms."""
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
    """Looks at which a run was called late that was not."""
    undetected_runs: int = 0
    """Runs that never came, and nobody said so a minute after their grace."""


def simulate_jobs(job_seeds: Iterable[int], *, full_year: bool = True) -> OverdueDetectionCounts:
    """`jobs`: a number for each, of which all chance follows. Unless `whole`, those that run every hour or more often
    are followed for four days around each change of clocks only."""
    return _sum_counts(_simulate_job(job, full_year=full_year) for job in job_seeds)


def _sum_counts(counts: Iterable[OverdueDetectionCounts]) -> OverdueDetectionCounts:
    return OverdueDetectionCounts(*map(sum, zip(*counts, strict=True)))


def _simulate_job(job_seed: int, *, full_year: bool) -> OverdueDetectionCounts:
    made = random.Random(job_seed)
    return _sum_counts(_simulate_period(made, stretch) for stretch in _random_job_periods(made, full_year=full_year))


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
    plan, limits = period.cron, JobLimits(grace=GRACE_MS)
    known: JobState | None = None
    due, last = plan.next_slot_after(period.start_at), plan.latest_slot_until(period.start_at)
    runs = left_out = false = unfound = 0

    def late(now: int) -> bool:
        nonlocal known
        told = JobFacts("job", cron=plan.expression, timezone=plan.timezone, last_start=last)
        facts, known = merge_job_state(told, limits, known, now)
        return evaluate_job_facts(facts, limits, known.expected_from, now).reason == "job.overdue"

    late(period.start_at)
    while due < period.end_at:
        following = plan.next_slot_after(due)
        deadline = due + GRACE_MS + _clock_change_ms(plan, due)
        comes = deadline + TICK_MS >= following - MAX_EARLY_START_MS or rng.random() >= 0.01
        before = min(deadline, following - MAX_EARLY_START_MS) - 1
        if comes:
            last = due + rng.randrange(-MAX_EARLY_START_MS, MAX_LATE_START_MS)
        false += late(before)
        if not comes:
            unfound += not late(deadline + TICK_MS)
            last = deadline + TICK_MS  # somebody starts it by hand
        elif deadline + TICK_MS < following - MAX_EARLY_START_MS:
            false += late(deadline + TICK_MS)
        runs, left_out = runs + 1, left_out + (not comes)
        due = following
    return OverdueDetectionCounts(runs, left_out, false, unfound)


def _clock_change_ms(cron: CronSchedule, at: int) -> int:
    """By how many ms clocks change within three hours of an instant: so much more grace there is."""
    zone = ZoneInfo(cron.timezone)
    before, after = (datetime.fromtimestamp(at / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    return round(abs((after - before).total_seconds()) * 1000) if before is not None and after is not None else 0


def prove() -> Iterator[Measurement]:
    with ProcessPoolExecutor() as processes:
        tally = _sum_counts(processes.map(simulate_jobs, [range(n, JOB_COUNT, 50) for n in range(50)]))
    yield Measurement("jobs followed for a year", JOB_COUNT)
    yield Measurement("runs", tally.runs)
    yield Measurement("runs left out", tally.skipped_runs)
    yield Measurement("false words", tally.false_alarms, "", 0)
    yield Measurement("runs left out and not found a minute after their grace", tally.undetected_runs, "", 0)
