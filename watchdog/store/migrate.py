"""Upgrades of the schema, at start and by `watchdog db upgrade`; one process at a time."""

from __future__ import annotations

import gc
from pathlib import Path

import sqlalchemy as sa

from watchdog.store.database import Database
from watchdog.store.errors import WatchdogDatabaseSchemaError
from watchdog.store.tables import metadata

MIGRATION_LOCK_KEY = -1
"""Advisory lock held during an upgrade; no probe has this id."""
SCHEMA_VERSION_TABLE_NAME = "watchdog_version"
"""The table that holds the revision of the schema."""


def upgrade_schema(database: Database, migrations: Path) -> tuple[str, str]:
    """Run the missing migrations under a lock and in one transaction; returns the revisions before and after.

    `migrations`: Alembic's script location. Other programs' tables are left alone. Raises WatchdogDatabaseSchemaError
    if it is newer than this version, or if a table of Watchdog's name exists that Watchdog did not create.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    head = ScriptDirectory.from_config(config).get_current_head() or ""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, MIGRATION_LOCK_KEY)
        context = MigrationContext.configure(connection, opts={"version_table": SCHEMA_VERSION_TABLE_NAME})
        before = context.get_current_revision() or ""
        if not before and (conflicts := metadata.tables.keys() & set(sa.inspect(connection).get_table_names())):
            raise WatchdogDatabaseSchemaError(
                f"the database contains tables that are not Watchdog's: {', '.join(sorted(conflicts))}; give it "
                "its own database"
            )
        config.attributes["connection"] = connection
        try:
            with database.allow_long_statements(connection):
                command.upgrade(config, "head")
        except CommandError as e:
            raise WatchdogDatabaseSchemaError(
                f"the database is at schema {before}, which this version does not support: it was upgraded by a newer"
                " Watchdog; run that version or newer"
            ) from e
    database.sync_to_disk()
    gc.collect()  # Alembic leaves reference cycles, which would stay for good once the service freezes its heap
    return before, head
