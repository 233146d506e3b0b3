"""job: each scheduled job that a source knows is on time, and well. Its grace lies in its schedule, not in `after`."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "job"
HEALTH_STATE = HealthState.DOWN


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    for name, trouble in (result.jobs or {}).items():
        yield Finding(RULE_NAME, name, True, trouble.reason, trouble.message)
