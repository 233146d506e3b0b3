"""The heart: stored events, folded in slot order, through one hysteresis machine per finding.

Pure: no I/O, no clock, no randomness. docs/architecture.md has the state machine as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from watchdog.domain.model import AlertState, Finding, HealthState, IncidentEvent, IncidentTransition, Outcome, Result
from watchdog.domain.rules import availability, job, missing, no_verdict, preference, stale, task
from watchdog.domain.rules.policy import AlertPolicy

AlertStates = dict[tuple[str, str], AlertState]
"""(rule, subject) -> machine; a finding that is clear has none."""

RESULT_RULES = (availability, no_verdict, task, missing, preference, job)
"""What judges a result; `stale` judges its absence."""

HEALTH_STATE_BY_RULE = {rule.RULE_NAME: rule.HEALTH_STATE for rule in (*RESULT_RULES, stale)}


class SubjectSource(NamedTuple):
    """Where a rule's subjects are listed, and what it says of one that is not: gone; well, where only bad ones are."""

    get_subjects: Callable[[Result], object]
    unlisted_reason: str


SUBJECT_SOURCES: Mapping[str, SubjectSource] = {
    task.RULE_NAME: SubjectSource(lambda r: r.tasks, "subject.no_longer_listed"),
    missing.RULE_NAME: SubjectSource(lambda r: r.tasks, "subject.no_longer_listed"),
    preference.RULE_NAME: SubjectSource(lambda r: r.preferences, "subject.no_longer_listed"),
    job.RULE_NAME: SubjectSource(lambda r: r.jobs, ""),
}

IMMEDIATE_RULES = (stale.RULE_NAME, job.RULE_NAME)
"""Rules with patience of their own: `after` and `recover` do not apply to them."""


def derive_incident_id(probe: int, rule: str, subject: str, first_bad_slot: int) -> str:
    """Derived, so that deciding the same twice opens one incident."""
    return blake2b(f"{probe}\0{rule}\0{subject}\0{first_bad_slot}".encode(), digest_size=12).hexdigest()


def evaluate_rules(policy: AlertPolicy, result: Result) -> list[Finding]:
    """Every verdict that a result gives by itself. `missed` is for accounting and is no evidence; `error` says only
    that we could not judge."""
    rules = {Outcome.MISSED: (), Outcome.ERROR: (no_verdict,)}.get(result.outcome, RESULT_RULES)
    return [finding for rule in rules for finding in rule.evaluate_result(policy, result)]


def apply_finding(
    policy: AlertPolicy, alert_states: AlertStates, slot: int, finding: Finding, transitions: list[IncidentTransition]
) -> None:
    """One step of the one machine."""
    key = (finding.rule, finding.subject)
    after, recover = (1, 1) if finding.rule in IMMEDIATE_RULES else (policy.failure_threshold, policy.success_threshold)
    machine = alert_states.get(key)

    def change(event: IncidentEvent, since: int) -> str:
        incident = derive_incident_id(policy.probe.database_id, *key, since)
        transitions.append(
            IncidentTransition(
                event, policy.probe.database_id, *key, incident, since, slot, finding.reason, finding.message
            )
        )
        return incident

    if finding.bad:
        machine = machine or AlertState(0, 0, slot, None)
        if machine.incident is not None:
            machine = machine._replace(good_count=0)
        else:
            machine = machine._replace(bad_count=machine.bad_count + 1, reason=finding.reason)
            if machine.bad_count >= after:
                machine = machine._replace(incident=change(IncidentEvent.OPENED, machine.first_bad_slot))
        alert_states[key] = machine
    elif machine is not None:
        if machine.incident is None:
            del alert_states[key]
        elif machine.good_count + 1 >= recover:
            change(IncidentEvent.RESOLVED, machine.first_bad_slot)
            del alert_states[key]
        else:
            alert_states[key] = machine._replace(good_count=machine.good_count + 1)


def vanished_subject_findings(alert_states: AlertStates, result: Result, findings: Iterable[Finding]) -> list[Finding]:
    """A good verdict for every subject that the result's listing does not have."""
    if result.outcome not in (Outcome.PASS, Outcome.FAIL):
        return []
    there = {(f.rule, f.subject) for f in findings}
    return [
        Finding(rule, subject, False, SUBJECT_SOURCES[rule].unlisted_reason)
        for rule, subject in alert_states
        if rule in SUBJECT_SOURCES
        and SUBJECT_SOURCES[rule].get_subjects(result) is not None
        and (rule, subject) not in there
    ]


def apply_result(
    policy: AlertPolicy, alert_states: AlertStates, result: Result, transitions: list[IncidentTransition]
) -> None:
    """Fold one result."""
    found = evaluate_rules(policy, result)
    if found and stale.ALERT_STATE_KEY in alert_states:
        found.append(stale.fresh_finding())
    for finding in [*found, *vanished_subject_findings(alert_states, result, found)]:
        apply_finding(policy, alert_states, result.slot, finding, transitions)


class FoldResult(NamedTuple):
    evaluated_until: int
    """Everything at or before it is in the machines."""
    awaited_slot: int | None
    """A slot that was claimed before the next stored one and is still awaited."""
    alert_states_changed: bool
    """Some step changed a machine, even if a later one changed it back: what is folded must not be folded again."""
    transitions: list[IncidentTransition]


def fold_results(
    policy: AlertPolicy,
    alert_states: AlertStates,
    evaluated_until: int,
    results: Iterable[Result],
    lateness_passed: Callable[[int], bool],
    staleness_events: Iterable[tuple[int, int]] = (),
) -> FoldResult:
    """Fold stored rows into `machines`, as far as no earlier claimed slot is awaited.

    `rows`: ascending by slot, all after `cursor`. `passed`: whether a slot's lateness has passed. `lapses`: stored
    decisions of staleness as (slot after which, silence), for a replay.
    """
    out: list[IncidentTransition] = []
    todo = sorted(staleness_events)
    changed = False

    def lapse(before: int | None) -> None:
        while todo and (before is None or todo[0][0] < before):
            slot, silence = todo.pop(0)
            apply_finding(policy, alert_states, slot, stale.stale_finding(silence), out)

    for row in results:
        if row.late:
            continue
        if (
            row.previous_slot is not None
            and row.previous_slot > evaluated_until
            and not lateness_passed(row.previous_slot)
        ):
            lapse(row.previous_slot)
            return FoldResult(evaluated_until, row.previous_slot, changed, out)
        lapse(row.slot)
        before = dict(alert_states)
        apply_result(policy, alert_states, row, out)
        changed = changed or alert_states != before
        evaluated_until = row.slot
    lapse(None)
    return FoldResult(evaluated_until, None, changed, out)


def derive_health_state(open_rules: Iterable[str], *, has_verdict: bool) -> HealthState:
    """A probe's state: the worst of its open findings; unknown when nothing was judged yet."""
    worst = {HEALTH_STATE_BY_RULE[rule] for rule in open_rules}
    return next(
        (s for s in (HealthState.DOWN, HealthState.UNKNOWN, HealthState.DEGRADED) if s in worst),
        HealthState.UP if has_verdict else HealthState.UNKNOWN,
    )
