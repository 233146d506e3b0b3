"""Alembic's environment: runs on the caller's connection, in the caller's transaction."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="watchdog_version")
context.run_migrations()
