"""`watchdog probe`: one run of one probe, every phase shown, nothing stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    OutputFormat,
    OutputFormatOption,
    create_console,
    exit_with_error,
    load_config_or_exit,
    print_json,
)

if TYPE_CHECKING:
    from watchdog.config.load import LoadedConfig
    from watchdog.probes.base import Probe


def probe_command(
    name: Annotated[str, typer.Argument(help="A probe's name or id.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = OutputFormat.TABLE,
) -> None:
    """Run one probe now and show what it saw. Exits 0 pass, 1 fail, 2 usage or configuration, 3 error."""
    given = load_config_or_exit(config)
    chosen = _find_probe_or_exit(given, name)

    import asyncio
    import signal

    from watchdog.cli.logs import configure_logging

    configure_logging(given.mask)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server that we started is ended, too
    told = asyncio.run(_run_probe(given, chosen))
    if output is OutputFormat.JSON:
        print_json(told)
    else:
        _print_result(told)
    raise typer.Exit({"pass": ExitCode.OK, "fail": ExitCode.DOWN}.get(told["outcome"], ExitCode.UNKNOWN))


def _find_probe_or_exit(loaded_config: LoadedConfig, name: str) -> Probe:
    from watchdog.service.run_once import find_runnable_probe

    try:
        return find_runnable_probe(loaded_config.config.probes, name)
    except LookupError as e:
        return exit_with_error(e.args[0])


async def _run_probe(loaded_config: LoadedConfig, probe: Probe) -> dict[str, Any]:
    from watchdog.net import Network
    from watchdog.service.clock import wall_clock_ms
    from watchdog.service.event_loop_lag import EventLoopLagMonitor
    from watchdog.service.run_once import run_once
    from watchdog.service.runner import ProbeRunner

    async with Network() as wire, EventLoopLagMonitor() as lag:
        return await run_once(ProbeRunner(wire, loaded_config.mask, wall_clock_ms, lag), probe)


def _print_result(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from watchdog.domain.formatting import format_duration

    screen = create_console()
    colour = {"pass": "green", "fail": "red"}.get(result["outcome"], "bright_black")
    took = "" if result["duration"] is None else f" · {format_duration(result['duration'])}"
    line = f"[bold {colour}]{result['outcome']}[/] {escape(result['probe'])} ({result['kind']})"
    screen.print(line + (f": {escape(result['message'])}" if result["message"] else "") + took)
    if result["reason"]:
        screen.print(f"reason {result['reason']}")
    for finding in result["findings"]:
        if finding["message"] != result["message"]:
            screen.print(f"{finding['rule']}: {escape(finding['message'])}")
    for title, rows in (
        ("phases", {name: format_duration(ms) for name, ms in result["phases"].items()}),
        ("measurements", result["measurements"]),
        ("evidence", result["evidence"]["facts"]),
    ):
        if rows:
            table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 2))
            for name, value in rows.items():
                table.add_row(escape(str(name)), escape(str(value)))
            screen.print(table)
    if result["evidence"]["excerpt"]:
        screen.print("the target's own text, untrusted:", style="bright_black")
        screen.print(result["evidence"]["excerpt"], markup=False)
