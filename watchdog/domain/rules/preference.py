"""preference: what the configuration would like to hold, and what makes the probe degraded where it does not."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "preference"
HEALTH_STATE = HealthState.DEGRADED


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    for expression, told in (result.preferences or {}).items():
        yield Finding(RULE_NAME, expression, bool(told), "preference.failed" if told else "", told)
