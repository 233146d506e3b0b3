"""Results whose evaluation waits for the decision whether the network of Watchdog's own machine is at fault."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0010", "0009"


def upgrade() -> None:
    op.add_column("results", sa.Column("held_until", sa.BigInteger()))
