"""What reminders and escalation of open incidents are decided by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import OperatorActKind
from watchdog.domain.escalation import EscalationDecision, decide_escalation
from watchdog.domain.model import LOCAL_LOCATION_NAME, DeliveryState, IncidentEvent
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES, MESSAGE_EDIT_EVENTS
from watchdog.domain.pausing import Pause
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import DestinationEscalationStep
from watchdog.domain.rules import service
from watchdog.store.act_tables import acts, silence_is_in_effect, silenced_incidents, silences
from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.flapping import load_active_flapping_by_incident, load_severities_of_flapping_notices
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.muted_incidents import load_ids_of_held_back_incidents
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import incidents, outbox

MAX_FOLLOW_UPS_PER_TRANSACTION = 500
REMINDER_INTERVAL_EVENTS = (IncidentEvent.OPENED, IncidentEvent.CHANGED, IncidentEvent.REMINDER)
"""The interval to the next reminder is counted from notifications of these events."""


@dataclass(slots=True)
class MessageHistory:
    """What a destination was sent about an incident or its group: they have one message there."""

    last_sent_at: int | None = None
    """Of REMINDER_INTERVAL_EVENTS, also if it was given up; epoch ms."""
    is_waiting: bool = False
    """An opening or a reminder waits to be sent."""


@dataclass(slots=True)
class IncidentHistoryAtDestination:
    """What a destination was sent about an incident."""

    lead_incident: str
    last_seq: int
    is_notified: bool = False
    """A message was sent, waits to be sent, or was given up. Edits of a message do not count."""
    is_opening_delivered: bool = False


@dataclass(slots=True)
class NotificationHistories:
    """What was sent about incidents."""

    destinations: dict[str, dict[str, IncidentHistoryAtDestination]] = field(default_factory=lambda: defaultdict(dict))
    """By incident and destination."""
    messages: dict[tuple[str, str], MessageHistory] = field(default_factory=lambda: defaultdict(MessageHistory))
    """By the first incident of the group, and destination."""


@dataclass(frozen=True, slots=True)
class FollowUpFacts:
    """What the decisions about several incidents are based on."""

    registered: Mapping[int, RegisteredProbe]
    histories: NotificationHistories
    silenced: set[str]
    paused: Mapping[int, Pause]
    maintenance_ends: Mapping[int, int]
    """Probe -> until when it is in maintenance."""
    held_back: set[str]
    """Because of another probe."""
    flapping: Mapping[str, str]
    """Incident -> its flapping, if its alert flaps."""
    flapping_notices: Collection[tuple[str, str]]
    """(flapping, destination) if an opening was sent to the destination since flapping began."""
    unacknowledged_at: Mapping[str, int]
    now: int


def list_incidents_with_due_follow_ups(connection: sa.Connection, now: int) -> list[str]:
    """The incidents of which reminders and escalation are decided now, at most MAX_FOLLOW_UPS_PER_TRANSACTION."""
    query = sa.select(incident_follow_ups.c.incident).where(incident_follow_ups.c.decide_at <= now)
    ordered = query.order_by(incident_follow_ups.c.decide_at, incident_follow_ups.c.incident)
    return list(connection.execute(ordered.limit(MAX_FOLLOW_UPS_PER_TRANSACTION)).scalars())


def load_incidents_to_follow_up(connection: sa.Connection, ids: Collection[str], now: int) -> list[Any]:
    """The rows of those that are due, in the order in which they opened."""
    query = sa.select(incidents).join(incident_follow_ups, incident_follow_ups.c.incident == incidents.c.id)
    is_due = incidents.c.id.in_(ids), incident_follow_ups.c.decide_at <= now
    return list(connection.execute(query.where(*is_due).order_by(incidents.c.opened_at, incidents.c.id)))


def load_notification_histories(connection: sa.Connection, ids: Collection[str], now: int) -> NotificationHistories:
    """Of these incidents, and of the groups that they are in. An instant after now is from before the clock was set
    back, and is ignored."""
    own = outbox.alias()
    leads = sa.select(own.c.lead_incident).where(own.c.incident.in_(ids))
    kind = outbox.c.incident, outbox.c.destination, outbox.c.lead_incident, outbox.c.event, outbox.c.state
    last_finished_at = sa.func.max(sa.case((outbox.c.finished_at <= now, outbox.c.finished_at)))
    columns = *kind, sa.func.max(outbox.c.seq).label("last_seq"), last_finished_at.label("last_finished_at")
    query = sa.select(*columns).where(outbox.c.lead_incident.in_(leads)).group_by(*kind)
    histories = NotificationHistories()
    for row in connection.execute(query.order_by(*kind)):
        _add_notifications_of_one_kind(histories, row)
    return histories


def _add_notifications_of_one_kind(histories: NotificationHistories, row: Any) -> None:
    """`row`: the notifications of an incident at a destination that have one event and state."""
    by_destination = histories.destinations[row.incident]
    history = by_destination.setdefault(row.destination, IncidentHistoryAtDestination(row.lead_incident, row.last_seq))
    history.last_seq = max(history.last_seq, row.last_seq)
    message, event = histories.messages[row.lead_incident, row.destination], IncidentEvent(row.event)
    history.is_notified |= row.state not in HELD_BACK_DELIVERY_STATES and event not in MESSAGE_EDIT_EVENTS
    is_dropped = row.state == DeliveryState.MERGED and event is IncidentEvent.REMINDER
    if event in REMINDER_INTERVAL_EVENTS and row.state == DeliveryState.WAITING:
        message.is_waiting |= event is not IncidentEvent.CHANGED
    elif event in REMINDER_INTERVAL_EVENTS and row.state not in HELD_BACK_DELIVERY_STATES and not is_dropped:
        if row.last_finished_at is not None:
            message.last_sent_at = max(message.last_sent_at or row.last_finished_at, row.last_finished_at)
        history.is_opening_delivered |= row.state in (DeliveryState.SENT, DeliveryState.MERGED)


def load_silenced_incidents(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Those of these incidents that a silence selects which is in effect."""
    query = sa.select(silenced_incidents.c.incident).join(silences, silences.c.id == silenced_incidents.c.silence)
    return set(connection.execute(query.where(silenced_incidents.c.incident.in_(ids), silence_is_in_effect)).scalars())


def load_unacknowledged_times(connection: sa.Connection, ids: Collection[str]) -> dict[str, int]:
    """When an acknowledgement was last taken back, by incident."""
    query = sa.select(acts.c.incident, sa.func.max(acts.c.occurred_at)).group_by(acts.c.incident)
    is_act = acts.c.incident.in_(ids), acts.c.kind == OperatorActKind.UNACKNOWLEDGE
    return {row[0]: row[1] for row in connection.execute(query.where(*is_act))}


def load_follow_up_facts(connection: sa.Connection, rows: Collection[Any], now: int) -> FollowUpFacts:
    """`rows`: of the incidents."""
    ids, probes = [row.id for row in rows], {row.probe for row in rows}
    flapping = load_active_flapping_by_incident(connection)
    return FollowUpFacts(
        registered=load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only=probes),
        histories=load_notification_histories(connection, ids, now),
        silenced=load_silenced_incidents(connection, ids),
        paused=load_pauses_in_effect(connection, probes),
        maintenance_ends=load_maintenance_ends_by_probe(connection, now, probes),
        held_back=load_ids_of_held_back_incidents(connection, ids),
        flapping=flapping,
        flapping_notices=load_severities_of_flapping_notices(connection, flapping, now).keys(),
        unacknowledged_at=load_unacknowledged_times(connection, ids),
        now=now,
    )


def decide_incident_escalations(
    incident: Any, facts: FollowUpFacts
) -> list[tuple[DestinationEscalationStep, EscalationDecision]]:
    """For each destination of each step of the routes that apply now. `incident`: its row. None for a probe that is
    retired, or that an earlier version registered."""
    registered = facts.registered.get(incident.probe)
    if registered is None:
        return []
    failing = service.get_failing_destination_of_incident(incident.rule, incident.subject)
    histories = facts.histories.destinations[incident.id]
    due: set[str] = set()
    decided = []
    for escalation in registered.routes.list_escalations(registered.info, incident.reason, failing):
        destination, history = escalation.destination, histories.get(escalation.destination)
        decision = decide_escalation(
            escalation.step,
            opened_at=incident.opened_at,
            unacknowledged_at=facts.unacknowledged_at.get(incident.id),
            is_open=incident.resolved_at is None,
            is_acknowledged=incident.acknowledged_at is not None,
            is_silenced=incident.id in facts.silenced,
            is_paused=incident.probe in facts.paused,
            is_in_maintenance=incident.probe in facts.maintenance_ends,
            is_muted=incident.id in facts.held_back,
            has_flapping_notice=(facts.flapping.get(incident.id), destination) in facts.flapping_notices,
            is_notified=destination in due or (history is not None and history.is_notified),
            now=facts.now,
        )
        due |= {destination} if decision.is_due else set()
        decided.append((escalation, decision))
    return decided
