"""Notifications keep when they were first refused, and how many copies were sent with an unknown result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("refused_since", sa.BigInteger(), nullable=True))
    op.add_column("outbox", sa.Column("unconfirmed_copies", sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "ix_outbox_unconfirmed",
        "outbox",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'unconfirmed'"),
        sqlite_where=sa.text("state = 'unconfirmed'"),
    )
