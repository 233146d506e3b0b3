"""missing: the server lists every task that the configuration names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules import task
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "missing"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DOWN


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(task.ALERT_RULE_NAME)) is None:
        return
    missing = find_missing_mcp_task_names(policy.probe.max_task_ages, listing.subjects)
    for name in policy.probe.max_task_ages:
        if name in missing:
            yield Finding(ALERT_RULE_NAME, name, True, *build_missing_mcp_task_problem(name))
        elif name != "*":
            yield Finding(ALERT_RULE_NAME, name, False)


def find_missing_mcp_task_names(limits: Iterable[str], listed: Collection[str]) -> list[str]:
    """The tasks that the configuration names and the server does not list."""
    return [name for name in limits if name != "*" and name not in listed]


def build_missing_mcp_task_problem(name: str) -> tuple[str, str]:
    """Reason and message of a task that is not listed."""
    return build_reason_and_message("task.missing", name=name)
