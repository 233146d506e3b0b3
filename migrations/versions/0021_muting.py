"""Which probes mute the alerts of which, and whose notifications are held back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0021", "0020"


def upgrade() -> None:
    op.create_table(
        "muting_probes",
        sa.Column("probe", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("muting_probe_id", sa.Text(), nullable=False),
        sa.Column("setting", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("probe", "muting_probe_id", name=op.f("pk_muting_probes")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_muting_probes_muting_probe_id"), "muting_probes", ["muting_probe_id"])
    op.create_table(
        "muted_incidents",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("waits_until", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("muting_probe_id", sa.Text(), nullable=False),
        sa.Column("muting_incident", sa.Text(), nullable=False),
        sa.Column("is_announced", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("incident", name=op.f("pk_muted_incidents")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_muted_incidents_muting_incident", "muted_incidents", ["muting_incident"])
