"""contract: an MCP server offers what its accepted contract states."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.observations import McpContractDeviationFacts
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "contract"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED
ALERT_RULE_SUBJECT_FACTS_CLASS = McpContractDeviationFacts


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    for subject, deviation in listing.subjects.items():
        yield Finding(ALERT_RULE_NAME, subject, True, deviation.reason, deviation.message)
