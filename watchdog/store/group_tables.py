"""The table of incidents that share messages. As in tables.py, instants are epoch milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from watchdog.store.metadata import metadata

incident_groups = Table(  # incidents with a shared cause, or that a route groups, have one message at a destination
    "incident_groups", metadata,
    Column("lead_incident", Text, primary_key=True),  # the first one
    Column("destination", Text, primary_key=True),
    Column("cause", Text, nullable=False),  # what broke: "the host api.example:443"; empty: they share no cause
    Column("family", Text, nullable=False),  # of the reasons; empty: there was no response
    Column("opened_at", BigInteger, nullable=False),
    Column("accepts_until", BigInteger, nullable=False),  # further incidents with the cause
    Column("label_key", Text, nullable=False, server_default=""),  # of a LabelGrouping; empty: they share no labels
    Column("labels", Text),  # JSON: the labels with their values; NULL: they share none
    Column("first_message_at", BigInteger, nullable=False, server_default="0"),  # it is not sent earlier
)  # fmt: skip
Index("ix_incident_groups_cause", incident_groups.c.cause, incident_groups.c.family, incident_groups.c.accepts_until)
Index("ix_incident_groups_labels", incident_groups.c.label_key, incident_groups.c.opened_at)
