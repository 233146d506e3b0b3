"""Reminders of open incidents, and escalation to further receivers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0014", "0013"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("escalated_after_ms", sa.BigInteger()))
    op.create_table(
        "incident_follow_ups",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("decide_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("incident", name=op.f("pk_incident_follow_ups")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_incident_follow_ups_decide_at"), "incident_follow_ups", ["decide_at"])
    open_incidents = "SELECT id, opened_at FROM incidents WHERE resolved_at IS NULL"
    op.execute(f"INSERT INTO incident_follow_ups (incident, decide_at) {open_incidents}")
