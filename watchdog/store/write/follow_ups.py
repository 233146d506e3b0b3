"""Reminders of open incidents, and escalation: decided when they are due, and enqueued like other notifications.

One process decides about an incident at a time, under the lock of its probe, and about a group under the lock of
incident groups. The decision and what it enqueues are one transaction, so that nothing is enqueued twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from watchdog.domain.escalation import decide_escalation
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentEvent
from watchdog.domain.pausing import Pause
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.reminders import decide_reminder
from watchdog.domain.routing import DestinationEscalation
from watchdog.domain.rules import service
from watchdog.store.database import Database
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.flapping import load_active_flapping_by_incident, load_severities_of_flapping_notices
from watchdog.store.read.follow_ups import (
    NotificationHistories,
    list_due_follow_ups,
    load_incidents_to_follow_up,
    load_notification_histories,
    load_silenced_incidents,
    load_unacknowledged_times,
)
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.muted_incidents import load_held_back_incidents
from watchdog.store.tables import incidents
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY, add_open_incident_to_group_per_destination
from watchdog.store.write.outbox_rows import (
    OPENED_NOTIFICATION_SEQUENCE_NUMBER,
    enqueue_further_notification,
)
from watchdog.store.write.probe_rows import load_active_probes
from watchdog.store.write.routing_log import append_routing_log_entries


@dataclass(frozen=True, slots=True)
class _FollowUpFacts:
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


def enqueue_due_reminders_and_escalations(database: Database, now: int) -> list[tuple[str, str, IncidentEvent]]:
    """Decide about the incidents that are due, at most MAX_FOLLOW_UPS_PER_TRANSACTION. Returns what is enqueued:
    incident, destination, and `opened` or `reminder`."""
    with database.open_write_transaction() as connection:
        ids = list_due_follow_ups(connection, now)
        probes = sa.select(incidents.c.probe).where(incidents.c.id.in_(ids)).distinct()
        database.lock_probes(connection, connection.execute(probes).scalars())
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        rows = load_incidents_to_follow_up(connection, ids, now)  # another process may have decided about some
        due_ids = [row.id for row in rows]
        facts = _FollowUpFacts(
            registered=load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only={row.probe for row in rows}),
            histories=load_notification_histories(connection, due_ids, now),
            silenced=load_silenced_incidents(connection, due_ids),
            paused=load_pauses_in_effect(connection, {row.probe for row in rows}),
            maintenance_ends=load_maintenance_ends_by_probe(connection, now, {row.probe for row in rows}),
            held_back=load_held_back_incidents(connection, due_ids),
            flapping=(flapping := load_active_flapping_by_incident(connection)),
            flapping_notices=load_severities_of_flapping_notices(connection, flapping, now).keys(),
            unacknowledged_at=load_unacknowledged_times(connection, due_ids),
            now=now,
        )
        enqueued: list[tuple[str, str, IncidentEvent]] = []
        decide_at: dict[str, int | None] = {}
        for row in rows:
            escalated, escalate_at = _enqueue_due_escalations(connection, row, facts)
            reminded, remind_at = _enqueue_due_reminders(connection, row, facts)
            enqueued += [(row.id, destination, IncidentEvent.OPENED) for destination in escalated]
            enqueued += [(row.id, destination, IncidentEvent.REMINDER) for destination in reminded]
            ends = [facts.maintenance_ends[row.probe]] if row.probe in facts.maintenance_ends else []
            decide_at[row.id] = min(escalate_at + remind_at + ends, default=None)
        schedule_follow_ups(connection, decide_at)
    return enqueued


def _enqueue_due_escalations(
    connection: sa.Connection, incident: Any, facts: _FollowUpFacts
) -> tuple[list[str], list[int]]:
    """`incident`: its row. Returns the destinations, and when to decide again."""
    registered = facts.registered.get(incident.probe)
    if registered is None:  # retired, or registered by an earlier version
        return [], []
    failing = service.get_failing_destination_of_incident(incident.rule, incident.subject)
    histories = facts.histories.destinations[incident.id]
    due: dict[str, DestinationEscalation] = {}
    decide_at: list[int] = []
    for escalation in registered.routes.list_escalations(registered.info, incident.reason, failing):
        history = histories.get(escalation.destination)
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
            has_flapping_notice=(facts.flapping.get(incident.id), escalation.destination) in facts.flapping_notices,
            is_notified=escalation.destination in due or (history is not None and history.is_notified),
            now=facts.now,
        )
        if decision.is_due:
            due[escalation.destination] = escalation
        decide_at += [] if decision.decide_again_at is None else [decision.decide_again_at]
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
    if due:
        steps = dict.fromkeys(escalation.describe() for escalation in due.values())
        append_routing_log_entries(connection, incident.id, list(steps))
    return list(due), decide_at


def _enqueue_due_reminders(
    connection: sa.Connection, incident: Any, facts: _FollowUpFacts
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
