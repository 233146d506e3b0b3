"""Notifications whose delivery failed wait for their next attempt. Once their destination works again, they are due."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.store.database import Database
from watchdog.store.group_tables import incident_groups
from watchdog.store.outbox_filters import build_unleased_outbox_filter
from watchdog.store.tables import outbox, outbox_is_waiting

MAX_WAIT_BEFORE_FAILURE_TO_RETRY_ON_RECOVERY_MS = 60_000
"""A notification that waited longer before its destination failed keeps its delay: it may have failed while others were
confirmed, and so be at fault itself."""
MIN_FAILURE_BEFORE_RETRIES_ARE_DUE_MS = 10_000
"""After a shorter failure, what failed is soon due by its own delays. Otherwise a new notification that is at fault
itself would be sent again after each one that is confirmed."""


def make_retries_due(database: Database, destinations: Collection[str], now: int) -> None:
    """A test has shown that these destinations work: what failed there is sent again at once, at their pace."""
    with database.open_write_transaction() as connection:
        _make_retries_due(connection, destinations, now)


def make_retries_due_after_destination_recovery(
    connection: sa.Connection, destination: str, failing_since: int, now: int
) -> None:  # fmt: skip
    """The destination has confirmed a notification, the first one since `failing_since`. What else failed in this time
    is sent again at once, at the pace of the destination, if it failed for MIN_FAILURE_BEFORE_RETRIES_ARE_DUE_MS.

    A notification that is at fault itself keeps its delays once it is MAX_WAIT_BEFORE_FAILURE_TO_RETRY_ON_RECOVERY_MS
    old: others are confirmed between its attempts, so the destination has been failing only since its last attempt.
    """
    if now - failing_since < MIN_FAILURE_BEFORE_RETRIES_ARE_DUE_MS:
        return
    earliest = failing_since - MAX_WAIT_BEFORE_FAILURE_TO_RETRY_ON_RECOVERY_MS
    group = incident_groups.c
    has_waited_for_group = sa.exists().where(
        group.lead_incident == outbox.c.lead_incident, group.destination == outbox.c.destination,
        group.first_message_at >= earliest,
    ).correlate(outbox)  # fmt: skip
    _make_retries_due(connection, [destination], now, (outbox.c.created_at >= earliest) | has_waited_for_group)


def _make_retries_due(
    connection: sa.Connection, destinations: Collection[str], now: int, *conditions: sa.ColumnElement[bool]
) -> None:
    """Rows that another transaction has locked are skipped: waiting for it could cause a deadlock."""
    key = outbox.c.incident, outbox.c.destination, outbox.c.seq
    is_retry = (
        outbox_is_waiting, outbox.c.due_at > now, outbox.c.attempts > 0, outbox.c.destination.in_(destinations),
        build_unleased_outbox_filter(now), *conditions,
    )  # fmt: skip
    free_rows = sa.select(*key).where(*is_retry).with_for_update(skip_locked=True).correlate(None)
    connection.execute(sa.update(outbox).where(*is_retry, sa.tuple_(*key).in_(free_rows)).values(due_at=now))
