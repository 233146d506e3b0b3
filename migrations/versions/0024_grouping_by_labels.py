"""Groups of incidents by labels of a route, and the time of the first message of a group."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0024", "0023"


def upgrade() -> None:
    op.add_column("incident_groups", sa.Column("label_key", sa.Text(), nullable=False, server_default=""))
    op.add_column("incident_groups", sa.Column("labels", sa.Text()))
    op.add_column("incident_groups", sa.Column("first_message_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_incident_groups_labels", "incident_groups", ["label_key", "opened_at"])
