"""When the verdict on a job changes although nothing more is reported of it. Pure."""

from __future__ import annotations

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules.closed_job import remove_closed_problems_from_job_facts
from watchdog.domain.rules.job import OVERDUE_JOB_REASONS, build_job_run_expectation
from watchdog.domain.rules.lost_run import compute_job_run_end_deadline
from watchdog.domain.schedule import MIN_CHECK_IN_RETRY_DURATION_MS, compute_utc_offset_change_near_instant_ms
from watchdog.domain.uptime_clock import DowntimeGaps

MAX_UTC_OFFSET_CHANGE_MS = 2 * HOUR_MS
"""The largest change of clocks that postpones a deadline."""


def find_next_deadline_of_job(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, now: int, gaps: DowntimeGaps = (), *, reason: str
) -> int | None:
    """The first instant after `now` at which the next run is overdue, or the run in progress has exceeded its time;
    None: there is none. A gap postpones both. May be early: the job is judged then, and has the next deadline.

    `reason`: of the verdict at `now`. A job that is overdue cannot become so.
    """
    facts = remove_closed_problems_from_job_facts(facts)
    deadlines = [stop + MIN_CHECK_IN_RETRY_DURATION_MS for _, stop in gaps]
    expected = build_job_run_expectation(
        facts, limits, now if facts.expected_from is None else facts.expected_from, gaps
    )
    if expected.schedule is not None and facts.enabled and reason not in OVERDUE_JOB_REASONS:
        for grace in (limits.grace, limits.grace + MAX_UTC_OFFSET_CHANGE_MS):
            after = now - grace
            slot = expected.schedule.find_next_slot_after(max(after, expected.last_run_at or after))
            deadlines.append(slot + limits.grace + compute_utc_offset_change_near_instant_ms(expected.schedule, slot))
    if facts.running_since is not None:
        deadlines.append(compute_job_run_end_deadline(facts, limits, facts.running_since) + 1)
    return min((deadline for deadline in deadlines if deadline > now), default=None)
