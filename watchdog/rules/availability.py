"""availability: the probe itself passes."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Outcome, Result, State
from watchdog.rules import task
from watchdog.rules.policy import Policy

NAME = "availability"
STATE = State.DOWN
BY_TASKS = frozenset({"mcp.tool_error", "expectation.failed"})
"""Failures that a failed task may be the whole cause of: then the task's incident tells it, once."""


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    by_tasks = result.reason in BY_TASKS and any(f.bad for f in task.judge(policy, result))
    if result.outcome is Outcome.FAIL and not by_tasks and not result.jobs:
        yield Finding(NAME, "", True, result.reason, result.message)
    else:
        yield Finding(NAME, "", False)
