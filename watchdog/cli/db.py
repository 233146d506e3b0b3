"""`watchdog db`: manage the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_database_error,
    exit_with_error,
    load_database_config_or_exit,
    open_database_or_exit,
)
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from watchdog.store.database import Database

db_app = typer.Typer(cls=CommandGroupWithoutPydantic, help="Manage the database.", no_args_is_help=True)


@db_app.command("upgrade", cls=CommandWithoutPydantic)
def db_upgrade_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Create the database schema, or upgrade it to this version.

    `watchdog run` does this when it starts.

    \b
    Example: watchdog db upgrade -c /etc/watchdog/watchdog.yaml
    """
    configured = load_database_config_or_exit(config)

    from watchdog.resources import find_resource_folder
    from watchdog.store.database import Database
    from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
    from watchdog.store.migrate import upgrade_schema

    database = Database(configured.url)
    try:
        before, after = upgrade_schema(database, find_resource_folder("migrations"))
    except WatchdogDatabaseSchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_with_database_error(configured, e)
    finally:
        database.close()
    if before == after:
        print(f"The schema is up to date: {after}.")
    else:
        print(f"Upgraded the schema from {before} to {after}." if before else f"Created the schema: {after}.")


@db_app.command("check", cls=CommandWithoutPydantic)
def db_check_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = CliOutputFormat.TABLE
) -> None:
    """Check that the database is readable and not damaged.

    Reads the whole SQLite file, even while Watchdog is running. Does not check PostgreSQL for damage. Exits 1 if the
    database is damaged.

    \b
    Example: watchdog db check
    """
    from watchdog.store.errors import WatchdogDatabaseDamagedError
    from watchdog.store.upkeep import find_sqlite_damage, load_schema_revision

    with open_database_or_exit(load_database_config_or_exit(config)) as database:
        try:
            revision, damage = load_schema_revision(database), find_sqlite_damage(database)
        except WatchdogDatabaseDamagedError as e:
            revision, damage = "", [str(e)]
        if output is CliOutputFormat.JSON:
            _print_check_as_json_and_exit(database, revision, damage)
        if damage:
            details = "".join(f"\n  {line}" for line in damage)
            exit_with_error(f"the database is damaged: restore a backup{details}", ExitCode.DOWN)
        print(f"The database is intact: schema {revision}, {_load_database_size_text(database)}.")


def _print_check_as_json_and_exit(database: Database, revision: str, damage: list[str]) -> NoReturn:
    """`revision`: empty if the damage hides it."""
    from watchdog.store.upkeep import measure_database_size_bytes

    print_json(
        {
            "is_intact": not damage,
            "damage": damage,
            "kind": "postgresql" if database.is_postgres else "sqlite",
            "schema": revision or None,
            "size_bytes": None if damage else measure_database_size_bytes(database),
        }
    )
    raise typer.Exit(ExitCode.DOWN if damage else ExitCode.OK)


@db_app.command("vacuum", cls=CommandWithoutPydantic)
def db_vacuum_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Reclaim the space of deleted rows.

    Shrinks an SQLite file; this needs as much free disk space as the file uses, and blocks a running Watchdog
    until it is done. In PostgreSQL, the space becomes reusable.

    \b
    Example: watchdog db vacuum
    """
    from watchdog.store.upkeep import compact_database

    with open_database_or_exit(load_database_config_or_exit(config)) as database:
        before = _load_database_size_text(database)
        compact_database(database)
        print(f"Compacted the database: {before} before, {_load_database_size_text(database)} now.")


@db_app.command("backup", cls=CommandWithoutPydantic)
def db_backup_command(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist yet.", show_default=False)],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
) -> None:
    """Copy an SQLite database, even while Watchdog is running.

    The copy is a complete Watchdog database that only its owner can read.

    \b
    Example: watchdog db backup watchdog-backup.db
    """
    from watchdog.store.upkeep import back_up_sqlite

    with open_database_or_exit(load_database_config_or_exit(config)) as database:
        if database.is_postgres:
            exit_with_error("the database is PostgreSQL: back it up with `pg_dump`")
        try:
            back_up_sqlite(database, file)
        except FileExistsError:
            exit_with_error(f"{file} exists: choose another name, or remove it")
        except OSError as e:
            exit_with_error(f"cannot write {file}: {(e.strerror or str(e)).lower()}")
        print(f"Copied the database to {file}: {_load_database_size_text(database)}.")


def _load_database_size_text(database: Database) -> str:
    from watchdog.store.upkeep import measure_database_size_bytes

    return f"{measure_database_size_bytes(database) / 2**20:.1f} MiB"
