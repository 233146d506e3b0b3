"""Incidents as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.acts import (
    AcknowledgementJson,
    ClosureJson,
    SilenceJson,
    serialize_acknowledgement,
    serialize_closure,
    serialize_silence,
)
from watchdog.api.serializers.deliveries import DeliveryJson, serialize_delivery
from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG, EvidenceJson, serialize_evidence
from watchdog.domain.advice import find_advice_on_alert
from watchdog.domain.alert_flapping import AlertFlapping
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import ResultWithEvidence
from watchdog.domain.muting import IncidentMuting
from watchdog.domain.remediation_attempts import RemediationAttempt
from watchdog.domain.routing import explain_routing_of_destination
from watchdog.domain.transitions import TRANSITION_KIND_BY_ACT, TransitionKind
from watchdog.store.read.escalations import IncidentEscalationStep
from watchdog.store.read.incident_details import IncidentDetails
from watchdog.store.read.status import DeliveryRecord, IncidentRecord


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentMutingJson(TypedDict):
    """The notifications of an incident are held back because of another probe."""

    state: str
    """waiting: it is not certain yet whether that probe is down; or muted."""
    reason: str
    """The code of the decision, such as muting_probe_is_down."""
    probe: str
    """The id of the other probe."""
    incident: str
    """The open incident of that probe; empty while it waits."""
    since: str
    waits_until: str | None
    """When it is sent at the latest; null: it is muted."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentJson(TypedDict):
    """A finding that was bad for long enough."""

    id: str
    probe: str
    """The id of the probe."""
    rule: str
    """The rule that the finding breaks, such as availability."""
    subject: str
    """The task, job or expression that it is about; empty: the probe itself."""
    state: str
    """open or resolved."""
    severity: str
    """info, warning or critical."""
    reason: str
    """The code of the present cause, such as http.503."""
    message: str
    """The present cause as a sentence."""
    first_reason: str
    """The code of the cause that it opened with."""
    first_message: str
    since: str
    """The first bad slot."""
    opened_at: str
    """When enough bad results in a row had opened it."""
    resolved_at: str | None
    resolution: str
    """The code of why it ended; empty: the finding recovered, or the incident is open."""
    acknowledgement: AcknowledgementJson | None
    closure: ClosureJson | None
    """Who closed it by hand; null: no one did."""
    silences: list[SilenceJson]
    """Those in effect that hold back its notifications; empty once it is resolved. Those that end first come first."""
    muting: IncidentMutingJson | None
    """null: nothing is held back because of another probe."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class NewIncidentCauseJson(TypedDict):
    """From `since` on, an incident had another cause."""

    since: str
    """The first slot with the new cause."""
    changed_at: str
    """When enough bad results in a row had shown it."""
    reason: str
    message: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ResultWithEvidenceJson(TypedDict):
    """A result of the probe, with what is stored as its evidence."""

    slot: str
    outcome: str
    reason: str
    message: str
    duration_ms: int | None
    evidence: EvidenceJson


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class RemediationAttemptJson(TypedDict):
    """An attempt of Watchdog to end the problem."""

    action: str
    reason: str
    run_id: str
    state: str
    """rate_limited, started, succeeded, dry_run or failed."""
    started_at: str
    ended_at: str | None
    detail: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentTimelineEntryJson(TypedDict):
    """Something that happened to an incident."""

    at: str
    event: str
    """last_good, first_bad, opened, changed, sent, merged, undelivered, unconfirmed, remediation or resolved; of an
    act: acknowledged, unacknowledged, closed, resent, silenced or unsilenced."""
    detail: str
    """The cause, the destination of a notification, the action of a remediation, the code of the resolution, the id of
    a silence, or the comment on another act."""
    by: str | None
    """The name of the person or of the API key; null: no person did it."""
    through: str | None
    """Where it was done, such as page, cli or api; null: not known, or no person did it."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class DestinationRoutingDecisionJson(TypedDict):
    """Whether a destination is notified of an incident, and why."""

    destination: str
    notified: bool
    reason: str
    """The step of the routing that decided it; all steps if they left the destination out together."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentEscalationStepJson(TypedDict):
    """A step of a route that notifies a further destination, and what became of it."""

    destination: str
    route: int
    """The number of the route, from 1."""
    after_ms: int
    """After the opening of the incident."""
    unless_acknowledged: bool
    escalated_at: str | None
    """When the step notified the destination; null: it did not."""
    due_at: str | None
    """When the step is due; null: it was taken, is due now, or is held back."""
    reason: str
    """The code of the decision as of now: still_open (due now), too_early, or what keeps it back: incident_is_over,
    already_notified, acknowledged, silenced, paused, in_maintenance, muted or flapping."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class AlertFlappingJson(TypedDict):
    """The flapping of the incident's alert: it opened and resolved again and again when the incident opened."""

    since: str
    incident_count: int
    """How many incidents of the alert have opened so far."""
    changed_at: str
    """When the newest of them opened or resolved."""
    ended_at: str | None
    """null: the alert still flaps, so openings and ends of its incidents are not sent."""
    reason: str
    """Why flapping ended: stays_open, stays_resolved or probe_removed; empty: it did not."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentDetailJson(IncidentJson):
    """An incident with its evidence, notifications and remediations."""

    bad_count: int
    """Bad results in a row."""
    cause_changes: list[NewIncidentCauseJson]
    threshold: int
    """How many bad results in a row were needed to open it."""
    last_good: str | None
    """The slot of the last good result before it."""
    first_bad: ResultWithEvidenceJson | None
    latest: ResultWithEvidenceJson | None
    notifications: list[DeliveryJson]
    remediations: list[RemediationAttemptJson]
    timeline: list[IncidentTimelineEntryJson]
    """Oldest first."""
    destinations: list[DestinationRoutingDecisionJson]
    """Every configured destination."""
    escalations: list[IncidentEscalationStepJson]
    """The steps of the routes that apply now, in the order of the routes."""
    flapping: AlertFlappingJson | None
    """null: the alert did not flap when the incident opened."""
    muted_probes: list[str]
    """The names of the probes whose alerts are muted while the incident is open: one for each alert."""
    routing_log: list[str]
    """Each step of the decision which destinations are notified."""
    advice: str
    """What to do about it, in Markdown; empty: nothing is known."""
    runbook: str
    target: str


def serialize_incident(record: IncidentRecord) -> IncidentJson:
    incident = record.incident
    return {
        "id": incident.id,
        "probe": record.probe.id,
        "rule": incident.rule,
        "subject": incident.subject,
        "state": incident.state,
        "severity": incident.severity.value,
        "reason": incident.reason,
        "message": incident.message,
        "first_reason": incident.first_reason or incident.reason,
        "first_message": incident.opening_cause_message,
        "since": format_iso8601(incident.since),
        "opened_at": format_iso8601(incident.opened_at),
        "resolved_at": format_optional_iso8601(incident.resolved_at),
        "resolution": incident.resolution,
        "acknowledgement": serialize_acknowledgement(incident.acknowledgement),
        "closure": None if incident.closure is None else serialize_closure(incident.closure),
        "silences": list(map(serialize_silence, record.silences)),
        "muting": _serialize_incident_muting(record.muting),
    }


def serialize_incident_detail(details: IncidentDetails) -> IncidentDetailJson:
    """Evidence is text from the target, untrusted."""
    record, context, deliveries = details.record, details.context, details.deliveries
    return {
        **serialize_incident(record),
        "bad_count": context.bad_count,
        "cause_changes": [
            {
                "since": format_iso8601(change.since),
                "changed_at": format_iso8601(change.changed_at),
                "reason": change.reason,
                "message": change.message,
            }
            for change in context.cause_changes
        ],
        "threshold": record.threshold,
        "last_good": None if context.last_good is None else format_iso8601(context.last_good.slot),
        "first_bad": _serialize_result_with_evidence(context.first_bad),
        "latest": _serialize_result_with_evidence(context.latest),
        "notifications": [serialize_delivery(delivery) for delivery in deliveries],
        "remediations": [_serialize_remediation_attempt(attempt) for attempt in context.remediation_attempts],
        "timeline": _serialize_incident_timeline(details),
        "destinations": _serialize_destination_decisions(record, deliveries, details.configured_destinations),
        "escalations": list(map(_serialize_incident_escalation_step, details.escalations)),
        "flapping": _serialize_alert_flapping(record.flapping),
        "muted_probes": list(context.muted_probe_names),
        "routing_log": list(record.routing_log),
        "advice": find_advice_on_alert(context),
        "runbook": record.probe.runbook,
        "target": record.probe.target,
    }


def _serialize_incident_muting(muting: IncidentMuting | None) -> IncidentMutingJson | None:
    if muting is None:
        return None
    return {
        "state": muting.state.value,
        "reason": muting.reason.value,
        "probe": muting.probe_id,
        "incident": muting.incident,
        "since": format_iso8601(muting.since),
        "waits_until": format_optional_iso8601(muting.waits_until),
    }


def _serialize_incident_escalation_step(incident_escalation: IncidentEscalationStep) -> IncidentEscalationStepJson:
    escalation, decision, escalated_at = incident_escalation
    return {
        "destination": escalation.destination,
        "route": escalation.route_number,
        "after_ms": escalation.step.after_ms,
        "unless_acknowledged": escalation.step.unless_acknowledged,
        "escalated_at": format_optional_iso8601(escalated_at),
        "due_at": format_optional_iso8601(decision.decide_again_at),
        "reason": decision.reason.value,
    }


def _serialize_alert_flapping(flapping: AlertFlapping | None) -> AlertFlappingJson | None:
    if flapping is None:
        return None
    return {
        "since": format_iso8601(flapping.began_at),
        "incident_count": flapping.incident_count,
        "changed_at": format_iso8601(flapping.changed_at),
        "ended_at": format_optional_iso8601(flapping.ended_at),
        "reason": "" if flapping.end_reason is None else flapping.end_reason.value,
    }


class _TimelineEntry(NamedTuple):
    at: int
    event: str
    detail: str
    by: str | None = None
    through: str | None = None


def _serialize_incident_timeline(details: IncidentDetails) -> list[IncidentTimelineEntryJson]:
    """Entries of the same instant keep the order in which they are listed here."""
    in_order = sorted(_iter_unsorted_timeline_entries(details), key=lambda entry: entry.at)
    return [
        {"at": format_iso8601(at), "event": event, "detail": detail, "by": by, "through": through}
        for at, event, detail, by, through in in_order
    ]


def _iter_unsorted_timeline_entries(details: IncidentDetails) -> Iterator[_TimelineEntry]:
    incident, context = details.record.incident, details.context
    if context.last_good is not None:
        yield _TimelineEntry(context.last_good.slot, "last_good", "")
    yield _TimelineEntry(incident.since, "first_bad", incident.opening_cause_message)
    yield _TimelineEntry(incident.opened_at, "opened", incident.opening_cause_message)
    for change in context.cause_changes:
        yield _TimelineEntry(change.changed_at, "changed", change.message)
    for delivery in details.deliveries:
        if delivery.finished_at is not None:
            yield _TimelineEntry(delivery.finished_at, delivery.state.value, delivery.destination)
    for attempt in context.remediation_attempts:
        yield _TimelineEntry(attempt.started_at, "remediation", attempt.action)
    for act in details.acts:
        event = TRANSITION_KIND_BY_ACT[act.kind].value
        yield _TimelineEntry(act.occurred_at, event, act.comment, act.actor.name, act.actor.interface.value)
    for silence in details.silences:
        actor, began = silence.actor, TransitionKind.SILENCED.value
        yield _TimelineEntry(silence.started_at, began, silence.id, actor.name, actor.interface.value)
        if silence.ended_at is not None:
            ended = TransitionKind.UNSILENCED.value
            yield _TimelineEntry(silence.ended_at, ended, silence.id, silence.ended_by or None)
    if incident.resolved_at is not None:
        yield _TimelineEntry(incident.resolved_at, "resolved", incident.resolution)


def _serialize_destination_decisions(
    record: IncidentRecord, deliveries: Iterable[DeliveryRecord], destinations: Iterable[str]
) -> list[DestinationRoutingDecisionJson]:
    notified = {delivery.destination for delivery in deliveries}
    return [
        {
            "destination": destination,
            "notified": destination in notified,
            "reason": explain_routing_of_destination(
                record.routing_log, destination, is_notified=destination in notified
            ),
        }
        for destination in sorted(notified.union(destinations))
    ]


def _serialize_result_with_evidence(result: ResultWithEvidence | None) -> ResultWithEvidenceJson | None:
    if result is None:
        return None
    return {
        "slot": format_iso8601(result.slot),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "message": result.message,
        "duration_ms": result.duration,
        "evidence": serialize_evidence(result.evidence),
    }


def _serialize_remediation_attempt(attempt: RemediationAttempt) -> RemediationAttemptJson:
    return {
        "action": attempt.action,
        "reason": attempt.reason,
        "run_id": attempt.run_id,
        "state": attempt.state.value,
        "started_at": format_iso8601(attempt.started_at),
        "ended_at": format_optional_iso8601(attempt.ended_at),
        "detail": attempt.detail,
    }
