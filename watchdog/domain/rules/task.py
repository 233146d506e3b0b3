"""task: each scheduled task that an MCP server reports is ok, and not staler than its limit."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.formatting import format_duration, format_duration_over_limit
from watchdog.domain.model import Finding, HealthState, ReportedTask, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "task"
HEALTH_STATE = HealthState.DEGRADED


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    limits = policy.probe.task_limits
    for name, told in (result.tasks or {}).items():
        limit = limits.get(name, limits.get("*"))
        reason, message = task_failure_reason(name, told, limit)
        yield Finding(RULE_NAME, name, bool(reason), reason, message)


def task_failure_reason(name: str, task: ReportedTask, limit: int | None) -> tuple[str, str]:
    """The reason and message of what is wrong with a task; empty when nothing is."""
    if not task.ok:
        return "task.failed", f"task {name} failed" + (f": {task.error}" if task.error else "")
    if limit is None:
        return "", ""
    if task.last_run_age is None:
        if task.first_seen_age is not None and task.first_seen_age > limit:
            seen = format_duration_over_limit(task.first_seen_age, limit)
            return "task.never_ran", f"task {name} never ran: first seen {seen} ago, limit {format_duration(limit)}"
        return "", ""
    if task.last_run_age > limit:
        return (
            "task.stale",
            f"task {name} is stale: last run {format_duration_over_limit(task.last_run_age, limit)} ago, "
            f"limit {format_duration(limit)}",
        )
    return "", ""
