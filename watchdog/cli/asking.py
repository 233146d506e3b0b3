"""`watchdog status`, `watchdog incidents` and `watchdog jobs`: what the database knows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, Output, OutputFormat, console, loaded, print_json, reading

if TYPE_CHECKING:
    from watchdog.model import Incident
    from watchdog.store.jobs import Job
    from watchdog.store.views import Standing

COLOUR = {"up": "green", "degraded": "yellow", "unknown": "bright_black", "down": "red"}


def status(config: ConfigFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Where every probe stands. Exits 1 when one is down, 3 when none is but one could not be judged."""
    from watchdog.service.clock import wall
    from watchdog.store.shapes import probe_json
    from watchdog.store.views import pulse, standings

    now = wall()
    with reading(loaded(config)) as connection:
        found, mark = standings(connection), pulse(connection).watermark
    if output is Output.JSON:
        print_json([probe_json(standing) for standing in found])
    else:
        _table(
            ("state", "probe", "last result", "open incidents"),
            [_standing_row(standing, now) for standing in found],
            "no probes are known",
        )
    states = {standing.state.value for standing in found}
    if stopped := _stopped(mark, now):
        print(f"watchdog: {stopped}", file=sys.stderr)
        states.add("unknown")
    raise typer.Exit(Exit.DOWN if "down" in states else Exit.UNJUDGED if "unknown" in states else Exit.OK)


def incidents(
    config: ConfigFile = DEFAULT,
    output: OutputFormat = Output.TABLE,
    still: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 100,
) -> None:
    """Incidents, newest first."""
    from watchdog.service.clock import wall
    from watchdog.store.shapes import incident_json
    from watchdog.store.views import cases

    with reading(loaded(config)) as connection:
        found = cases(connection, is_open=True if still else None, limit=limit)
    if output is Output.JSON:
        print_json([incident_json(case) for case in found])
        return
    rows = [_incident_row(case.incident, case.probe.name, wall()) for case in found]
    _table(("state", "probe", "what", "opened", "id"), rows, "no incidents")


def jobs(config: ConfigFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Every job, heartbeat and task, and how it does.

    With when it should run next. Exits 1 when one is not right.
    """
    from watchdog.service.clock import wall
    from watchdog.store.jobs import jobs as found_jobs
    from watchdog.store.shapes import job_json

    now = wall()
    with reading(loaded(config)) as connection:
        found = found_jobs(connection)
    if output is Output.JSON:
        print_json([job_json(job) for job in found])
    else:
        headings = ("verdict", "job", "probe", "schedule", "last run", "next expected", "what")
        _table(headings, [_job_row(job, now) for job in found], "no jobs are known")
    raise typer.Exit(Exit.DOWN if any(job.reason for job in found) else Exit.OK)


def _stopped(watermark: int | None, now: int) -> str:
    """That no state is current, in words; empty while Watchdog runs."""
    from watchdog.store.views import STANDSTILL
    from watchdog.words import about

    if watermark is None:
        return "nothing was ever probed: start `watchdog run`"
    stood = now - watermark
    return f"nothing was probed for {about(stood)}: is `watchdog run` running?" if stood > STANDSTILL else ""


def _standing_row(standing: Standing, now: int) -> tuple[str, ...]:
    from watchdog.words import ago

    last = standing.last
    state = f"[{COLOUR[standing.state.value]}]{standing.state.value}[/]"
    seen = "none yet" if last is None else f"{last.outcome.value} {ago(last.slot, now)}"
    told = "; ".join(incident.message or incident.reason for incident in standing.incidents)
    return state, _plain(standing.probe.name), seen, _plain(told)


def _incident_row(incident: Incident, probe: str, now: int) -> tuple[str, ...]:
    from watchdog.words import ago

    state = "[red]open[/]" if incident.state == "open" else "resolved"
    return state, _plain(probe), _plain(incident.message or incident.reason), ago(incident.opened_at, now), incident.id


def _job_row(job: Job, now: int) -> tuple[str, ...]:
    from watchdog.words import ago, moment

    seen = "never" if job.last_start is None else ago(job.last_start, now)
    expected = "" if job.expected is None else moment(job.expected, now)
    names = _plain(job.name), _plain(job.probe.name), _plain(job.plan)
    since = f"since {moment(job.at, now)}" if job.at is not None else f"for {job.unread_for}"
    what = "; ".join(filter(None, (job.message, f"not read {since}" if job.unread else "")))
    return f"[{COLOUR[job.state.value]}]{job.word}[/]", *names, seen, expected, _plain(what)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]], empty: str) -> None:
    from rich.table import Table

    if not rows:
        print(empty)
        return
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
