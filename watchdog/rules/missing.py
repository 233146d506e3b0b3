"""missing: every task that the configuration names is in the server's list."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Result, State
from watchdog.rules.policy import Policy

NAME = "missing"
STATE = State.DOWN


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    if result.tasks is None:
        return
    for name in policy.probe.task_limits:
        if name == "*":
            continue
        if name in result.tasks:
            yield Finding(NAME, name, False)
        else:
            yield Finding(NAME, name, True, "task_missing", f"task {name} is not in the server's list")
