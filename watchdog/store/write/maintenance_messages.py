"""Enqueues edits of messages about open incidents when maintenance of the probe begins or ends."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent
from watchdog.store.database import Database
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.read.maintenance import build_probe_in_maintenance_filter
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications


class IncidentWithUnannouncedMaintenance(NamedTuple):
    """An open incident whose message does not yet state that maintenance began or ended."""

    incident: str
    probe: int
    event: IncidentEvent


def list_unannounced_maintenance(connection: sa.Connection, now: int) -> list[IncidentWithUnannouncedMaintenance]:
    """Decided by the last of both events that was enqueued for a destination, and not by a clock."""
    notified, is_in_maintenance = outbox.alias(), build_probe_in_maintenance_filter(incidents.c.probe, now)
    is_stated = _build_maintenance_is_stated_filter(notified.c.destination)
    is_unannounced = sa.exists().where(
        notified.c.incident == incidents.c.id, build_notified_outbox_filter(notified, now),
        sa.case((is_in_maintenance, ~is_stated), else_=is_stated),
    )  # fmt: skip
    columns = incidents.c.id, incidents.c.probe, is_in_maintenance.label("is_in_maintenance")
    query = sa.select(*columns).where(incidents.c.resolved_at.is_(None), is_unannounced)
    return [
        IncidentWithUnannouncedMaintenance(
            row.id,
            row.probe,
            IncidentEvent.MAINTENANCE_BEGAN if row.is_in_maintenance else IncidentEvent.MAINTENANCE_ENDED,
        )
        for row in connection.execute(query.order_by(incidents.c.id))
    ]


def _build_maintenance_is_stated_filter(destination: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether the last event that was enqueued for the destination about the incident's maintenance is its begin."""
    began, ended = outbox.alias(), outbox.alias()
    is_over = sa.exists().where(
        ended.c.incident == began.c.incident, ended.c.destination == began.c.destination,
        ended.c.event == IncidentEvent.MAINTENANCE_ENDED, ended.c.seq > began.c.seq,
    )  # fmt: skip
    is_began = began.c.incident == incidents.c.id, began.c.event == IncidentEvent.MAINTENANCE_BEGAN
    return sa.exists().where(*is_began, began.c.destination == destination, ~is_over)


def enqueue_maintenance_message_edits(database: Database, now: int) -> list[str]:
    """Enqueue edits of these messages. Returns the incidents."""
    with database.open_write_transaction() as connection:
        probes = {each.probe for each in list_unannounced_maintenance(connection, now)}
        database.lock_probes(connection, probes)
        unannounced = [each for each in list_unannounced_maintenance(connection, now) if each.probe in probes]
        for event in (IncidentEvent.MAINTENANCE_BEGAN, IncidentEvent.MAINTENANCE_ENDED):
            ids = [each.incident for each in unannounced if each.event is event]
            enqueue_message_edit_notifications(connection, ids, event, now)
        return [each.incident for each in unannounced]
