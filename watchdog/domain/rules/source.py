"""source: a source of scheduled jobs still lists most of the jobs that it listed before."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Result
from watchdog.domain.rules import job
from watchdog.domain.rules.missing_jobs import vanished_jobs
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "source"
HEALTH_STATE = HealthState.DOWN
REASON = "job.most_gone"


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    if (listing := result.listings.get(job.RULE_NAME)) is None:
        return
    if vanished_jobs(listing.subjects):
        message = result.message if result.reason == REASON else ""
        yield Finding(RULE_NAME, "", True, REASON, message)
    else:
        removals = [facts.removal for facts in listing.subjects.values() if facts.removal]
        yield Finding(RULE_NAME, "", False, removals[0] if removals else "")
