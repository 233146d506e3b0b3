"""Silences of one incident, which end when it is resolved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0019", "0018"


def upgrade() -> None:
    op.add_column("silences", sa.Column("incident", sa.Text(), server_default="", nullable=False))
