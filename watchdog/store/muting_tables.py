"""The tables of muting: which probes mute which, and whose notifications are held back. As in tables.py, instants are
epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text

from watchdog.store import flapping_tables as flapping_tables  # a part of the schema
from watchdog.store.metadata import metadata

muting_probes = Table(  # which probes mute the alerts of a probe while they are down
    "muting_probes", metadata,
    Column("probe", BigInteger, primary_key=True, autoincrement=False),
    Column("muting_probe_id", Text, primary_key=True, index=True),  # its id in the configuration
    Column("setting", Text, nullable=False),  # that states it: `needs`, or `inhibit.0`
    sqlite_with_rowid=False,
)  # fmt: skip

muted_incidents = Table(  # incidents whose notifications are held back
    "muted_incidents", metadata,
    Column("incident", Text, primary_key=True),
    Column("state", Text, nullable=False),  # a MutingState
    Column("since", BigInteger, nullable=False),
    Column("waits_until", BigInteger),  # NULL: it is muted
    Column("reason", Text, nullable=False),  # a MutingDecisionReason
    Column("muting_probe_id", Text, nullable=False),  # that decided it
    Column("muting_incident", Text, nullable=False),  # the open incident of that probe; empty while it waits
    Column("is_announced", Boolean, nullable=False),  # the message about that incident states it, or will
    sqlite_with_rowid=False,
)  # fmt: skip
Index("ix_muted_incidents_muting_incident", muted_incidents.c.muting_incident)
