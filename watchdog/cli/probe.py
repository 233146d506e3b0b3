"""`watchdog probe`: one run of one probe."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_error,
    load_config_or_exit,
)
from watchdog.cli.completion import complete_runnable_probe_name
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchdog.config.load import LoadedConfig
    from watchdog.probes.base import Probe

SGR_CODE_BY_OUTCOME = {"pass": "1;32", "fail": "1;31"}
GREY_SGR_CODE = "90"


def probe_command(
    name: Annotated[str, typer.Argument(help="Name or id of a probe.", autocompletion=complete_runnable_probe_name)],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Run one probe now and show the result.

    Shows every step, phase, measurement and finding. Stores nothing and sends no notifications. Exits 0 if the probe
    passes, 1 if it fails, and 3 if there is no verdict.

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
    result = asyncio.run(_run_and_serialize_probe(loaded_config, probe))
    print_run_result_and_exit(result, output)


def print_run_result_and_exit(result: dict[str, Any], output: CliOutputFormat) -> NoReturn:
    """`result`: as `watchdog.api.probe_run` serializes it. Exits 0 if it passed, 1 if it failed, and 3 otherwise."""
    if output is CliOutputFormat.JSON:
        print_json(result)
    else:
        _print_on_demand_run(result)
    raise typer.Exit({"pass": ExitCode.OK, "fail": ExitCode.DOWN}.get(result["outcome"], ExitCode.UNKNOWN))


def _find_probe_or_exit(loaded_config: LoadedConfig, name: str) -> Probe:
    from watchdog.service.run_once import find_runnable_probe

    try:
        return find_runnable_probe(loaded_config.config.probes, name)
    except LookupError as e:
        return exit_with_error(e.args[0])


async def _run_and_serialize_probe(loaded_config: LoadedConfig, probe: Probe) -> dict[str, Any]:
    from watchdog.api.probe_run import serialize_on_demand_run
    from watchdog.net import NetworkAccess
    from watchdog.service.clock import read_wall_clock_ms
    from watchdog.service.event_loop_lag import EventLoopLagMonitor
    from watchdog.service.run_once import run_probe_on_demand_without_recording
    from watchdog.service.runner import RetryingProbeRunner

    routing = loaded_config.config.network.request_routing
    async with NetworkAccess(routing) as network, EventLoopLagMonitor() as lag:
        runner = RetryingProbeRunner(network, loaded_config.mask, read_wall_clock_ms, lag)
        return serialize_on_demand_run(await run_probe_on_demand_without_recording(runner, probe))


def _print_on_demand_run(result: dict[str, Any]) -> None:
    from watchdog.domain.formatting import format_duration
    from watchdog.domain.measurements import drop_step_measurements, read_step_records

    outcome = _colour_if_terminal(result["outcome"], SGR_CODE_BY_OUTCOME.get(result["outcome"], GREY_SGR_CODE))
    message = f": {result['message']}" if result["message"] else ""
    duration = "" if result["duration_ms"] is None else f" · {format_duration(result['duration_ms'])}"
    print(f"{outcome} {result['probe']} ({result['kind']}){message}{duration}")
    if result["reason"]:
        print(f"reason: {result['reason']}")
    for finding in result["findings"]:
        if finding["message"] != result["message"]:
            print(f"{finding['rule']}: {finding['message']}")
    steps = read_step_records(result["measurements"])
    facts = result["evidence"]["facts"]
    sections = {
        "steps": {f"{number}. {step.name}": step.describe() for number, step in enumerate(steps, start=1)},
        "phases": {name: format_duration(ms) for name, ms in result["phases_ms"].items()},
        "measurements": drop_step_measurements(result["measurements"]),
        "evidence": {name: value for name, value in facts.items() if name != "steps"} if steps else facts,
    }
    for heading, fields in sections.items():
        if fields:
            print(heading)
            _print_nested_result_fields(fields)
    if result["evidence"]["excerpt"]:
        print(_colour_if_terminal("response excerpt (untrusted):", GREY_SGR_CODE))
        print(result["evidence"]["excerpt"])


def _print_nested_result_fields(fields: Mapping[str, Any], indent: str = "  ") -> None:
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if isinstance(value, dict) and any(isinstance(below, dict) for below in value.values()):
            print(f"{indent}{name}")
            _print_nested_result_fields(value, f"{indent}  ")
        else:
            print(f"{indent}{name:{width}}  {_format_result_field_value(value)}")


def _format_result_field_value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_format_result_field_value(below)}" for name, below in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_format_result_field_value, value))
    return value if isinstance(value, str) else json.dumps(value)


def _colour_if_terminal(text: str, sgr_code: str) -> str:
    """Only on a terminal. Without Rich, whose import would take as long as the rest of the output."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{sgr_code}m{text}\x1b[0m" if coloured else text
