"""Leaves out of a job's facts what no longer counts because a person closed its incident. Pure.

Sources still report what happened before: a run that failed, a run that did not start, a missing job. The closure is
therefore a fact of the job from then on, so that the run, the fold and the pages judge the job in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.model import Json
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import (
    JobClosureRecord,
    build_job_closure_state_key,
    build_scheduled_job_state_key,
)

MAX_JOB_CLOSURE_LEAD_MS = 10 * MINUTE_MS
"""How far the clock of a source of jobs may be behind. A later closure is from before the clock was set back, and no
longer counts."""


def add_closure_to_job_facts(
    facts: ScheduledJobFacts, probe_state: Mapping[str, Json], now: int, state_key: str = ""
) -> ScheduledJobFacts:
    """`state_key`: of the job's `ScheduledJobStateRecord`, if it does not follow from the name."""
    key = build_job_closure_state_key(state_key or build_scheduled_job_state_key(facts.name))
    if (stored := probe_state.get(key)) is None:
        return facts
    closure = JobClosureRecord.from_json(stored)
    if closure.closed_at > now + MAX_JOB_CLOSURE_LEAD_MS:
        return facts
    return facts._replace(closed_at=closure.closed_at, closed_failures=closure.failures)


def remove_closed_problems_from_job_facts(facts: ScheduledJobFacts) -> ScheduledJobFacts:
    """The facts without what happened before the closure: runs are expected and failures are counted from the
    closure on."""
    closed_at = facts.closed_at
    if closed_at is None:
        return facts
    has_ended_since = _get_instant_if_after_closure(facts.last_end, closed_at) is not None
    counts_anew = _get_instant_if_after_closure(facts.last_ok, closed_at) is not None or (
        has_ended_since and facts.failures <= facts.closed_failures  # not every source reports when a run succeeded
    )
    return facts._replace(
        expected_from=max(facts.expected_from or 0, closed_at),
        next_due=_get_instant_if_after_closure(facts.next_due, closed_at),
        running_since=_get_instant_if_after_closure(facts.running_since, closed_at),
        lost_since=_get_instant_if_after_closure(facts.lost_since, closed_at),
        duration=facts.duration if has_ended_since else None,
        failures=facts.failures if counts_anew else max(facts.failures - facts.closed_failures, 0),
    )


def compute_changed_job_closures_by_state_key(
    jobs: Mapping[str, ScheduledJobFacts], removed_keys: Iterable[str], probe_state: Mapping[str, Json]
) -> dict[str, Json]:
    """The closures that change with a run that reports these facts, by key; None: the key is deleted. `jobs`: by the
    key of their `ScheduledJobStateRecord`. `removed_keys`: of jobs that were removed."""
    closures: dict[str, Json] = dict.fromkeys(
        key for key in map(build_job_closure_state_key, removed_keys) if key in probe_state
    )
    for state_key, facts in jobs.items():
        key = build_job_closure_state_key(state_key)
        if facts.closed_at is None or facts.failures >= facts.closed_failures or key not in probe_state:
            continue
        # The source counts from the beginning again, or has deleted some of the failures that do not count.
        has_ended_since = _get_instant_if_after_closure(facts.last_end, facts.closed_at) is not None
        closure = JobClosureRecord.from_json(probe_state[key])
        closures[key] = closure._replace(failures=0 if has_ended_since else facts.failures).to_json()
    return closures


def is_absence_closed(facts: ScheduledJobFacts) -> bool:
    """Whether the job was missing already when its incident was closed. It counts again once it has been listed."""
    return facts.closed_at is not None and (facts.gone_since is None or facts.gone_since <= facts.closed_at)


def _get_instant_if_after_closure(instant: int | None, closed_at: int) -> int | None:
    return instant if instant is not None and instant > closed_at else None
