"""What commands share: where the configuration is, how output is asked for, and how a fault becomes one clear line."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from sqlalchemy import Connection

    from watchdog.config import Loaded
    from watchdog.store.database import Unusable


class Exit(IntEnum):
    OK = 0
    DOWN = 1
    USAGE = 2
    UNJUDGED = 3


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")]
OutputFormat = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]
DEFAULT = Path("watchdog.yaml")


def fail(message: str, code: Exit = Exit.USAGE) -> NoReturn:
    """One clear line on standard error, and the exit code."""
    print(f"watchdog: {message}", file=sys.stderr)
    raise typer.Exit(code)


def loaded(path: Path) -> Loaded:
    """The configuration; every problem of a bad one on a line of its own, and the end."""
    from watchdog.config import ConfigError, load

    if path == DEFAULT and not path.exists():
        fail(f"there is no {DEFAULT} here; write one with `watchdog init`, or name yours with -c FILE")
    try:
        return load(path)
    except ConfigError as e:
        print(e, file=sys.stderr)
        raise typer.Exit(Exit.USAGE) from None


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """Standard output for people. Piped, it breaks no line."""
    from rich.console import Console

    made = Console(highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 10_000
    return made


@contextmanager
def reading(loaded: Loaded) -> Iterator[Connection]:
    """A reading connection to the configured database; clear lines where there is none to read."""
    from watchdog.store.database import Database, Unusable, unprepared

    need_database(loaded)
    database = Database(loaded.config.storage.url)
    try:
        with database.read() as connection:
            yield connection
    except Unusable as e:
        if unprepared(e):
            fail("the database has no schema of this version: run `watchdog db upgrade`", Exit.UNJUDGED)
        unusable(loaded, e)
    finally:
        database.close()


def need_database(loaded: Loaded) -> None:
    """To read one must not make one."""
    if (file := database_file(loaded)) is not None and not file.exists():
        fail(loaded.mask(f"there is no database {file} yet: `watchdog run` makes it"), Exit.UNJUDGED)


def unusable(loaded: Loaded, error: Unusable) -> NoReturn:
    """What keeps the database from being used, in the driver's words."""
    from watchdog.store.database import why

    file = database_file(loaded)
    which = "" if file is None else f" {file}"
    fail(loaded.mask(f"the database{which} cannot be used: {why(error)}"), Exit.UNJUDGED)


def database_file(loaded: Loaded) -> Path | None:
    """SQLite's; PostgreSQL has none."""
    scheme, _, path = loaded.config.storage.url.partition(":///")
    return Path(path) if scheme == "sqlite" else None
