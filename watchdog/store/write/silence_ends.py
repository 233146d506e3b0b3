"""The end of silences: what is still due is sent then, once to each destination, as the routes are at that time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor
from watchdog.domain.model import LOCAL_LOCATION_NAME, DeliveryState, IncidentEvent
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.rules import service
from watchdog.domain.silencing import Silence, decide_notification_after_silence
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY, add_open_incident_to_group_per_destination
from watchdog.store.write.incidents import append_routing_log_entries
from watchdog.store.write.outbox import NOTIFICATION_LEASE_LOCK_KEY
from watchdog.store.write.outbox_rows import OPENED_NOTIFICATION_SEQUENCE_NUMBER, enqueue_further_notification
from watchdog.store.write.probe_rows import load_active_probes
from watchdog.store.write.silences import (
    hold_back_silenced_notifications,
    list_ids_of_expired_silences,
    load_silence_by_id_or_raise_if_ended,
    mark_silences_ended,
    record_unsilence,
)

MAX_ATTEMPTS_TO_LOCK_PROBES = 5


def end_expired_silences(database: Database, now: int) -> list[str]:
    """Carry out the end of the silences whose time is over, or whose incident is resolved. Returns their ids."""
    for _ in range(MAX_ATTEMPTS_TO_LOCK_PROBES):
        with database.open_write_transaction() as connection:
            ids = list_ids_of_expired_silences(connection, now)
            if _try_to_acquire_locks_for_ending_silences(database, connection, ids):
                return _end_silences_and_enqueue_notifications(connection, ids, now)
    return []  # the next run of the background task tries again


def end_silence(database: Database, silence: str, actor: Actor, now: int) -> Silence:
    """End a silence before its time; returns it as it has ended. Raises OperatorActRefusedError if it is unknown or has
    ended."""
    while True:
        with database.open_write_transaction() as connection:
            stored = load_silence_by_id_or_raise_if_ended(connection, silence, now)
            if _try_to_acquire_locks_for_ending_silences(database, connection, [stored.id]):
                load_silence_by_id_or_raise_if_ended(connection, silence, now)  # another process may have ended it
                _end_silences_and_enqueue_notifications(connection, [stored.id], now, ended_by=actor.name)
                record_unsilence(connection, stored.id, actor, now)
                return replace(stored, ended_at=now, ended_by=actor.name)


def _try_to_acquire_locks_for_ending_silences(
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
    query = sa.select(incidents.c.probe).where(
        incidents.c.resolved_at.is_(None), _build_incidents_of_silence_ids_filter(ids)
    )
    return set(connection.execute(query.distinct()).scalars())


def _build_incidents_of_silence_ids_filter(ids: Collection[str]) -> sa.ColumnElement[bool]:
    """Incidents that one of these silences selects."""
    return incidents.c.id.in_(sa.select(silenced_incidents.c.incident).where(silenced_incidents.c.silence.in_(ids)))


def _end_silences_and_enqueue_notifications(
    connection: sa.Connection, ids: Collection[str], now: int, ended_by: str = ""
) -> list[str]:
    hold_back_silenced_notifications(connection, now)
    ended = list(mark_silences_ended(connection, ids, now, ended_by))
    is_still_silenced = sa.exists().where(
        silenced_incidents.c.incident == incidents.c.id, silences.c.id == silenced_incidents.c.silence,
        silence_is_in_effect,
    )  # fmt: skip
    query = sa.select(incidents).where(
        incidents.c.resolved_at.is_(None), _build_incidents_of_silence_ids_filter(ended), ~is_still_silenced
    )
    open_rows = connection.execute(query.order_by(incidents.c.opened_at, incidents.c.id)).all()
    registered = load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only={row.probe for row in open_rows})
    notified = build_notified_outbox_filter(outbox, now).label("is_notified")
    schedule_follow_ups(connection, {row.id: now for row in open_rows})
    for incident in open_rows:
        query = sa.select(outbox, notified).where(outbox.c.incident == incident.id)
        rows = connection.execute(query.order_by(outbox.c.destination, outbox.c.seq)).all()
        _notify_after_silence(connection, incident, rows, registered.get(incident.probe), now)
    return ended


def _notify_after_silence(
    connection: sa.Connection, incident: Any, rows: Sequence[Any], registered: RegisteredProbe | None, now: int
) -> None:
    """`incident`: its row, open and no longer silenced. `rows`: those of the outbox about it, by destination."""
    rows_by_destination: dict[str, list[Any]] = {}
    for row in rows:
        rows_by_destination.setdefault(row.destination, []).append(row)
    routing = _decide_present_routing(incident, registered, rows_by_destination)
    events = {}
    for destination in dict.fromkeys([*routing.destinations, *rows_by_destination]):
        earlier = rows_by_destination.get(destination, [])
        decision = decide_notification_after_silence(
            is_open=True,
            is_still_silenced=False,
            is_notified=any(row.is_notified for row in earlier),
            has_held_back_change=_is_last_changed_notification_silenced(earlier),
            has_route=destination in routing.destinations,
        )
        if decision.event is not None:
            events[destination] = decision.event
    leads = _find_lead_incident_by_destination(connection, incident, events, rows_by_destination, registered, now=now)
    for destination, event in events.items():
        earlier = rows_by_destination.get(destination, [])
        seq = earlier[-1].seq + 1 if earlier else OPENED_NOTIFICATION_SEQUENCE_NUMBER
        lead = leads.get(destination, incident.id)
        enqueue_further_notification(connection, incident.id, destination, event, seq=seq, lead=lead, now=now)
    steps = [f"when the silence ended: {step}" for step in routing.routing_log]
    append_routing_log_entries(connection, incident.id, steps)


def _is_last_changed_notification_silenced(rows: Sequence[Any]) -> bool:
    """`rows`: of one destination, in order. An earlier silence may have held back a change that was sent since."""
    states = [row.state for row in rows if row.event == IncidentEvent.CHANGED]
    return bool(states) and states[-1] == DeliveryState.SILENCED


def _decide_present_routing(
    incident: Any, registered: RegisteredProbe | None, rows_by_destination: Mapping[str, Sequence[Any]]
) -> RoutingDecision:
    """By the routes that are in force now; by those of the opening for a probe that an earlier version registered."""
    if registered is None:
        return RoutingDecision(tuple(rows_by_destination), ())
    failing = service.get_failing_destination_of_incident(incident.rule, incident.subject)
    return registered.routes.decide_routing(registered.info, incident.reason, failing)


def _find_lead_incident_by_destination(
    connection: sa.Connection,
    incident: Any,
    destinations: Iterable[str],
    rows_by_destination: Mapping[str, Sequence[Any]],
    registered: RegisteredProbe | None,
    *,
    now: int,
) -> dict[str, str]:
    """The first incident of the group, by destination: an incident stays in the group that it joined when it opened."""
    leads = {name: rows[-1].lead_incident for name, rows in rows_by_destination.items()}
    added = [name for name in destinations if name not in leads]
    if registered is not None:
        leads |= add_open_incident_to_group_per_destination(connection, incident, added, registered, now)
    return leads
