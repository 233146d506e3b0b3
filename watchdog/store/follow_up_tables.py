"""The table of reminders and escalations to come. As in tables.py, instants are epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from watchdog.store.metadata import metadata

incident_follow_ups = Table(  # open incidents of which someone may be reminded or notified later
    "incident_follow_ups", metadata,
    Column("incident", Text, primary_key=True),
    Column("decide_at", BigInteger, nullable=False, index=True),  # maybe early, never late
    sqlite_with_rowid=False,
)  # fmt: skip
