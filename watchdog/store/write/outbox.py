"""The outbox: which notifications are still to be sent, in order, at least once.

A sender holds a waiting row by token until its lease ends; then any process may take it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.domain.model import DeliveryState, IncidentEvent, Json, Notification
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import destination_backoff, outbox, outbox_is_waiting

OPENED_SEQ, RESOLVED_SEQ = 0, 1
"""The order of an incident's notifications at one destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedNotification:
    """A notification whose lease this process holds."""

    notification: Notification
    lease_token: str
    attempts: int
    """Earlier attempts."""
    opened_receipt: Mapping[str, Json]
    """What the delivery of `opened` returned."""
    partial_receipt: Mapping[str, Json]
    """What the last attempt returned, if it was delivered in part."""
    created_at: int
    merged: bool = False
    """It reports the opening as well, which this destination has not received."""


def enqueue_opened(connection: sa.Connection, incident: str, destinations: Iterable[str], now: int) -> None:
    rows = [_outbox_row(incident, destination, OPENED_SEQ, IncidentEvent.OPENED, now) for destination in destinations]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def enqueue_resolved(
    connection: sa.Connection, incident: str, now: int, destinations_without_resolved: Collection[str]
) -> None:
    """For every destination that got `opened`, even if the routes have changed since, except for those that want no
    `resolved`."""
    notified = sa.select(outbox.c.destination).where(outbox.c.incident == incident, outbox.c.seq == OPENED_SEQ)
    rows = [
        _outbox_row(incident, destination, RESOLVED_SEQ, IncidentEvent.RESOLVED, now)
        for destination in connection.execute(notified).scalars()
        if destination not in destinations_without_resolved
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def _outbox_row(incident: str, destination: str, seq: int, event: IncidentEvent, now: int) -> dict[str, Any]:
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": DeliveryState.WAITING,
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
    }  # fmt: skip


class Outbox:
    """Leases notifications to senders, and stores what became of each attempt.

    Invariants: at most one process holds a row's lease; only its holder changes the row; an incident's `resolved` never
    precedes its `opened` at a destination. A crash after sending and before `mark_sent` leads to one further copy.
    """

    def __init__(self, database: Database):
        self.database = database

    def lease_due_notifications(
        self, now: int, lease_ms: int, allowed_destinations: Collection[str]
    ) -> list[LeasedNotification]:
        """Lease the longest-waiting due notification of each allowed destination, except for those in a pause.

        An incident's `resolved` waits for its `opened`; if both are waiting, they are merged into one message. Other
        destinations are left to processes that have them configured.
        """
        earlier = outbox.alias()
        blocked = sa.exists().where(
            earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
            earlier.c.seq < outbox.c.seq, earlier.c.state == DeliveryState.WAITING,
        )  # fmt: skip
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        due = (outbox_is_waiting, outbox.c.due_at <= now, free)
        paused = sa.select(destination_backoff.c.destination).where(destination_backoff.c.retry_at > now)
        allowed = outbox.c.destination.in_(allowed_destinations), outbox.c.destination.not_in(paused)
        destinations = sa.select(outbox.c.destination).where(*due, *allowed).distinct()
        first = (
            sa.select(outbox)
            .where(*due, ~blocked, outbox.c.destination == sa.bindparam("name"))
            .order_by(outbox.c.due_at, outbox.c.created_at, outbox.c.incident)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self.database.write_transaction() as connection:
            names = sorted(connection.execute(destinations).scalars())
            rows = [connection.execute(first, {"name": name}).first() for name in names]
            return [self._lease_row(connection, row, now + lease_ms) for row in rows if row is not None]

    def _lease_row(self, connection: sa.Connection, row: Any, leased_until: int) -> LeasedNotification:
        """Lease a row and, with it, the rest of the incident's waiting rows at the destination."""
        token = uuid4().hex
        pair = (outbox.c.incident == row.incident, outbox.c.destination == row.destination)
        lease = {"lease_token": token, "leased_until": leased_until}
        connection.execute(sa.update(outbox).where(*pair, outbox_is_waiting).values(**lease))
        row_by_seq = {each.seq: each for each in connection.execute(sa.select(outbox).where(*pair))}
        opened, last = row_by_seq[OPENED_SEQ], row_by_seq[max(row_by_seq)]
        opened_receipt = codec.loads(opened.receipt) if opened.state == DeliveryState.SENT else None
        return LeasedNotification(
            notification=Notification(row.incident, row.destination, last.seq, IncidentEvent(last.event)),
            lease_token=token,
            attempts=row.attempts,
            opened_receipt=opened_receipt or {},
            partial_receipt=codec.loads(last.receipt) or {},
            created_at=last.created_at,
            merged=last.seq == RESOLVED_SEQ and opened.state != DeliveryState.SENT,
        )

    def mark_sent(self, leased: LeasedNotification, receipt: Mapping[str, Json], now: int) -> None:
        """The receiver has confirmed the notification, and with it every earlier one of the incident."""
        values = {"finished_at": now, "detail": ""}
        with self.database.write_transaction() as connection:
            is_sent = outbox.c.seq == leased.notification.seq
            self._release(connection, leased, ~is_sent, state=DeliveryState.MERGED, **values)
            self._release(
                connection, leased, is_sent, state=DeliveryState.SENT, receipt=codec.dumps(dict(receipt)), **values
            )

    def schedule_retry(
        self,
        leased: LeasedNotification,
        due_at: int,
        detail: str,
        *,
        partial_receipt: Mapping[str, Json] = {},
        retry_at: int | None = None,
    ) -> None:
        """Try again at `due_at`. `detail`: the error. `partial_receipt`: what this attempt delivered, for the next one.
        `retry_at`: the destination asked that nothing is sent there before this instant."""
        saved = {**leased.partial_receipt, **partial_receipt}
        values = {"detail": replace_unstorable_characters(detail), "receipt": codec.dumps(saved) if saved else None}
        with self.database.write_transaction() as connection:
            self._release(connection, leased, due_at=due_at, **values)
            if retry_at is not None:
                insert = self.database.insert_statement(destination_backoff).values(
                    destination=leased.notification.destination, retry_at=retry_at
                )
                longer = {"set_": {"retry_at": retry_at}, "where": destination_backoff.c.retry_at < retry_at}
                connection.execute(insert.on_conflict_do_update(index_elements=["destination"], **longer))

    def mark_undelivered(self, leased: LeasedNotification, detail: str, now: int) -> None:
        """Give up, and keep the notification with the reason."""
        values = {"finished_at": now, "detail": replace_unstorable_characters(detail)}
        with self.database.write_transaction() as connection:
            self._release(connection, leased, state=DeliveryState.UNDELIVERED, **values)

    def expire_unknown_destinations(
        self, known_destinations: Collection[str], created_before: int, now: int
    ) -> list[tuple[str, str]]:
        """Give up notifications created before an instant for destinations that are not configured.

        Until then, a process with another configuration may send them. Returns the incident and destination of each.
        """
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        expired = (
            outbox_is_waiting,
            outbox.c.created_at < created_before,
            outbox.c.destination.not_in(known_destinations),
            free,
        )
        values = {
            "state": DeliveryState.UNDELIVERED,
            "finished_at": now,
            "detail": "the destination is no longer configured",
        }
        update = sa.update(outbox).where(*expired).values(lease_token=None, leased_until=None, **values)
        with self.database.write_transaction() as connection:
            rows = connection.execute(update.returning(outbox.c.incident, outbox.c.destination))
            return [(incident, destination) for incident, destination in rows]

    def still_leased(self, leased: LeasedNotification, connection: sa.Connection) -> bool:
        """Whether this process still holds the lease: checked right before sending, as a paused sender may have lost
        it."""
        query = sa.select(outbox.c.seq).where(*_leased_rows_filter(leased)).limit(1)
        return connection.execute(query).first() is not None

    def _release(
        self, connection: sa.Connection, leased: LeasedNotification, *which: sa.ColumnElement[bool], **values: Json
    ) -> None:  # fmt: skip
        """End the lease after an attempt. Rows that another process has leased since are left alone."""
        released = {"lease_token": None, "leased_until": None, "attempts": leased.attempts + 1, **values}
        connection.execute(sa.update(outbox).where(*_leased_rows_filter(leased), *which).values(**released))


def _leased_rows_filter(leased: LeasedNotification) -> tuple[sa.ColumnElement[bool], ...]:
    notification = leased.notification
    return (
        outbox.c.incident == notification.incident,
        outbox.c.destination == notification.destination,
        outbox.c.lease_token == leased.lease_token,
        outbox_is_waiting,
    )
