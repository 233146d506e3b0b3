"""The tables of maintenance. As in tables.py, instants are epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text

from watchdog.store.metadata import metadata

maintenance_windows = Table(  # each time that a window takes place, or is going to
    "maintenance_windows", metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("matcher", Text, nullable=False),  # JSON: a ProbeMatcher
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),  # as planned
    Column("is_configured", Boolean, nullable=False),  # otherwise a person began it
    Column("author", Text, nullable=False),
    Column("interface", Text, nullable=False),  # an OperatorInterfaceKind; empty: it is configured
    Column("comment", Text, nullable=False),
    Column("ended_at", BigInteger),  # when it ended before its time
    Column("ended_by", Text, nullable=False),  # empty: the configuration no longer has it
)  # fmt: skip
maintenance_has_not_ended_early = maintenance_windows.c.ended_at.is_(None)
Index(
    "ix_maintenance_windows_in_effect",
    maintenance_windows.c.ends_at,
    postgresql_where=maintenance_has_not_ended_early,
    sqlite_where=maintenance_has_not_ended_early,
)

maintenance_periods = Table(  # which slots of which probes are in maintenance: what the fold decides by
    "maintenance_periods", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("maintenance", Text, primary_key=True, index=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),  # the clock generation of the slots
    Column("starts_at", BigInteger, primary_key=True),
    Column("ends_at", BigInteger, nullable=False, index=True),  # the first instant after it
    sqlite_with_rowid=False,
)  # fmt: skip
Index("ix_maintenance_periods_probe_ends_at", maintenance_periods.c.probe, maintenance_periods.c.ends_at)
