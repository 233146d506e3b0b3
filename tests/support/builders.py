"""Builders of results and policies for tests of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import (
    Finding,
    IncidentTransition,
    Outcome,
    ProbeInfo,
    ProbeResult,
    SubjectListing,
)
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.rules import AlertPolicy, derive_findings_from_result
from watchdog.domain.rules.preference import PreferenceExpressionResult

PROBE_DATABASE_ID = 7
SLOT_INTERVAL_MS = 60_000
"""One slot a minute: slot n is at n minutes."""

OUTCOME_BY_LETTER = {"p": Outcome.PASS, "f": Outcome.FAIL, "e": Outcome.ERROR, "m": Outcome.MISSED}
REASON_BY_OUTCOME = {Outcome.FAIL: "http.503", Outcome.ERROR: "watchdog.internal_error"}
MESSAGE_BY_OUTCOME = {Outcome.FAIL: "HTTP 503", Outcome.ERROR: "internal error"}

JOB_LIMITS = {"*": ScheduledJobLimits(max_runtime=3_600_000)}


def task_aged(age_ms: int, at: int = SLOT_INTERVAL_MS, *, ok: bool = True, error: str = "") -> McpScheduledTaskFacts:
    """A task whose last run was `age_ms` before `at`."""
    return McpScheduledTaskFacts(ok, last_run_at=at - age_ms, error=error)


def never_run_task(listed_for_ms: int, at: int = SLOT_INTERVAL_MS) -> McpScheduledTaskFacts:
    """A task that never ran and was first listed `listed_for_ms` before `at`."""
    return McpScheduledTaskFacts(ok=True, first_listed_at=at - listed_for_ms)


OK_TASK = task_aged(1_000)
FAILED_TASK = task_aged(1_000, ok=False, error="no space left")


def stuck_job(name: str, at: int, run_id: str = "") -> ScheduledJobFacts:
    """A job that is stuck at `at`, under JOB_LIMITS."""
    return ScheduledJobFacts(name, running_since=at - 7_200_000, run_id=run_id)


def failed_job(name: str, error: str = "") -> ScheduledJobFacts:
    return ScheduledJobFacts(name, last_end=1, failures=1, error=error)


def healthy_job(name: str, at: int = SLOT_INTERVAL_MS, **facts: Any) -> ScheduledJobFacts:
    """A job without a known schedule whose last run succeeded a minute before `at`."""
    ran_at = at - 60_000
    return ScheduledJobFacts(name, last_start=ran_at, last_end=ran_at, last_ok=ran_at)._replace(**facts)


def overdue_job(name: str, due_at: int) -> ScheduledJobFacts:
    return ScheduledJobFacts(name, next_due=due_at, last_start=1)


def make_listings(
    at: int,
    tasks: Mapping[str, McpScheduledTaskFacts] | None = None,
    preferences: Mapping[str, str] | None = None,
    jobs: Iterable[ScheduledJobFacts] | None = None,
) -> dict[str, SubjectListing]:
    """`preferences`: expression -> problem, empty when it held. None: not observed."""
    listings = {}
    if tasks is not None:
        listings["task"] = SubjectListing(at, dict(sorted(tasks.items())))
    if preferences is not None:
        expressions = {text: PreferenceExpressionResult(problem) for text, problem in sorted(preferences.items())}
        listings["preference"] = SubjectListing(at, expressions)
    if jobs is not None:
        listings["job"] = SubjectListing(at, {facts.name: facts for facts in sorted(jobs)})
    return listings


def alert_policy(
    failure_threshold: int = 1, success_threshold: int = 1, tasks: Mapping[str, int] | None = None
) -> AlertPolicy:
    return AlertPolicy(
        ProbeInfo(PROBE_DATABASE_ID, "api", "API", "mcp", max_task_ages=tasks or {}, job_limits=JOB_LIMITS),
        lambda _: 300_000,
        failure_threshold,
        success_threshold,
    )


def make_result(
    letter: str,
    slot: int = 1,
    *,
    tasks: Mapping[str, McpScheduledTaskFacts] | None = None,
    preferences: Mapping[str, str] | None = None,
    jobs: Iterable[ScheduledJobFacts] | None = None,
    **fields: Any,
) -> ProbeResult:
    """`letter`: of OUTCOME_BY_LETTER. `slot`: its number."""
    outcome = OUTCOME_BY_LETTER[letter]
    result = ProbeResult(
        PROBE_DATABASE_ID,
        slot * SLOT_INTERVAL_MS,
        "here",
        outcome,
        reason=REASON_BY_OUTCOME.get(outcome, ""),
        message=MESSAGE_BY_OUTCOME.get(outcome, ""),
    )
    return result._replace(listings=make_listings(result.slot, tasks, preferences, jobs), **fields)


def make_results(outcomes: str, start: int = 1) -> list[ProbeResult]:
    """ "pff" -> three consecutive results, each with its previous slot."""
    return [
        make_result(letter, slot, previous_slot=(slot - 1) * SLOT_INTERVAL_MS if slot > start else None)
        for slot, letter in enumerate(outcomes, start)
    ]


def findings_of_rule(rule: str, result: ProbeResult, **policy_fields: Any) -> list[Finding]:
    """The findings of one rule."""
    return [
        finding
        for finding in derive_findings_from_result(alert_policy(**policy_fields), result)
        if finding.rule == rule
    ]


def describe_transitions(transitions: list[IncidentTransition]) -> list[str]:
    """ "opened task[sync] at 3: task.failed": event, rule, subject, slot number and reason, if there are any."""
    return [
        f"{c.event} {c.rule}{f'[{c.subject}]' if c.subject else ''} at {c.slot // SLOT_INTERVAL_MS}"
        f"{f': {c.reason}' if c.reason else ''}"
        for c in transitions
    ]
