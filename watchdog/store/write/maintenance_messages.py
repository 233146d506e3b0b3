"""The messages about open incidents state whether their probe is in maintenance."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent
from watchdog.store.database import Database
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.read.maintenance import build_in_maintenance_filter
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications


class UnannouncedMaintenance(NamedTuple):
    """An open incident whose message does not state that maintenance has begun, or that it has ended."""

    incident: str
    probe: int
    event: IncidentEvent


def list_unannounced_maintenance(connection: sa.Connection, now: int) -> list[UnannouncedMaintenance]:
    """By the last of both events that was enqueued for a destination, so that no clock decides."""
    began, ended = outbox.alias(), outbox.alias()
    is_over = sa.exists().where(
        ended.c.incident == began.c.incident, ended.c.destination == began.c.destination,
        ended.c.event == IncidentEvent.MAINTENANCE_ENDED, ended.c.seq > began.c.seq,
    )  # fmt: skip
    is_stated = sa.exists().where(
        began.c.incident == outbox.c.incident, began.c.destination == outbox.c.destination,
        began.c.event == IncidentEvent.MAINTENANCE_BEGAN, ~is_over,
    )  # fmt: skip
    is_in_maintenance = build_in_maintenance_filter(incidents.c.probe, now)
    query = (
        sa.select(incidents.c.id, incidents.c.probe, is_in_maintenance.label("is_in_maintenance"))
        .join(outbox, outbox.c.incident == incidents.c.id)
        .where(incidents.c.resolved_at.is_(None), build_notified_outbox_filter(outbox, now))
        .where((is_in_maintenance & ~is_stated) | (~is_in_maintenance & is_stated))
    )
    return [
        UnannouncedMaintenance(
            row.id,
            row.probe,
            IncidentEvent.MAINTENANCE_BEGAN if row.is_in_maintenance else IncidentEvent.MAINTENANCE_ENDED,
        )
        for row in connection.execute(query.distinct().order_by(incidents.c.id))
    ]


def announce_maintenance(database: Database, now: int) -> list[str]:
    """Let these messages be edited. Returns the incidents."""
    with database.open_write_transaction() as connection:
        probes = {each.probe for each in list_unannounced_maintenance(connection, now)}
        database.lock_probes(connection, probes)
        unannounced = [each for each in list_unannounced_maintenance(connection, now) if each.probe in probes]
        for event in (IncidentEvent.MAINTENANCE_BEGAN, IncidentEvent.MAINTENANCE_ENDED):
            ids = [each.incident for each in unannounced if each.event is event]
            enqueue_message_edit_notifications(connection, ids, event, now)
        return [each.incident for each in unannounced]
