"""job: each scheduled job that a source knows is on time, and well. Its grace lies in its schedule, not in `after`."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Result, State
from watchdog.rules.policy import Policy

NAME = "job"
STATE = State.DOWN


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    for name, trouble in (result.jobs or {}).items():
        yield Finding(NAME, name, True, trouble.reason, trouble.message)
