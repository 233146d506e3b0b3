"""Incidents that change their cause, and the message of each incident at each destination."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alert_states", sa.Column("other_reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("alert_states", sa.Column("other_count", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("incidents", sa.Column("first_reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("incidents", sa.Column("first_message", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "cause_changes",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("incident", "slot", name=op.f("pk_cause_changes")),
    )
    op.create_table(
        "messages",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("headline", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("incident", "destination", name=op.f("pk_messages")),
    )
    op.execute(
        "INSERT INTO messages SELECT o.incident, o.destination, '', i.message, coalesce(o.receipt, '{}'), "
        "coalesce(o.finished_at, o.created_at) FROM outbox AS o JOIN incidents AS i ON i.id = o.incident "
        "WHERE o.state = 'sent' AND o.event = 'opened'"
    )
    is_changed = sa.text("event = 'changed'")
    op.create_index(
        "ix_outbox_changed", "outbox", ["destination", "finished_at"],
        postgresql_where=is_changed, sqlite_where=is_changed,
    )  # fmt: skip
