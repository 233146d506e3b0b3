"""What is needed to compare the configuration of a running process with another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0013", "0012"


def upgrade() -> None:
    op.add_column("revisions", sa.Column("sections", sa.Text()))
    op.add_column("members", sa.Column("sections", sa.Text()))
    op.add_column("revision_probes", sa.Column("content_digest", sa.Text()))
