"""Reminders of open incidents, and escalation: decided when they are due, and enqueued like other notifications.

One process decides about an incident at a time, under the lock of its probe, and about a group under the lock of
incident groups. The decision and what it enqueues are one transaction, so that nothing is enqueued twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent
from watchdog.domain.reminders import decide_reminder
from watchdog.store.database import Database
from watchdog.store.read.follow_ups import (
    FollowUpFacts,
    decide_incident_escalations,
    list_incidents_with_due_follow_ups,
    load_follow_up_facts,
    load_incidents_to_follow_up,
)
from watchdog.store.tables import incidents
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY, add_open_incident_to_group_per_destination
from watchdog.store.write.late_openings import enqueue_late_opening_if_due
from watchdog.store.write.outbox_rows import (
    OPENED_NOTIFICATION_SEQUENCE_NUMBER,
    enqueue_further_notification,
)
from watchdog.store.write.routing_log import append_routing_log_entries


class EnqueuedFollowUp(NamedTuple):
    """A notification that is sent without a new result."""

    incident: str
    destination: str
    event: IncidentEvent
    """`opened` or `reminder`."""
    is_escalation: bool = False
    """Why `opened` is sent: an escalation; otherwise, the routes have changed, and no one was notified before."""


def enqueue_due_reminders_and_escalations(database: Database, now: int) -> list[EnqueuedFollowUp]:
    """Decide about the incidents that are due, at most MAX_FOLLOW_UPS_PER_TRANSACTION. Returns what is enqueued."""
    with database.open_write_transaction() as connection:
        ids = list_incidents_with_due_follow_ups(connection, now)
        probes = sa.select(incidents.c.probe).where(incidents.c.id.in_(ids)).distinct()
        database.lock_probes(connection, connection.execute(probes).scalars())
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        rows = load_incidents_to_follow_up(connection, ids, now)  # another process may have decided about some
        facts = load_follow_up_facts(connection, rows, now)
        enqueued: list[EnqueuedFollowUp] = []
        decide_at: dict[str, int | None] = {}
        for row in rows:
            opened = enqueue_late_opening_if_due(connection, row, facts)
            escalated, escalate_at = _enqueue_due_escalations(connection, row, facts)
            reminded, remind_at = _enqueue_due_reminders_of_incident(connection, row, facts)
            enqueued += [EnqueuedFollowUp(row.id, name, IncidentEvent.OPENED) for name in opened]
            enqueued += [EnqueuedFollowUp(row.id, name, IncidentEvent.OPENED, is_escalation=True) for name in escalated]
            enqueued += [EnqueuedFollowUp(row.id, name, IncidentEvent.REMINDER) for name in reminded]
            ends = [facts.maintenance_ends[row.probe]] if row.probe in facts.maintenance_ends else []
            decide_at[row.id] = min(escalate_at + remind_at + ends, default=None)
        schedule_follow_ups(connection, decide_at)
    return enqueued


def _enqueue_due_escalations(
    connection: sa.Connection, incident: Any, facts: FollowUpFacts
) -> tuple[list[str], list[int]]:
    """`incident`: its row. Returns the destinations, and when to decide again."""
    decided = decide_incident_escalations(incident, facts)
    due = {escalation.destination: escalation for escalation, decision in decided if decision.is_due}
    decide_at = [at for _, decision in decided if (at := decision.decide_again_at) is not None]
    registered = facts.registered.get(incident.probe)
    if registered is None or not due:
        return [], decide_at
    histories = facts.histories.destinations[incident.id]
    added = [name for name in due if name not in histories]
    leads = add_open_incident_to_group_per_destination(
        connection, incident, added, registered, facts.now, waits=False
    )  # fmt: skip
    for name, escalation in due.items():
        history = histories.get(name)
        enqueue_further_notification(
            connection,
            incident.id,
            name,
            IncidentEvent.OPENED,
            seq=OPENED_NOTIFICATION_SEQUENCE_NUMBER if history is None else history.last_seq + 1,
            lead=leads.get(name, incident.id) if history is None else history.lead_incident,
            now=facts.now,
            escalated_after_ms=escalation.step.after_ms,
        )
    steps = dict.fromkeys(escalation.describe() for escalation in due.values())
    append_routing_log_entries(connection, incident.id, list(steps))
    return list(due), decide_at


def _enqueue_due_reminders_of_incident(
    connection: sa.Connection, incident: Any, facts: FollowUpFacts
) -> tuple[list[str], list[int]]:
    """`incident`: its row. Returns the destinations, and when to decide again: while it is open, at the latest after
    the interval, because further destinations may be notified of it."""
    registered = facts.registered.get(incident.probe)
    if registered is None:
        return [], []
    reminded: list[str] = []
    is_open, interval_ms = incident.resolved_at is None, registered.repeat_interval_ms
    decide_at = [facts.now + interval_ms] if is_open and interval_ms else []
    for destination, history in facts.histories.destinations[incident.id].items():
        message = facts.histories.messages[history.lead_incident, destination]
        decision = decide_reminder(
            repeat_interval_ms=interval_ms,
            last_message_at=message.last_sent_at if history.is_opening_delivered else None,
            is_open=is_open,
            is_acknowledged=incident.acknowledged_at is not None,
            is_silenced=incident.id in facts.silenced,
            is_paused=incident.probe in facts.paused,
            is_in_maintenance=incident.probe in facts.maintenance_ends,
            is_muted=incident.id in facts.held_back,
            is_flapping=incident.id in facts.flapping,
            is_destination_configured=registered.routes.has_destination(destination),
            destination_repeats_alerts=destination in registered.routes.without_reminders,
            is_message_waiting=message.is_waiting,
            now=facts.now,
        )
        decide_at += [] if decision.decide_again_at is None else [decision.decide_again_at]
        if decision.is_due:
            message.is_waiting = True  # of all incidents of the group
            reminded.append(destination)
            enqueue_further_notification(
                connection,
                incident.id,
                destination,
                IncidentEvent.REMINDER,
                seq=history.last_seq + 1,
                lead=history.lead_incident,
                now=facts.now,
            )
    return reminded, decide_at
