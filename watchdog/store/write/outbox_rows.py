"""Writing of notifications to the outbox, in the transaction that opens, changes or resolves their incident."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import DeliveryState, IncidentEvent
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES, MESSAGE_EDIT_EVENTS
from watchdog.store.outbox_filters import (
    build_notified_outbox_filter,
    build_sent_waiting_or_given_up_message_outbox_filter,
)
from watchdog.store.read.flapping import add_incidents_of_same_active_flapping
from watchdog.store.tables import outbox, outbox_is_waiting
from watchdog.store.write.incident_groups import GroupsJoinedByIncident

OPENED_NOTIFICATION_SEQUENCE_NUMBER = 0
"""The first of an incident's notifications at a destination; each later one has the next number."""
MAX_INCIDENTS_PER_EDIT_QUERY = 5_000
"""SQLite takes 32,766 parameters by default."""


def enqueue_opened_notifications(
    connection: sa.Connection, incident: str, destinations: Iterable[str], groups: GroupsJoinedByIncident, now: int
) -> None:
    """`groups`: of the incident at these destinations."""
    rows = [
        {
            **_build_outbox_row(
                incident,
                destination,
                OPENED_NOTIFICATION_SEQUENCE_NUMBER,
                IncidentEvent.OPENED,
                lead=groups.lead_incidents[destination],
                now=now,
            ),
            "due_at": max(now, groups.first_message_at.get(destination, now)),
        }
        for destination in destinations
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def enqueue_cause_changed_notifications(connection: sa.Connection, incident: str, now: int) -> Collection[str]:
    """For every destination that got `opened`, unless a notification is waiting there, or is held back: it will show
    the new cause. Returns these destinations.

    One that is being sent may show the old cause. The rows are locked, so that none starts to be sent meanwhile.
    """
    query = sa.select(outbox).where(outbox.c.incident == incident)
    rows = connection.execute(query.order_by(outbox.c.destination, outbox.c.seq).with_for_update())
    last_rows = {row.destination: row for row in rows}
    changed = [
        _build_outbox_row(incident, destination, last.seq + 1, IncidentEvent.CHANGED, lead=last.lead_incident, now=now)
        for destination, last in last_rows.items()
        if last.state not in (DeliveryState.WAITING, *HELD_BACK_DELIVERY_STATES)
        or last.event in (IncidentEvent.REMINDER, *MESSAGE_EDIT_EVENTS)  # it may be dropped
        or (last.leased_until is not None and last.leased_until > now)
    ]
    if changed:
        connection.execute(sa.insert(outbox), changed)
    return last_rows.keys()


def enqueue_message_edit_notifications(
    connection: sa.Connection, ids: Collection[str], event: IncidentEvent, now: int
) -> None:
    """For every destination that has a message about one of these incidents; an acknowledgement also where the first
    message waits to be sent. `event`: of MESSAGE_EDIT_EVENTS. The caller has locked the probes.

    A message about an alert that flaps shows the silence of any of its incidents, and is about one of them.
    """
    if event is IncidentEvent.SILENCE_BEGAN_OR_ENDED:
        ids = add_incidents_of_same_active_flapping(connection, ids)
    key, remaining = (outbox.c.incident, outbox.c.destination), list(ids)
    columns = *key, sa.func.max(outbox.c.seq), sa.func.max(outbox.c.lead_incident)
    while remaining:
        chunk, remaining = remaining[:MAX_INCIDENTS_PER_EDIT_QUERY], remaining[MAX_INCIDENTS_PER_EDIT_QUERY:]
        is_of_incidents = outbox.c.incident.in_(chunk)
        is_notified = build_notified_outbox_filter(outbox, now)
        if event is IncidentEvent.ACKNOWLEDGED:
            is_notified |= outbox_is_waiting & outbox.c.event.not_in(MESSAGE_EDIT_EVENTS)
        query = sa.select(*key).where(is_of_incidents, is_notified)
        notified = set(map(tuple, connection.execute(query.distinct())))
        rows = [
            _build_outbox_row(incident, destination, last_seq + 1, event, lead=lead, now=now)
            for incident, destination, last_seq, lead in connection.execute(
                sa.select(*columns).where(is_of_incidents).group_by(*key)
            )
            if (incident, destination) in notified
        ]
        if rows:
            connection.execute(sa.insert(outbox), rows)


def enqueue_further_notification(
    connection: sa.Connection,
    incident: str,
    destination: str,
    event: IncidentEvent,
    *,
    seq: int,
    lead: str,
    now: int,
    escalated_after_ms: int | None = None,
) -> None:
    """What was held back, a reminder, or an escalation after this time. `lead`: the first incident of its group, or the
    incident itself."""
    row = _build_outbox_row(incident, destination, seq, event, lead=lead, now=now)
    connection.execute(sa.insert(outbox), [{**row, "escalated_after_ms": escalated_after_ms}])


def enqueue_resolved_notifications(
    connection: sa.Connection, incident: str, now: int, destinations_without_resolved: Collection[str]
) -> None:
    """For every destination that got `opened`, even if the routes have changed since, except for those that want no
    `resolved`, and those where all were held back: no route led there when that ended, or it has not ended yet."""
    columns = outbox.c.destination, sa.func.max(outbox.c.seq), sa.func.max(outbox.c.lead_incident)
    is_sent = sa.case((build_sent_waiting_or_given_up_message_outbox_filter(), 1), else_=0)
    notified = sa.select(*columns).where(outbox.c.incident == incident).having(sa.func.max(is_sent) == 1)
    rows = [
        _build_outbox_row(incident, destination, last_seq + 1, IncidentEvent.RESOLVED, lead=lead, now=now)
        for destination, last_seq, lead in connection.execute(notified.group_by(outbox.c.destination))
        if destination not in destinations_without_resolved
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def _build_outbox_row(
    incident: str, destination: str, seq: int, event: IncidentEvent, *, lead: str, now: int
) -> dict[str, Any]:
    """`lead`: the first incident of its group, or the incident itself."""
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": DeliveryState.WAITING,
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
        "lead_incident": lead,
    }  # fmt: skip
