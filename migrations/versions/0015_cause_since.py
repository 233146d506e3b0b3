"""Since when an incident has had its current cause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0015", "0014"


def upgrade() -> None:
    op.add_column("alert_states", sa.Column("other_since", sa.BigInteger()))
    op.add_column("cause_changes", sa.Column("since", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE cause_changes SET since = slot")
