"""Maintenance windows, and which slots of which probes are in maintenance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0018", "0017"


def upgrade() -> None:
    op.create_table(
        "maintenance_windows",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("matcher", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("is_configured", sa.Boolean(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance_windows")),
    )
    in_effect = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_maintenance_windows_in_effect", "maintenance_windows", ["ends_at"],
        postgresql_where=in_effect, sqlite_where=in_effect,
    )  # fmt: skip
    op.create_table(
        "maintenance_periods",
        sa.Column("probe", sa.BigInteger(), nullable=False),
        sa.Column("maintenance", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("probe", "maintenance", "generation", "starts_at", name=op.f("pk_maintenance_periods")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_maintenance_periods_maintenance"), "maintenance_periods", ["maintenance"])
    op.create_index(op.f("ix_maintenance_periods_ends_at"), "maintenance_periods", ["ends_at"])
    op.create_index("ix_maintenance_periods_probe_ends_at", "maintenance_periods", ["probe", "ends_at"])
    op.add_column("acts", sa.Column("maintenance", sa.Text(), server_default="", nullable=False))
