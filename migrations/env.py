"""Alembic's entry: on the connection, and in the transaction, of the caller."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="watchdog_version")
context.run_migrations()
