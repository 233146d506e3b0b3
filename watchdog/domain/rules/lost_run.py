"""Until when a run should have ended, and which run that has not is lost. Pure."""

from __future__ import annotations

from watchdog.domain.formatting import HOUR_MS, SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS, format_time_in_zone
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.reasons import build_reason_and_message

MIN_LOST_JOB_RUN_AGE_MS = HOUR_MS
"""A run without `max_runtime` is not given up as lost before this time."""


def find_job_interval_counted_from_run(facts: ScheduledJobFacts, limits: ScheduledJobLimits) -> int | None:
    """The interval of a job whose next run counts from its last one; None: a cron expression or the job's scheduler
    defines when it is due."""
    if limits.overrides_schedule:
        return limits.interval
    return facts.every if not facts.cron and facts.next_due is None else None


def compute_job_run_end_deadline(facts: ScheduledJobFacts, limits: ScheduledJobLimits, started_at: int) -> int:
    """When a run that started at `started_at` should have ended. Without `max_runtime`: after one period, and at least
    after an hour; that serves to find lost runs only."""
    if limits.max_runtime is not None:
        return started_at + limits.max_runtime
    interval, schedule = find_job_interval_counted_from_run(facts, limits), limits.schedule or facts.build_schedule()
    period = interval or (
        MIN_LOST_JOB_RUN_AGE_MS if schedule is None else schedule.compute_slot_interval_ms_at(started_at)
    )
    return started_at + max(period, MIN_LOST_JOB_RUN_AGE_MS)


def reclassify_overdue_running_job_run_as_lost(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, now: int
) -> ScheduledJobFacts:
    """A run that its source still lists as in progress is lost if its deadline has passed and a later run has ended."""
    since, end = facts.running_since, facts.last_end
    if since is None or end is None or facts.duration is None or facts.stalled:
        return facts
    newest, newest_ended_start = facts.newest_running_since or since, end - facts.duration
    lost_since = max(
        (
            start
            for start in (since, newest)
            if start < newest_ended_start and compute_job_run_end_deadline(facts, limits, start) <= now
        ),
        default=None,
    )
    if lost_since is None:
        return facts
    starts = [at for at in (newest, facts.last_start) if at is not None and at not in (since, lost_since)]
    in_progress = max((at for at in starts if at == newest or at > newest_ended_start), default=None)
    is_uncounted = facts.last_ok is None or facts.last_ok < lost_since
    failures = facts.failures + is_uncounted
    # The oldest run that the source lists is lost: its worker and id are not those of the run in progress.
    is_newest = in_progress is not None and in_progress == facts.newest_running_since
    return facts._replace(
        running_since=in_progress,
        worker=facts.newest_worker if is_newest else "",
        run_id=facts.newest_run_id if is_newest else "",
        lost_since=lost_since,
        failures=failures,
    )


def build_lost_job_run_problem(
    facts: ScheduledJobFacts, lost_since: int, failures: int, now: int, timezone: str
) -> tuple[str, str]:
    """Reason and message: which run is lost, and the later start or end that shows it."""
    later = (("started", facts.running_since), ("started", facts.last_start), ("ended", facts.last_end))
    verb, at = next(((verb, at) for verb, at in later if at is not None and at > lost_since), ("", lost_since))
    seconds = 0 < at - lost_since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    evidence = f", and a later run {verb} at {format_time_in_zone(at, now, timezone, seconds=seconds)}" if verb else ""
    return build_reason_and_message(
        "job.lost",
        name=facts.name,
        started=format_time_in_zone(lost_since, now, timezone, seconds=seconds),
        evidence=evidence,
        repeats="" if failures == 1 else f"; {failures} runs in a row have failed or been lost",
    )
