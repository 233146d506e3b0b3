"""Transitions, for those who follow them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0022", "0021"


def upgrade() -> None:
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("number", sa.BigInteger()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("silence", sa.Text(), nullable=False),
        sa.Column("probe", sa.Text(), nullable=False),
        sa.Column("maintenance", sa.Text(), nullable=False),
        sa.Column("act", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
    )
    unnumbered = sa.text("number IS NULL")
    op.create_index("uq_transitions_number", "transitions", ["number"], unique=True)
    op.create_index(
        "ix_transitions_unnumbered", "transitions", ["id"], postgresql_where=unnumbered, sqlite_where=unnumbered
    )
    op.create_index(op.f("ix_transitions_occurred_at"), "transitions", ["occurred_at"])
