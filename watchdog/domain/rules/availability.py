"""availability: the probe passes."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Outcome, ProbeResult
from watchdog.domain.rules import job, task
from watchdog.domain.rules.missing_jobs import find_gone_job_majority
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "availability"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DOWN
EXPECTATION_FAILED_REASON = "expectation.failed"
"""A failure that a bad task may cause, as of `result.healthy`: then only the task's incident is about it."""
NO_JOBS_LISTED_REASON = "job.none_listed"
"""A failure of the source itself, not of a job."""


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    jobs = result.listings.get(job.ALERT_RULE_NAME)
    if jobs is not None and find_gone_job_majority(jobs.subjects):
        return  # a source whose jobs have vanished does not show that anything has recovered
    if result.outcome is not Outcome.FAIL:
        yield Finding(ALERT_RULE_NAME, "", False)
        return
    caused_by_tasks = result.reason == EXPECTATION_FAILED_REASON and any(
        finding.bad for finding in task.evaluate_result(policy, result)
    )
    caused_by_jobs = result.reason != NO_JOBS_LISTED_REASON and any(
        finding.bad for finding in job.evaluate_result(policy, result)
    )
    if caused_by_tasks or caused_by_jobs:
        yield Finding(ALERT_RULE_NAME, "", False)
    else:
        yield Finding(ALERT_RULE_NAME, "", True, result.reason, result.message)
