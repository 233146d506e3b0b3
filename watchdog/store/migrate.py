"""Bring the schema up to date, at start and by `watchdog db upgrade`, one process at a time."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from watchdog.store.database import ADVISORY, Database

LOCK = -1
"""The advisory lock of migrations: no probe has this id."""


class SchemaError(Exception):
    """The database is newer than this program."""


def upgrade(database: Database, migrations: Path) -> tuple[str, str]:
    """Run what is missing, under a lock and in one transaction; returns the revisions before and after.

    Raises SchemaError when a newer Watchdog has upgraded the database.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head() or ""
    with database.write() as connection:
        if database.postgres:
            connection.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:c, :l)"), {"c": ADVISORY, "l": LOCK})
        before = (
            MigrationContext.configure(connection, opts={"version_table": "watchdog_version"}).get_current_revision()
            or ""
        )
        if before == head:
            return before, head
        environment = EnvironmentContext(config, script, fn=lambda rev, _context: script._upgrade_revs(head, rev))
        config.attributes["connection"] = connection
        try:
            with environment:
                script.run_env()
        except CommandError as e:
            raise SchemaError(
                f"the database is at schema {before}, which this version does not know: it was upgraded by a newer"
                " Watchdog; run that version or newer"
            ) from e
    return before, head
