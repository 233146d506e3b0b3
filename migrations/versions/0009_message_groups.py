"""Incidents that share one message at a destination, and how fast a destination may be sent messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0009", "0008"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("lead_incident", sa.Text(), nullable=False, server_default=""))
    op.execute("UPDATE outbox SET lead_incident = incident")
    op.create_index("ix_outbox_lead_incident", "outbox", ["lead_incident", "destination"])
    is_leased = sa.text("lease_token IS NOT NULL")
    op.create_index(
        "ix_outbox_lease_token", "outbox", ["lease_token"], postgresql_where=is_leased, sqlite_where=is_leased
    )
    op.create_table(
        "incident_groups",
        sa.Column("lead_incident", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("accepts_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lead_incident", "destination", name=op.f("pk_incident_groups")),
    )
    op.create_index("ix_incident_groups_cause", "incident_groups", ["cause", "family", "accepts_until"])
    for name in ("interval_ms", "full_at"):
        op.add_column("destination_backoff", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("destination_backoff", sa.Column("merged_at", sa.BigInteger(), nullable=True))
