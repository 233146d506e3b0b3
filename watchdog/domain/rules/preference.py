"""preference: the `prefer` expressions hold. One that does not makes the probe degraded, not down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.rules.policy import AlertPolicy


class PreferenceExpressionResult(NamedTuple):
    """The result of a `prefer` expression: in words, without the values that it compares.

    Stored values are masked and cut to size, so comparing them again could give another result than the run.
    """

    problem: str
    """Empty if it holds, else "elapsed_ms <= 800 is false: observed 1204"."""
    reason: str = ""
    """Of the problem, if it is another one than that of expressions."""


ALERT_RULE_NAME = "preference"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED
ALERT_RULE_SUBJECT_FACTS_CLASS = PreferenceExpressionResult


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    for expression, (problem, reason) in listing.subjects.items():
        yield Finding(
            ALERT_RULE_NAME, expression, bool(problem), (reason or "preference.failed") if problem else "", problem
        )
