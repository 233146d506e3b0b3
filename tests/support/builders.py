"""Results and policies that the tests of the rules are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchdog.domain.model import Finding, IncidentTransition, Outcome, ProbeInfo, ReportedTask, Result
from watchdog.domain.rules import AlertPolicy, evaluate_rules

PROBE_DATABASE_ID = 7
SLOT_INTERVAL_MS = 60_000
"""A slot a minute: slot n stands for n minutes."""

OUTCOME_BY_LETTER = {"p": Outcome.PASS, "f": Outcome.FAIL, "e": Outcome.ERROR, "m": Outcome.MISSED}
REASON_BY_OUTCOME = {Outcome.FAIL: "http.status", Outcome.ERROR: "watchdog.internal_error"}
MESSAGE_BY_OUTCOME = {Outcome.FAIL: "HTTP 503", Outcome.ERROR: "our fault"}

OK_TASK = ReportedTask(ok=True, last_run_age=1_000)
FAILED_TASK = ReportedTask(ok=False, last_run_age=1_000, error="no space left")


def alert_policy(
    failure_threshold: int = 1, success_threshold: int = 1, tasks: Mapping[str, int] | None = None
) -> AlertPolicy:
    return AlertPolicy(
        ProbeInfo(PROBE_DATABASE_ID, "api", "API", "mcp", task_limits=tasks or {}),
        lambda _: 300_000,
        failure_threshold,
        success_threshold,
    )


def make_result(outcome: str, slot: int = 1, **more: Any) -> Result:
    told = OUTCOME_BY_LETTER[outcome]
    made = Result(
        PROBE_DATABASE_ID,
        slot * SLOT_INTERVAL_MS,
        "here",
        told,
        REASON_BY_OUTCOME.get(told, ""),
        MESSAGE_BY_OUTCOME.get(told, ""),
    )
    return made._replace(**more)


def make_results(outcomes: str, start: int = 1) -> list[Result]:
    """ "pff" -> three results in a row, each naming the slot before it."""
    return [
        make_result(letter, slot, previous_slot=(slot - 1) * SLOT_INTERVAL_MS if slot > start else None)
        for slot, letter in enumerate(outcomes, start)
    ]


def findings_of_rule(rule: str, result: Result, **policy_fields: Any) -> list[Finding]:
    """What one rule says of a result."""
    return [finding for finding in evaluate_rules(alert_policy(**policy_fields), result) if finding.rule == rule]


def describe_transitions(transitions: list[IncidentTransition]) -> list[str]:
    """ "opened availability at 3", a subject in brackets, the reason when there is one."""
    return [
        f"{c.event} {c.rule}{f'[{c.subject}]' if c.subject else ''} at {c.slot // SLOT_INTERVAL_MS}"
        f"{f': {c.reason}' if c.reason else ''}"
        for c in transitions
    ]
