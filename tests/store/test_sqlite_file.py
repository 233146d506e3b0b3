"""An SQLite file that is deleted, replaced or damaged while it is open, and one that is damaged when it is opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from watchdog.resources import find_resource_folder
from watchdog.store.database import Database
from watchdog.store.errors import (
    StoreUnavailableError,
    WatchdogDatabaseDamagedError,
    WatchdogDatabaseSchemaError,
)
from watchdog.store.migrate import upgrade_schema
from watchdog.store.tables import watermarks

PAGE_BYTES = 4_096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "watchdog.db"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    """Open, checked once, and with a write-ahead log that is not empty."""
    database = Database(f"sqlite:///{file}")
    upgrade_schema(database, find_resource_folder("migrations"))
    checkpoint(database)
    database.check_file()
    write(database, 1)
    yield database
    database.close()


def write(database: Database, claimed_until: int) -> None:
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(watermarks))
        connection.execute(sa.insert(watermarks).values(location="here", claimed_until=claimed_until))


def checkpoint(database: Database) -> None:
    with database.open_autocommit_connection() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def check_twice(database: Database) -> None:
    """A file that grows looks truncated for a moment."""
    database.check_file()
    database.check_file()


def replace_file(file: Path) -> None:
    shutil.copy(file, file.with_name("copy"))
    file.with_name("copy").replace(file)


def replace_by_empty_file(file: Path) -> None:
    file.unlink()
    file.touch()


def drop_table(file: Path) -> None:
    """As a program that takes the file for its own."""
    other = sqlite3.connect(file)
    other.execute("DROP TABLE outbox")
    other.commit()
    other.close()


def truncate_data(file: Path) -> None:
    """By a page that holds no part of the schema, which SQLite reads again at once."""
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE filler AS SELECT zeroblob(?)", (3 * PAGE_BYTES,))
    other.commit()
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    os.truncate(file, file.stat().st_size - PAGE_BYTES)


def find_schema_page(file: Path) -> int:
    """The offset of a leaf page of the table that holds the schema: the first page is its root."""
    root = file.read_bytes()[:PAGE_BYTES]
    return (int.from_bytes(root[108:112], "big") - 1) * PAGE_BYTES


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("was deleted", lambda file: file.unlink()),
    ("was deleted", lambda file: file.with_name(f"{file.name}-wal").unlink()),
    ("was replaced", replace_file),
    ("was replaced", replace_by_empty_file),
    ("header of the database file is damaged", lambda file: overwrite(file, 0, bytes(100))),
    ("header of the database file is damaged", lambda file: overwrite(file, 3, b"x")),
    ("header of the database file is damaged", lambda file: overwrite(file, 16, b"\x02\x00")),
    ("header of the database file is damaged", lambda file: overwrite(file, 18, b"\x09\x09")),
    ("header of the database file is damaged", lambda file: os.truncate(file, 0)),
    ("header of the database file is damaged", lambda file: os.truncate(file, 50)),
    ("was truncated", truncate_data),
    ("is damaged", lambda file: overwrite(file, find_schema_page(file), os.urandom(PAGE_BYTES))),
    ("is damaged", lambda file: overwrite(file, find_schema_page(file), bytes(PAGE_BYTES))),
    ("lacks the table outbox", drop_table),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGES)
def test_damage_while_the_file_is_open_is_detected(
    file: Path, database: Database, message: str, damage: Callable[[Path], object]
) -> None:
    database.check_file()
    damage(file)
    with pytest.raises(WatchdogDatabaseDamagedError, match=message):
        check_twice(database)


def test_a_file_that_was_deleted_is_not_created_again(file: Path, database: Database) -> None:
    """A connection that is opened afterwards would create an empty one, and read that."""
    file.unlink()
    with pytest.raises(StoreUnavailableError, match="was deleted"), database.open_read_transaction():
        pass
    assert not file.exists()


def test_a_file_in_use_passes_however_it_changes(file: Path, database: Database) -> None:
    for n in range(3):
        write(database, n)
        database.check_file()
        checkpoint(database)
        database.check_file()
    with database.open_write_transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE big (x)")
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO big SELECT zeroblob(2000) FROM n"
        )
    database.check_file()
    checkpoint(database)
    database.check_file()
    with database.open_write_transaction() as connection:
        connection.exec_driver_sql("DROP TABLE big")
    with database.open_autocommit_connection() as connection:
        connection.exec_driver_sql("VACUUM")
    checkpoint(database)
    database.check_file()
    database.check_file()


def test_a_file_that_another_program_locks_is_not_damaged(file: Path, database: Database) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM watermarks")
    database.check_file()
    other.close()


def test_a_check_does_not_release_the_locks_of_sqlite(file: Path, database: Database) -> None:
    """Closing a descriptor of the file would: then another process could delete the log of this one."""
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(watermarks))
        database.check_file()
        code = (
            "import sqlite3, sys\n"
            "try:\n    sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA locking_mode=exclusive;').fetchall()\n"
            "    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')\n"
            "except sqlite3.OperationalError as e:\n    print(e)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "database is locked\n"


@pytest.mark.parametrize("seed", range(120))
def test_a_damaged_file_cannot_be_opened_with_any_other_error(file: Path, seed: int) -> None:
    """Bytes of the header and of the pages that hold the schema are overwritten."""
    database = Database(f"sqlite:///{file}")
    upgrade_schema(database, find_resource_folder("migrations"))
    checkpoint(database)
    database.close()
    random, content = Random(seed), bytearray(file.read_bytes())
    area = range(100) if seed % 3 == 0 else range(PAGE_BYTES) if seed % 3 == 1 else range(len(content))
    for _ in range(random.choice((1, 8, 64, 512))):
        content[random.choice(area)] = random.randrange(256)
    file.write_bytes(content)
    database = Database(f"sqlite:///{file}")
    error: Exception | None = None
    try:
        upgrade_schema(database, find_resource_folder("migrations"))
    except (StoreUnavailableError, WatchdogDatabaseSchemaError) as e:
        error = e
    finally:
        database.close()
    assert len(str(error).splitlines()) == 1
