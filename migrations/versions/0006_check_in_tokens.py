"""Digests of check-in tokens, so that every process accepts the check-ins of every heartbeat."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "check_in_tokens",
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("probe_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("member", "digest", name=op.f("pk_check_in_tokens")),
    )
    op.create_index(op.f("ix_check_in_tokens_digest"), "check_in_tokens", ["digest"], unique=False)
