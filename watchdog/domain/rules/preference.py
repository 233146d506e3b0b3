"""preference: the `prefer` expressions hold. One that does not makes the probe degraded, not down."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from watchdog.domain.model import ExpressionFacts, Finding, HealthState, Outcome, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "preference"
HEALTH_STATE = HealthState.DEGRADED
FACTS = ExpressionFacts


def listed_expressions(result: Result) -> Collection[str] | None:
    """The expressions that a run computed; None: it failed before it could. A run that passes computes every
    expression, so one that passes without a listing has none in its configuration."""
    listing = result.listings.get(RULE_NAME)
    if listing is None:
        return () if result.outcome is Outcome.PASS else None
    return listing.subjects


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    if (listing := result.listings.get(RULE_NAME)) is None:
        return
    for expression, (problem,) in listing.subjects.items():
        yield Finding(RULE_NAME, expression, bool(problem), "preference.failed" if problem else "", problem)
