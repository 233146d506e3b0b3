"""What several commands share: exit codes, loading the configuration, opening the database for reading."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from watchdog.cli.environment import CONFIG_FILE_ENV_VAR, DEFAULT_CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from watchdog.config.load import LoadedConfig
    from watchdog.config.problems import ConfigProblem, ConfiguredDatabase, ServiceConnectionInfo
    from watchdog.domain.model import ProbeInfo
    from watchdog.store.database import Database
    from watchdog.store.errors import StoreUnavailableError


class ExitCode(IntEnum):
    OK = 0
    DOWN = 1
    USAGE_ERROR = 2
    UNKNOWN = 3


ConfigFileOption = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", envvar=CONFIG_FILE_ENV_VAR, help="Configuration file.")
]
DEFAULT_CONFIG_PATH = Path(DEFAULT_CONFIG_FILE)
DATABASE_UNKNOWN_ADVICE = (
    "the file does not show which database to use. A `watchdog run` in progress keeps its former configuration, and "
    "its pages still work. Fix the file, or choose another one with -c"
)


GC_THRESHOLD_OBJECTS = 10_000
"""How many objects are created before the youngest ones are visited: as much garbage may accumulate."""


def freeze_heap_and_enable_gc() -> None:
    """For a service: what is loaded by now lives as long as the process, and is not visited again."""
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS)
    gc.enable()


def exit_with_error(message: str, code: ExitCode = ExitCode.USAGE_ERROR) -> NoReturn:
    """Prints one line on standard error and exits."""
    print(f"watchdog: {message}", file=sys.stderr)
    raise typer.Exit(code)


def exit_without_waiting_for_threads() -> NoReturn:
    """Exits 0, after everything is stored and closed. A thread may still wait for a name server or a database, without
    end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.OK)


def load_config_or_exit(path: Path) -> LoadedConfig:
    """The configuration. Prints every problem of an invalid one on a line of its own and exits."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    exit_if_default_config_file_missing(path)
    try:
        return load_config(path)
    except ConfigError as e:
        print(e, file=sys.stderr)
        _print_similar_file_if_missing(path)
        raise typer.Exit(ExitCode.USAGE_ERROR) from None


def _print_similar_file_if_missing(path: Path) -> None:
    """Prints a configuration file with a similar name in the same directory, which was probably meant."""
    from watchdog.domain.selection import format_similar_name_hint

    if path.exists() or not path.parent.is_dir():
        return
    names = (each.name for each in path.parent.iterdir() if each.suffix in (".yaml", ".yml"))
    if hint := format_similar_name_hint(path.name, sorted(names)):
        print(f"watchdog: {path.name} does not exist{hint}", file=sys.stderr)


def load_database_config_or_exit(path: Path) -> ConfiguredDatabase:
    """Which database the configuration names. Prints and exits as `load_database_and_service_info_or_exit` does."""
    return load_database_and_service_info_or_exit(path)[0]


def load_database_and_service_info_or_exit(path: Path) -> tuple[ConfiguredDatabase, ServiceConnectionInfo | None]:
    """Which database the configuration names, and where its service is reached. If it is invalid elsewhere, for example
    because only the service has a variable, and there is such a database, prints one line and goes on: people need the
    commands that use only the database in this situation. Otherwise exits as `load_config_or_exit` does.

    The service is None if its part of the configuration is invalid."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    exit_if_default_config_file_missing(path)
    try:
        loaded = load_config(path)
        return loaded.database, loaded.service
    except ConfigError as e:
        if e.database is None or find_missing_database_file(e.database) is not None:
            print(e, file=sys.stderr)
            _print_similar_file_if_missing(path)
            if e.database is None and path.exists():
                print(f"watchdog: {DATABASE_UNKNOWN_ADVICE}", file=sys.stderr)
            raise typer.Exit(ExitCode.USAGE_ERROR) from None
        print(f"watchdog: {_explain_why_only_database_is_used(e.problems)}", file=sys.stderr)
        return e.database, e.service


def _explain_why_only_database_is_used(problems: Sequence[ConfigProblem]) -> str:
    """For a command that uses only the database."""
    import re

    unset = [re.match(r"variable (\w+) is not set", problem.message) for problem in problems]
    names = dict.fromkeys(match[1] for match in unset if match)
    if names and all(unset):
        subject, verb = ("variable", "is") if len(names) == 1 else ("variables", "are")
        what = f"{subject} {', '.join(names)} {verb} not set in this shell"
        return f"{what}; only the database is used, which is enough for this command"
    place, advice = problems[0].source_location, "`watchdog validate` lists every problem"
    return f"the configuration cannot be loaded here: {place} ({advice}); only its database is used"


def exit_if_default_config_file_missing(path: Path) -> None:
    if path == DEFAULT_CONFIG_PATH and not path.exists():
        exit_with_error(
            f"no {path} in this directory: create one with `watchdog init`, pass -c FILE, or set {CONFIG_FILE_ENV_VAR}"
        )


@contextmanager
def open_database_or_exit(configured: ConfiguredDatabase) -> Iterator[Database]:
    """The configured database. Exits with one line if it is missing, outdated or unreachable."""
    from watchdog.store.database import Database
    from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

    exit_if_database_file_missing(configured)
    database = Database(configured.url)
    try:
        yield database
    except WatchdogDatabaseSchemaError as e:
        exit_with_error(str(e), ExitCode.UNKNOWN)
    except StoreUnavailableError as e:
        exit_with_database_error(configured, e)
    finally:
        database.close()


@contextmanager
def open_read_connection_or_exit(config_path: Path) -> Iterator[tuple[Connection, int]]:
    """A connection to the configured database, and the time by its clock in epoch ms. Exits as `open_database_or_exit`
    does."""
    with open_database_or_exit(load_database_config_or_exit(config_path)) as database:
        now = read_database_clock(database)
        with database.open_read_transaction() as connection:
            yield connection, now


def read_database_clock(database: Database) -> int:
    """Epoch ms, by the clock of the database, as everything that is stored. Raises StoreUnavailableError."""
    from watchdog.service.clock import WatchdogClock, read_wall_clock_ms

    clock = WatchdogClock(read_wall_clock_ms)
    clock.measure_database_clock_offset(database.read_database_server_clock_ms)
    return clock()


def find_probes_by_name_or_exit(connection: Connection, name_or_id: str) -> list[ProbeInfo]:
    """The probes with this name or id. Exits with one line if there is none."""
    from watchdog.store.read.status import list_probe_infos

    matching = [probe for probe in list_probe_infos(connection) if name_or_id in (probe.id, probe.name)]
    if not matching:
        exit_with_error(f"there is no probe with the name or id {name_or_id}: `watchdog status` lists them")
    return matching


def exit_if_database_file_missing(configured: ConfiguredDatabase) -> None:
    """Exits if there is no SQLite file: connecting would create an empty one."""
    if (file := find_missing_database_file(configured)) is not None:
        message = (
            f"the database {file.absolute()} does not exist: start `watchdog run`; if it is already running, change to"
            " its working directory"
        )
        exit_with_error(configured.mask(message), ExitCode.UNKNOWN)


def exit_with_database_error(configured: ConfiguredDatabase, error: StoreUnavailableError) -> NoReturn:
    """Exits with the driver's message."""
    from watchdog.store.errors import WatchdogDatabaseDamagedError

    file = _get_sqlite_file_path(configured)
    which = "" if file is None else f" {file}"
    message = f"cannot use the database{which}: {error}"
    if isinstance(error, WatchdogDatabaseDamagedError):
        message += "; restore a backup, or move the file away to start with an empty database"
    exit_with_error(configured.mask(message), ExitCode.UNKNOWN)


def find_missing_database_file(configured: ConfiguredDatabase) -> Path | None:
    """None: it exists, or the database is PostgreSQL."""
    file = _get_sqlite_file_path(configured)
    return None if file is None or file.exists() else file


def _get_sqlite_file_path(configured: ConfiguredDatabase) -> Path | None:
    """None for PostgreSQL."""
    scheme, _, path = configured.url.partition(":///")
    return Path(path) if scheme == "sqlite" else None
