"""Accepted requests of Slack."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0020", "0019"


def upgrade() -> None:
    op.create_table(
        "slack_requests",
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("forgotten_after", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signature", name=op.f("pk_slack_requests")),
    )
    op.create_index(op.f("ix_slack_requests_forgotten_after"), "slack_requests", ["forgotten_after"])
