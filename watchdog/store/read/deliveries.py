"""Notifications of all incidents, newest first."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.model import DeliveryState
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.read.status import DELIVERY_RECORD_COLUMNS, DeliveryRecord, build_delivery_record_from_row
from watchdog.store.tables import outbox, outbox_is_waiting


def list_deliveries(
    connection: Connection, *, limit: int, state: DeliveryState | None = None, failing: bool | None = None,
    destination: str = "", incident: str = "", after: tuple[int, str, str, int] | None = None,
) -> list[DeliveryRecord]:  # fmt: skip
    """Notifications, newest first, that match every filter that is given. `failing`: they wait, and their last attempt
    failed. `after`: behind the one with this creation, incident, destination and sequence."""
    key = (outbox.c.incident, outbox.c.destination, outbox.c.seq)
    query = sa.select(*DELIVERY_RECORD_COLUMNS).order_by(outbox.c.created_at.desc(), *key).limit(limit)
    if state is not None:
        query = query.where(outbox.c.state == state)
    if failing is not None:
        is_failing = sa.and_(outbox_is_waiting, outbox.c.attempts > 0)
        query = query.where(is_failing if failing else ~is_failing)
    if destination:
        query = query.where(outbox.c.destination == replace_unstorable_characters(destination))
    if incident:
        query = query.where(outbox.c.incident == replace_unstorable_characters(incident))
    if after is not None:
        created_at, *of_row = after
        last = [replace_unstorable_characters(part) if isinstance(part, str) else part for part in of_row]
        is_same_instant = sa.and_(outbox.c.created_at == created_at, sa.tuple_(*key) > sa.tuple_(*last))
        query = query.where(outbox.c.created_at <= created_at, (outbox.c.created_at < created_at) | is_same_instant)
    return [build_delivery_record_from_row(row) for row in connection.execute(query)]
