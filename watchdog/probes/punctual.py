"""What the facts about a scheduled job mean: is it on time, stuck, failing? Pure, and the same for every source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from watchdog.queues import JobFacts
from watchdog.schedule import MOST_UNMET, Schedule, unmet
from watchdog.words import clock, count, date, span


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a job. Durations in milliseconds."""

    plan: Schedule | None = None
    """When it should run, in the place of what the source says."""
    grace: int = 60_000
    """How late a run may begin."""
    max_runtime: int | None = None
    min_runtime: int | None = None
    failures: int = 1
    """Failed runs in a row that are too many."""
    required: bool = False
    """It must be there."""


class Known(NamedTuple):
    """What is remembered of a job between looks, for a source forgets what was long ago."""

    plan: str
    """Its schedule in words: when that changes, it is owed anew from then on."""
    since: int
    """When this schedule was first seen."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None


class Verdict(NamedTuple):
    reason: str
    """Empty when all is well."""
    message: str
    expected: int | None
    """The next run, as far as anybody knows."""


def plan_of(facts: JobFacts, limits: Limits, since: int = 0) -> Schedule | None:
    """The schedule that a job is held to; None: nobody knows one that we can read."""
    return facts.plan(since) if limits.plan is None else limits.plan


def recall(facts: JobFacts, limits: Limits, known: Known | None, now: int) -> tuple[JobFacts, Known]:
    """The facts with what is remembered of the job, and what to remember from now on."""
    plan = plan_of(facts, limits)
    text = "" if plan is None else plan.text
    if known is None:
        since = now if facts.since is None else facts.since
    else:
        since = max(known.since, facts.since or 0) if known.plan == text else now
    old = known or Known(text, since)
    newer = facts.last_end is not None and facts.last_end >= (old.last_end or 0)
    facts = facts._replace(
        last_start=_latest(facts.last_start, facts.running_since, old.last_start),
        last_end=_latest(facts.last_end, old.last_end),
        last_ok=_latest(facts.last_ok, old.last_ok),
        duration=facts.duration if newer else old.duration,
    )
    return facts, Known(text, since, facts.last_start, facts.last_end, facts.last_ok, facts.duration)


def _latest(*instants: int | None) -> int | None:
    return max((at for at in instants if at is not None), default=None)


def judge(facts: JobFacts, limits: Limits, since: int, now: int) -> Verdict:
    """What is wrong with a job, the most telling thing first. `since`: when its schedule was first seen."""
    plan = plan_of(facts, limits, since)
    expected = plan.after(now) if plan is not None else facts.next_due
    if not facts.enabled:
        return Verdict("", "", None)
    reason, message = _wrong(facts, limits, plan, since, now)
    return Verdict(reason, message, expected)


def _wrong(facts: JobFacts, limits: Limits, plan: Schedule | None, since: int, now: int) -> tuple[str, str]:
    name = facts.name
    if facts.running_since is not None:
        ran = max(now - facts.running_since, 0)
        if facts.stalled:
            return "job_stalled", f"{name} is stalled: begun {span(ran)} ago, and its worker is gone"
        if limits.max_runtime is not None and ran > limits.max_runtime:
            on = f" on {facts.worker}" if facts.worker else ""
            return "job_stuck", f"{name} is stuck: running for {span(ran)}{on}, limit {span(limits.max_runtime)}"
    if found := _overdue(facts, limits, plan, since, now):
        return found
    if facts.failures >= limits.failures:
        times = "" if facts.failures == 1 else f" {count(facts.failures, 'time')} in a row"
        return "job_failed", f"{name} failed{times}" + (f": {facts.error}" if facts.error else "")
    if facts.duration is not None and facts.running_since is None:
        if limits.max_runtime is not None and facts.duration > limits.max_runtime:
            return "job_too_long", f"{name} took {span(facts.duration)}, limit {span(limits.max_runtime)}"
        if limits.min_runtime is not None and facts.duration < limits.min_runtime and not facts.failures:
            least = span(limits.min_runtime)
            return "job_too_short", f"{name} took {span(facts.duration)}, at least {least} is expected"
    return "", ""


def _overdue(facts: JobFacts, limits: Limits, plan: Schedule | None, since: int, now: int) -> tuple[str, str] | None:
    """A run that should have begun and did not. A scheduler that says when it will run next has run until then: its
    own word counts more than the runs that are still remembered, unless the configuration has another schedule."""
    own = facts.next_due if limits.plan is None else None
    if own is None:
        missed = [] if plan is None else unmet(plan, now, facts.last_start, limits.grace, since)
    elif own + limits.grace > now:
        return None
    else:
        missed = [] if plan is None else unmet(plan, now, None, limits.grace, own)
        missed = missed or [own]
    if not missed:
        return None
    due = missed[-1]
    late = f"due {_when(due, now)}, {span(now - due)} ago"
    if own is None and facts.last_start is None and facts.last_end is None:
        return "job_never_ran", f"{facts.name} never ran: {late}"
    if len(missed) == 1:
        return "job_overdue", f"{facts.name} is overdue: {late}"
    many = f"over {MOST_UNMET}" if len(missed) == MOST_UNMET else len(missed)
    return "job_overdue", f"{facts.name} is overdue: {many} runs missed, the first {late}"


def _when(at: int, now: int) -> str:
    return clock(at) if now - at < 86_400_000 else f"{date(at, now)} {clock(at)}"
