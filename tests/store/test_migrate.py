"""Schema upgrades: all or nothing, safe with several processes, without loss of data, other tables untouched."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from watchdog.resources import find_resource_folder
from watchdog.store.act_tables import acts, pauses, requested_runs, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.errors import WatchdogDatabaseSchemaError
from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.group_tables import incident_groups
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.migrate import SCHEMA_VERSION_TABLE_NAME, upgrade_schema
from watchdog.store.muting_tables import muted_incidents, muting_probes
from watchdog.store.read.acts import list_silences_in_effect
from watchdog.store.tables import incidents, messages, metadata, outbox, probes, schedule

FIRST = min(find_resource_folder("migrations").glob("versions/*.py")).name[:4]
HEAD = max(find_resource_folder("migrations").glob("versions/*.py")).name[:4]
NEXT = "9999"
NEXT_MIGRATION = f"""
import os, signal
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{NEXT}", "{HEAD}"

def upgrade():
    op.create_table("migrated_results", sa.Column("slot", sa.BigInteger), sa.Column("late", sa.Boolean))
    op.execute("INSERT INTO migrated_results SELECT slot, late FROM results")
    op.add_column("results", sa.Column("generation", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE results SET generation = 7")
"""
KILL_AFTER_UPGRADE = "    os.kill(os.getpid(), signal.SIGKILL)\n"
KILLED_MIGRATION = NEXT_MIGRATION + KILL_AFTER_UPGRADE
UPGRADE_SCRIPT = """
import sys
from pathlib import Path
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.read.acts import list_silences_in_effect
import alembic.command
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*upgrade_schema(database, Path(sys.argv[2])))
"""
SAMPLE_VALUES: dict[str, Any] = {"TEXT": "text", "INTEGER": 1, "BIGINT": 100, "BOOLEAN": True}


@pytest.fixture
def fresh(database_url: str) -> Iterator[Database]:
    """An empty database, without a schema."""
    database = Database(database_url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    with database.open_read_transaction() as connection:
        return set(sa.inspect(connection).get_table_names())


def copy_migrations(folder: Path, extra_migration: str) -> Path:
    """A migrations folder with one more revision than Watchdog's."""
    copy = folder / "migrations"
    shutil.copytree(find_resource_folder("migrations"), copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / f"versions/{NEXT}_next.py").write_text(extra_migration)
    return copy


def start_upgrade(url: str, migrations: Path) -> subprocess.Popen[str]:
    """Start a process that upgrades as soon as it reads a line."""
    command = [sys.executable, "-c", UPGRADE_SCRIPT, url, str(migrations)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def upgrade_until_killed(url: str, migrations: Path) -> int:
    """Upgrade in another process; returns its exit code."""
    process = start_upgrade(url, migrations)
    process.communicate("go\n", timeout=60)
    return process.returncode


Rows = dict[str, list[dict[str, Any]]]


def fill_first_schema(database: Database, folder: Path, revision: str = FIRST) -> Rows:
    """Create the schema of the first revision, or of a later one, with two rows in every table; returns the rows by
    table."""
    older = folder / "older"
    shutil.copytree(find_resource_folder("migrations"), older, ignore=shutil.ignore_patterns("__pycache__"))
    for file in older.glob("versions/*.py"):
        if file.name[:4] > revision:
            file.unlink()
    assert upgrade_schema(database, older) == ("", revision)
    schema = reflect(database)
    rows: Rows = {
        table.name: [{column.name: sample_value(column, n) for column in table.columns} for n in (1, 2)]
        for table in schema.sorted_tables
    }
    with database.open_write_transaction() as connection:
        for table in schema.sorted_tables:
            connection.execute(sa.insert(table), rows[table.name])
    assert read_rows(database, rows) == rows
    return rows


def sample_value(column: sa.Column[Any], n: int) -> Any:
    """A value that fits the column; different in each row, except for booleans."""
    value = SAMPLE_VALUES[str(column.type)]
    return f"{value} {n}" if isinstance(value, str) else value if isinstance(value, bool) else value + n


def reflect(database: Database) -> sa.MetaData:
    """The tables as they are in the database, without the version table."""
    schema = sa.MetaData()
    with database.open_read_transaction() as connection, database.allow_long_statements(connection):
        schema.reflect(connection)
    schema.remove(schema.tables[SCHEMA_VERSION_TABLE_NAME])
    return schema


def read_rows(database: Database, expected: Rows) -> Rows:
    """The rows of the tables in `expected`, with the columns that those have there."""
    schema = reflect(database)
    with database.open_read_transaction() as connection:
        return {
            name: [
                dict(row)
                for row in connection.execute(
                    sa.select(*(schema.tables[name].c[column] for column in rows[0])).order_by(
                        *schema.tables[name].primary_key.columns
                    )
                ).mappings()
            ]
            for name, rows in expected.items()
        }


def migrated_results(database: Database) -> list[tuple[int, bool]]:
    with database.open_read_transaction() as connection:
        rows = connection.exec_driver_sql("SELECT slot, late FROM migrated_results")
        return [(slot, bool(late)) for slot, late in rows]


def test_upgrade_from_nothing_and_again(fresh: Database) -> None:
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("", HEAD)
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE_NAME}
    with fresh.open_write_transaction() as connection:
        connection.execute(
            sa.insert(probes).values(probe_id="a", name="", kind="", info="", config_yaml="", created_at=1)
        )
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == (HEAD, HEAD)
    with fresh.open_read_transaction() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(probes)).scalar() == 1


def test_the_migrations_create_the_tables_of_the_code(fresh: Database) -> None:
    """On a difference, the failure shows the missing migration."""
    from alembic.autogenerate import produce_migrations, render_python_code
    from alembic.runtime.migration import MigrationContext

    upgrade_schema(fresh, find_resource_folder("migrations"))
    with fresh.open_read_transaction() as connection:
        options = {
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or name != SCHEMA_VERSION_TABLE_NAME,
        }
        context = MigrationContext.configure(connection, opts=options)
        missing = produce_migrations(context, metadata).upgrade_ops
        assert missing is not None
        assert missing.is_empty(), f"add a migration that does this:\n{render_python_code(missing)}"


def indexes(database: Database) -> dict[str, str]:
    """Index name -> its definition, including the WHERE clause, which Alembic does not compare."""
    query = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'" if database.is_postgres
        else "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )  # fmt: skip
    with database.open_read_transaction() as connection:
        return {
            row[0]: " ".join(row[1].split())
            for row in connection.exec_driver_sql(query)
            if SCHEMA_VERSION_TABLE_NAME not in row[0]
        }


def test_the_migrations_create_the_indexes_of_the_code(fresh: Database) -> None:
    upgrade_schema(fresh, find_resource_folder("migrations"))
    migrated = indexes(fresh)
    metadata.drop_all(fresh.writer)
    metadata.create_all(fresh.writer)
    assert migrated == indexes(fresh)
    assert "ix_outbox_due" in migrated


def test_processes_that_upgrade_at_once(fresh: Database, database_url: str) -> None:
    both = [start_upgrade(database_url, find_resource_folder("migrations")) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["ready\n"] * 2
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(out for out, _ in outputs) == [f" {HEAD}\n", f"{HEAD} {HEAD}\n"]
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE_NAME}


def test_a_kill_during_the_first_upgrade_leaves_an_empty_database(
    fresh: Database, database_url: str, tmp_path: Path
) -> None:
    assert upgrade_until_killed(database_url, copy_migrations(tmp_path, KILLED_MIGRATION)) == -signal.SIGKILL
    assert tables(fresh) == set()
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("", HEAD)


def test_the_data_of_the_first_schema_survives_every_upgrade(fresh: Database, tmp_path: Path) -> None:
    """From the first revision through all others to a revision that rewrites a table with data."""
    saved = fill_first_schema(fresh, tmp_path)
    assert upgrade_schema(fresh, copy_migrations(tmp_path, NEXT_MIGRATION)) == (FIRST, NEXT)
    assert read_rows(fresh, saved) == saved
    assert sorted(migrated_results(fresh)) == [(101, True), (102, True)]


def test_a_kill_in_the_middle_of_an_upgrade_changes_nothing(fresh: Database, database_url: str, tmp_path: Path) -> None:
    """The killed process had rewritten rows without committing; the next upgrade starts from the same schema."""
    saved = fill_first_schema(fresh, tmp_path)
    upgrade_schema(fresh, find_resource_folder("migrations"))
    before = tables(fresh)
    killed = copy_migrations(tmp_path / "killed", NEXT_MIGRATION + KILL_AFTER_UPGRADE)
    assert upgrade_until_killed(database_url, killed) == -signal.SIGKILL
    assert tables(fresh) == before
    assert read_rows(fresh, saved) == saved
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == (HEAD, HEAD), (
        "the version that ran before still can"
    )
    assert upgrade_schema(fresh, copy_migrations(tmp_path / "next", NEXT_MIGRATION)) == (HEAD, NEXT)
    assert read_rows(fresh, saved) == saved
    assert sorted(migrated_results(fresh)) == [(101, True), (102, True)]


def test_a_newer_schema_is_refused(fresh: Database) -> None:
    upgrade_schema(fresh, find_resource_folder("migrations"))
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql(f"UPDATE {SCHEMA_VERSION_TABLE_NAME} SET version_num = '4711'")
    with pytest.raises(
        WatchdogDatabaseSchemaError, match=r"at schema 4711, which this version does not support: .* run that version"
    ):
        upgrade_schema(fresh, find_resource_folder("migrations"))
    assert tables(fresh) == {*metadata.tables, SCHEMA_VERSION_TABLE_NAME}


def test_tables_of_other_programs_are_not_changed(fresh: Database) -> None:
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE procrastinate_jobs (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO procrastinate_jobs VALUES (7)")
    upgrade_schema(fresh, find_resource_folder("migrations"))
    with fresh.open_read_transaction() as connection:
        assert connection.exec_driver_sql("SELECT id FROM procrastinate_jobs").scalar() == 7


def test_a_conflicting_table_of_another_program_is_named(fresh: Database) -> None:
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE results (id INTEGER)")
    with pytest.raises(WatchdogDatabaseSchemaError, match="not Watchdog's: results; give it its own database"):
        upgrade_schema(fresh, find_resource_folder("migrations"))
    assert tables(fresh) == {"results"}


def test_a_folder_with_a_percent_sign_is_found(fresh: Database, tmp_path: Path) -> None:
    folder = tmp_path / "100% ours"
    shutil.copytree(find_resource_folder("migrations"), folder)
    assert upgrade_schema(fresh, folder) == ("", HEAD)


def test_an_upgrade_keeps_the_messages_that_open_incidents_have(fresh: Database, tmp_path: Path) -> None:
    """Their end edits the Slack message, or replies to the email, that an earlier version sent."""
    fill_first_schema(fresh, tmp_path)
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE outbox SET incident = 'text 1', state = 'sent', event = 'opened', receipt = '{\"ts\":\"1\"}'"
        )
        connection.exec_driver_sql("UPDATE outbox SET receipt = NULL WHERE destination = 'text 2'")
    upgrade_schema(fresh, find_resource_folder("migrations"))
    with fresh.open_read_transaction() as connection:
        rows = [tuple(row) for row in connection.execute(sa.select(messages).order_by(messages.c.destination))]
    assert [row[:5] for row in rows] == [
        ("text 1", "text 1", "", "text 1", '{"ts":"1"}'),
        ("text 1", "text 2", "", "text 1", "{}"),
    ]


def test_an_upgrade_keeps_each_incident_of_an_earlier_version_in_its_own_message(
    fresh: Database, tmp_path: Path
) -> None:
    fill_first_schema(fresh, tmp_path)
    upgrade_schema(fresh, find_resource_folder("migrations"))
    with fresh.open_read_transaction() as connection:
        rows = connection.execute(sa.select(outbox.c.incident, outbox.c.lead_incident)).all()
    assert [row.lead_incident for row in rows] == [row.incident for row in rows] != []


def test_incidents_of_an_earlier_version_are_neither_acknowledged_nor_silenced(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0011")
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0011", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        rows = connection.execute(sa.select(incidents)).all()
        assert [(row.acknowledged_at, row.acknowledged_by, row.acknowledgement_comment) for row in rows] == [
            (None, "", "")
        ] * 2
        for table in (acts, silences, silenced_incidents):
            assert connection.execute(sa.select(table)).all() == []


def test_open_incidents_of_an_earlier_version_are_reminded_of(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0013")
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql("UPDATE incidents SET resolved_at = NULL WHERE id = 'text 2'")
    saved["incidents"][1]["resolved_at"] = None
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0013", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        rows = connection.execute(sa.select(incident_follow_ups)).all()
        assert [tuple(row) for row in rows] == [("text 2", saved["incidents"][1]["opened_at"])]
        assert set(connection.execute(sa.select(outbox.c.escalated_after_ms)).scalars()) == {None}


def test_probes_of_an_earlier_version_are_not_paused(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0014")
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0014", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        assert list(connection.execute(sa.select(schedule.c.paused)).scalars()) == [False, False]
        assert list(connection.execute(sa.select(acts.c.probe)).scalars()) == ["", ""], "they were about incidents"
        assert connection.execute(sa.select(pauses)).all() == connection.execute(sa.select(requested_runs)).all() == []


def test_nothing_of_an_earlier_version_is_in_maintenance(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0017")
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0017", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        assert {row.maintenance for row in connection.execute(sa.select(acts.c.maintenance))} == {""}
        for table in (maintenance_windows, maintenance_periods):
            assert connection.execute(sa.select(table)).all() == []


def test_a_silence_of_an_earlier_version_selects_by_its_matcher(fresh: Database, tmp_path: Path) -> None:
    fill_first_schema(fresh, tmp_path, "0018")
    with fresh.open_write_transaction() as connection:
        connection.exec_driver_sql(
            "INSERT INTO silences (id, matcher, started_at, ends_at, author, interface, comment, ended_by)"
            " VALUES ('s-1', '{}', 1, 2, 'Ana', 'cli', '', '')"
        )
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0018", HEAD)
    with fresh.open_read_transaction() as connection:
        assert [silence.incident for silence in list_silences_in_effect(connection)] == [""]


def test_nothing_of_an_earlier_version_is_muted(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0020")
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0020", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        for table in (muting_probes, muted_incidents):
            assert connection.execute(sa.select(table)).all() == []


def test_the_groups_of_an_earlier_version_share_a_cause_and_wait_for_nothing(fresh: Database, tmp_path: Path) -> None:
    saved = fill_first_schema(fresh, tmp_path, "0023")
    assert upgrade_schema(fresh, find_resource_folder("migrations")) == ("0023", HEAD)
    assert read_rows(fresh, saved) == saved
    with fresh.open_read_transaction() as connection:
        rows = connection.execute(sa.select(incident_groups)).all()
    assert [(row.cause, row.label_key, row.labels, row.first_message_at) for row in rows] == [
        ("text 1", "", None, 0),
        ("text 2", "", None, 0),
    ]
