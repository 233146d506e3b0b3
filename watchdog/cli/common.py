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

    from watchdog.config.load import LoadedConfig
    from watchdog.store.errors import StoreUnavailableError


class ExitCode(IntEnum):
    OK = 0
    DOWN = 1
    USAGE_ERROR = 2
    UNKNOWN = 3


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


ConfigFileOption = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")]
OutputFormatOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="For people or for programs.")]
DEFAULT_CONFIG_PATH = Path("watchdog.yaml")


def exit_with_error(message: str, code: ExitCode = ExitCode.USAGE_ERROR) -> NoReturn:
    """One clear line on standard error, and the exit code."""
    print(f"watchdog: {message}", file=sys.stderr)
    raise typer.Exit(code)


def load_config_or_exit(path: Path) -> LoadedConfig:
    """The configuration; every problem of a bad one on a line of its own, and the end."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    if path == DEFAULT_CONFIG_PATH and not path.exists():
        exit_with_error(
            f"there is no {DEFAULT_CONFIG_PATH} here; write one with `watchdog init`, or name yours with -c FILE"
        )
    try:
        return load_config(path)
    except ConfigError as e:
        print(e, file=sys.stderr)
        raise typer.Exit(ExitCode.USAGE_ERROR) from None


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def create_console() -> Console:
    """Standard output for people. Piped, it breaks no line."""
    from rich.console import Console

    made = Console(highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 10_000
    return made


@contextmanager
def open_read_connection(loaded_config: LoadedConfig) -> Iterator[Connection]:
    """A reading connection to the configured database; clear lines where there is none to read."""
    from watchdog.store.database import Database
    from watchdog.store.errors import SchemaError, StoreUnavailableError

    require_database_file(loaded_config)
    database = Database(loaded_config.config.storage.url)
    try:
        with database.read_transaction() as connection:
            yield connection
    except SchemaError as e:
        exit_with_error(str(e), ExitCode.UNKNOWN)
    except StoreUnavailableError as e:
        exit_database_unavailable(loaded_config, e)
    finally:
        database.close()


def require_database_file(loaded_config: LoadedConfig) -> None:
    """To read one must not make one."""
    if (file := sqlite_file(loaded_config)) is not None and not file.exists():
        exit_with_error(
            loaded_config.mask(f"there is no database {file} yet: `watchdog run` makes it"), ExitCode.UNKNOWN
        )


def exit_database_unavailable(loaded_config: LoadedConfig, error: StoreUnavailableError) -> NoReturn:
    """What keeps the database from being used, in the driver's words."""
    file = sqlite_file(loaded_config)
    which = "" if file is None else f" {file}"
    exit_with_error(loaded_config.mask(f"the database{which} cannot be used: {error}"), ExitCode.UNKNOWN)


def sqlite_file(loaded_config: LoadedConfig) -> Path | None:
    """SQLite's; PostgreSQL has none."""
    scheme, _, path = loaded_config.config.storage.url.partition(":///")
    return Path(path) if scheme == "sqlite" else None
