"""Acknowledgement of incidents: stored with the incident, and shown by the messages that can be edited."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import (
    Acknowledgement,
    Actor,
    OperatorActKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
)
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import IncidentEvent
from watchdog.store.database import Database
from watchdog.store.read.acts import build_acknowledgement_from_row
from watchdog.store.tables import incidents
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.follow_up_times import schedule_follow_ups
from watchdog.store.write.incident_locks import lock_incident, lock_incidents
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications


def acknowledge_incident(
    database: Database, incident: str, actor: Actor, comment: str, now: int
) -> tuple[Acknowledgement, bool]:
    """The acknowledgement that the incident then has, which is the first, and whether it is this one. Raises
    OperatorActRefusedError if the incident is unknown or resolved."""
    with database.open_write_transaction() as connection:
        row = _lock_open_incident_or_refuse_act(database, connection, incident, now)
        return _acknowledge_locked_incident(connection, row, Acknowledgement(now, actor, comment))


def acknowledge_open_incidents(
    database: Database, ids: Collection[str], actor: Actor, comment: str, now: int
) -> list[tuple[Acknowledgement, bool]]:
    """The same for those of several incidents that are open, in one transaction. Raises OperatorActRefusedError if none
    of them is."""
    with database.open_write_transaction() as connection:
        rows = [row for row in lock_incidents(database, connection, ids) if row.resolved_at is None]
        if not rows:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.CONFLICT, "none of the incidents is open: only an open one can be acknowledged"
            )
        return [_acknowledge_locked_incident(connection, row, Acknowledgement(now, actor, comment)) for row in rows]


def remove_acknowledgement(database: Database, incident: str, actor: Actor, comment: str, now: int) -> bool:
    """Whether there was one. Raises OperatorActRefusedError if the incident is unknown or resolved."""
    with database.open_write_transaction() as connection:
        row = _lock_open_incident_or_refuse_act(database, connection, incident, now)
        if row.acknowledged_at is None:
            return False
        _store_acknowledgement(connection, row.id, None)
        record_operator_act(connection, OperatorActKind.UNACKNOWLEDGE, actor, now, incident=row.id, comment=comment)
        schedule_follow_ups(connection, {row.id: now})
        enqueue_message_edit_notifications(connection, [row.id], IncidentEvent.ACKNOWLEDGED, now)
        return True


def _acknowledge_locked_incident(
    connection: sa.Connection, row: Any, acknowledgement: Acknowledgement
) -> tuple[Acknowledgement, bool]:
    """`row`: of an open incident."""
    if (existing := build_acknowledgement_from_row(row)) is not None:
        return existing, False
    now, actor, comment = acknowledgement
    _store_acknowledgement(connection, row.id, acknowledgement)
    record_operator_act(connection, OperatorActKind.ACKNOWLEDGE, actor, now, incident=row.id, comment=comment)
    enqueue_message_edit_notifications(connection, [row.id], IncidentEvent.ACKNOWLEDGED, now)
    return acknowledgement, True


def _lock_open_incident_or_refuse_act(database: Database, connection: sa.Connection, incident: str, now: int) -> Any:
    """The row of an open incident, which nothing changes until the transaction ends."""
    row = lock_incident(database, connection, incident)
    if row.resolved_at is not None:
        resolved = format_utc_timestamp(row.resolved_at, now)
        raise OperatorActRefusedError(
            OperatorActRefusalReason.CONFLICT,
            f"the incident was resolved at {resolved}: only an open incident can be acknowledged",
        )
    return row


def _store_acknowledgement(connection: sa.Connection, incident: str, acknowledgement: Acknowledgement | None) -> None:
    values = {
        "acknowledged_at": None if acknowledgement is None else acknowledgement.at,
        "acknowledged_by": "" if acknowledgement is None else acknowledgement.actor.name,
        "acknowledged_through": "" if acknowledgement is None else acknowledgement.actor.interface,
        "acknowledgement_comment": "" if acknowledgement is None else acknowledgement.comment,
    }
    connection.execute(sa.update(incidents).where(incidents.c.id == incident).values(values))
