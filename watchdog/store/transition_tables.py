"""The table of transitions, from which every process reads the same stream. As in tables.py, instants are epoch ms."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from watchdog.store.metadata import AUTOINCREMENT_ID_TYPE, metadata

transitions = Table(
    "transitions", metadata,
    Column("id", AUTOINCREMENT_ID_TYPE, primary_key=True, autoincrement=True),
    Column("number", BigInteger),  # its place in the stream; NULL: no process has read it yet
    Column("kind", Text, nullable=False),  # a TransitionKind
    Column("occurred_at", BigInteger, nullable=False, index=True),
    Column("incident", Text, nullable=False),  # empty: it is not about one
    Column("silence", Text, nullable=False),  # empty: it is not about one
    Column("probe", Text, nullable=False),  # its id in the configuration; empty: that of the incident, or none
    Column("maintenance", Text, nullable=False),  # its id; empty: it is not about one
    Column("act", BigInteger),  # of the table acts; NULL: no person did it
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
)  # fmt: skip
transition_is_unnumbered = transitions.c.number.is_(None)
Index("uq_transitions_number", transitions.c.number, unique=True)
Index(
    "ix_transitions_unnumbered",
    transitions.c.id,
    postgresql_where=transition_is_unnumbered,
    sqlite_where=transition_is_unnumbered,
)
