"""`watchdog db`: check, compact and copy a database, as an operator would."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.command_line import CommandResult, invoke_command

Write = Callable[..., Path]


@pytest.fixture
def configured(write: Write, database_url: str) -> str:
    """The URL of a database with the schema, which the configuration names."""
    write(storage={"url": database_url})
    assert invoke_command("db", "upgrade").exit_code == 0
    return database_url


@pytest.fixture
def sqlite_file(write: Write, tmp_path: Path) -> Path:
    write()
    assert invoke_command("db", "upgrade").exit_code == 0
    return tmp_path / "watchdog.db"


def damage(file: Path, page: int) -> None:
    content = bytearray(file.read_bytes())
    content[page * 4096 : page * 4096 + 2000] = b"\xff" * 2000
    file.write_bytes(content)


def test_an_intact_database(configured: str) -> None:
    ran = invoke_command("db", "check")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("The database is intact: schema 00")
    assert ran.stdout.endswith(" MiB.\n")
    ran = invoke_command("db", "check", "-o", "json")
    kind, size = configured.partition(":")[0], ran.json["size_bytes"]
    assert ran.exit_code == 0
    assert size > 4_096
    assert re.fullmatch("00[0-9]{2}", ran.json["schema"])
    assert ran.json == {
        "is_intact": True,
        "damage": [],
        "kind": "sqlite" if kind == "sqlite" else "postgresql",
        "schema": ran.json["schema"],
        "size_bytes": size,
    }


@pytest.mark.parametrize("page", [0, 1, 2, 5])
def test_a_damaged_database(sqlite_file: Path, page: int) -> None:
    damage(sqlite_file, page)
    ran = invoke_command("db", "check")
    assert (ran.exit_code, ran.stdout) == (1, "")
    first, *details = ran.stderr.splitlines()
    assert first == "watchdog: the database is damaged: restore a backup"
    assert details
    assert all(line.startswith("  ") for line in details)
    as_json = invoke_command("db", "check", "-o", "json")
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    assert (as_json.json["is_intact"], as_json.json["damage"]) == (False, [line.strip() for line in details])


def test_a_damaged_index(sqlite_file: Path) -> None:
    """Every row can be read, but not found."""
    with closing(sqlite3.connect(sqlite_file)) as database, database:
        database.execute("PRAGMA writable_schema=on")
        database.execute(
            "INSERT INTO sqlite_master SELECT 'index', 'late', 'probes', 0, 'CREATE INDEX late ON probes (id)'"
        )
    ran = invoke_command("db", "check")
    assert ran.exit_code == 1
    assert "restore a backup" in ran.stderr


def test_compacting_returns_space(configured: str) -> None:
    ran = invoke_command("db", "vacuum")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Compacted the database: 0.")
    assert invoke_command("db", "check").exit_code == 0


def test_an_sqlite_file_becomes_smaller(sqlite_file: Path) -> None:
    with closing(sqlite3.connect(sqlite_file)) as database, database:
        database.execute("CREATE TABLE big (x)")
        database.execute("INSERT INTO big VALUES (zeroblob(3000000))")
        database.execute("DROP TABLE big")
    size = sqlite_file.stat().st_size
    assert invoke_command("db", "vacuum").exit_code == 0
    assert sqlite_file.stat().st_size < size - 2_900_000


def test_a_copy_is_a_database_that_its_owner_reads(sqlite_file: Path, write: Write) -> None:
    with closing(sqlite3.connect(sqlite_file)) as writing:
        writing.execute("BEGIN IMMEDIATE")  # as a running Watchdog may
        ran = invoke_command("db", "backup", "copy.db")
        writing.rollback()
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Copied the database to copy.db: 0.")
    assert Path("copy.db").stat().st_mode & 0o777 == 0o600
    write(storage={"url": "sqlite:///copy.db"})
    assert invoke_command("db", "check").exit_code == 0
    assert invoke_command("db", "upgrade").stdout.startswith("The schema is up to date")


def one_line(ran: CommandResult, code: int) -> str:
    assert (ran.exit_code, ran.stdout) == (code, "")
    (line,) = ran.stderr.splitlines()
    return line


def test_a_copy_replaces_no_file(sqlite_file: Path) -> None:
    Path("copy.db").write_text("precious")
    line = one_line(invoke_command("db", "backup", "copy.db"), 2)
    assert line == "watchdog: copy.db exists: choose another name, or remove it"
    assert Path("copy.db").read_text() == "precious"


def test_a_copy_that_cannot_be_written(sqlite_file: Path) -> None:
    line = one_line(invoke_command("db", "backup", "no/copy.db"), 2)
    assert line == "watchdog: cannot write no/copy.db: no such file or directory"


def test_a_copy_of_a_damaged_database_leaves_no_file(sqlite_file: Path) -> None:
    damage(sqlite_file, 5)
    assert "malformed" in one_line(invoke_command("db", "backup", "copy.db"), 3)
    assert not Path("copy.db").exists()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_postgres_has_its_own_program_for_backups(configured: str) -> None:
    line = one_line(invoke_command("db", "backup", "copy.db"), 2)
    assert line == "watchdog: the database is PostgreSQL: back it up with `pg_dump`"
    assert "copy.db" not in os.listdir()  # noqa: PTH208 - only the names


@pytest.mark.parametrize("command", ["check", "vacuum", "backup copy.db"])
def test_a_database_that_does_not_exist(write: Write, command: str) -> None:
    write()
    line = one_line(invoke_command("db", *command.split()), 3)
    assert line.startswith(f"watchdog: the database {Path.cwd()}/watchdog.db does not exist: start `watchdog run`; ")


@pytest.mark.parametrize("command", ["vacuum", "backup copy.db"])
def test_a_file_that_is_no_database(write: Write, command: str) -> None:
    write()
    Path("watchdog.db").write_text("To whom it may concern" * 100)
    line = one_line(invoke_command("db", *command.split()), 3)
    advice = "restore a backup, or move the file away to start with an empty database"
    assert line == f"watchdog: cannot use the database watchdog.db: file is not a database; {advice}"
