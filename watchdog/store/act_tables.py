"""The tables of what people on call did. As in tables.py, instants are epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from watchdog.store import transition_tables as transition_tables  # a part of the schema
from watchdog.store.metadata import AUTOINCREMENT_ID_TYPE, metadata

ACKNOWLEDGEMENT_AND_CLOSURE_COLUMN_NAMES = (
    *("acknowledged_by", "acknowledged_through", "acknowledgement_comment"),
    *("closed_by", "closed_through", "closure_comment"),
)
"""Who acknowledged or closed an incident, through what (an OperatorInterfaceKind), and why: columns of incidents."""

acts = Table(  # the audit log
    "acts", metadata,
    Column("id", AUTOINCREMENT_ID_TYPE, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # an OperatorActKind
    Column("occurred_at", BigInteger, nullable=False, index=True),
    Column("author", Text, nullable=False),
    Column("interface", Text, nullable=False),  # an OperatorInterfaceKind
    Column("incident", Text, nullable=False, index=True),  # empty: it is not about one
    Column("silence", Text, nullable=False),  # empty: it is not about one
    Column("comment", Text, nullable=False),
    Column("probe", Text, nullable=False, server_default=""),  # its id in the configuration; empty: not about one
    Column("maintenance", Text, nullable=False, server_default=""),  # the id of a window; empty: not about one
)  # fmt: skip

silences = Table(
    "silences", metadata,
    Column("id", Text, primary_key=True),
    Column("matcher", Text, nullable=False),  # JSON: a SilenceMatcher
    Column("started_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("interface", Text, nullable=False),  # an OperatorInterfaceKind
    Column("comment", Text, nullable=False),
    Column("ended_at", BigInteger),  # when its end was carried out
    Column("ended_by", Text, nullable=False),  # empty: it expired, or its incident was resolved
    Column("incident", Text, nullable=False, server_default=""),  # the only one that it selects; empty: by its matcher
)  # fmt: skip
silence_is_in_effect = silences.c.ended_at.is_(None)
Index(
    "ix_silences_in_effect",
    silences.c.ends_at,
    postgresql_where=silence_is_in_effect,
    sqlite_where=silence_is_in_effect,
)
Index("ix_silences_started_at", silences.c.started_at)

silenced_incidents = Table(  # which silences select an incident: decided when it opens, or when the silence begins
    "silenced_incidents", metadata,
    Column("incident", Text, primary_key=True),
    Column("silence", Text, primary_key=True, index=True),
    Column("since", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip

pauses = Table(  # periods in which a probe does not run
    "pauses", metadata,
    Column("id", AUTOINCREMENT_ID_TYPE, primary_key=True, autoincrement=True),
    Column("probe", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),  # NULL: when a person resumes it
    Column("author", Text, nullable=False),
    Column("interface", Text, nullable=False),  # an OperatorInterfaceKind
    Column("comment", Text, nullable=False),
    Column("ended_at", BigInteger),  # when its end was carried out
    Column("ended_by", Text, nullable=False),  # empty: by no person
)  # fmt: skip
pause_is_in_effect = pauses.c.ended_at.is_(None)
Index(
    "uq_pauses_in_effect",
    pauses.c.probe,
    unique=True,
    postgresql_where=pause_is_in_effect,
    sqlite_where=pause_is_in_effect,
)
Index("ix_pauses_probe_ended_at", pauses.c.probe, pauses.c.ended_at)

requested_runs = Table(  # runs that a person has requested, until a process claims them
    "requested_runs", metadata,
    Column("probe", BigInteger, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, nullable=False),  # the instant of the request, made odd: no slot of a schedule is
)  # fmt: skip

slack_requests = Table(  # what Slack has signed and Watchdog has accepted: each is accepted once, by one process
    "slack_requests", metadata,
    Column("signature", Text, primary_key=True),
    Column("forgotten_after", BigInteger, nullable=False, index=True),
)  # fmt: skip
