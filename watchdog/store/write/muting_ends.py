"""Decisions about muting that become due without a new result, and what is sent when an incident is no longer held
back: once to each destination, as the routes are at that time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import LOCAL_LOCATION_NAME, DeliveryState, IncidentEvent
from watchdog.domain.muting import MutingAction, MutingState, decide_notifications_after_muting
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.act_tables import silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.follow_ups import load_silenced_incidents
from watchdog.store.read.muted_incidents import find_incident_whose_message_states_muting
from watchdog.store.read.muting import DueMutingDecision, list_due_muting_decisions
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.held_back_notifications import (
    decide_present_routing,
    enqueue_notifications_after_holding_back,
    hold_back_notifications,
    is_last_changed_notification_held_back,
    load_notifications_by_destination,
)
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY
from watchdog.store.write.muting import (
    MAX_ROUTING_LOG_STEPS_WITH_MUTING,
    mark_muted_incidents_announced,
    store_muting_decision,
)
from watchdog.store.write.outbox import NOTIFICATION_LEASE_LOCK_KEY
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications
from watchdog.store.write.routing_log import append_routing_log_entries

MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS = 10_000
"""The message about an incident is edited this long after it has muted another alert: one edit for several."""


def carry_out_due_muting_decisions(database: Database, now: int) -> list[DueMutingDecision]:
    """Decide again, and carry out what has changed. Returns that, without what another process has done.

    Takes the locks in the order of the recorder and the senders: probes, incident groups, notification leases. A
    decision about an incident whose probe is not locked is carried out by the next run.
    """
    with database.open_write_transaction() as connection:
        probes = {due.probe for due in list_due_muting_decisions(connection, now)}
        if not probes:
            return []
        database.lock_probes(connection, probes)
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        database.acquire_advisory_lock(connection, NOTIFICATION_LEASE_LOCK_KEY)
        hold_back_notifications(connection, now)
        due = [each for each in list_due_muting_decisions(connection, now) if each.probe in probes]
        stated_as_muted = _load_incidents_stated_as_muted(connection)
        for each in due:
            store_muting_decision(connection, each.incident, each.decision, now)
        ended = {each.incident for each in due if each.state is not None and each.decision.action is MutingAction.SEND}
        rows = connection.execute(sa.select(incidents).where(incidents.c.id.in_(ended))).all() if ended else []
        registered = load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only={row.probe for row in rows})
        silenced = load_silenced_incidents(connection, ended)
        silenced |= _load_incidents_that_were_over_while_silenced(connection, ended)
        changed = [row.id for row in rows if row.resolved_at is None and row.id in stated_as_muted]
        enqueue_message_edit_notifications(connection, changed, IncidentEvent.MUTING_BEGAN_OR_ENDED, now)
        for row in sorted(rows, key=lambda row: (row.opened_at, row.id)):
            is_silenced = row.id in silenced
            _notify_after_muting(connection, row, registered.get(row.probe), now, is_silenced=is_silenced)
        schedule_follow_ups(connection, {row.id: now for row in rows if row.resolved_at is None})
        return due


def _load_incidents_stated_as_muted(connection: sa.Connection) -> set[str]:
    """Those whose messages, if there are any, state that they are muted."""
    is_shown = muted_incidents.c.state == MutingState.MUTED, muted_incidents.c.is_announced
    return set(connection.execute(sa.select(muted_incidents.c.incident).where(*is_shown)).scalars())


def _load_incidents_that_were_over_while_silenced(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """No one is notified of them, although the silence has ended since."""
    query = (
        sa.select(silenced_incidents.c.incident)
        .join(silences, silences.c.id == silenced_incidents.c.silence)
        .join(incidents, incidents.c.id == silenced_incidents.c.incident)
        .where(silenced_incidents.c.incident.in_(ids), silences.c.ended_at >= incidents.c.resolved_at)
    )
    return set(connection.execute(query).scalars())


def _notify_after_muting(
    connection: sa.Connection, incident: Any, registered: RegisteredProbe | None, now: int, *, is_silenced: bool
) -> None:
    """`incident`: its row. It may be over."""
    rows_by_destination = load_notifications_by_destination(connection, incident.id, now)
    routing = decide_present_routing(incident, registered, rows_by_destination)
    events, log = {}, []
    for destination in dict.fromkeys([*routing.destinations, *rows_by_destination]):
        earlier = rows_by_destination.get(destination, [])
        decision = decide_notifications_after_muting(
            is_open=incident.resolved_at is None,
            is_silenced=is_silenced,
            is_notified=any(row.is_notified for row in earlier),
            has_held_back_change=is_last_changed_notification_held_back(earlier),
            has_route=destination in routing.destinations,
            wants_resolved=registered is None or destination not in registered.routes.without_resolved,
        )
        events[destination] = decision.events
        log.append(f"when muting ended: {destination}: {decision.reason}")
    enqueue_notifications_after_holding_back(connection, incident, events, rows_by_destination, registered, now=now)
    steps = [f"when muting ended: {step}" for step in routing.routing_log]
    append_routing_log_entries(connection, incident.id, [*steps, *log], max_steps=MAX_ROUTING_LOG_STEPS_WITH_MUTING)


# --- the messages about incidents that mute others, or are muted


def list_muting_incidents_with_unannounced_alerts(connection: sa.Connection, now: int) -> list[str]:
    """Incidents whose messages do not state yet how many alerts they mute, or whose muted incidents have messages that
    do not state that yet."""
    is_due = muted_incidents.c.since <= now - MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS
    is_unannounced = muted_incidents.c.state == MutingState.MUTED, ~muted_incidents.c.is_announced, is_due
    query = sa.select(muted_incidents.c.muting_incident).where(*is_unannounced).distinct()
    return sorted(connection.execute(query).scalars())


def announce_muted_alerts(database: Database, now: int) -> list[str]:
    """Enqueue edits of the messages about open incidents that mute more alerts than before, and about the incidents
    that they mute. Returns the incidents that mute. A message that is sent later states this at once."""
    with database.open_write_transaction() as connection:
        unannounced = list_muting_incidents_with_unannounced_alerts(connection, now)
        if not unannounced:
            return []
        messages = {id: find_incident_whose_message_states_muting(connection, id) for id in unannounced}
        muted = _list_unannounced_muted_incidents(connection, unannounced)
        is_edited = incidents.c.id.in_({*messages.values(), *muted})
        probes_of_edited = sa.select(incidents.c.probe).where(is_edited).distinct()
        database.lock_probes(connection, connection.execute(probes_of_edited).scalars())
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        if _list_unannounced_muted_incidents(connection, unannounced) != muted:
            return []  # of another probe, which is not locked: the next run announces it
        waiting = outbox.alias()
        has_waiting_message = sa.exists().where(
            waiting.c.incident == incidents.c.id, waiting.c.state == DeliveryState.WAITING,
            waiting.c.event == IncidentEvent.MUTES,
        )  # fmt: skip
        is_announced = incidents.c.id.in_(set(messages.values())), incidents.c.resolved_at.is_(None)
        announced = connection.execute(sa.select(incidents.c.id).where(*is_announced, ~has_waiting_message))
        ids = sorted(announced.scalars())
        enqueue_message_edit_notifications(connection, ids, IncidentEvent.MUTES, now)
        enqueue_message_edit_notifications(connection, muted, IncidentEvent.MUTING_BEGAN_OR_ENDED, now)
        mark_muted_incidents_announced(connection, messages)
        return ids


def _list_unannounced_muted_incidents(connection: sa.Connection, muting: Collection[str]) -> list[str]:
    """Open incidents that these incidents mute."""
    query = (
        sa.select(muted_incidents.c.incident)
        .join(incidents, incidents.c.id == muted_incidents.c.incident)
        .where(muted_incidents.c.muting_incident.in_(muting), muted_incidents.c.state == MutingState.MUTED)
        .where(~muted_incidents.c.is_announced, incidents.c.resolved_at.is_(None))
    )
    return sorted(connection.execute(query).scalars())
