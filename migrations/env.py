"""Alembic's entry: one schema for both databases, on the connection that the caller opened and locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic import context

from watchdog.store.tables import metadata

if TYPE_CHECKING:
    import sqlalchemy as sa


def ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave alone what others keep in the same database."""
    return kind != "table" or name in metadata.tables


def run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=ours,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
        version_table="watchdog_version",
    )
    context.run_migrations()


run(context.config.attributes["connection"])
