"""Everything that a notification may contain, read when it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.model import (
    DeliveryState,
    Evidence,
    Incident,
    IncidentCauseChange,
    Outcome,
    ProbeInfo,
    ProbeResult,
    ResultWithEvidence,
    RunSummary,
    Severity,
    SubjectFacts,
)
from watchdog.domain.notification import Notification
from watchdog.domain.remediation_attempts import RemediationAttempt, RemediationAttemptState
from watchdog.domain.rules import (
    AlertPolicy,
    availability,
    is_result_bad_by_rule_about_subject,
    job,
    no_verdict,
    preference,
    stale,
)
from watchdog.domain.shared_cause import format_display_name_of_shared_cause
from watchdog.store import codec
from watchdog.store.group_tables import incident_groups
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.packed_values import unpack_values
from watchdog.store.read.acts import build_acknowledgement_from_row
from watchdog.store.read.closures import build_closure_from_row
from watchdog.store.read.flapping import (
    list_newest_incidents_of_alert,
    list_other_notified_incidents_of_same_flapping,
    load_active_flapping_by_incident,
    load_flapping_of_incident,
)
from watchdog.store.read.generation_results import build_results_as_of_clock_generation_subquery, result_generation
from watchdog.store.read.job_runs import list_job_runs
from watchdog.store.read.muted_incidents import list_names_of_probes_muted_by_incidents
from watchdog.store.read.notification_holds import load_notification_holds
from watchdog.store.tables import (
    RESULT_COLUMNS,
    cause_changes,
    clock_steps,
    evidence,
    incidents,
    newest_results,
    outbox,
    probes,
    remediations,
    results,
)

MAX_RECENT_RUNS_IN_ALERT = 20
MAX_FLAPPING_INCIDENTS_IN_ALERT = 3
"""The newest incidents of an alert that flaps."""
MAX_RESULTS_REEVALUATED_TO_COUNT_BAD = 200
"""Results that are evaluated again to count the bad ones; older ones are counted by their outcome."""
BAD_OUTCOMES_BY_RULE = {
    availability.ALERT_RULE_NAME: (Outcome.FAIL,),
    no_verdict.ALERT_RULE_NAME: (Outcome.ERROR,),
    stale.ALERT_RULE_NAME: (),
}
INCIDENTS_WITH_PROBE_INFO_QUERY = sa.select(incidents, probes.c.info).join_from(
    incidents, probes, probes.c.id == incidents.c.probe
)
"""All columns of incidents, with the `info` of each incident's probe."""


def build_incident_from_row(row: Any) -> Incident:
    """`row`: of the table incidents."""
    return Incident(
        id=row.id, probe=row.probe, rule=row.rule, subject=row.subject, severity=Severity(row.severity),
        since=row.since + row.clock_shift, opened_at=row.opened_at, reason=row.reason, message=row.message,
        resolved_at=row.resolved_at, resolution=row.resolution,
        first_reason=row.first_reason, first_message=row.first_message, clock_shift=row.clock_shift,
        acknowledgement=build_acknowledgement_from_row(row), closure=build_closure_from_row(row),
    )  # fmt: skip


def load_alert_message_context(
    connection: sa.Connection, notification: Notification, now: int, *, public_url: str = "", merged: bool = False,
    previous_cause: str = "", named_incidents: Sequence[str] = (), raises_severity: bool = False,
    main_incident: str = "",
) -> AlertMessageContext:  # fmt: skip
    """`public_url`: the base of incident pages, if configured. `named_incidents`: if the message is about several.
    `main_incident`: which it is about, if not the notification's own. Raises NoResultFound for an unknown incident."""
    main_incident = main_incident or notification.incident
    row = connection.execute(INCIDENTS_WITH_PROBE_INFO_QUERY.where(incidents.c.id == main_incident)).one()
    probe = codec.decode_probe_info(row.probe, row.info)
    recent_rows = _load_rows_of_recent_runs(connection, row.probe)
    last_good, first_bad = _load_last_good_and_first_bad_row(connection, row)
    results_with_facts = _build_results_oldest_first(
        connection, recent_rows if row.rule == preference.ALERT_RULE_NAME else recent_rows[:1]
    )
    members = _load_message_incidents(connection, named_incidents, row.probe, results_with_facts[-1:])
    recent_runs, last_good_run = _choose_runs_to_show(
        connection, row, probe, [_build_run_summary_from_row(r) for r in reversed(recent_rows)], results_with_facts
    )
    if last_good is not None and row.rule != job.ALERT_RULE_NAME:
        last_good_run = _build_run_summary_from_row(last_good)
    context = AlertMessageContext(
        event=notification.event,
        incident=build_incident_from_row(row),
        probe=probe,
        now=now,
        bad_count=_count_bad_incident_results(connection, row, probe),
        threshold=row.threshold,
        last_good=last_good_run,
        recent_runs=recent_runs,
        first_bad=_load_result_with_evidence(connection, first_bad),
        latest=_load_result_with_evidence(connection, recent_rows[0]) if recent_rows else None,
        latest_subject_facts=_find_subject_facts(results_with_facts[-1:], row.rule, row.subject),
        remediation_attempts=tuple(list_remediation_attempts(connection, row.id)),
        location=recent_rows[0].location if recent_rows else "",
        incident_url=f"{public_url}/incidents/{row.id}" if public_url else "",
        probe_url=f"{public_url}/probes/{quote(probe.id, safe='')}" if public_url else "",
        other_destinations=_load_delivery_states_of_other_destinations(connection, row.id, notification.destination),
        merged=merged,
        cause_changes=tuple(list_incident_cause_changes(connection, row.id)) if row.first_reason else (),
        previous_cause=previous_cause,
        members=members,
        shared_cause=_load_shared_cause_text(connection, notification, members) if members else "",
        group_labels=_load_group_labels_of_notification(connection, notification),
        raises_severity=raises_severity,
        muted_probe_names=list_names_of_probes_muted_by_incidents(connection, named_incidents or [row.id]),
        holds=load_notification_holds(connection, named_incidents or [row.id], now),
        escalated_after_ms=_load_escalated_after_ms(connection, row.id, notification.destination),
    )
    return _add_flapping_to_message_context(connection, context, row, notification)


def _load_rows_of_recent_runs(connection: sa.Connection, probe: int) -> Sequence[Any]:
    """Of the runs that took place, newest first."""
    of_probe = (newest_results.c.probe == probe, newest_results.c.outcome != Outcome.MISSED)
    newest_first = sa.select(newest_results).where(*of_probe).order_by(newest_results.c.slot.desc())
    return connection.execute(newest_first.limit(MAX_RECENT_RUNS_IN_ALERT)).all()


def _add_flapping_to_message_context(
    connection: sa.Connection, context: AlertMessageContext, row: Any, notification: Notification
) -> AlertMessageContext:
    """`row`: of the incident."""
    flapping = load_flapping_of_incident(connection, row.id)
    if flapping is None:
        return context
    newest = list_newest_incidents_of_alert(connection, row, flapping.first_opened_at, MAX_FLAPPING_INCIDENTS_IN_ALERT)
    return replace(
        context,
        flapping=flapping,
        flapping_incidents=tuple(map(build_incident_from_row, reversed(newest))),
        replaced_incidents=tuple(
            list_other_notified_incidents_of_same_flapping(
                connection, row.id, notification.incident, notification.destination
            )
        ),
    )


def _choose_runs_to_show(
    connection: sa.Connection,
    incident: Any,
    probe: ProbeInfo,
    runs: Sequence[RunSummary],
    results_with_facts: Sequence[ProbeResult],
) -> tuple[tuple[RunSummary, ...], RunSummary | None]:
    """The newest runs, oldest first, and the last good one of a job. `incident`: its row. `runs`: of the probe."""
    if incident.rule == preference.ALERT_RULE_NAME:
        return tuple(
            _summarize_run_as_failed_if_preference_unmet(probe, result, incident.subject)
            for result in results_with_facts
        ), None
    if incident.rule != job.ALERT_RULE_NAME:
        return tuple(runs), None
    of_job = (connection, incident.probe, probe.kind, incident.subject, MAX_RECENT_RUNS_IN_ALERT)
    of_generation = list_job_runs(*of_job, build_results_as_of_clock_generation_subquery(incident.generation))
    good = [run for run in of_generation if run.outcome is Outcome.PASS and run.slot < incident.since]
    return tuple(list_job_runs(*of_job)), good[-1] if good else None


def _build_results_oldest_first(connection: sa.Connection, rows: Sequence[Any]) -> list[ProbeResult]:
    """Oldest first, with their listings. `rows`: of the table results, newest first."""
    values = [[getattr(row, name) for name in codec.RESULT_COLUMN_NAMES] for row in reversed(rows)]
    return list(build_results_with_listings_from_rows(connection, values))


def _summarize_run_as_failed_if_preference_unmet(probe: ProbeInfo, result: ProbeResult, expression: str) -> RunSummary:
    """A run that did not meet the preference passed, and is a failure in a message about the preference."""
    policy = AlertPolicy(probe, lambda _: 0)
    is_bad = is_result_bad_by_rule_about_subject(policy, result, preference.ALERT_RULE_NAME, expression)
    return RunSummary(result.slot, Outcome.FAIL if is_bad else result.outcome, result.duration)


def _find_subject_facts(newest: Sequence[ProbeResult], rule: str, subject: str) -> SubjectFacts | None:
    listings = [result.listings[rule] for result in newest if rule in result.listings]
    return listings[0].subjects.get(subject) if listings else None


def _load_message_incidents(
    connection: sa.Connection, named_incidents: Sequence[str], probe: int, newest: Sequence[ProbeResult]
) -> tuple[IncidentWithProbe, ...]:
    """In the order of the names, critical ones first. `newest`: the newest result of the probe, if it has any."""
    if not named_incidents:
        return ()
    rows = connection.execute(INCIDENTS_WITH_PROBE_INFO_QUERY.where(incidents.c.id.in_(named_incidents)))
    flapping = load_active_flapping_by_incident(connection)
    members = {
        row.id: IncidentWithProbe(
            build_incident_from_row(row),
            codec.decode_probe_info(row.probe, row.info),
            _find_subject_facts(newest, row.rule, row.subject) if row.probe == probe else None,
            is_flapping=row.id in flapping,
        )
        for row in rows
    }
    ordered = [members[name] for name in named_incidents if name in members]
    return tuple(sorted(ordered, key=lambda member: member.incident.severity is not Severity.CRITICAL))


def _load_shared_cause_text(
    connection: sa.Connection, notification: Notification, members: Sequence[IncidentWithProbe]
) -> str:
    """Empty for incidents without a shared cause, and for a message that others are merged into."""
    if notification.batch:
        return ""
    is_group = _build_group_of_notification_conditions(notification)
    cause = connection.execute(sa.select(incident_groups.c.cause).where(*is_group)).scalar() or ""
    return format_display_name_of_shared_cause(cause, [member.probe.target for member in members])


def _load_group_labels_of_notification(connection: sa.Connection, notification: Notification) -> dict[str, str] | None:
    """None for a message that others are merged into."""
    is_group = _build_group_of_notification_conditions(notification)
    labels = connection.execute(sa.select(incident_groups.c.labels).where(*is_group)).scalar()
    return None if notification.batch or labels is None else decode_nullable_json(labels)


def _build_group_of_notification_conditions(notification: Notification) -> tuple[sa.ColumnElement[bool], ...]:
    group = incident_groups.c
    return group.lead_incident == notification.incident, group.destination == notification.destination


def _load_last_good_and_first_bad_row(connection: sa.Connection, row: Any) -> tuple[Any | None, Any | None]:
    """Of the results as they counted when the incident began: since then, its instants may have come again. `row`: of
    the incident."""
    counted = build_results_as_of_clock_generation_subquery(row.generation)
    of_probe = sa.select(counted).where(counted.c.probe == row.probe)
    is_before = counted.c.slot <= row.since if row.rule == stale.ALERT_RULE_NAME else counted.c.slot < row.since
    good = of_probe.where(is_before, counted.c.outcome == Outcome.PASS).order_by(counted.c.slot.desc()).limit(1)
    bad = of_probe.where(counted.c.slot == row.since, counted.c.outcome != Outcome.MISSED)
    return connection.execute(good).first(), connection.execute(bad).first()


def _load_delivery_states_of_other_destinations(
    connection: sa.Connection, incident: str, destination: str
) -> tuple[tuple[str, DeliveryState], ...]:
    query = sa.select(outbox.c.destination, outbox.c.state).where(
        outbox.c.incident == incident, outbox.c.destination != destination
    )
    rows = connection.execute(query.order_by(outbox.c.destination, outbox.c.seq))
    return tuple({name: DeliveryState(state) for name, state in rows}.items())


def _load_escalated_after_ms(connection: sa.Connection, incident: str, destination: str) -> int | None:
    of_incident = outbox.c.incident == incident, outbox.c.destination == destination
    return connection.execute(sa.select(sa.func.max(outbox.c.escalated_after_ms)).where(*of_incident)).scalar()


def list_incident_cause_changes(connection: sa.Connection, incident: str) -> list[IncidentCauseChange]:
    """The changes of an incident's cause, oldest first."""
    columns = [cause_changes.c[name] for name in IncidentCauseChange._fields]
    query = (
        sa.select(*columns)
        .where(cause_changes.c.incident == incident)
        .order_by(cause_changes.c.generation, cause_changes.c.slot)
    )
    return [IncidentCauseChange(*row) for row in connection.execute(query)]


def _count_bad_incident_results(connection: sa.Connection, row: Any, probe: ProbeInfo) -> int:
    """How many results of the incident's subject were bad, from the first to the one that ended it."""
    order, first = sa.tuple_(result_generation, results.c.slot), sa.tuple_(row.generation, row.since)
    of_incident = [results.c.probe == row.probe, ~results.c.late, order >= first]
    later_restarts = sa.select(clock_steps.c.stepped_to).where(clock_steps.c.generation > row.generation)
    of_incident.append(results.c.slot >= min([row.since, *connection.execute(later_restarts).scalars()]))
    if row.resolved_slot is not None:
        of_incident.append(order <= sa.tuple_(row.resolved_generation or 0, row.resolved_slot))
    query = sa.select(*RESULT_COLUMNS).where(*of_incident).order_by(results.c.slot.desc(), results.c.location)
    rows = connection.execute(query.limit(MAX_RESULTS_REEVALUATED_TO_COUNT_BAD)).all()
    newest = build_results_with_listings_from_rows(connection, reversed(rows))
    policy = AlertPolicy(probe, lambda _: 0)
    count = sum(is_result_bad_by_rule_about_subject(policy, result, row.rule, row.subject) for result in newest)
    if len(rows) == MAX_RESULTS_REEVALUATED_TO_COUNT_BAD:
        outcomes = BAD_OUTCOMES_BY_RULE.get(row.rule, (Outcome.PASS, Outcome.FAIL))
        older = query.offset(len(rows)).subquery()
        count += connection.execute(sa.select(sa.func.count()).where(older.c.outcome.in_(outcomes))).scalar_one()
    return count


def _load_result_with_evidence(connection: sa.Connection, row: Any | None) -> ResultWithEvidence | None:
    """`row`: of the table results."""
    if row is None:
        return None
    key = (evidence.c.probe == row.probe, evidence.c.slot == row.slot, evidence.c.location == row.location)
    stored = connection.execute(sa.select(evidence).where(*key)).first()
    return ResultWithEvidence(
        slot=row.slot,
        location=row.location,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        message=row.message,
        duration=row.duration,
        evidence=Evidence() if stored is None else Evidence(decode_nullable_json(stored.facts), stored.excerpt),
        measurements=unpack_values(row.measurements),
    )


def list_remediation_attempts(connection: sa.Connection, incident: str) -> list[RemediationAttempt]:
    """The remediation attempts of an incident, oldest first."""
    columns = [remediations.c[name] for name in RemediationAttempt._fields]
    query = sa.select(*columns).where(remediations.c.incident == incident)
    rows: list[Any] = list(connection.execute(query.order_by(remediations.c.started_at, remediations.c.run_id)))
    return [RemediationAttempt(*row)._replace(state=RemediationAttemptState(row.state)) for row in rows]


def _build_run_summary_from_row(row: Any) -> RunSummary:
    return RunSummary(row.slot, Outcome(row.outcome), row.duration)
