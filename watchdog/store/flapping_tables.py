"""Tables about alerts that flap. As in tables.py, instants are epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from watchdog.store.metadata import metadata

flapping_alerts = Table(
    "flapping_alerts", metadata,
    Column("id", Text, primary_key=True),  # of the incident with which it began
    *(Column("probe", BigInteger, nullable=False), Column("rule", Text, nullable=False)),
    Column("subject", Text, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("first_opened_at", BigInteger, nullable=False),  # of the incidents that are counted
    Column("incident_count", Integer, nullable=False),
    Column("changed_at", BigInteger, nullable=False),  # when the newest of them opened or resolved
    Column("decide_at", BigInteger, nullable=False),  # whether it is over: maybe early, never late
    Column("ended_at", BigInteger),  # NULL: it is not over
    Column("end_reason", Text, nullable=False),  # a FlappingEndReason; empty: it is not over
)  # fmt: skip
alert_is_flapping = flapping_alerts.c.ended_at.is_(None)
Index(
    "uq_flapping_alerts_active", flapping_alerts.c.probe, flapping_alerts.c.rule, flapping_alerts.c.subject,
    unique=True, postgresql_where=alert_is_flapping, sqlite_where=alert_is_flapping,
)  # fmt: skip

flapping_incidents = Table(  # incidents that have opened while their alert flaps, with the first
    "flapping_incidents", metadata,
    Column("incident", Text, primary_key=True),
    Column("flapping", Text, nullable=False, index=True),  # the id in flapping_alerts
    sqlite_with_rowid=False,
)  # fmt: skip
