"""Results and policies that the tests of the rules are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchdog.model import Change, Finding, Outcome, ProbeInfo, Result, Task
from watchdog.rules import Policy, judge

PROBE = 7
STEP = 60_000
"""A slot a minute: slot n stands for n minutes."""

OUTCOME = {"p": Outcome.PASS, "f": Outcome.FAIL, "e": Outcome.ERROR, "m": Outcome.MISSED}
REASON = {Outcome.FAIL: "http.status", Outcome.ERROR: "watchdog.internal_error"}
MESSAGE = {Outcome.FAIL: "got 503", Outcome.ERROR: "our fault"}

OK = Task(ok=True, age=1_000)
FAILED = Task(ok=False, age=1_000, error="no space left")


def policy(after: int = 1, recover: int = 1, tasks: Mapping[str, int] | None = None) -> Policy:
    return Policy(ProbeInfo(PROBE, "api", "API", "mcp", task_limits=tasks or {}), lambda _: 300_000, after, recover)


def result(outcome: str, slot: int = 1, **more: Any) -> Result:
    told = OUTCOME[outcome]
    made = Result(PROBE, slot * STEP, "here", told, REASON.get(told, ""), MESSAGE.get(told, ""))
    return made._replace(**more)


def history(outcomes: str, start: int = 1) -> list[Result]:
    """ "pff" -> three results in a row, each naming the slot before it."""
    return [
        result(letter, slot, prev=(slot - 1) * STEP if slot > start else None)
        for slot, letter in enumerate(outcomes, start)
    ]


def findings(rule: str, result: Result, **policy_fields: Any) -> list[Finding]:
    """What one rule says of a result."""
    return [finding for finding in judge(policy(**policy_fields), result) if finding.rule == rule]


def told(changes: list[Change]) -> list[str]:
    """ "opened availability at 3", a subject in brackets, the reason when there is one."""
    return [
        f"{c.event} {c.rule}{f'[{c.subject}]' if c.subject else ''} at {c.slot // STEP}"
        f"{f': {c.reason}' if c.reason else ''}"
        for c in changes
    ]
