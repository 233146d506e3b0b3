"""The end of silences: what is still due is sent then, once to each destination, as the routes are at that time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentEvent
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.silencing import Silence, decide_notification_after_silence
from watchdog.domain.transitions import TransitionKind
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.outbox_filters import build_flapping_filter
from watchdog.store.read.muted_incidents import load_ids_of_held_back_incidents
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import incidents
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.held_back_notifications import (
    decide_present_routing,
    enqueue_notifications_after_holding_back,
    hold_back_notifications,
    is_last_changed_notification_held_back,
    load_notifications_by_destination,
)
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY
from watchdog.store.write.outbox import NOTIFICATION_LEASE_LOCK_KEY
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications
from watchdog.store.write.routing_log import append_routing_log_entries
from watchdog.store.write.silences import (
    list_ids_of_expired_silences,
    load_silence_by_id_or_raise_if_ended,
    mark_silences_ended,
    record_unsilence_act,
)
from watchdog.store.write.transitions import record_transition

MAX_ATTEMPTS_TO_LOCK_PROBES = 5
STILL_MUTED_AFTER_SILENCE_TEXT = "still held back because of another probe"
_is_shown_as_open = incidents.c.resolved_at.is_(None) | build_flapping_filter(incidents.c.id)
"""Whether a message about the incident may state that it is silenced."""


def end_expired_silences(database: Database, now: int) -> list[str]:
    """Carry out the end of the silences whose time is over, or whose incident is resolved. Returns their ids."""
    for _ in range(MAX_ATTEMPTS_TO_LOCK_PROBES):
        with database.open_write_transaction() as connection:
            ids = list_ids_of_expired_silences(connection, now)
            if _acquire_locks_for_ending_silences_unless_probes_changed(database, connection, ids):
                ended = _end_silences_and_enqueue_notifications(connection, ids, now)
                for silence in ended:
                    record_transition(connection, TransitionKind.UNSILENCED, now, silence=silence)
                return ended
    return []  # the next run of the background task tries again


def end_silence(database: Database, silence: str, actor: Actor, now: int) -> Silence:
    """End a silence before its time; returns it as it has ended. Raises OperatorActRefusedError if it is unknown or has
    ended."""
    while True:
        with database.open_write_transaction() as connection:
            stored = load_silence_by_id_or_raise_if_ended(connection, silence, now)
            if _acquire_locks_for_ending_silences_unless_probes_changed(database, connection, [stored.id]):
                load_silence_by_id_or_raise_if_ended(connection, silence, now)  # another process may have ended it
                _end_silences_and_enqueue_notifications(connection, [stored.id], now, ended_by=actor.name)
                record_unsilence_act(connection, stored.id, actor, now)
                return replace(stored, ended_at=now, ended_by=actor.name)


def _acquire_locks_for_ending_silences_unless_probes_changed(
    database: Database, connection: sa.Connection, ids: Collection[str]
) -> bool:
    """Take the locks in the order of the recorder and the senders: probes, incident groups, notification leases. False:
    an incident of another probe opened before the second lock was held."""
    probes = _list_probes_with_silenced_open_incidents(connection, ids)
    database.lock_probes(connection, probes)
    database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
    if not _list_probes_with_silenced_open_incidents(connection, ids) <= probes:
        return False
    database.acquire_advisory_lock(connection, NOTIFICATION_LEASE_LOCK_KEY)
    return True


def _list_probes_with_silenced_open_incidents(connection: sa.Connection, ids: Collection[str]) -> set[int]:
    query = sa.select(incidents.c.probe).where(_is_shown_as_open, _build_incidents_of_silence_ids_filter(ids))
    return set(connection.execute(query.distinct()).scalars())


def _build_incidents_of_silence_ids_filter(ids: Collection[str]) -> sa.ColumnElement[bool]:
    """Incidents that one of these silences selects."""
    return incidents.c.id.in_(sa.select(silenced_incidents.c.incident).where(silenced_incidents.c.silence.in_(ids)))


def _end_silences_and_enqueue_notifications(
    connection: sa.Connection, ids: Collection[str], now: int, ended_by: str = ""
) -> list[str]:
    hold_back_notifications(connection, now)
    ended = list(mark_silences_ended(connection, ids, now, ended_by))
    is_still_silenced = sa.exists().where(
        silenced_incidents.c.incident == incidents.c.id, silences.c.id == silenced_incidents.c.silence,
        silence_is_in_effect,
    )  # fmt: skip
    is_of_ended = _build_incidents_of_silence_ids_filter(ended)
    is_open = incidents.c.resolved_at.is_(None), is_of_ended
    edited = list(connection.execute(sa.select(incidents.c.id).where(_is_shown_as_open, is_of_ended)).scalars())
    enqueue_message_edit_notifications(connection, edited, IncidentEvent.SILENCE_BEGAN_OR_ENDED, now)
    query = sa.select(incidents).where(*is_open, ~is_still_silenced)
    open_rows = connection.execute(query.order_by(incidents.c.opened_at, incidents.c.id)).all()
    registered = load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only={row.probe for row in open_rows})
    muted = load_ids_of_held_back_incidents(connection, [row.id for row in open_rows])
    schedule_follow_ups(connection, {row.id: now for row in open_rows})
    for incident in open_rows:
        is_muted = incident.id in muted
        _notify_after_silence(connection, incident, registered.get(incident.probe), now, is_muted=is_muted)
    return ended


def _notify_after_silence(
    connection: sa.Connection, incident: Any, registered: RegisteredProbe | None, now: int, *, is_muted: bool
) -> None:
    """`incident`: its row, open and no longer silenced. `is_muted`: because of another probe."""
    rows_by_destination = load_notifications_by_destination(connection, incident.id, now)
    routing = decide_present_routing(incident, registered, rows_by_destination)
    events = {}
    for destination in dict.fromkeys([*routing.destinations, *rows_by_destination]):
        earlier = rows_by_destination.get(destination, [])
        decision = decide_notification_after_silence(
            is_open=True,
            is_still_silenced=False,
            is_muted=is_muted,
            is_notified=any(row.is_notified for row in earlier),
            has_held_back_change=is_last_changed_notification_held_back(earlier),
            has_route=destination in routing.destinations,
        )
        if decision.event is not None:
            events[destination] = [decision.event]
    enqueue_notifications_after_holding_back(connection, incident, events, rows_by_destination, registered, now=now)
    steps = [STILL_MUTED_AFTER_SILENCE_TEXT] if is_muted else routing.routing_log
    append_routing_log_entries(connection, incident.id, [f"when the silence ended: {step}" for step in steps])
