"""preference: the `prefer` expressions hold. One that does not makes the probe degraded, not down."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "preference"
HEALTH_STATE = HealthState.DEGRADED


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    for expression, problem in (result.preferences or {}).items():
        yield Finding(RULE_NAME, expression, bool(problem), "preference.failed" if problem else "", problem)
