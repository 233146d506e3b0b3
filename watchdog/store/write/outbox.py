"""The outbox: which notifications are still to be sent, in order, at least once.

A sender holds a waiting row by token until its lease ends; then any process may take it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.domain.membership import ENDED_WATCHDOG_PROCESS_RETENTION_MS
from watchdog.domain.model import DeliveryState, IncidentEvent, Json, Notification
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import (
    destination_backoff,
    failing_destinations,
    incidents,
    members,
    messages,
    outbox,
    outbox_is_unconfirmed,
    outbox_is_waiting,
    revision_destinations,
)

OPENED_NOTIFICATION_SEQ = 0
"""The first of an incident's notifications at a destination; each later one has the next number."""
NOTIFICATION_LEASE_LOCK_KEY = -2
"""Advisory lock: two processes that lease events of one incident would block each other. No probe has this id."""
MIN_CHANGED_NOTIFICATION_INTERVAL_MS = 300_000
"""Between two messages at a destination that an incident's cause has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedNotification:
    """A notification whose lease this process holds."""

    notification: Notification
    lease_token: str
    attempts: int
    """Earlier attempts."""
    previous_receipt: Mapping[str, Json]
    """What the incident's last delivery to this destination returned."""
    partial_receipt: Mapping[str, Json]
    """What the last attempt returned, if it was delivered in part."""
    created_at: int
    refused_since: int | None = None
    """When it was first refused with an error that is retried for a limited time."""
    unconfirmed_copies: int = 0
    """How many copies were sent of which no response showed whether they arrived."""
    merged: bool = False
    """It reports the opening as well, which this destination has not received."""
    previous_headline: str = ""
    """The first line of the message that this destination has about the incident."""
    previous_cause: str = ""
    """The cause that this message states."""


def enqueue_opened_notifications(
    connection: sa.Connection, incident: str, destinations: Iterable[str], now: int
) -> None:
    rows = [
        _build_outbox_row(incident, destination, OPENED_NOTIFICATION_SEQ, IncidentEvent.OPENED, now)
        for destination in destinations
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def enqueue_cause_changed_notifications(connection: sa.Connection, incident: str, now: int) -> Collection[str]:
    """For every destination that got `opened`, unless a notification is waiting there: it will show the new cause.
    Returns these destinations.

    One that is being sent may show the old cause. The rows are locked, so that none starts to be sent meanwhile.
    """
    query = sa.select(outbox).where(outbox.c.incident == incident)
    rows = connection.execute(query.order_by(outbox.c.destination, outbox.c.seq).with_for_update())
    last_rows = {row.destination: row for row in rows}
    changed = [
        _build_outbox_row(incident, destination, last.seq + 1, IncidentEvent.CHANGED, now)
        for destination, last in last_rows.items()
        if last.state != DeliveryState.WAITING or (last.leased_until is not None and last.leased_until > now)
    ]
    if changed:
        connection.execute(sa.insert(outbox), changed)
    return last_rows.keys()


def enqueue_resolved_notifications(
    connection: sa.Connection, incident: str, now: int, destinations_without_resolved: Collection[str]
) -> None:
    """For every destination that got `opened`, even if the routes have changed since, except for those that want no
    `resolved`."""
    notified = sa.select(outbox.c.destination, sa.func.max(outbox.c.seq)).where(outbox.c.incident == incident)
    rows = [
        _build_outbox_row(incident, destination, last_seq + 1, IncidentEvent.RESOLVED, now)
        for destination, last_seq in connection.execute(notified.group_by(outbox.c.destination))
        if destination not in destinations_without_resolved
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def _build_outbox_row(incident: str, destination: str, seq: int, event: IncidentEvent, now: int) -> dict[str, Any]:
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": DeliveryState.WAITING,
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
    }  # fmt: skip


class NotificationOutbox:
    """Leases notifications to senders, and stores what became of each attempt.

    Invariants: at most one process holds a row's lease; only its holder changes the row; an incident's notifications
    never overtake each other at a destination. A crash after sending and before `mark_sent` leads to one further copy.
    """

    def __init__(self, database: Database):
        self.database = database

    def lease_due_notifications(
        self,
        now: int,
        lease_ms: int,
        allowed_destinations: Collection[str],
        editing_destinations: Collection[str] = (),
    ) -> list[LeasedNotification]:
        """Lease the longest-waiting due notification of each allowed destination, except for those in a pause.

        An incident's later notifications wait for its earlier ones; those that are waiting are merged into one message.
        `changed` waits until MIN_CHANGED_NOTIFICATION_INTERVAL_MS after the last one, unless the destination is one of
        `editing_destinations`, where it edits a message. Other destinations are left to processes that have them
        configured. A destination with nothing else to send gets another copy of what is unconfirmed and due, if its
        incident is open.
        """
        paused = sa.select(destination_backoff.c.destination).where(destination_backoff.c.retry_at > now)
        allowed = outbox.c.destination.in_(allowed_destinations), outbox.c.destination.not_in(paused)
        with self.database.write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, NOTIFICATION_LEASE_LOCK_KEY)
            rows: list[Any] = []
            for due in (_build_waiting_outbox_filter(now, editing_destinations), _build_unconfirmed_outbox_filter(now)):
                destinations = sa.select(outbox.c.destination).where(*due, *allowed).distinct()
                names = set(connection.execute(destinations).scalars()) - {row.destination for row in rows}
                first = (
                    sa.select(outbox)
                    .where(*due, outbox.c.destination == sa.bindparam("name"))
                    .order_by(outbox.c.due_at, outbox.c.created_at, outbox.c.incident)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
                candidates = [connection.execute(first, {"name": name}).first() for name in sorted(names)]
                rows += filter(None, candidates)
            return [lease for row in rows if (lease := self._lease_row(connection, row, now + lease_ms)) is not None]

    def _lease_row(self, connection: sa.Connection, row: Any, leased_until: int) -> LeasedNotification | None:
        """Lease a row and, with it, the rest of the incident's rows in the same state at the destination. None while
        another transaction holds one of them: it may wait for `row`, and to wait for it would be a deadlock."""
        token, pair = uuid4().hex, {"incident": row.incident, "destination": row.destination}
        same_state = sa.select(outbox.c.seq).filter_by(**pair, state=row.state)
        free_rows = connection.execute(same_state.with_for_update(skip_locked=True)).all()
        if len(free_rows) < len(connection.execute(same_state).all()):
            return None
        update = sa.update(outbox).filter_by(**pair, state=row.state)
        connection.execute(update.values(lease_token=token, leased_until=leased_until))
        last = connection.execute(sa.select(outbox).filter_by(**pair).order_by(outbox.c.seq.desc()).limit(1)).one()
        message = connection.execute(sa.select(messages).filter_by(**pair)).first()
        event = IncidentEvent(last.event)
        if message is None and event is IncidentEvent.CHANGED:
            event = IncidentEvent.OPENED
        return LeasedNotification(
            notification=Notification(row.incident, row.destination, last.seq, event),
            lease_token=token,
            attempts=row.attempts,
            previous_receipt=codec.decode_nullable_json(message.receipt) if message is not None else {},
            partial_receipt=codec.decode_nullable_json(last.receipt) or {},
            created_at=last.created_at,
            refused_since=last.refused_since,
            unconfirmed_copies=last.unconfirmed_copies,
            merged=message is None and event is IncidentEvent.RESOLVED,
            previous_headline=message.headline if message is not None else "",
            previous_cause=message.cause if message is not None else "",
        )

    def mark_sent(
        self, leased: LeasedNotification, receipt: Mapping[str, Json], now: int, headline: str = "", cause: str = ""
    ) -> None:
        """The receiver has confirmed the notification, and with it every earlier one of the incident. `headline` and
        `cause`: of the message that it now has."""
        self._finish_notification(leased, DeliveryState.SENT, receipt, now, headline=headline, cause=cause)

    def mark_unconfirmed(
        self,
        leased: LeasedNotification,
        receipt: Mapping[str, Json],
        now: int,
        headline: str,
        cause: str,
        *,
        detail: str,
        next_copy_at: int,
    ) -> None:
        """No response showed whether it arrived. It blocks nothing, and is sent again while its incident is open."""
        values: dict[str, Json] = {"due_at": next_copy_at, "unconfirmed_copies": leased.unconfirmed_copies + 1}
        values["detail"] = replace_unstorable_characters(detail)
        self._finish_notification(
            leased, DeliveryState.UNCONFIRMED, receipt, now, headline=headline, cause=cause, **values
        )

    def _finish_notification(
        self,
        leased: LeasedNotification,
        state: DeliveryState,
        receipt: Mapping[str, Json],
        now: int,
        *,
        headline: str,
        cause: str,
        **more: Json,
    ) -> None:
        values = {"finished_at": now, "detail": ""}
        message = {
            "headline": replace_unstorable_characters(headline),
            "cause": replace_unstorable_characters(cause),
            "receipt": codec.encode_storable_json(dict(receipt)),
            "sent_at": now,
        }
        with self.database.write_transaction() as connection:
            is_last = outbox.c.seq == leased.notification.seq
            self._release_lease(connection, leased, ~is_last, state=DeliveryState.MERGED, **values)
            if state is DeliveryState.SENT:
                destination = failing_destinations.c.destination == leased.notification.destination
                connection.execute(sa.delete(failing_destinations).where(destination))
            if self._release_lease(connection, leased, is_last, state=state, **{**values, **more}):
                if state is DeliveryState.UNCONFIRMED:
                    self._record_failing_destination(connection, leased, now, str(more["detail"]), given_up=True)
                key = {name: getattr(leased.notification, name) for name in ("incident", "destination")}
                insert = self.database.build_insert_statement(messages).values(**key, **message)
                connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=message))

    def mark_merged(self, leased: LeasedNotification, now: int) -> None:
        """The destination's message already states all that the notification would."""
        with self.database.write_transaction() as connection:
            self._release_lease(connection, leased, state=DeliveryState.MERGED, finished_at=now, detail="")

    def schedule_retry(
        self,
        leased: LeasedNotification,
        due_at: int,
        detail: str,
        *,
        failed_at: int | None = None,
        partial_receipt: Mapping[str, Json] = {},
        retry_at: int | None = None,
        refused_since: int | None = None,
        unconfirmed_copies: int = 0,
    ) -> None:
        """Try again at `due_at`. `detail`: the error. `failed_at`: when the destination failed; None: the attempt was
        interrupted. `partial_receipt`: what this attempt delivered, for the next one. `retry_at`: the destination asked
        that nothing is sent there before this instant."""
        saved = {**leased.partial_receipt, **partial_receipt}
        values: dict[str, Json] = {
            "detail": replace_unstorable_characters(detail),
            "receipt": codec.encode_storable_json(saved) if saved else None,
            "refused_since": refused_since,
            "unconfirmed_copies": unconfirmed_copies,
        }
        with self.database.write_transaction() as connection:
            if self._release_lease(connection, leased, due_at=due_at, **values) and failed_at is not None:
                self._record_failing_destination(connection, leased, failed_at, detail, given_up=False)
            if retry_at is not None:
                insert = self.database.build_insert_statement(destination_backoff).values(
                    destination=leased.notification.destination, retry_at=retry_at
                )
                longer = {"set_": {"retry_at": retry_at}, "where": destination_backoff.c.retry_at < retry_at}
                connection.execute(insert.on_conflict_do_update(index_elements=["destination"], **longer))

    def postpone_notification(self, leased: LeasedNotification, due_at: int) -> None:
        """End the lease without an attempt: Watchdog could not get as far as sending."""
        with self.database.write_transaction() as connection:
            self._release_lease(connection, leased, due_at=due_at, attempts=leased.attempts)

    def mark_undelivered(self, leased: LeasedNotification, detail: str, now: int) -> None:
        """Give up, and keep the notification with the reason."""
        values = {"finished_at": now, "detail": replace_unstorable_characters(detail)}
        with self.database.write_transaction() as connection:
            if self._release_lease(connection, leased, state=DeliveryState.UNDELIVERED, **values):
                self._record_failing_destination(connection, leased, now, detail, given_up=True)

    def _record_failing_destination(
        self, connection: sa.Connection, leased: LeasedNotification, now: int, detail: str, *, given_up: bool
    ) -> None:
        insert = self.database.build_insert_statement(failing_destinations).values(
            destination=leased.notification.destination,
            failing_since=now,
            given_up=given_up,
            error=replace_unstorable_characters(detail),
        )
        newer = {
            "given_up": failing_destinations.c.given_up | insert.excluded.given_up,
            "error": insert.excluded.error,
        }
        connection.execute(insert.on_conflict_do_update(index_elements=["destination"], set_=newer))

    def give_up_orphaned_notifications(self, now: int) -> list[tuple[str, str]]:
        """Give up notifications whose destination no member has had for ENDED_WATCHDOG_PROCESS_RETENTION_MS; forget its
        failure.

        Until then, a member with it may come back. Returns the incident and destination of each.
        """
        since = now - ENDED_WATCHDOG_PROCESS_RETENTION_MS
        recent_destinations = (
            sa.select(revision_destinations.c.destination)
            .join(members, members.c.revision == revision_destinations.c.revision)
            .where(members.c.lease_until > since)
        )
        expired = (
            outbox_is_waiting,
            outbox.c.created_at < since,
            outbox.c.destination.not_in(recent_destinations),
            _build_unleased_outbox_filter(now),
        )
        values = {
            "state": DeliveryState.UNDELIVERED,
            "finished_at": now,
            "detail": "the destination is no longer configured",
        }
        update = sa.update(outbox).where(*expired).values(lease_token=None, leased_until=None, **values)
        with self.database.write_transaction() as connection:
            is_unknown = failing_destinations.c.destination.not_in(recent_destinations)
            is_old = failing_destinations.c.failing_since < since
            connection.execute(sa.delete(failing_destinations).where(is_unknown, is_old))
            rows = connection.execute(update.returning(outbox.c.incident, outbox.c.destination))
            return [(incident, destination) for incident, destination in rows]

    def is_still_leased(self, leased: LeasedNotification, connection: sa.Connection) -> bool:
        """Whether this process still holds the lease: checked right before sending, as a paused sender may have lost
        it."""
        query = sa.select(outbox.c.seq).where(*_build_leased_outbox_filter(leased)).limit(1)
        return connection.execute(query).first() is not None

    def _release_lease(
        self, connection: sa.Connection, leased: LeasedNotification, *which: sa.ColumnElement[bool], **values: Json
    ) -> bool:  # fmt: skip
        """End the lease after an attempt. Rows that another process has leased since are left alone. Returns whether
        any row was still leased."""
        released = {"lease_token": None, "leased_until": None, "attempts": leased.attempts + 1, **values}
        update = sa.update(outbox).where(*_build_leased_outbox_filter(leased), *which).values(**released)
        return connection.execute(update).rowcount > 0


def _build_waiting_outbox_filter(now: int, editing_destinations: Collection[str]) -> tuple[sa.ColumnElement[bool], ...]:
    """Rows that are due and wait for no earlier one of their incident at the destination."""
    earlier, sent = outbox.alias(), outbox.alias()
    blocked = sa.exists().where(
        earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
        earlier.c.seq < outbox.c.seq, earlier.c.state == DeliveryState.WAITING,
        (earlier.c.event != IncidentEvent.CHANGED) | (earlier.c.leased_until > now),
    )  # fmt: skip
    changed_recently = sa.exists().where(
        sent.c.destination == outbox.c.destination, sent.c.event == IncidentEvent.CHANGED,
        sent.c.state == DeliveryState.SENT, sent.c.finished_at > now - MIN_CHANGED_NOTIFICATION_INTERVAL_MS,
    )  # fmt: skip
    is_edit = outbox.c.destination.in_(editing_destinations)
    too_soon = (outbox.c.event == IncidentEvent.CHANGED) & ~is_edit & changed_recently
    return outbox_is_waiting, outbox.c.due_at <= now, _build_unleased_outbox_filter(now), ~blocked, ~too_soon


def _build_unconfirmed_outbox_filter(now: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Rows of which another copy is due: the incident is open, and nothing later was sent about it."""
    later = outbox.alias()
    superseded = sa.exists().where(
        later.c.incident == outbox.c.incident, later.c.destination == outbox.c.destination,
        later.c.seq > outbox.c.seq,
    )  # fmt: skip
    is_open = sa.exists().where(incidents.c.id == outbox.c.incident, incidents.c.resolved_at.is_(None))
    return outbox_is_unconfirmed, outbox.c.due_at <= now, _build_unleased_outbox_filter(now), ~superseded, is_open


def _build_unleased_outbox_filter(now: int) -> sa.ColumnElement[bool]:
    """No sender holds the row."""
    return outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)


def _build_leased_outbox_filter(leased: LeasedNotification) -> tuple[sa.ColumnElement[bool], ...]:
    notification = leased.notification
    return (
        outbox.c.incident == notification.incident,
        outbox.c.destination == notification.destination,
        outbox.c.lease_token == leased.lease_token,
        outbox.c.state.in_((DeliveryState.WAITING, DeliveryState.UNCONFIRMED)),
    )
