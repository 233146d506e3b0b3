"""task: each scheduled task that an MCP server reports is ok, and not staler than its limit."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Result, State, Task
from watchdog.rules.policy import Policy
from watchdog.words import beyond, span

NAME = "task"
STATE = State.DEGRADED


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    limits = policy.probe.task_limits
    for name, told in (result.tasks or {}).items():
        limit = limits.get(name, limits.get("*"))
        reason, message = verdict(name, told, limit)
        yield Finding(NAME, name, bool(reason), reason, message)


def verdict(name: str, task: Task, limit: int | None) -> tuple[str, str]:
    """The reason and message of what is wrong with a task; empty when nothing is."""
    if not task.ok:
        return "task.failed", f"task {name} failed" + (f": {task.error}" if task.error else "")
    if limit is None:
        return "", ""
    if task.age is None:
        if task.seen is not None and task.seen > limit:
            seen = beyond(task.seen, limit)
            return "task.never_ran", f"task {name} never ran: first seen {seen} ago, limit {span(limit)}"
        return "", ""
    if task.age > limit:
        return "task.stale", f"task {name} is stale: last run {beyond(task.age, limit)} ago, limit {span(limit)}"
    return "", ""
