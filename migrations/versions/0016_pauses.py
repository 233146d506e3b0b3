"""Pauses of probes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0016", "0015"


def upgrade() -> None:
    op.add_column("schedule", sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("acts", sa.Column("probe", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "pauses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("probe", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger()),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pauses")),
    )
    in_effect = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_pauses_in_effect", "pauses", ["probe"], unique=True, postgresql_where=in_effect, sqlite_where=in_effect
    )
    op.create_index("ix_pauses_probe_ended_at", "pauses", ["probe", "ended_at"])
