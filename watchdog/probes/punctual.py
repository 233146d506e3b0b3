"""What the facts about a scheduled job mean: is it on time, stuck, failing? Pure, and the same for every source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from watchdog.queues import JobFacts
from watchdog.schedule import BRIDGED, MOST_UNMET, Away, Cron, Interval, Schedule, silence, unmet
from watchdog.words import DAY, clock, count, date, span


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a job. Durations in milliseconds."""

    plan: Cron | None = None
    """When it should run, in the place of what the source says."""
    every: int | None = None
    """How often it should run, in the place of what the source says."""
    grace: int = 60_000
    """How late a run may begin."""
    max_runtime: int | None = None
    min_runtime: int | None = None
    failures: int = 1
    """Failed runs in a row that are too many."""

    @property
    def planned(self) -> bool:
        """Whether the source's own schedule does not matter."""
        return self.plan is not None or self.every is not None


class Known(NamedTuple):
    """What is remembered of a job between looks, for a source forgets what was long ago."""

    plan: str
    """Its schedule in words, empty while none is in force: when that changes, it is owed anew from then on."""
    since: int
    """From when on this schedule is owed: when it was first seen, mostly."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    failures: int = 0


class Verdict(NamedTuple):
    reason: str
    """Empty when all is well."""
    message: str
    expected: int | None
    """The next run, as far as anybody knows."""


class Owed(NamedTuple):
    """Which runs a job owes: those of a schedule after the last one, from an instant on."""

    plan: Schedule | None
    """None: nobody knows one, or it is none that we can read."""
    last: int | None
    since: int


def owed(facts: JobFacts, limits: Limits, since: int, away: Away = ()) -> Owed:
    every = _counted(facts, limits)
    if every is None:
        return Owed(limits.plan or facts.plan(), facts.last_start, since)
    begun = _counts_from(facts, every, limits.grace, since, away)
    return Owed(Interval(every, begun % every), begun, begun)


def _counted(facts: JobFacts, limits: Limits) -> int | None:
    """How often a job runs whose time counts from its last run; None: the clock or its scheduler says when."""
    if limits.planned:
        return limits.every
    return facts.every if not facts.cron and facts.next_due is None else None


def _counts_from(facts: JobFacts, every: int, grace: int, since: int, away: Away) -> int:
    """The last run, or when the schedule was first seen if that was later. Where a run fell into a time when nobody
    could tell us of it, the end of that: it may have run then, at any time. Not twice in a row: then it is silent."""
    begun = since if facts.last_start is None else max(facts.last_start, since)
    found = [begun]
    for start, stop in away:
        due = found[-1] + every
        if stop - start > BRIDGED and stop > begun and start <= due + grace and due <= stop + grace:
            found.append(stop)
    return found[-1] if len(found) <= 2 else begun


def recall(facts: JobFacts, limits: Limits, known: Known | None, now: int) -> tuple[JobFacts, Known]:
    """The facts with what is remembered of the job, and what to remember from now on. What lies in the future was
    remembered by a clock that was wrong."""
    plan = owed(facts, limits, now).plan
    text = plan.text if plan is not None and facts.enabled else ""
    old = known or Known(text, _first_owed(facts, limits, now))
    since = min(max(old.since, facts.since or 0), now) if old.plan == text else now
    start, end, ok = (None if at is None or at > now else at for at in (old.last_start, old.last_end, old.last_ok))
    newer = facts.last_end is not None and (end is None or facts.last_end >= end)
    under_way = facts.running_since is not None and facts.last_end == end  # hence nothing has ended since
    failures = facts.failures if end is None or (newer and not under_way) else old.failures
    facts = facts._replace(
        last_start=_latest(facts.last_start, facts.running_since, start),
        last_end=_latest(facts.last_end, end),
        last_ok=_latest(facts.last_ok, ok),
        duration=facts.duration if newer else old.duration,
        failures=failures,
        error=facts.error if failures else "",
    )
    return facts, Known(text, since, facts.last_start, facts.last_end, facts.last_ok, facts.duration, failures)


def _first_owed(facts: JobFacts, limits: Limits, now: int) -> int:
    """From when on a job is owed that was never seen before."""
    if facts.since is not None:
        return facts.since
    every, last = _counted(facts, limits), facts.last_start
    return last if every is not None and last is not None and now < last + every else now


def _latest(*instants: int | None) -> int | None:
    return max((at for at in instants if at is not None), default=None)


def judge(facts: JobFacts, limits: Limits, since: int, now: int, away: Away = ()) -> Verdict:
    """What is wrong with a job, the most telling thing first. `since`: from when on its schedule is owed. `away`: when
    it could not have told us of a run; nothing, where its source knows them all."""
    due = owed(facts, limits, since, away)
    expected = due.plan.after(now) if due.plan is not None else facts.next_due
    if not facts.enabled:
        return Verdict("", "", None)
    reason, message = _wrong(facts, limits, due, now, away)
    return Verdict(reason, message, expected)


def _wrong(facts: JobFacts, limits: Limits, due: Owed, now: int, away: Away) -> tuple[str, str]:
    name = facts.name
    if facts.running_since is not None:
        ran = max(now - facts.running_since, 0)
        if facts.stalled:
            return "job.stalled", f"{name} is stalled: begun {span(ran)} ago, and its worker is gone"
        if limits.max_runtime is not None and _stuck(facts.running_since, limits.max_runtime, now, away):
            on = f" on {facts.worker}" if facts.worker else ""
            return "job.stuck", f"{name} is stuck: running for {span(ran)}{on}, limit {span(limits.max_runtime)}"
    if found := _overdue(facts, limits, due, now, away):
        return found
    if facts.failures >= limits.failures:
        times = "" if facts.failures == 1 else f" {count(facts.failures, 'time')} in a row"
        return "job.failed", f"{name} failed{times}" + (f": {facts.error}" if facts.error else "")
    if facts.duration is not None and facts.running_since is None:
        if limits.max_runtime is not None and facts.duration > limits.max_runtime:
            return "job.max_runtime", f"{name} took {span(facts.duration)}, limit {span(limits.max_runtime)}"
        if limits.min_runtime is not None and facts.duration < limits.min_runtime and not facts.failures:
            least = span(limits.min_runtime)
            return "job.min_runtime", f"{name} took {span(facts.duration)}, at least {least} is expected"
    return "", ""


def _stuck(begun: int, limit: int, now: int, away: Away) -> bool:
    late, gap = silence(begun, begun + limit, away)
    return gap is None and late < now


def _overdue(facts: JobFacts, limits: Limits, due: Owed, now: int, away: Away) -> tuple[str, str] | None:
    """A run that should have begun and did not. A scheduler that says when it will run next has run until then: its
    own word counts more than the runs that are still remembered, unless the configuration has another schedule."""
    own = None if limits.planned else facts.next_due
    if own is not None and own + limits.grace > now:
        return None
    last, since = (due.last, due.since) if own is None else (own, own)
    missed = [] if due.plan is None else unmet(due.plan, now, last, limits.grace, since, away)
    if own is not None:
        missed.append(own)
    if not missed:
        return None
    first = missed[-1]
    late = f"due {_when(first, now)}, {span(now - first)} ago"
    if own is None and facts.last_start is None and facts.last_end is None:
        return "job.never_ran", f"{facts.name} never ran: {late}"
    if len(missed) == 1:
        return "job.overdue", f"{facts.name} is overdue: {late}"
    many = f"over {MOST_UNMET}" if len(missed) >= MOST_UNMET else len(missed)
    return "job.overdue", f"{facts.name} is overdue: {many} runs missed, the first {late}"


def _when(at: int, now: int) -> str:
    return clock(at) if now - at < DAY else f"{date(at, now)} {clock(at)}"
