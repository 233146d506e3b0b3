"""What people on call do: acknowledgements and silences, with the log of who did what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0012", "0011"


def upgrade() -> None:
    op.add_column("incidents", sa.Column("acknowledged_at", sa.BigInteger()))
    for name in ("acknowledged_by", "acknowledged_through", "acknowledgement_comment"):
        op.add_column("incidents", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.create_table(
        "acts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("silence", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acts")),
    )
    op.create_index(op.f("ix_acts_occurred_at"), "acts", ["occurred_at"])
    op.create_index(op.f("ix_acts_incident"), "acts", ["incident"])
    op.create_table(
        "silences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("matcher", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silences")),
    )
    in_effect = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_silences_in_effect", "silences", ["ends_at"], postgresql_where=in_effect, sqlite_where=in_effect
    )
    op.create_index("ix_silences_started_at", "silences", ["started_at"])
    op.create_table(
        "silenced_incidents",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("silence", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("incident", "silence", name=op.f("pk_silenced_incidents")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_silenced_incidents_silence"), "silenced_incidents", ["silence"])
