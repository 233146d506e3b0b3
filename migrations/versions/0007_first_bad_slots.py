"""The results that incidents keep are found by an index, so that deleting old results does not read every incident."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0007", "0006"


def upgrade() -> None:
    op.create_index("ix_incidents_probe_since", "incidents", ["probe", "since"], unique=False)
