"""stale: results arrive, at least one in three slots. A stored deadline decides it, not a result."""

from __future__ import annotations

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Finding, HealthState
from watchdog.domain.reasons import build_reason_and_message

ALERT_RULE_NAME = "stale"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.UNKNOWN
STALE_ALERT_STATE_KEY = (ALERT_RULE_NAME, "")


def build_stale_finding(staleness_threshold: int) -> Finding:
    period = format_duration(staleness_threshold)
    return Finding(ALERT_RULE_NAME, "", True, *build_reason_and_message("no_data", period=period))


def build_finding_that_probe_results_are_not_stale() -> Finding:
    return Finding(ALERT_RULE_NAME, "", False)
