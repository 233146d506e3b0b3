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

from benchmarks.table import Figure
from watchdog.probes.punctual import Known, Limits, judge, recall
from watchdog.queues import JobFacts
from watchdog.schedule import Cron

MIN, DAY = 60_000, 86_400_000
JOBS = 500
BEGIN = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
YEAR = (BEGIN, BEGIN + 365 * DAY)
GRACE, TICK = 5 * MIN, MIN
EARLY, LATE = 5_000, 4 * MIN
"""How much runs wander, in ms."""
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "America/St_Johns": ("2026-03-08", "2026-11-01"),
    "UTC": (),
}
OFTEN = ("*/15 * * * *", "30 * * * *")
SELDOM = ("30 2 * * *", "0 3 * * *", "15 1 * * *", "0 6 * * 1", "0 6 1 * *", "0 9 * * 1-5")


class Tally(NamedTuple):
    runs: int = 0
    left_out: int = 0
    false: int = 0
    """Looks at which a run was called late that was not."""
    unfound: int = 0
    """Runs that never came, and nobody said so a minute after their grace."""


def simulate(jobs: Iterable[int], *, whole: bool = True) -> Tally:
    """`jobs`: a number for each, of which all chance follows. Unless `whole`, those that run every hour or more often
    are followed for four days around each change of clocks only."""
    return _sum(_tally(job, whole=whole) for job in jobs)


def _sum(tallies: Iterable[Tally]) -> Tally:
    return Tally(*map(sum, zip(*tallies, strict=True)))


def _tally(job: int, *, whole: bool) -> Tally:
    made = random.Random(job)
    return _sum(_follow(made, stretch) for stretch in _job(made, whole=whole))


class Stretch(NamedTuple):
    plan: Cron
    begin: int
    end: int


def _job(made: random.Random, *, whole: bool) -> list[Stretch]:
    zone = made.choice(list(CHANGES))
    expression = made.choice((*OFTEN, *SELDOM))
    plan = Cron(expression, zone)
    if whole or expression in SELDOM:
        return [Stretch(plan, *YEAR)]
    days = CHANGES[zone] or ("2026-06-01",)
    noons = [round(datetime.fromisoformat(f"{day}T12:00:00Z").timestamp() * 1000) for day in days]
    return [Stretch(plan, noon - 2 * DAY, noon + 2 * DAY) for noon in noons]


def _follow(made: random.Random, stretch: Stretch) -> Tally:
    plan, limits = stretch.plan, Limits(grace=GRACE)
    known: Known | None = None
    due, last = plan.after(stretch.begin), plan.before(stretch.begin)
    runs = left_out = false = unfound = 0

    def late(now: int) -> bool:
        nonlocal known
        told = JobFacts("job", cron=plan.expression, timezone=plan.timezone, last_start=last)
        facts, known = recall(told, limits, known, now)
        return judge(facts, limits, known.since, now).reason == "job.overdue"

    late(stretch.begin)
    while due < stretch.end:
        following = plan.after(due)
        deadline = due + GRACE + _change(plan, due)
        comes = deadline + TICK >= following - EARLY or made.random() >= 0.01
        before = min(deadline, following - EARLY) - 1
        if comes:
            last = due + made.randrange(-EARLY, LATE)
        false += late(before)
        if not comes:
            unfound += not late(deadline + TICK)
            last = deadline + TICK  # somebody starts it by hand
        elif deadline + TICK < following - EARLY:
            false += late(deadline + TICK)
        runs, left_out = runs + 1, left_out + (not comes)
        due = following
    return Tally(runs, left_out, false, unfound)


def _change(plan: Cron, at: int) -> int:
    """By how many ms clocks change within three hours of an instant: so much more grace there is."""
    zone = ZoneInfo(plan.timezone)
    before, after = (datetime.fromtimestamp(at / 1000 + s, zone).utcoffset() for s in (-10_800, 10_800))
    return round(abs((after - before).total_seconds()) * 1000) if before is not None and after is not None else 0


def prove() -> Iterator[Figure]:
    with ProcessPoolExecutor() as processes:
        tally = _sum(processes.map(simulate, [range(n, JOBS, 50) for n in range(50)]))
    yield Figure("jobs followed for a year", JOBS)
    yield Figure("runs", tally.runs)
    yield Figure("runs left out", tally.left_out)
    yield Figure("false words", tally.false, "", 0)
    yield Figure("runs left out and not found a minute after their grace", tally.unfound, "", 0)
