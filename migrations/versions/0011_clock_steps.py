"""Steps of the clock, and the clock generation of what is counted or identified by an instant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0011", "0010"


def upgrade() -> None:
    op.create_table(
        "clock_steps",
        sa.Column("ended_timeline", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("stepped_from", sa.BigInteger(), nullable=False),
        sa.Column("stepped_to", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ended_timeline", name=op.f("pk_clock_steps")),
    )
    for table in ("watermarks", "alert_states", "incidents"):
        op.add_column(table, sa.Column("generation", sa.Integer(), server_default="0", nullable=False))
    for table in ("incidents", "remediations"):
        op.add_column(table, sa.Column("clock_shift", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("incidents", sa.Column("resolved_generation", sa.Integer()))
    op.execute("UPDATE incidents SET resolved_generation = 0 WHERE resolved_at IS NOT NULL")
    with op.batch_alter_table("staleness_events") as batch:
        batch.add_column(sa.Column("timeline", sa.Text(), server_default="local", nullable=False))
        batch.drop_constraint("pk_staleness_events", type_="primary")
        batch.create_primary_key("pk_staleness_events", ["probe", "last_result_slot", "timeline"])
    with op.batch_alter_table("cause_changes") as batch:
        batch.add_column(sa.Column("generation", sa.Integer(), server_default="0", nullable=False))
        batch.drop_constraint("pk_cause_changes", type_="primary")
        batch.create_primary_key("pk_cause_changes", ["incident", "slot", "generation"])
