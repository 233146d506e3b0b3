"""preference: what the configuration would like to hold, and what makes the probe degraded where it does not."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.model import Finding, Result, State
from watchdog.rules.policy import Policy

NAME = "preference"
STATE = State.DEGRADED


def judge(policy: Policy, result: Result) -> Iterator[Finding]:
    for expression, told in (result.preferences or {}).items():
        yield Finding(NAME, expression, bool(told), "preference.failed" if told else "", told)
