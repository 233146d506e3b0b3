"""Rules: findings about subjects, and the fold that turns them into incidents. Pure."""

from watchdog.domain.rules.engine import (
    INCIDENT_HEALTH_STATE_BY_RULE,
    THRESHOLD_IGNORING_RULE_NAMES,
    AlertStates,
    advance_alert_state_in_place,
    derive_findings_from_result,
    derive_probe_health_state,
    has_bad_finding,
    has_finding_waiting_for_maintenance,
    is_result_bad_by_rule_about_subject,
)
from watchdog.domain.rules.fold import (
    FOLD_WITHOUT_MAINTENANCE,
    AlertStateFoldOutcome,
    ResultFoldMaintenancePeriods,
    fold_results_into_alert_states_in_place,
)
from watchdog.domain.rules.policy import AlertPolicy
from watchdog.domain.uptime_clock import UptimeClock

__all__ = [
    "FOLD_WITHOUT_MAINTENANCE",
    "INCIDENT_HEALTH_STATE_BY_RULE",
    "THRESHOLD_IGNORING_RULE_NAMES",
    "AlertPolicy",
    "AlertStateFoldOutcome",
    "AlertStates",
    "ResultFoldMaintenancePeriods",
    "UptimeClock",
    "advance_alert_state_in_place",
    "derive_findings_from_result",
    "derive_probe_health_state",
    "fold_results_into_alert_states_in_place",
    "has_bad_finding",
    "has_finding_waiting_for_maintenance",
    "is_result_bad_by_rule_about_subject",
]
