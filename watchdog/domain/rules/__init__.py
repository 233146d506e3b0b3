"""Rules: findings about subjects, and the fold that turns them into incidents. Pure."""

from watchdog.domain.rules.engine import (
    INCIDENT_HEALTH_STATE_BY_RULE,
    THRESHOLD_IGNORING_RULE_NAMES,
    AlertStates,
    ResultsFoldOutcome,
    advance_alert_state,
    derive_probe_health_state,
    evaluate_result_rules,
    fold_results,
    has_bad_finding_about_subject,
)
from watchdog.domain.rules.policy import AlertPolicy
from watchdog.domain.uptime_clock import UptimeClock

__all__ = [
    "INCIDENT_HEALTH_STATE_BY_RULE",
    "THRESHOLD_IGNORING_RULE_NAMES",
    "AlertPolicy",
    "AlertStates",
    "ResultsFoldOutcome",
    "UptimeClock",
    "advance_alert_state",
    "derive_probe_health_state",
    "evaluate_result_rules",
    "fold_results",
    "has_bad_finding_about_subject",
]
