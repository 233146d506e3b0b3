"""preference: the `prefer` expressions hold. One that does not makes the probe degraded, not down."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, PreferenceExpressionFacts, ProbeResult
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "preference"
INCIDENT_HEALTH_STATE = HealthState.DEGRADED
FACTS_TYPE = PreferenceExpressionFacts


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(RULE_NAME)) is None:
        return
    for expression, (problem,) in listing.subjects.items():
        yield Finding(RULE_NAME, expression, bool(problem), "preference.failed" if problem else "", problem)
