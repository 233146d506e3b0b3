"""stale: no result was stored for too long. Decided by a stored deadline, not by a result."""

from __future__ import annotations

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Finding, HealthState

RULE_NAME = "stale"
HEALTH_STATE = HealthState.UNKNOWN
ALERT_STATE_KEY = (RULE_NAME, "")


def stale_finding(staleness_threshold: int) -> Finding:
    return Finding(RULE_NAME, "", True, "no_data", f"no result for {format_duration(staleness_threshold)}")


def fresh_finding() -> Finding:
    return Finding(RULE_NAME, "", False)
