"""`watchdog probe`: one run of one probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    OutputFormat,
    OutputFormatOption,
    exit_with_error,
    load_config_or_exit,
    print_json,
)
from watchdog.cli.tables import create_console, escape_markup

if TYPE_CHECKING:
    from watchdog.config.load import LoadedConfig
    from watchdog.probes.base import Probe

OUTCOME_COLOURS = {"pass": "green", "fail": "red"}


def probe_command(
    name: Annotated[str, typer.Argument(help="Name or id of a probe.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = OutputFormat.TABLE,
) -> None:
    """Run one probe now and show the result.

    Shows every phase, measurement and finding. Stores nothing and notifies no receiver. Exits 0 if the probe passes,
    1 if it fails, and 3 if the target cannot be judged.

    \b
    Example: watchdog probe Website -o json
    """
    loaded_config = load_config_or_exit(config)
    probe = _find_probe_or_exit(loaded_config, name)

    import asyncio
    import signal

    from watchdog.cli.logs import configure_logging_on_first_record

    configure_logging_on_first_record(loaded_config.mask)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C also ends a server that the probe has started
    result = asyncio.run(_run_probe(loaded_config, probe))
    if output is OutputFormat.JSON:
        print_json(result)
    else:
        _print_result(result)
    raise typer.Exit({"pass": ExitCode.OK, "fail": ExitCode.DOWN}.get(result["outcome"], ExitCode.UNKNOWN))


def _find_probe_or_exit(loaded_config: LoadedConfig, name: str) -> Probe:
    from watchdog.service.run_once import find_runnable_probe

    try:
        return find_runnable_probe(loaded_config.config.probes, name)
    except LookupError as e:
        return exit_with_error(e.args[0])


async def _run_probe(loaded_config: LoadedConfig, probe: Probe) -> dict[str, Any]:
    from watchdog.api.probe_run import probe_run_json
    from watchdog.net import Network
    from watchdog.service.clock import wall_clock_ms
    from watchdog.service.event_loop_lag import EventLoopLagMonitor
    from watchdog.service.run_once import run_once
    from watchdog.service.runner import ProbeRunner

    async with Network() as network, EventLoopLagMonitor() as lag:
        runner = ProbeRunner(network, loaded_config.mask, wall_clock_ms, lag)
        return probe_run_json(await run_once(runner, probe))


def _print_result(result: dict[str, Any]) -> None:
    from rich.table import Table

    from watchdog.domain.formatting import format_duration

    console = create_console()
    colour = OUTCOME_COLOURS.get(result["outcome"], "bright_black")
    duration = "" if result["duration"] is None else f" · {format_duration(result['duration'])}"
    message = f": {escape_markup(result['message'])}" if result["message"] else ""
    title = f"[bold {colour}]{result['outcome']}[/] {escape_markup(result['probe'])} ({result['kind']})"
    console.print(f"{title}{message}{duration}")
    if result["reason"]:
        console.print(f"reason: {result['reason']}")
    for finding in result["findings"]:
        if finding["message"] != result["message"]:
            console.print(f"{finding['rule']}: {escape_markup(finding['message'])}")
    for heading, rows in (
        ("phases", {name: format_duration(ms) for name, ms in result["phases"].items()}),
        ("measurements", result["measurements"]),
        ("evidence", result["evidence"]["facts"]),
    ):
        if rows:
            table = Table(title=heading, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 2))
            for name, value in rows.items():
                table.add_row(escape_markup(str(name)), escape_markup(_format_value(value)))
            console.print(table)
    if result["evidence"]["excerpt"]:
        console.print("response excerpt (untrusted):", style="bright_black")
        console.print(result["evidence"]["excerpt"], markup=False)


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_format_value(below)}" for name, below in value.items())
    return ", ".join(map(_format_value, value)) if isinstance(value, list | tuple) else str(value)
