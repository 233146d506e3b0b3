"""missing: every task that the configuration names is in the server's list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from watchdog.model import Finding, Result, State
from watchdog.rules.policy import Policy

NAME = "missing"
STATE = State.DOWN


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    if result.tasks is None:
        return
    gone = absent(policy.probe.task_limits, result.tasks)
    for name in policy.probe.task_limits:
        if name in gone:
            yield Finding(NAME, name, True, *verdict(name))
        elif name != "*":
            yield Finding(NAME, name, False)


def absent(limits: Iterable[str], listed: Collection[str]) -> list[str]:
    """The tasks that a configuration names and a list does not have."""
    return [name for name in limits if name != "*" and name not in listed]


def verdict(name: str) -> tuple[str, str]:
    """The reason and message of a task that is missing."""
    return "task.missing", f"task {name} is not in the server's list"
