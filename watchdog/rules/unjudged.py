"""unjudged: we could not judge, run after run. Our own fault is never the target's."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Outcome, Result, State
from watchdog.rules.policy import Policy

NAME = "unjudged"
STATE = State.UNKNOWN


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    if result.outcome is Outcome.ERROR:
        yield Finding(NAME, "", True, result.reason, result.message)
    else:
        yield Finding(NAME, "", False)
