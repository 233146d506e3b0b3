"""`watchdog db`: the database."""

from __future__ import annotations

import typer

from watchdog.cli.common import DEFAULT, ConfigFile, fail, loaded, unusable

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """A lone command would otherwise stand for the group."""


@app.command()
def upgrade(config: ConfigFile = DEFAULT) -> None:
    """Bring the schema up to date. `watchdog run` does the same when it starts."""
    given = loaded(config)

    from watchdog.assets import asset
    from watchdog.store.database import Database, Unusable
    from watchdog.store.migrate import SchemaError
    from watchdog.store.migrate import upgrade as migrate

    database = Database(given.config.storage.url)
    try:
        before, after = migrate(database, asset("migrations"))
    except SchemaError as e:
        fail(str(e))
    except Unusable as e:
        unusable(given, e)
    finally:
        database.close()
    print(
        f"The schema is up to date: {after}." if before == after else f"Upgraded from {before or 'nothing'} to {after}."
    )
