"""`watchdog probe`: one run of one probe, every phase shown, nothing stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, Output, OutputFormat, console, fail, loaded, print_json

if TYPE_CHECKING:
    from watchdog.config import Loaded
    from watchdog.model import Report
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
    report = asyncio.run(_once(given, chosen))
    told = _told(given, chosen, report)
    if output is Output.JSON:
        print_json(told)
    else:
        _show(told)
    raise typer.Exit({"pass": Exit.OK, "fail": Exit.DOWN}.get(told["outcome"], Exit.UNJUDGED))


def _find(given: Loaded, name: str) -> Probe:
    for probe in given.config.probes:
        if name in (probe.name, probe.key):
            return probe
    from difflib import get_close_matches

    names = [probe.name for probe in given.config.probes]
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}" if names else "there are none"
    return fail(f"no probe is called {name!r}; {hint}")


async def _once(given: Loaded, chosen: Probe) -> Report:
    from watchdog.model import Slot
    from watchdog.service.clock import wall
    from watchdog.service.lag import LagSentinel
    from watchdog.service.runner import Runner
    from watchdog.wire import Wire

    chosen.prepare()
    async with Wire() as wire, LagSentinel() as lag:
        return await Runner(wire, given.mask, wall, lag).run(chosen, Slot(0, wall(), "local", None), {})


def _told(given: Loaded, chosen: Probe, report: Report) -> dict[str, Any]:
    """The result as one object. A finding about a task makes it fail, as it would open an incident."""
    from watchdog.rules import judge
    from watchdog.service.members import member_of

    result = report.result
    findings = [f for f in judge(member_of(chosen, "", given.mask).policy, result) if f.bad]
    tasks = [f for f in findings if f.rule in ("task", "missing", "job")]
    explained = tasks and not any(f.rule == "availability" for f in findings)
    outcome, reason, message = result.outcome, result.reason, result.message
    if explained:
        outcome, reason, message = "fail", tasks[0].reason, "; ".join(f.message for f in tasks)  # type: ignore[assignment]
    return {
        "probe": chosen.key,
        "kind": chosen.kind,
        "outcome": str(outcome),
        "reason": reason,
        "message": message,
        "duration": result.duration,
        "phases": {name: round(ms, 1) for name, ms in result.phases.items()},
        "measurements": dict(result.measurements),
        "tasks": {name: task._asdict() for name, task in result.tasks.items()} if result.tasks is not None else None,
        "findings": [
            {"rule": f.rule, "subject": f.subject, "reason": f.reason, "message": f.message} for f in findings
        ],
        "evidence": {"facts": dict(report.evidence.facts), "excerpt": report.evidence.excerpt},
    }


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
