"""The schema comes up to date whole or not at all, once, and leaves alone what is not ours."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from watchdog.resources import resource_path
from watchdog.store.database import Database
from watchdog.store.migrate import SCHEMA_VERSION_TABLE, SchemaError, upgrade_schema
from watchdog.store.tables import metadata, probes

HEAD = max(resource_path("migrations").glob("versions/*.py")).name[:4]
KILLED = f"""
import os, signal
from alembic import op
revision, down_revision = "9999", "{HEAD}"

def upgrade():
    op.execute("CREATE TABLE half_done (id INTEGER)")
    op.execute("INSERT INTO half_done VALUES (1)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
RUN = """
import sys
from pathlib import Path
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
import alembic.command
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*upgrade_schema(database, Path(sys.argv[2])))
"""


@pytest.fixture
def fresh(database_url: str) -> Iterator[Database]:
    """A database with nothing in it."""
    database = Database(database_url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    with database.read_transaction() as connection:
        return set(sa.inspect(connection).get_table_names())


def another(url: str, migrations: Path) -> subprocess.Popen[str]:
    """Another process that upgrades as soon as it is told to."""
    command = [sys.executable, "-c", RUN, url, str(migrations)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_upgrade_from_nothing_and_again(fresh: Database) -> None:
    assert upgrade_schema(fresh, resource_path("migrations")) == ("", HEAD)
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE}
    with fresh.write_transaction() as connection:
        connection.execute(
            sa.insert(probes).values(probe_id="a", name="", kind="", info="", config_yaml="", created_at=1)
        )
    assert upgrade_schema(fresh, resource_path("migrations")) == (HEAD, HEAD)
    with fresh.read_transaction() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(probes)).scalar() == 1


def test_the_migrations_make_the_tables_that_the_code_knows(fresh: Database) -> None:
    """Where they differ, the failure says what a new migration has to do."""
    from alembic.autogenerate import produce_migrations, render_python_code
    from alembic.runtime.migration import MigrationContext

    upgrade_schema(fresh, resource_path("migrations"))
    with fresh.read_transaction() as connection:
        options = {
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or name != SCHEMA_VERSION_TABLE,
        }
        context = MigrationContext.configure(connection, opts=options)
        missing = produce_migrations(context, metadata).upgrade_ops
        assert missing is not None
        assert missing.is_empty(), f"add a migration that does this:\n{render_python_code(missing)}"


def indexes(database: Database) -> dict[str, str]:
    """Name -> how it was made, with its condition, which no comparison of Alembic's looks at."""
    query = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'" if database.is_postgres
        else "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )  # fmt: skip
    with database.read_transaction() as connection:
        return {
            row[0]: " ".join(row[1].split())
            for row in connection.exec_driver_sql(query)
            if SCHEMA_VERSION_TABLE not in row[0]
        }


def test_the_migrations_make_the_indexes_that_the_code_knows(fresh: Database) -> None:
    upgrade_schema(fresh, resource_path("migrations"))
    migrated = indexes(fresh)
    metadata.drop_all(fresh.writer)
    metadata.create_all(fresh.writer)
    assert migrated == indexes(fresh)
    assert "ix_outbox_due" in migrated


def test_processes_that_upgrade_at_once(fresh: Database, database_url: str) -> None:
    both = [another(database_url, resource_path("migrations")) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["ready\n"] * 2
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(out for out, _ in said) == [f" {HEAD}\n", f"{HEAD} {HEAD}\n"]
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE}


@pytest.mark.parametrize("before", ["", HEAD])
def test_a_kill_in_the_middle_leaves_nothing_half_done(
    fresh: Database, database_url: str, tmp_path: Path, before: str
) -> None:
    longer = tmp_path / "migrations"
    shutil.copytree(resource_path("migrations"), longer, ignore=shutil.ignore_patterns("__pycache__"))
    (longer / "versions/9999_killed.py").write_text(KILLED)
    if before:
        upgrade_schema(fresh, resource_path("migrations"))
    process = another(database_url, longer)
    _, err = process.communicate("go\n", timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert tables(fresh) == ({*metadata.tables, SCHEMA_VERSION_TABLE} if before else set())
    assert upgrade_schema(fresh, resource_path("migrations")) == (before, HEAD)


def test_a_newer_schema_is_refused(fresh: Database) -> None:
    upgrade_schema(fresh, resource_path("migrations"))
    with fresh.write_transaction() as connection:
        connection.exec_driver_sql(f"UPDATE {SCHEMA_VERSION_TABLE} SET version_num = '4711'")
    with pytest.raises(SchemaError, match=r"at schema 4711, which this version does not know: .* run that version"):
        upgrade_schema(fresh, resource_path("migrations"))
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE}


def test_tables_of_others_are_left_alone(fresh: Database) -> None:
    with fresh.write_transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE procrastinate_jobs (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO procrastinate_jobs VALUES (7)")
    upgrade_schema(fresh, resource_path("migrations"))
    with fresh.read_transaction() as connection:
        assert connection.exec_driver_sql("SELECT id FROM procrastinate_jobs").scalar() == 7


def test_a_table_of_somebody_else_that_is_in_the_way_is_named(fresh: Database) -> None:
    with fresh.write_transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE results (id INTEGER)")
    with pytest.raises(SchemaError, match="not Watchdog's: results; give it a database of its own"):
        upgrade_schema(fresh, resource_path("migrations"))
    assert tables(fresh) == {"results"}


def test_a_folder_with_a_percent_sign_is_found(fresh: Database, tmp_path: Path) -> None:
    folder = tmp_path / "100% ours"
    shutil.copytree(resource_path("migrations"), folder)
    assert upgrade_schema(fresh, folder) == ("", HEAD)
