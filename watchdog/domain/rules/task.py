"""task: each scheduled task that an MCP server reports is ok, and its last run no older than its limit."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.formatting import SHOW_SECONDS_BELOW_MS, format_duration, format_utc
from watchdog.domain.model import Finding, HealthState, ProbeInfo, ReportedTask, Result
from watchdog.domain.reasons import reason_and_message
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "task"
HEALTH_STATE = HealthState.DEGRADED
FACTS = ReportedTask


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    if (listing := result.listings.get(RULE_NAME)) is None:
        return
    for name, task in listing.subjects.items():
        reason, message = task_failure_reason(name, task, task_limit(policy.probe, name), listing.observed_at)
        yield Finding(RULE_NAME, name, bool(reason), reason, message)


def task_limit(probe: ProbeInfo, name: str) -> int | None:
    """How long ago the task's last run may be, in milliseconds; None: no limit."""
    return probe.task_limits.get(name, probe.task_limits.get("*"))


def task_failure_reason(name: str, task: ReportedTask, limit: int | None, now: int) -> tuple[str, str]:
    """Reason and message; both empty when the task is fine. `limit`: as `task_limit` returns it."""
    if not task.ok:
        return reason_and_message("task.failed", task.error, name=name)
    since = task.first_listed_at if task.last_run_at is None else task.last_run_at
    if limit is None or since is None or now - since <= limit:
        return "", ""
    when, limit_text = format_utc(since, now, seconds=limit < SHOW_SECONDS_BELOW_MS), format_duration(limit)
    if task.last_run_at is None:
        return reason_and_message("task.never_ran", name=name, first_listed=when, limit=limit_text)
    return reason_and_message("task.stale", name=name, last_run=when, limit=limit_text)
