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

    from sqlalchemy import Connection

    from watchdog.config import Loaded


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
    """The configuration, with logs set up to mask its secrets; every problem of a bad one on a line of its own."""
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


@contextmanager
def reading(loaded: Loaded) -> Iterator[Connection]:
    """A reading connection to the configured database; clear lines where there is none to read."""
    from watchdog.store.database import Away, Database, Unprepared, why

    url = loaded.config.storage.url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        fail("the database does not exist yet: `watchdog run` makes it", Exit.UNJUDGED)
    database = Database(url)
    try:
        with database.read() as connection:
            yield connection
    except Unprepared:
        fail("the database has no schema of this version: run `watchdog db upgrade`", Exit.UNJUDGED)
    except Away as e:
        fail(f"the database cannot be used: {loaded.mask(why(e))}", Exit.UNJUDGED)
    finally:
        database.close()
