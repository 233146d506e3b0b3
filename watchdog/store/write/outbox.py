"""The outbox: what is still to be told, to whom, in order, at least once.

A row is waiting until the receiver has confirmed it (`sent`), a later row told it too (`merged`), or nothing helps
(`dead`, kept visible). A sender holds a row by token and lease; a lease that has run out is anyone's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent, Json, Notification
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import destination_backoff, outbox, outbox_is_waiting

OPENED_SEQ, RESOLVED_SEQ = 0, 1
"""The sequence of an incident's notifications at one destination."""


@dataclass(frozen=True, slots=True)
class LeasedNotification:
    """A notification that we hold the lease of."""

    notification: Notification
    lease_token: str
    attempts: int
    """How often it was tried before."""
    opened_receipt: Mapping[str, Json]
    """What the opening's delivery returned."""
    partial_receipt: Mapping[str, Json]
    """What the last try came to, of one that came to something."""
    created_at: int
    merged: bool = False
    """It tells the opening, too, which this destination has not heard."""


def enqueue_opened(connection: sa.Connection, incident: str, notified_destinations: Iterable[str], now: int) -> None:
    rows = [
        _outbox_row(incident, destination, OPENED_SEQ, IncidentEvent.OPENED, now)
        for destination in notified_destinations
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def enqueue_resolved(
    connection: sa.Connection, incident: str, now: int, destinations_without_resolved: Collection[str]
) -> None:
    """Whoever was told of the opening hears of the end, whatever the routes say by now; `quiet` destinations do not."""
    heard = sa.select(outbox.c.destination).where(outbox.c.incident == incident, outbox.c.seq == OPENED_SEQ)
    told = [
        destination
        for destination in connection.execute(heard).scalars()
        if destination not in destinations_without_resolved
    ]
    if told:
        rows = [_outbox_row(incident, destination, RESOLVED_SEQ, IncidentEvent.RESOLVED, now) for destination in told]
        connection.execute(sa.insert(outbox), rows)


def _outbox_row(incident: str, destination: str, seq: int, event: IncidentEvent, now: int) -> dict[str, Any]:
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": "waiting",
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
    }  # fmt: skip


class Outbox:
    def __init__(self, database: Database):
        self.database = database

    def lease_due_notifications(
        self, now: int, lease_ms: int, allowed_destinations: Collection[str]
    ) -> list[LeasedNotification]:
        """Take one due notification for each of these destinations that did not ask for a pause, for `lease` ms.

        What waits longest goes first. An incident's `resolved` waits for its `opened`; when both wait, one message
        tells both. What is for others is left to a process that knows them.
        """
        earlier = outbox.alias()
        blocked = sa.exists().where(
            earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
            earlier.c.seq < outbox.c.seq, earlier.c.state == "waiting",
        )  # fmt: skip
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        due = (outbox_is_waiting, outbox.c.due_at <= now, free)
        paused = sa.select(destination_backoff.c.destination).where(destination_backoff.c.retry_at > now)
        open_ = outbox.c.destination.in_(allowed_destinations), outbox.c.destination.not_in(paused)
        names = sa.select(outbox.c.destination).where(*due, *open_).distinct()
        first = (
            sa.select(outbox)
            .where(*due, ~blocked, outbox.c.destination == sa.bindparam("name"))
            .order_by(outbox.c.due_at, outbox.c.created_at, outbox.c.incident)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self.database.write_transaction() as connection:
            ready = sorted(connection.execute(names).scalars())
            rows = [connection.execute(first, {"name": name}).first() for name in ready]
            return [self._lease_row(connection, row, now + lease_ms) for row in rows if row is not None]

    def _lease_row(self, connection: sa.Connection, row: Any, leased_until: int) -> LeasedNotification:
        token = uuid4().hex
        pair = (outbox.c.incident == row.incident, outbox.c.destination == row.destination)
        connection.execute(
            sa.update(outbox).where(*pair, outbox_is_waiting).values(lease_token=token, leased_until=leased_until)
        )
        told = {other.seq: other for other in connection.execute(sa.select(outbox).where(*pair))}
        last = told[max(told)]
        notification = Notification(row.incident, row.destination, last.seq, IncidentEvent(last.event))
        unheard = last.seq == RESOLVED_SEQ and told[OPENED_SEQ].state != "sent"
        opened = codec.loads(told[OPENED_SEQ].receipt) if told[OPENED_SEQ].state == "sent" else None
        partly = codec.loads(last.receipt)
        return LeasedNotification(
            notification, token, row.attempts, opened or {}, partly or {}, last.created_at, unheard
        )

    def mark_sent(self, leased: LeasedNotification, receipt: Mapping[str, Json], now: int) -> None:
        """The receiver has confirmed."""
        with self.database.write_transaction() as connection:
            this = outbox.c.seq == leased.notification.seq
            told = {"finished_at": now, "detail": ""}
            self._release(connection, leased, ~this, state="merged", **told)
            self._release(connection, leased, this, state="sent", receipt=codec.dumps(dict(receipt)), **told)

    def schedule_retry(
        self,
        leased: LeasedNotification,
        due_at: int,
        detail: str,
        *,
        partial_receipt: Mapping[str, Json] = {},
        retry_at: int | None = None,
    ) -> None:
        """Try again at `due`. `partly`: what this try came to, for the next one to know. `resume`: the receiver itself
        asked that nothing goes there earlier."""
        with self.database.write_transaction() as connection:
            kept = {**leased.partial_receipt, **partial_receipt}
            receipt = codec.dumps(kept) if kept else None
            self._release(
                connection, leased, due_at=due_at, detail=replace_unstorable_characters(detail), receipt=receipt
            )
            if retry_at is not None:
                insert = self.database.insert_statement(destination_backoff).values(
                    destination=leased.notification.destination, retry_at=retry_at
                )
                longer = {"set_": {"retry_at": retry_at}, "where": destination_backoff.c.retry_at < retry_at}
                connection.execute(insert.on_conflict_do_update(index_elements=["destination"], **longer))

    def mark_dead(self, leased: LeasedNotification, detail: str, now: int) -> None:
        """Nothing helps: keep it as a dead letter, with the reason."""
        with self.database.write_transaction() as connection:
            self._release(
                connection, leased, state="dead", finished_at=now, detail=replace_unstorable_characters(detail)
            )

    def expire_unknown_destinations(
        self, known_destinations: Collection[str], created_before: int, now: int
    ) -> list[tuple[str, str]]:
        """Bury what was written before an instant for destinations that are not among the known.

        Until then another process may know them: an older or a newer configuration runs beside ours. Returns incident
        and destination of each.
        """
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        old = (
            outbox_is_waiting,
            outbox.c.created_at < created_before,
            outbox.c.destination.not_in(known_destinations),
            free,
        )
        buried = {"state": "dead", "finished_at": now, "detail": "the destination is no longer configured"}
        update = sa.update(outbox).where(*old).values(lease_token=None, leased_until=None, **buried)
        with self.database.write_transaction() as connection:
            rows = connection.execute(update.returning(outbox.c.incident, outbox.c.destination))
            return [(incident, destination) for incident, destination in rows]

    def still_leased(self, leased: LeasedNotification, connection: sa.Connection) -> bool:
        """Whether the lease is still ours: asked just before sending, since a paused sender may have lost it."""
        return (
            connection.execute(sa.select(outbox.c.seq).where(*_leased_rows_filter(leased)).limit(1)).first() is not None
        )

    def _release(
        self, connection: sa.Connection, leased: LeasedNotification, *which: sa.ColumnElement[bool], **values: Json
    ) -> None:  # fmt: skip
        """After a try. What another has taken since is no longer ours to mark."""
        done = {"lease_token": None, "leased_until": None, "attempts": leased.attempts + 1, **values}
        connection.execute(sa.update(outbox).where(*_leased_rows_filter(leased), *which).values(**done))


def _leased_rows_filter(leased: LeasedNotification) -> tuple[sa.ColumnElement[bool], ...]:
    """The rows that we hold."""
    n = leased.notification
    return (
        outbox.c.incident == n.incident,
        outbox.c.destination == n.destination,
        outbox.c.lease_token == leased.lease_token,
        outbox_is_waiting,
    )
