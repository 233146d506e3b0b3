"""An incident begins and ends: its row, and with it what is to be told."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.alerts import Routing
from watchdog.model import Change, Severity
from watchdog.store import codec
from watchdog.store.outbox import enqueue_opened, enqueue_resolved
from watchdog.store.tables import incidents


def begin(
    connection: sa.Connection, change: Change, severity: Severity, needed: int, routing: Routing, now: int
) -> None:
    """`needed`: how many bad slots in a row it took."""
    connection.execute(
        sa.insert(incidents).values(
            id=change.incident, probe=change.probe, rule=change.rule, subject=change.subject, severity=severity,
            since=change.since, slot=change.slot, opened_at=now, reason=change.reason, message=change.message,
            needed=needed, route=codec.dumps(list(routing.why)), resolution="",
        )
    )  # fmt: skip
    enqueue_opened(connection, change.incident, routing.destinations, now)


def end(connection: sa.Connection, incident: str, slot: int, resolution: str, now: int, quiet: Collection[str]) -> None:
    """`resolution`: why, in a word; empty when it is good again. `quiet`: destinations that hear of no end."""
    ended = {"resolved_at": now, "resolved_slot": slot, "resolution": resolution}
    connection.execute(sa.update(incidents).where(incidents.c.id == incident).values(**ended))
    enqueue_resolved(connection, incident, now, quiet)
