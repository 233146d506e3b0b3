"""Ends flapping: what is still due is sent then, once to each destination, in the message about the flapping."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from watchdog.domain.flapping import build_end_of_flapping_step_of_routing_log
from watchdog.domain.flapping_notifications import decide_notification_after_flapping
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentEvent
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.database import Database
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.outbox_filters import build_sent_waiting_or_given_up_message_outbox_filter
from watchdog.store.read.flapping import DueFlappingEnd, list_due_flapping_ends
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.flapping import load_lead_incident_by_destination_of_flapping
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.held_back_notifications import (
    decide_present_routing,
    enqueue_notifications_after_holding_back,
    hold_back_notifications,
    load_notifications_by_destination,
)
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY
from watchdog.store.write.outbox import NOTIFICATION_LEASE_LOCK_KEY
from watchdog.store.write.routing_log import append_routing_log_entries


def end_flapping_of_stable_alerts(database: Database, now: int) -> list[DueFlappingEnd]:
    """Decide whether the flapping of alerts is over, and end it. Returns those that are over.

    Takes the locks in the order of the recorder and the senders: probes, incident groups, notification leases. A
    decision about a probe that is not locked is carried out by the next run.
    """
    with database.open_write_transaction() as connection:
        probes = {due.probe for due in list_due_flapping_ends(connection, now)}
        if not probes:
            return []
        database.lock_probes(connection, probes)
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        database.acquire_advisory_lock(connection, NOTIFICATION_LEASE_LOCK_KEY)
        hold_back_notifications(connection, now)
        decided = [due for due in list_due_flapping_ends(connection, now) if due.probe in probes]
        ended = [due for due in decided if due.decision.is_over]
        registered = load_active_probes(connection, LOCAL_LOCATION_NAME, {}, only={due.probe for due in ended})
        for due in decided:
            is_row, decision = flapping_alerts.c.id == due.flapping, due.decision
            values: dict[str, Any] = {"decide_at": decision.decide_again_at}
            if decision.is_over:
                values = {"ended_at": now, "end_reason": decision.reason}
            connection.execute(sa.update(flapping_alerts).where(is_row).values(values))
        for due in ended:
            _notify_after_flapping(connection, due, registered.get(due.probe), now)
        schedule_follow_ups(connection, {due.open_incident: now for due in ended if due.open_incident})
        return ended


def _notify_after_flapping(
    connection: sa.Connection, due: DueFlappingEnd, registered: RegisteredProbe | None, now: int
) -> None:
    """The open incident is sent; without one, the end of the newest incident that a destination was notified of."""
    notified = _load_newest_notified_incidents(connection, due.flapping)
    newest = due.open_incident or _load_id_of_newest_incident_of_flapping(connection, due.flapping)
    incident_row = connection.execute(sa.select(incidents).where(incidents.c.id == newest)).one()
    routing = decide_present_routing(incident_row, registered, dict.fromkeys(notified, ()))
    events: dict[str, dict[str, list[IncidentEvent]]] = {}
    log = []
    for destination in dict.fromkeys([*(routing.destinations if due.open_incident else ()), *notified]):
        decision = decide_notification_after_flapping(
            is_open=bool(due.open_incident),
            is_notified=destination in notified,
            has_route=destination in routing.destinations,
            wants_resolved=registered is None or destination not in registered.routes.without_resolved,
        )
        if decision.event is not None:
            incident = due.open_incident or notified[destination]
            events.setdefault(incident, {})[destination] = [decision.event]
        log.append(f"when flapping ended: {destination}: {decision.reason}")
    leads = load_lead_incident_by_destination_of_flapping(connection, due.flapping)
    for id, events_by_destination in events.items():
        row = connection.execute(sa.select(incidents).where(incidents.c.id == id)).one()
        rows = load_notifications_by_destination(connection, id, now)
        enqueue_notifications_after_holding_back(
            connection, row, events_by_destination, rows, registered, now=now, leads=leads
        )
    append_routing_log_entries(connection, newest, [build_end_of_flapping_step_of_routing_log(due.decision), *log])


def _load_newest_notified_incidents(connection: sa.Connection, flapping: str) -> dict[str, str]:
    """By destination: the newest incident of the flapping about which a notification was sent, waits to be sent, or was
    given up."""
    query = (
        sa.select(outbox.c.destination, outbox.c.incident)
        .join(flapping_incidents, flapping_incidents.c.incident == outbox.c.incident)
        .join(incidents, incidents.c.id == outbox.c.incident)
        .where(flapping_incidents.c.flapping == flapping, build_sent_waiting_or_given_up_message_outbox_filter())
        .order_by(outbox.c.destination, incidents.c.generation, incidents.c.since)
    )
    return {row.destination: row.incident for row in connection.execute(query)}


def _load_id_of_newest_incident_of_flapping(connection: sa.Connection, flapping: str) -> str:
    query = (
        sa.select(incidents.c.id)
        .join(flapping_incidents, flapping_incidents.c.incident == incidents.c.id)
        .where(flapping_incidents.c.flapping == flapping)
        .order_by(incidents.c.generation.desc(), incidents.c.since.desc())
    )
    newest: str = connection.execute(query.limit(1)).scalar_one()
    return newest
