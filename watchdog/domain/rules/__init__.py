"""Rules: findings about subjects, and the fold that turns them into incidents. Pure."""

from watchdog.domain.rules.engine import (
    INCIDENT_HEALTH_STATE_BY_RULE,
    THRESHOLD_IGNORING_RULE_NAMES,
    AlertStateFoldOutcome,
    AlertStates,
    advance_alert_state,
    derive_probe_health_state,
    evaluate_result_rules,
    fold_results_into_alert_states_in_place,
    is_result_bad_by_rule_about_subject,
)
from watchdog.domain.rules.policy import AlertPolicy
from watchdog.domain.uptime_clock import UptimeClock

__all__ = [
    "INCIDENT_HEALTH_STATE_BY_RULE",
    "THRESHOLD_IGNORING_RULE_NAMES",
    "AlertPolicy",
    "AlertStateFoldOutcome",
    "AlertStates",
    "UptimeClock",
    "advance_alert_state",
    "derive_probe_health_state",
    "evaluate_result_rules",
    "fold_results_into_alert_states_in_place",
    "is_result_bad_by_rule_about_subject",
]
