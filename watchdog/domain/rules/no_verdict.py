"""no_verdict: runs lead to a verdict. A fault of Watchdog itself is never the target's."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Outcome, ProbeResult
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "no_verdict"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.UNKNOWN
WATCHDOG_OVERLOADED_REASON = "watchdog.overloaded"
"""A run found no free place. That is a finding about Watchdog, and decides nothing about the probe."""
NO_VERDICT_REASONS_ABOUT_WATCHDOG = (WATCHDOG_OVERLOADED_REASON, WATCHDOG_NETWORK_FAULT_REASON)


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if result.reason in NO_VERDICT_REASONS_ABOUT_WATCHDOG:
        return
    if result.outcome is Outcome.ERROR:
        yield Finding(ALERT_RULE_NAME, "", True, result.reason, result.message)
    else:
        yield Finding(ALERT_RULE_NAME, "", False)
