"""The rules engine: one state machine per finding, which results advance. fold.py folds stored results through it.

Pure: no I/O, no clock, no randomness. Everything that the fold decides follows from stored events alone, so replaying
them gives the same incidents as the live run did. docs/architecture.md shows the state machine as a table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.closing import CLOSED_BY_HAND_RESOLUTION, ClosedFinding
from watchdog.domain.maintenance import (
    NO_MAINTENANCE_PERIODS,
    MaintenancePeriods,
    MaintenanceReason,
    decide_transition_in_maintenance,
    describe_outlived_maintenance,
)
from watchdog.domain.model import (
    Finding,
    HealthState,
    IncidentEvent,
    IncidentTransition,
    Outcome,
    ProbeResult,
    SubjectFacts,
    SuspectOrOpenAlertState,
)
from watchdog.domain.reasons import get_reason_title, is_same_incident_cause
from watchdog.domain.rules import (
    availability,
    contract,
    job,
    missed_run,
    missing,
    no_verdict,
    preference,
    service,
    source,
    stale,
    task,
    tool,
    unreadable_schedule,
)
from watchdog.domain.rules.missing_jobs import find_gone_job_names, find_unjudgeable_job_names
from watchdog.domain.rules.policy import AlertPolicy

AlertStates = dict[tuple[str, str], SuspectOrOpenAlertState]
"""By (rule, subject). A finding that is clear has no entry."""

RESULT_RULE_MODULES = (
    *(availability, no_verdict, task, missing, preference, tool, contract),
    *(job, source, unreadable_schedule, service, missed_run),
)
"""The rules that judge a result. `stale` judges the absence of results."""

RULE_MODULES_BY_OUTCOME_WITHOUT_VERDICT = {Outcome.MISSED: (missed_run,), Outcome.ERROR: (no_verdict, missed_run)}
"""For all other outcomes RESULT_RULE_MODULES."""

INCIDENT_HEALTH_STATE_BY_RULE = {
    rule.ALERT_RULE_NAME: rule.ALERT_RULE_INCIDENT_HEALTH_STATE for rule in (*RESULT_RULE_MODULES, stale)
}


SUBJECT_LISTING_RULE_MODULES = (task, preference, tool, contract, job, service)
"""The rules that evaluate the subjects of a listing of their own."""

SUBJECT_FACTS_CLASS_BY_RULE: Mapping[str, type[SubjectFacts]] = {
    rule.ALERT_RULE_NAME: rule.ALERT_RULE_SUBJECT_FACTS_CLASS for rule in SUBJECT_LISTING_RULE_MODULES
}

_LISTING_OWNER_RULE_BY_DEPENDENT_RULE = {
    missing.ALERT_RULE_NAME: task.ALERT_RULE_NAME,
    unreadable_schedule.ALERT_RULE_NAME: job.ALERT_RULE_NAME,
}
"""The listing that a rule reads, if it is another rule's."""
_RULE_NAMES_WHOSE_ABSENT_LISTING_IS_EMPTY = (
    preference.ALERT_RULE_NAME,
    tool.ALERT_RULE_NAME,
    contract.ALERT_RULE_NAME,
)
"""Rules whose listing a run leaves out if there is nothing to list: no expression, no unusual tool, or no deviation. A
run that fails may also have none because it did not get as far."""
_RULE_NAMES_LISTING_PROBLEMS_ALONE = (tool.ALERT_RULE_NAME, contract.ALERT_RULE_NAME)
"""Rules that list a subject only while something is wrong with it."""
_SCHEDULED_JOB_RULE_NAMES = (job.ALERT_RULE_NAME, unreadable_schedule.ALERT_RULE_NAME)

THRESHOLD_IGNORING_RULE_NAMES = (
    stale.ALERT_RULE_NAME,
    job.ALERT_RULE_NAME,
    service.ALERT_RULE_NAME,
    missed_run.ALERT_RULE_NAME,
)
"""Rules with a tolerance of their own: `failure_threshold` and `success_threshold` do not apply to them."""


def derive_incident_id(probe: int, rule: str, subject: str, first_bad_slot: int, generation: int = 0) -> str:
    """Derived from what identifies the incident, so that deciding the same twice opens one incident."""
    slot = f"{first_bad_slot}\0{generation}" if generation else str(first_bad_slot)
    return blake2b(f"{probe}\0{rule}\0{subject}\0{slot}".encode(), digest_size=12).hexdigest()


def derive_findings_from_result(policy: AlertPolicy, result: ProbeResult) -> list[Finding]:
    """The findings of a result alone. A `missed` row is evidence only that no run took place, an `error` only that
    one did, without a verdict."""
    rules = RULE_MODULES_BY_OUTCOME_WITHOUT_VERDICT.get(result.outcome, RESULT_RULE_MODULES)
    return [finding for rule in rules for finding in rule.evaluate_result(policy, result)]


def has_bad_finding(policy: AlertPolicy, result: ProbeResult) -> bool:
    """Whether `derive_findings_from_result` gives a bad finding."""
    if result.outcome is Outcome.PASS and not result.listings:  # the usual case: no rule finds fault with it
        return False
    return any(finding.bad for finding in derive_findings_from_result(policy, result))


def is_result_bad_by_rule_about_subject(policy: AlertPolicy, result: ProbeResult, rule_name: str, subject: str) -> bool:
    """Whether `derive_findings_from_result` gives a bad finding of this rule about this subject. Other subjects of its
    listing, of which there may be hundreds, are not evaluated."""
    rules = RULE_MODULES_BY_OUTCOME_WITHOUT_VERDICT.get(result.outcome, RESULT_RULE_MODULES)
    rule = next((rule for rule in rules if rule_name == rule.ALERT_RULE_NAME), None)
    if rule is None:
        return False
    listing_rule = _LISTING_OWNER_RULE_BY_DEPENDENT_RULE.get(rule_name, rule_name)
    if (listing := result.listings.get(listing_rule)) is not None:
        if listing_rule == job.ALERT_RULE_NAME and subject in find_unjudgeable_job_names(listing):
            return False
        subjects = {name: facts for name, facts in listing.subjects.items() if name == subject}
        result = result._replace(listings={**result.listings, listing_rule: listing._replace(subjects=subjects)})
    return any(finding.bad and finding.subject == subject for finding in rule.evaluate_result(policy, result))


def advance_alert_state_in_place(
    policy: AlertPolicy,
    alert_states: AlertStates,
    slot: int,
    finding: Finding,
    transitions: list[IncidentTransition],
    *,
    generation: int = 0,
    maintenance: MaintenancePeriods = NO_MAINTENANCE_PERIODS,
    decided_at: int | None = None,
) -> None:
    """Advances the state machine of one finding. Changes `alert_states` and appends to `transitions`.

    A bad finding makes a clear subject suspect; `failure_threshold` bad ones in a row open an incident, and as many in
    a row with another cause change its cause. A good finding clears a suspect; `success_threshold` good ones in a row
    resolve an incident, and a bad one restarts their count. During maintenance nothing opens or changes; the first bad
    finding afterwards makes up for it. `generation`: the clock generation of `slot`. `decided_at`: if not at `slot`.
    """
    key = (finding.rule, finding.subject)
    failure_threshold = _get_failure_threshold(policy, finding.rule)
    success_threshold = 1 if finding.rule in THRESHOLD_IGNORING_RULE_NAMES else policy.success_threshold
    state = alert_states.get(key)

    def add_transition(event: IncidentEvent, state: SuspectOrOpenAlertState) -> bool:
        """False: it waits for the end of maintenance."""
        at = slot if decided_at is None else decided_at
        decided = _apply_maintenance_to_finding(event, finding, state, maintenance, at)
        if decided is not None:
            transitions.append(_build_incident_transition(event, policy.probe.database_id, decided, state, slot))
        return decided is not None

    if finding.bad:
        state = state or SuspectOrOpenAlertState(0, 0, first_bad_slot=slot, incident=None, generation=generation)
        if state.incident is not None:
            state = _update_count_of_slots_with_other_cause(state._replace(good_count=0), finding.reason, slot)
            if state.other_count >= failure_threshold and add_transition(IncidentEvent.CHANGED, state):
                state = state._replace(reason=finding.reason, other_count=0, other_since=None)
        else:
            state = state._replace(bad_count=state.bad_count + 1, reason=finding.reason)
            if state.bad_count >= failure_threshold and add_transition(IncidentEvent.OPENED, state):
                state = state._replace(incident=transitions[-1].incident)
        alert_states[key] = state
    elif state is not None:
        if state.incident is None:
            del alert_states[key]
        elif state.good_count + 1 >= success_threshold:
            add_transition(IncidentEvent.RESOLVED, state)
            del alert_states[key]
        else:
            alert_states[key] = state._replace(good_count=state.good_count + 1, other_count=0, other_since=None)


def _apply_maintenance_to_finding(
    event: IncidentEvent, finding: Finding, state: SuspectOrOpenAlertState, maintenance: MaintenancePeriods, at: int
) -> Finding | None:
    """The finding as the transition states it; None: the transition waits for the end of maintenance."""
    decision = decide_transition_in_maintenance(
        event,
        is_in_maintenance=maintenance.contains(at),
        began_in_maintenance=maintenance.contains(state.first_bad_slot),
    )
    if decision.waits:
        return None
    outlives = decision.reason is MaintenanceReason.OUTLIVES_MAINTENANCE
    return finding._replace(message=describe_outlived_maintenance(finding.message)) if outlives else finding


def has_finding_waiting_for_maintenance(policy: AlertPolicy, alert_states: AlertStates) -> bool:
    """Whether an incident would be open if the probe were not in maintenance."""
    return any(_waits_for_maintenance(policy, rule, state) for (rule, _), state in alert_states.items())


def open_findings_after_maintenance(
    policy: AlertPolicy, alert_states: AlertStates, transitions: list[IncidentTransition]
) -> None:
    """Opens the incidents that maintenance held back, if no result has decided about them since. Changes `alert_states`
    and appends to `transitions`."""
    for (rule, subject), state in sorted(alert_states.items()):
        if _waits_for_maintenance(policy, rule, state):
            message = describe_outlived_maintenance(get_reason_title(state.reason))
            finding = Finding(rule, subject, True, state.reason, message)
            opened = _build_incident_transition(
                IncidentEvent.OPENED, policy.probe.database_id, finding, state, state.first_bad_slot
            )
            transitions.append(opened)
            alert_states[rule, subject] = state._replace(incident=opened.incident)


def _waits_for_maintenance(policy: AlertPolicy, rule: str, state: SuspectOrOpenAlertState) -> bool:
    return state.incident is None and state.bad_count >= _get_failure_threshold(policy, rule)


def _get_failure_threshold(policy: AlertPolicy, rule: str) -> int:
    return 1 if rule in THRESHOLD_IGNORING_RULE_NAMES else policy.failure_threshold


def _build_incident_transition(
    event: IncidentEvent, probe: int, finding: Finding, state: SuspectOrOpenAlertState, slot: int
) -> IncidentTransition:
    return IncidentTransition(
        event=event,
        probe=probe,
        rule=finding.rule,
        subject=finding.subject,
        incident=derive_incident_id(probe, finding.rule, finding.subject, state.first_bad_slot, state.generation),
        first_bad_slot=state.first_bad_slot,
        slot=slot,
        reason=finding.reason,
        message=finding.message,
        generation=state.generation,
        cause_since=state.other_since if event is IncidentEvent.CHANGED else None,
    )


def _update_count_of_slots_with_other_cause(
    state: SuspectOrOpenAlertState, reason: str, slot: int
) -> SuspectOrOpenAlertState:
    """Counts the bad slots in a row in which an open incident has one other cause than its current one."""
    if is_same_incident_cause(reason, state.reason):
        return state._replace(other_count=0, other_since=None)
    if state.other_count and is_same_incident_cause(reason, state.other_reason):
        return state._replace(other_reason=reason, other_count=state.other_count + 1)
    return state._replace(other_reason=reason, other_count=1, other_since=slot)


def find_listed_subjects(rule: str, result: ProbeResult) -> Collection[str] | None:
    """The subjects that a result lists for a rule; None: the rule has none, or the run did not observe them."""
    listing = result.listings.get(_LISTING_OWNER_RULE_BY_DEPENDENT_RULE.get(rule, rule))
    if listing is not None:
        return listing.subjects
    return () if rule in _RULE_NAMES_WHOSE_ABSENT_LISTING_IS_EMPTY and result.outcome is Outcome.PASS else None


def build_good_findings_of_vanished_subjects(
    alert_states: AlertStates, result: ProbeResult, findings: Iterable[Finding]
) -> list[Finding]:
    """A good finding for each subject that is not clear and that the result's listing no longer has.

    A job that is listed as missing, and that is not judged, gets none: that it is missing is no recovery.
    """
    if result.outcome not in (Outcome.PASS, Outcome.FAIL):
        return []
    judged = {(f.rule, f.subject) for f in findings}
    jobs = result.listings.get(job.ALERT_RULE_NAME)
    not_judged = frozenset() if jobs is None else find_unjudgeable_job_names(jobs) | find_gone_job_names(jobs)
    return [
        Finding(rule, subject, False, "" if rule in _RULE_NAMES_LISTING_PROBLEMS_ALONE else "subject.no_longer_listed")
        for rule, subject in alert_states
        if (rule, subject) not in judged
        and find_listed_subjects(rule, result) is not None
        and not (rule in _SCHEDULED_JOB_RULE_NAMES and subject in not_judged)
    ]


def fold_result_into_alert_states_in_place(
    policy: AlertPolicy,
    alert_states: AlertStates,
    result: ProbeResult,
    transitions: list[IncidentTransition],
    maintenance: MaintenancePeriods = NO_MAINTENANCE_PERIODS,
    *,
    closed: Collection[tuple[str, str]] = (),
) -> None:
    """Folds one result. `closed`: the (rule, subject) of findings about which it is no evidence, because their
    incidents were closed after its slot."""
    findings, generation = (
        derive_findings_from_result(policy, result),
        parse_clock_generation_of_timeline_id(result.location),
    )
    if findings and result.outcome is not Outcome.MISSED and stale.STALE_ALERT_STATE_KEY in alert_states:
        findings.append(stale.build_finding_that_probe_results_are_not_stale())
    for finding in [*findings, *build_good_findings_of_vanished_subjects(alert_states, result, findings)]:
        if (finding.rule, finding.subject) not in closed:
            advance_alert_state_in_place(
                policy, alert_states, result.slot, finding, transitions, generation=generation, maintenance=maintenance
            )


def resolve_closed_incident_in_alert_states(
    policy: AlertPolicy, alert_states: AlertStates, closed: ClosedFinding, transitions: list[IncidentTransition]
) -> None:
    """Resolves an incident that a person has closed, unless that is done. Changes `alert_states` and appends to
    `transitions`."""
    key = (closed.rule, closed.subject)
    state = alert_states.get(key)
    if state is not None and state.incident == closed.incident:
        finding = Finding(*key, False, CLOSED_BY_HAND_RESOLUTION)
        transitions.append(
            _build_incident_transition(
                IncidentEvent.RESOLVED, policy.probe.database_id, finding, state, closed.closed_at
            )
        )
        del alert_states[key]


def derive_probe_health_state(open_rules: Iterable[str], *, has_verdict: bool) -> HealthState:
    """A probe's state: the worst of its open incidents. Without any, `up`, or `unknown` before the first verdict.

    `has_verdict`: False as well while none of its jobs has run.
    """
    states = {INCIDENT_HEALTH_STATE_BY_RULE[rule] for rule in open_rules}
    return next(
        (state for state in (HealthState.DOWN, HealthState.UNKNOWN, HealthState.DEGRADED) if state in states),
        HealthState.UP if has_verdict else HealthState.UNKNOWN,
    )
