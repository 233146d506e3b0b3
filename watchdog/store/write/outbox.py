"""The outbox: which notifications are still to be sent, in order, at least once.

A sender holds a waiting row by token until its lease ends; then any process may take it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from watchdog.domain.delivery_pace import (
    DestinationPace,
    compute_pace_after_message_confirmed,
    slow_destination_pace_after_refusal,
)
from watchdog.domain.membership import ENDED_WATCHDOG_PROCESS_RETENTION_MS
from watchdog.domain.model import DeliveryState, Json
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.outbox_filters import build_unleased_outbox_filter
from watchdog.store.tables import (
    destination_backoff,
    failing_destinations,
    incidents,
    members,
    messages,
    outbox,
    outbox_is_waiting,
    revision_destinations,
)
from watchdog.store.write.outbox_lease import LeasedNotification, lease_due_messages, load_destination_paces
from watchdog.store.write.outbox_retries import make_retries_due_after_destination_recovery

NOTIFICATION_LEASE_LOCK_KEY = -2
"""Advisory lock: two processes that lease events of one incident would block each other. No probe has this id."""


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
        unmerged_destinations: Collection[str] = (),
        *,
        acknowledging_destinations: Collection[str] = (),
        news_since_edit: Mapping[str, int] = {},
    ) -> list[LeasedNotification]:
        """Lease what each allowed destination is sent next: critical incidents first, then by age. If more
        than MAX_UNMERGED_DUE_MESSAGES wait, they are merged into one message, unless the destination is one of
        `unmerged_destinations`. A destination whose pace allows none gets none. `acknowledging_destinations`: track
        acknowledgements, and get each by itself. `news_since_edit`: by destination, how
        many messages with news this process has sent it since the last edit without news.

        An incident's later notifications wait for its earlier ones; those that are waiting are merged into one message.
        `changed` waits until MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS after the last one, unless the destination is
        one of `editing_destinations`, where it edits a message. Other destinations are left to processes that have them
        configured. A destination with nothing else to send gets another copy of what is unconfirmed and due, if its
        incident is open.
        """
        with self.database.open_write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, NOTIFICATION_LEASE_LOCK_KEY)
            return lease_due_messages(
                connection,
                now,
                now + lease_ms,
                destinations=allowed_destinations,
                editing_destinations=editing_destinations,
                unmerged_destinations=unmerged_destinations,
                acknowledging_destinations=acknowledging_destinations,
                news_since_edit=news_since_edit,
            )

    def mark_sent(
        self,
        leased: LeasedNotification,
        receipt: Mapping[str, Json],
        now: int,
        headline: str = "",
        cause: str = "",
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
        later = outbox.alias()
        is_superseded = sa.exists().where(
            later.c.incident == outbox.c.incident, later.c.destination == outbox.c.destination,
            later.c.lease_token == leased.lease_token, later.c.seq > outbox.c.seq,
        )  # fmt: skip
        destination = leased.notification.destination
        failing_since: int | None = None
        with self.database.open_write_transaction() as connection:
            self._release_notification_lease(connection, leased, is_superseded, state=DeliveryState.MERGED, **values)
            if state is DeliveryState.SENT:
                is_destination = failing_destinations.c.destination == destination
                ended_failure = sa.delete(failing_destinations).where(is_destination)
                failing_since = connection.execute(
                    ended_failure.returning(failing_destinations.c.failing_since)
                ).scalar()
                self._charge_sent_message_to_destination_pace(connection, leased, now)
            if self._release_notification_lease(connection, leased, state=state, **{**values, **more}):
                if state is DeliveryState.UNCONFIRMED:
                    self._record_failing_destination(connection, leased, now, str(more["detail"]), given_up=True)
                if not leased.is_acknowledgement:
                    self._store_sent_messages(connection, leased, receipt, now, headline=headline, cause=cause)
            if failing_since is not None:  # last: it locks rows of other incidents, which others may have to wait for
                make_retries_due_after_destination_recovery(connection, destination, failing_since, now)

    def _store_sent_messages(
        self,
        connection: sa.Connection,
        leased: LeasedNotification,
        receipt: Mapping[str, Json],
        now: int,
        *,
        headline: str,
        cause: str,
    ) -> None:
        """What the destination now has: one message, or one that stands for several."""
        common = {
            "headline": replace_unstorable_characters(headline),
            "receipt": encode_storable_json(dict(receipt)),
            "sent_at": now,
        }
        causes = dict.fromkeys(leased.lead_incidents, replace_unstorable_characters(cause))
        if leased.is_merge_of_separate_messages:
            common["headline"] = ""
            is_lead = incidents.c.id.in_(leased.lead_incidents)
            query = sa.select(incidents.c.id, incidents.c.message).where(is_lead)
            causes |= {row.id: row.message for row in connection.execute(query)}
        rows = [
            {"incident": lead, "destination": leased.notification.destination, "cause": text, **common}
            for lead, text in causes.items()
        ]
        insert = self.database.build_insert_statement(messages)
        changed = {name: insert.excluded[name] for name in ("headline", "cause", "receipt", "sent_at")}
        connection.execute(insert.on_conflict_do_update(index_elements=["incident", "destination"], set_=changed), rows)

    def _charge_sent_message_to_destination_pace(
        self, connection: sa.Connection, leased: LeasedNotification, now: int
    ) -> None:
        """A message was confirmed: it costs a token, and one that was merged is followed by a pause."""
        destination = leased.notification.destination
        pace = load_destination_paces(connection).get(destination)
        if pace is None and not leased.is_merge_of_separate_messages:
            return
        pace = compute_pace_after_message_confirmed(pace or DestinationPace(), now)
        if leased.is_merge_of_separate_messages:
            pace = pace._replace(merged_at=now)
        self._store_destination_pace(connection, destination, pace)

    def _store_destination_pace(self, connection: sa.Connection, destination: str, pace: DestinationPace) -> None:
        insert = self.database.build_insert_statement(destination_backoff).values(
            destination=destination, **pace._asdict()
        )
        connection.execute(insert.on_conflict_do_update(index_elements=["destination"], set_=pace._asdict()))

    def mark_merged(self, leased: LeasedNotification, now: int) -> None:
        """The destination's message already states all that the notification would."""
        with self.database.open_write_transaction() as connection:
            self._release_notification_lease(connection, leased, state=DeliveryState.MERGED, finished_at=now, detail="")

    def schedule_notification_retry(
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
            "receipt": encode_storable_json(saved) if saved else None,
            "refused_since": refused_since,
            "unconfirmed_copies": unconfirmed_copies,
        }
        with self.database.open_write_transaction() as connection:
            if self._release_notification_lease(connection, leased, due_at=due_at, **values) and failed_at is not None:
                self._record_failing_destination(connection, leased, failed_at, detail, given_up=False)
            if retry_at is not None:
                destination = leased.notification.destination
                pace = load_destination_paces(connection).get(destination, DestinationPace())
                self._store_destination_pace(
                    connection, destination, pace._replace(retry_at=max(pace.retry_at, retry_at))
                )

    def slow_destination_down(self, destination: str, now: int, requested_pause_ms: int) -> int:
        """The destination refused a message because it gets too many. Returns when it may be sent the next one."""
        with self.database.open_write_transaction() as connection:
            previous_pace = load_destination_paces(connection).get(destination, DestinationPace())
            pace = slow_destination_pace_after_refusal(previous_pace, now, requested_pause_ms)
            self._store_destination_pace(connection, destination, pace)
        return pace.next_message_at

    def postpone_unattempted_notification(self, leased: LeasedNotification, due_at: int) -> None:
        """End the lease without an attempt: Watchdog could not get as far as sending."""
        with self.database.open_write_transaction() as connection:
            self._release_notification_lease(connection, leased, due_at=due_at, attempts=leased.attempts)

    def mark_undelivered(self, leased: LeasedNotification, detail: str, now: int) -> None:
        """Give up, and keep the notification with the reason."""
        values = {"finished_at": now, "detail": replace_unstorable_characters(detail)}
        with self.database.open_write_transaction() as connection:
            if self._release_notification_lease(connection, leased, state=DeliveryState.UNDELIVERED, **values):
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
            build_unleased_outbox_filter(now),
        )
        values = {
            "state": DeliveryState.UNDELIVERED,
            "finished_at": now,
            "detail": "the destination is no longer configured",
        }
        update = sa.update(outbox).where(*expired).values(lease_token=None, leased_until=None, **values)
        with self.database.open_write_transaction() as connection:
            is_unknown = failing_destinations.c.destination.not_in(recent_destinations)
            is_old = failing_destinations.c.failing_since < since
            connection.execute(sa.delete(failing_destinations).where(is_unknown, is_old))
            rows = connection.execute(update.returning(outbox.c.incident, outbox.c.destination))
            return [(incident, destination) for incident, destination in rows]

    def is_still_leased(self, leased: LeasedNotification, connection: sa.Connection) -> bool:
        """Whether this process still holds the lease: checked right before sending, as a paused sender may have lost
        it."""
        query = sa.select(outbox.c.seq).where(*_build_rows_still_under_lease_filter(leased)).limit(1)
        return connection.execute(query).first() is not None

    def _release_notification_lease(
        self, connection: sa.Connection, leased: LeasedNotification, *which: sa.ColumnElement[bool], **values: Json
    ) -> bool:  # fmt: skip
        """End the lease after an attempt. Rows that another process has leased since are left alone. Returns whether
        any row was still leased."""
        released = {"lease_token": None, "leased_until": None, "attempts": leased.attempts + 1, **values}
        update = sa.update(outbox).where(*_build_rows_still_under_lease_filter(leased), *which).values(**released)
        return connection.execute(update).rowcount > 0


def _build_rows_still_under_lease_filter(leased: LeasedNotification) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        outbox.c.lease_token == leased.lease_token,
        outbox.c.destination == leased.notification.destination,
        outbox.c.state.in_((DeliveryState.WAITING, DeliveryState.UNCONFIRMED)),
    )
