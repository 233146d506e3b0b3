"""missed_run: every run of a cron schedule takes place, even if Watchdog was down when it was due."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.formatting import format_time_in_zone
from watchdog.domain.model import Finding, HealthState, Outcome, ProbeResult
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "missed_run"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.UNKNOWN
NOT_RUN_REASON, MAY_HAVE_RUN_REASON = "missed.not_run", "missed.may_have_run"
"""The reasons of missed slots that are a problem: they are recorded for cron schedules only."""
CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON = "missed.already_started"
"""Of a slot of a cron schedule whose run was started before the clock was set back, so that nothing is missing."""
LATE_START_MEASUREMENT_NAME = "started_late_ms"
"""How long after its slot a run was started that was caught up."""

REQUESTED_RUN_MEASUREMENT_NAME = "manual"
"""True for a run that a person has requested."""
UNSCHEDULED_RUN_MEASUREMENT_NAMES = frozenset({LATE_START_MEASUREMENT_NAME, REQUESTED_RUN_MEASUREMENT_NAME})


def format_cron_run(slot: int, now: int, timezone: str) -> str:
    """A run of a cron schedule: "the 06:00 CET run"."""
    return f"the {format_time_in_zone(slot, now, timezone)} run"


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if result.reason in (NOT_RUN_REASON, MAY_HAVE_RUN_REASON):
        yield Finding(ALERT_RULE_NAME, "", True, result.reason, result.message)
    elif result.outcome is not Outcome.MISSED and UNSCHEDULED_RUN_MEASUREMENT_NAMES.isdisjoint(result.measurements):
        yield Finding(ALERT_RULE_NAME, "", False)
