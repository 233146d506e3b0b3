"""`watchdog validate`: check the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_if_default_config_file_missing
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog.config.load import LoadedConfig
    from watchdog.config.problems import ConfigProblem


def validate_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = CliOutputFormat.TABLE
) -> None:
    """Check the configuration.

    Prints one line per problem: file, line, column, field and remedy. Exits 2 if there are problems, otherwise 0, even
    if there are warnings. Warnings are about settings that are valid but probably not intended, such as a probe whose
    incidents are sent to no receiver.

    \b
    Example: watchdog validate -c /etc/watchdog/watchdog.yaml
    """
    exit_if_default_config_file_missing(config)
    loaded, problems = _load_config_or_list_problems(config)
    if output is CliOutputFormat.JSON:
        warnings = () if loaded is None else loaded.warnings
        print_json({"is_valid": loaded is not None, "problems": _to_json(problems), "warnings": _to_json(warnings)})
    elif loaded is None:
        print(*problems, sep="\n", file=sys.stderr)
    else:
        _print_config_counts_and_warnings(loaded)
    if loaded is None:
        raise typer.Exit(ExitCode.USAGE_ERROR)


def _load_config_or_list_problems(path: Path) -> tuple[LoadedConfig | None, Sequence[ConfigProblem]]:
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    try:
        return load_config(path), ()
    except ConfigError as e:
        return None, e.problems


def _to_json(problems: Sequence[ConfigProblem]) -> list[dict[str, Any]]:
    """Lines and columns count from 1; null: the problem concerns the whole file."""
    return [
        {
            "file": problem.file,
            "line": problem.line or None,
            "column": problem.column or None,
            "field": problem.path,
            "message": problem.message,
        }
        for problem in problems
    ]


def _print_config_counts_and_warnings(loaded: LoadedConfig) -> None:
    from watchdog.domain.formatting import format_count_with_noun

    probes, receivers = loaded.config.probes, loaded.config.receivers
    counts = [format_count_with_noun(len(probes), "probe"), format_count_with_noun(len(receivers), "receiver")]
    if loaded.warnings:
        counts.append(format_count_with_noun(len(loaded.warnings), "warning"))
    print(f"ok: {', '.join(counts)}")
    for warning in loaded.warnings:
        print(f"warning: {warning}")
