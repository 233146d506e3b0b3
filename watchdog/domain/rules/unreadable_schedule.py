"""schedule: Watchdog can read the schedule and the status of each job that a source reports, and therefore judge it."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules import job
from watchdog.domain.rules.missing_jobs import find_unjudgeable_job_names
from watchdog.domain.rules.policy import AlertPolicy
from watchdog.domain.schedule import CronSchedule, CronScheduleError
from watchdog.domain.text import truncate_with_ellipsis

ALERT_RULE_NAME = "schedule"
MAX_JOB_STATUS_CHARS_IN_MESSAGE = 60
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(job.ALERT_RULE_NAME)) is None:
        return
    withheld = find_unjudgeable_job_names(listing)
    for name, facts in listing.subjects.items():
        limits = job.find_job_limits(policy.probe.job_limits, name)
        if limits is not None and facts.listed and name not in withheld:
            reason, message = find_unjudged_job_reason_and_message(facts, limits)
            yield Finding(ALERT_RULE_NAME, name, bool(reason), reason, message)


def find_unjudged_job_reason_and_message(facts: ScheduledJobFacts, limits: ScheduledJobLimits) -> tuple[str, str]:
    """Reason and message if the job cannot be judged, because the outcome of its newest run is not known, or because
    its schedule cannot be read and nothing else shows when it is due; both empty otherwise."""
    if not facts.enabled or not facts.listed:
        return "", ""
    if facts.unknown_status:
        status = truncate_with_ellipsis(facts.unknown_status, MAX_JOB_STATUS_CHARS_IN_MESSAGE)
        return build_reason_and_message("job.status_unknown", name=facts.name, status=status)
    if limits.overrides_schedule or facts.next_due is not None or not facts.cron:
        return "", ""
    try:
        CronSchedule(facts.cron, facts.timezone)
    except CronScheduleError as error:
        return build_reason_and_message("job.schedule_unreadable", str(error), name=facts.name)
    return "", ""
