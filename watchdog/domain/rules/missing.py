"""missing: every task that the configuration names is in the server's list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from watchdog.domain.model import Finding, HealthState, Result
from watchdog.domain.rules.policy import AlertPolicy

RULE_NAME = "missing"
HEALTH_STATE = HealthState.DOWN


def evaluate_result(policy: AlertPolicy, result: Result) -> Iterator[Finding]:
    if result.tasks is None:
        return
    gone = missing_tasks(policy.probe.task_limits, result.tasks)
    for name in policy.probe.task_limits:
        if name in gone:
            yield Finding(RULE_NAME, name, True, *missing_task_reason(name))
        elif name != "*":
            yield Finding(RULE_NAME, name, False)


def missing_tasks(limits: Iterable[str], listed: Collection[str]) -> list[str]:
    """The tasks that a configuration names and a list does not have."""
    return [name for name in limits if name != "*" and name not in listed]


def missing_task_reason(name: str) -> tuple[str, str]:
    """The reason and message of a task that is missing."""
    return "task.missing", f"task {name} is not in the server's list"
