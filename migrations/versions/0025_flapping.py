"""Alerts that flap, and their incidents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0025", "0024"


def upgrade() -> None:
    op.create_table(
        "flapping_alerts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("probe", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("first_opened_at", sa.BigInteger(), nullable=False),
        sa.Column("incident_count", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("decide_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flapping_alerts")),
    )
    is_active = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_flapping_alerts_active",
        "flapping_alerts",
        ["probe", "rule", "subject"],
        unique=True,
        postgresql_where=is_active,
        sqlite_where=is_active,
    )
    op.create_table(
        "flapping_incidents",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("flapping", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("incident", name=op.f("pk_flapping_incidents")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_flapping_incidents_flapping"), "flapping_incidents", ["flapping"])
