"""`watchdog diff`: what a reload would change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_error,
    load_config_or_exit,
    open_database_or_exit,
    read_database_clock,
)
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog.config.load import LoadedConfig
    from watchdog.domain.config_changes import ComparableConfigSnapshot, OpenIncidentWithNotifiedDestinations

DIFF_AGAINST_RUNNING_CONFIG = "running"


def diff_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    against: Annotated[
        str, typer.Option(metavar="running|FILE", help="What to compare with: the running configuration, or a file.")
    ] = DIFF_AGAINST_RUNNING_CONFIG,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Show what a reload would change.

    Compares the configuration file with the running configuration, as the database holds it, or with another file:
    probes that are added, removed, changed or probably renamed, receivers, routes, who would be notified of open
    incidents, and new or changed probes without a route. Values of secrets are masked, and a new value of a secret is
    not a change.

    Exits 0 if nothing would change, 1 if something would, 2 if a configuration is invalid, 3 if the running one cannot
    be read.

    \b
    Example: watchdog diff -c /etc/watchdog/watchdog.yaml --against running
    """
    from watchdog.api.config_changes import format_config_changes, serialize_config_changes
    from watchdog.config.definitions import parse_yaml_values_by_field_path
    from watchdog.domain.config_changes import compare_configs
    from watchdog.service.process_configuration import build_loaded_config_snapshot

    loaded = load_config_or_exit(config)
    mask = loaded.mask
    if against == DIFF_AGAINST_RUNNING_CONFIG:
        old, incidents = _load_running_config_and_incidents_or_exit(loaded)
    else:
        other = load_config_or_exit(Path(against))
        old, incidents, mask = build_loaded_config_snapshot(other), (), loaded.mask.including(other.mask)
    changes = compare_configs(old, build_loaded_config_snapshot(loaded), parse_yaml_values_by_field_path, incidents)
    if output is CliOutputFormat.JSON:
        print_json(serialize_config_changes(changes, mask))
    else:
        print("\n".join(format_config_changes(changes, mask)) or "no changes")
    raise typer.Exit(ExitCode.OK if changes.is_empty() else ExitCode.DOWN)


def _load_running_config_and_incidents_or_exit(
    loaded: LoadedConfig,
) -> tuple[ComparableConfigSnapshot, Sequence[OpenIncidentWithNotifiedDestinations]]:
    from watchdog.store.read.running_config import (
        load_open_incidents_with_destinations,
        load_snapshot_of_running_config,
    )

    with open_database_or_exit(loaded.database) as database:
        now = read_database_clock(database)
        with database.open_read_transaction() as connection:
            running = load_snapshot_of_running_config(connection, now)
            incidents = load_open_incidents_with_destinations(connection)
    if running is None:
        exit_with_error("no process has run with this database in the last day: start `watchdog run`", ExitCode.UNKNOWN)
    return running, incidents
