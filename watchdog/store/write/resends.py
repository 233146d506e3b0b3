"""Notifications that could not be delivered, sent again because a person asks for it."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.model import DeliveryState
from watchdog.store.database import Database
from watchdog.store.read.destinations import list_destination_names
from watchdog.store.tables import outbox
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.incident_locks import lock_incident

_SENT_OR_UNCONFIRMED_DELIVERY_STATES = (DeliveryState.SENT, DeliveryState.UNCONFIRMED)


def resend_undelivered_notifications(
    database: Database, incident: str, destination: str, actor: Actor, comment: str, *, now: int
) -> list[str]:
    """Let what was given up of an incident wait to be sent again, as if it were new, and return the destinations.
    `destination`: only this one; empty: all. Raises OperatorActRefusedError if there is nothing to send.

    What a destination has not received before a later notification that it has confirmed is not sent again.
    """
    with database.open_write_transaction() as connection:
        id = lock_incident(database, connection, incident).id
        undelivered = _load_undelivered_notification_numbers_by_destination(connection, id)
        chosen = {name: numbers for name, numbers in undelivered.items() if destination in ("", name)}
        if not chosen:
            whose = f" to {destination}" if destination else ""
            raise OperatorActRefusedError(
                OperatorActRefusalReason.CONFLICT,
                f"no notification of the incident{whose} is undelivered: `watchdog explain {id}` shows who "
                "was notified, and why",
            )
        if unknown := sorted(chosen.keys() - set(list_destination_names(connection))):
            raise OperatorActRefusedError(
                OperatorActRefusalReason.CONFLICT,
                f"{', '.join(unknown)} is no longer configured: state another destination, or configure it again",
            )
        values = {
            "state": DeliveryState.WAITING, "created_at": now, "due_at": now, "attempts": 0, "detail": "",
            "finished_at": None, "refused_since": None,
        }  # fmt: skip
        for name, numbers in chosen.items():
            is_chosen = outbox.c.incident == id, outbox.c.destination == name, outbox.c.seq.in_(numbers)
            connection.execute(sa.update(outbox).where(*is_chosen).values(values))
        destinations = sorted(chosen)
        text = ": ".join(filter(None, (", ".join(destinations), comment)))
        record_operator_act(connection, OperatorActKind.RESEND, actor, now, incident=id, comment=text)
        return destinations


def _load_undelivered_notification_numbers_by_destination(
    connection: sa.Connection, incident: str
) -> dict[str, list[int]]:
    """Of each destination that has any, those after everything that it has confirmed."""
    query = sa.select(outbox.c.destination, outbox.c.seq, outbox.c.state).where(outbox.c.incident == incident)
    numbers: dict[str, list[int]] = {}
    for row in connection.execute(query.order_by(outbox.c.seq).with_for_update()):
        if row.state in _SENT_OR_UNCONFIRMED_DELIVERY_STATES:
            numbers.pop(row.destination, None)
        elif row.state == DeliveryState.UNDELIVERED:
            numbers.setdefault(row.destination, []).append(row.seq)
    return numbers
