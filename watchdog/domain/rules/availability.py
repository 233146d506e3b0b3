"""availability: the probe itself passes."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, Outcome, Result
from watchdog.domain.rules import task
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "availability"
HEALTH_STATE = HealthState.DOWN
TASK_CAUSED_REASONS = frozenset({"mcp.tool_error", "expectation.failed"})
"""Failures that a failed task may be the whole cause of: then the task's incident tells it, once."""


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    by_tasks = result.reason in TASK_CAUSED_REASONS and any(f.bad for f in task.evaluate_result(policy, result))
    if result.outcome is Outcome.FAIL and not by_tasks and not result.jobs:
        yield Finding(RULE_NAME, "", True, result.reason, result.message)
    else:
        yield Finding(RULE_NAME, "", False)
