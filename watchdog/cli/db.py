"""`watchdog db`: the database."""

from __future__ import annotations

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    exit_database_unavailable,
    exit_with_error,
    load_config_or_exit,
)

db_app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@db_app.callback()
def _db_group() -> None:
    """A lone command would otherwise stand for the group."""


@db_app.command("upgrade")
def db_upgrade_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Bring the schema up to date. `watchdog run` does the same when it starts."""
    given = load_config_or_exit(config)

    from watchdog.resources import resource_path
    from watchdog.store.database import Database
    from watchdog.store.errors import SchemaError, StoreUnavailableError
    from watchdog.store.migrate import upgrade_schema as migrate

    database = Database(given.config.storage.url)
    try:
        before, after = migrate(database, resource_path("migrations"))
    except SchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_database_unavailable(given, e)
    finally:
        database.close()
    print(
        f"The schema is up to date: {after}." if before == after else f"Upgraded from {before or 'nothing'} to {after}."
    )
