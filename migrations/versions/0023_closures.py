"""Who closed an incident by hand, why, and the position of the closure among the results of the probe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0023", "0022"


def upgrade() -> None:
    for name in ("closed_by", "closed_through", "closure_comment"):
        op.add_column("incidents", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    for name in ("closed_after_slot", "closed_until_slot"):
        op.add_column("incidents", sa.Column(name, sa.BigInteger()))
    op.create_index("ix_incidents_closed", "incidents", ["probe", "closed_until_slot"])
