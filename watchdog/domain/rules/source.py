"""source: a source of scheduled jobs still lists most of the jobs that it listed before."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.rules import job
from watchdog.domain.rules.missing_jobs import find_gone_job_majority
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "source"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DOWN
MOST_JOBS_GONE_REASON = "job.most_gone"


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(job.ALERT_RULE_NAME)) is None:
        return
    if find_gone_job_majority(listing.subjects):
        message = result.message if result.reason == MOST_JOBS_GONE_REASON else ""
        yield Finding(ALERT_RULE_NAME, "", True, MOST_JOBS_GONE_REASON, message)
    else:
        removals = [facts.removal for facts in listing.subjects.values() if facts.removal]
        yield Finding(ALERT_RULE_NAME, "", False, removals[0] if removals else "")
