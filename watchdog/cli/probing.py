"""`watchdog probe`: one run of one probe, every phase shown, nothing stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, Output, OutputFormat, console, fail, loaded, print_json

if TYPE_CHECKING:
    from watchdog.config import Loaded
    from watchdog.probes.base import Probe


def probe(
    name: Annotated[str, typer.Argument(help="A probe's name or key.")],
    config: ConfigFile = DEFAULT,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Run one probe now and show what it saw. Exits 0 pass, 1 fail, 2 usage or configuration, 3 error."""
    given = loaded(config)
    chosen = _find(given, name)

    import asyncio
    import signal

    from watchdog.cli.logs import set_up

    set_up(given.mask)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server that we started is ended, too
    told = asyncio.run(_once(given, chosen))
    if output is Output.JSON:
        print_json(told)
    else:
        _show(told)
    raise typer.Exit({"pass": Exit.OK, "fail": Exit.DOWN}.get(told["outcome"], Exit.UNJUDGED))


def _find(given: Loaded, name: str) -> Probe:
    from watchdog.service.once import find_to_run

    try:
        return find_to_run(given.config.probes, name)
    except LookupError as e:
        return fail(e.args[0])


async def _once(given: Loaded, chosen: Probe) -> dict[str, Any]:
    from watchdog.service.clock import wall
    from watchdog.service.lag import LagSentinel
    from watchdog.service.once import run_once
    from watchdog.service.runner import Runner
    from watchdog.wire import Wire

    async with Wire() as wire, LagSentinel() as lag:
        return await run_once(Runner(wire, given.mask, wall, lag), chosen)


def _show(told: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from watchdog.words import span

    screen = console()
    colour = {"pass": "green", "fail": "red"}.get(told["outcome"], "bright_black")
    took = "" if told["duration"] is None else f" · {span(told['duration'])}"
    line = f"[bold {colour}]{told['outcome']}[/] {escape(told['probe'])} ({told['kind']})"
    screen.print(line + (f": {escape(told['message'])}" if told["message"] else "") + took)
    if told["reason"]:
        screen.print(f"reason {told['reason']}")
    for finding in told["findings"]:
        if finding["message"] != told["message"]:
            screen.print(f"{finding['rule']}: {escape(finding['message'])}")
    for title, rows in (
        ("phases", {name: span(ms) for name, ms in told["phases"].items()}),
        ("measurements", told["measurements"]),
        ("evidence", told["evidence"]["facts"]),
    ):
        if rows:
            table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 2))
            for name, value in rows.items():
                table.add_row(escape(str(name)), escape(str(value)))
            screen.print(table)
    if told["evidence"]["excerpt"]:
        screen.print("the target's own text, untrusted:", style="bright_black")
        screen.print(told["evidence"]["excerpt"], markup=False)
