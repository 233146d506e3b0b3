"""task: each scheduled task that an MCP server reports is ok, and its last run no older than its limit."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.formatting import SHOW_SECONDS_BELOW_MS, format_duration, format_utc
from watchdog.domain.model import Finding, HealthState, ReportedTask, Result
from watchdog.domain.reasons import reason_and_message
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "task"
HEALTH_STATE = HealthState.DEGRADED


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    limits = policy.probe.task_limits
    for name, task in (result.tasks or {}).items():
        limit = limits.get(name, limits.get("*"))
        reason, message = task_failure_reason(name, task, limit, result.slot)
        yield Finding(RULE_NAME, name, bool(reason), reason, message)


def task_failure_reason(name: str, task: ReportedTask, limit: int | None, reported_at: int) -> tuple[str, str]:
    """Reason and message; both empty when the task is fine. `reported_at`: the instant that its ages refer to."""
    if not task.ok:
        return reason_and_message("task.failed", task.error, name=name)
    if limit is None:
        return "", ""
    seconds = limit < SHOW_SECONDS_BELOW_MS
    if task.last_run_age is None:
        if task.first_seen_age is None or task.first_seen_age <= limit:
            return "", ""
        first_seen = format_utc(reported_at - task.first_seen_age, reported_at, seconds=seconds)
        return reason_and_message("task.never_ran", name=name, first_seen=first_seen, limit=format_duration(limit))
    if task.last_run_age <= limit:
        return "", ""
    last_run = format_utc(reported_at - task.last_run_age, reported_at, seconds=seconds)
    return reason_and_message("task.stale", name=name, last_run=last_run, limit=format_duration(limit))
