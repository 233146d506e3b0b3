"""What an operator does with a database by hand: check it, compact it, and copy it. Safe while Watchdog runs."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.migrate import SCHEMA_VERSION_TABLE_NAME
from watchdog.store.tables import metadata

MAX_SQLITE_DAMAGE_LINES = 10
"""SQLite stops after this many; one is enough to know that a backup is needed."""


def load_schema_revision(database: Database) -> str:
    """The revision of the schema. Raises WatchdogDatabaseSchemaError if there is none, and StoreUnavailableError."""
    with database.open_read_transaction() as connection:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {SCHEMA_VERSION_TABLE_NAME}").scalar_one())


def find_sqlite_damage(database: Database) -> list[str]:
    """What is damaged, a line each, by reading every page and every index of an SQLite file. Empty if nothing is.

    PostgreSQL checks its pages when it reads them: always empty. Raises StoreUnavailableError.
    """
    if database.is_postgres:
        return []
    with database.open_read_transaction() as connection:
        lines = connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_SQLITE_DAMAGE_LINES})").scalars().all()
    return [] if lines == ["ok"] else [part for line in lines for part in str(line).splitlines()]


def measure_database_size_bytes(database: Database) -> int:
    """The size of an SQLite file, or of Watchdog's tables and indexes in PostgreSQL. Raises StoreUnavailableError."""
    with database.open_read_transaction() as connection:
        if database.is_postgres:
            size = sa.text("SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(CAST(:n AS text[])) name")
            return int(connection.execute(size, {"n": list(metadata.tables)}).scalar_one() or 0)
        size = sa.text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(connection.execute(size).scalar_one())


def compact_database(database: Database) -> None:
    """Return the space of deleted rows to the system (SQLite) or make it usable again (PostgreSQL).

    SQLite needs as much free space as the file has, and blocks writers meanwhile. Raises StoreUnavailableError.
    """
    with database.open_autocommit_connection() as connection, database.allow_long_statements(connection):
        if database.is_postgres:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(metadata.tables)}")
        else:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def back_up_sqlite(database: Database, target: Path) -> None:
    """Copy an SQLite database, as it is at one moment, into a new file that only its owner can read, and sync it.

    Raises OSError if the file cannot be created, and StoreUnavailableError; then nothing is left of it.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with database.open_autocommit_connection() as connection:
            connection.execute(sa.text("VACUUM INTO :target"), {"target": str(target)})
        for path in (target, target.resolve().parent):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    except (StoreUnavailableError, OSError):
        target.unlink(missing_ok=True)
        raise
