"""`watchdog db`: manage the database."""

from __future__ import annotations

import typer

from watchdog.cli.click_classes import CliCommand, CliCommandGroup
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    exit_with_database_error,
    exit_with_error,
    load_config_or_exit,
)

db_app = typer.Typer(cls=CliCommandGroup, help="Manage the database.", no_args_is_help=True)


@db_app.callback()
def _db_group() -> None:
    """Keeps `upgrade` a subcommand while it is the only command."""


@db_app.command("upgrade", cls=CliCommand)
def db_upgrade_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Create the database schema, or upgrade it to this version.

    `watchdog run` does this when it starts.

    \b
    Example: watchdog db upgrade -c /etc/watchdog/watchdog.yaml
    """
    loaded_config = load_config_or_exit(config)

    from watchdog.resources import resource_path
    from watchdog.store.database import Database
    from watchdog.store.errors import DatabaseSchemaError, StoreUnavailableError
    from watchdog.store.migrate import upgrade_schema

    database = Database(loaded_config.config.storage.url)
    try:
        before, after = upgrade_schema(database, resource_path("migrations"))
    except DatabaseSchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_with_database_error(loaded_config, e)
    finally:
        database.close()
    if before == after:
        print(f"The schema is up to date: {after}.")
    else:
        print(f"Upgraded the schema from {before} to {after}." if before else f"Created the schema: {after}.")
