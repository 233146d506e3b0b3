"""Members: the processes that share the database, and what the configuration of each has."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "revisions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("routing", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_revisions")),
        sa.UniqueConstraint("digest", name=op.f("uq_revisions_digest")),
    )
    op.create_table(
        "members",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("left_in_order", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
    )
    op.create_table(
        "revision_probes",
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("probe_id", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "probe_id", name=op.f("pk_revision_probes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "revision_destinations",
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "destination", name=op.f("pk_revision_destinations")),
        sqlite_with_rowid=False,
    )
    op.add_column("probes", sa.Column("revision", sa.BigInteger(), nullable=True))
    op.add_column("probes", sa.Column("policy", sa.Text(), nullable=True))
    op.add_column("schedule", sa.Column("probe_definition", sa.Text(), nullable=False, server_default=""))
    _add_member_of_earlier_version()


def _add_member_of_earlier_version() -> None:
    """Processes of an earlier version are not members. One may still run, so its probes and destinations belong to a
    member that has just ended: they are given up as after a crash, and not at once."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        now = int(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp()) * 1000").scalar_one())
    else:
        now = time.time_ns() // 1_000_000
    if connection.exec_driver_sql("SELECT 1 FROM probes WHERE removed_at IS NULL LIMIT 1").first() is None:
        return
    number = connection.execute(
        sa.text("INSERT INTO revisions (digest, created_at) VALUES ('', :now) RETURNING number"), {"now": now}
    ).scalar_one()
    values = {"revision": number, "now": now}
    for statement in (
        "INSERT INTO members (id, revision, started_at, lease_until, left_in_order)"
        " VALUES ('earlier version', :revision, :now, :now, false)",
        "INSERT INTO revision_probes (revision, probe_id, definition)"
        " SELECT :revision, probe_id, '' FROM probes WHERE removed_at IS NULL",
        "INSERT INTO revision_destinations (revision, destination, definition)"
        " SELECT DISTINCT :revision, destination, '' FROM outbox WHERE state = 'waiting'",
    ):
        connection.execute(sa.text(statement).bindparams(**{k: v for k, v in values.items() if f":{k}" in statement}))
