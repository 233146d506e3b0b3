"""`watchdog status`, `watchdog incidents` and `watchdog jobs`: what the database knows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    OutputFormat,
    OutputFormatOption,
    create_console,
    load_config_or_exit,
    open_read_connection,
    print_json,
)

if TYPE_CHECKING:
    from watchdog.domain.model import Incident
    from watchdog.store.read.jobs import JobSummary
    from watchdog.store.read.status import ProbeStatus

STATE_COLOURS = {"up": "green", "degraded": "yellow", "unknown": "bright_black", "down": "red"}


def status_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = OutputFormat.TABLE
) -> None:
    """Where every probe stands. Exits 1 when one is down, 3 when none is but one could not be judged."""
    from watchdog.api.serializers import probe_json
    from watchdog.service.clock import wall_clock_ms
    from watchdog.store.read.status import list_probe_statuses, load_service_status

    now = wall_clock_ms()
    with open_read_connection(load_config_or_exit(config)) as connection:
        found, mark = list_probe_statuses(connection), load_service_status(connection).watermark
    if output is OutputFormat.JSON:
        print_json([probe_json(standing) for standing in found])
    else:
        _print_table(
            ("state", "probe", "last result", "open incidents"),
            [_format_probe_row(standing, now) for standing in found],
            "no probes are known",
        )
    states = {standing.state.value for standing in found}
    if stopped := _describe_standstill(mark, now):
        print(f"watchdog: {stopped}", file=sys.stderr)
        states.add("unknown")
    raise typer.Exit(ExitCode.DOWN if "down" in states else ExitCode.UNKNOWN if "unknown" in states else ExitCode.OK)


def incidents_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = OutputFormat.TABLE,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 100,
) -> None:
    """Incidents, newest first."""
    from watchdog.api.serializers import incident_json
    from watchdog.service.clock import wall_clock_ms
    from watchdog.store.read.status import list_incidents

    with open_read_connection(load_config_or_exit(config)) as connection:
        found = list_incidents(connection, is_open=True if only_open else None, limit=limit)
    if output is OutputFormat.JSON:
        print_json([incident_json(case) for case in found])
        return
    rows = [_format_incident_row(case.incident, case.probe.name, wall_clock_ms()) for case in found]
    _print_table(("state", "probe", "what", "opened", "id"), rows, "no incidents")


def jobs_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = OutputFormat.TABLE
) -> None:
    """Every job, heartbeat and task, and how it does.

    With when it should run next. Exits 1 when one is not right.
    """
    from watchdog.api.serializers import job_json
    from watchdog.service.clock import wall_clock_ms
    from watchdog.store.read.jobs import list_jobs as found_jobs

    now = wall_clock_ms()
    with open_read_connection(load_config_or_exit(config)) as connection:
        found = found_jobs(connection)
    if output is OutputFormat.JSON:
        print_json([job_json(job) for job in found])
    else:
        headings = ("verdict", "job", "probe", "schedule", "last run", "next expected", "what")
        _print_table(headings, [_format_job_row(job, now) for job in found], "no jobs are known")
    raise typer.Exit(ExitCode.DOWN if any(job.reason for job in found) else ExitCode.OK)


def _describe_standstill(watermark: int | None, now: int) -> str:
    """That no state is current, in words; empty while Watchdog runs."""
    from watchdog.domain.formatting import format_duration_rounded
    from watchdog.store.read.status import MAX_WATERMARK_LAG_MS

    if watermark is None:
        return "nothing was ever probed: start `watchdog run`"
    stood = now - watermark
    return (
        f"nothing was probed for {format_duration_rounded(stood)}: is `watchdog run` running?"
        if stood > MAX_WATERMARK_LAG_MS
        else ""
    )


def _format_probe_row(status: ProbeStatus, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago

    last = status.latest_result
    state = f"[{STATE_COLOURS[status.state.value]}]{status.state.value}[/]"
    seen = "none yet" if last is None else f"{last.outcome.value} {format_time_ago(last.slot, now)}"
    told = "; ".join(incident.message or incident.reason for incident in status.open_incidents)
    return state, _escape_markup(status.probe.name), seen, _escape_markup(told)


def _format_incident_row(incident: Incident, probe: str, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago

    state = "[red]open[/]" if incident.state == "open" else "resolved"
    return (
        state,
        _escape_markup(probe),
        _escape_markup(incident.message or incident.reason),
        format_time_ago(incident.opened_at, now),
        incident.id,
    )


def _format_job_row(job: JobSummary, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago, format_timestamp

    seen = "never" if job.last_start is None else format_time_ago(job.last_start, now)
    expected = "" if job.next_expected_at is None else format_timestamp(job.next_expected_at, now)
    names = _escape_markup(job.name), _escape_markup(job.probe.name), _escape_markup(job.schedule_text)
    since = f"since {format_timestamp(job.read_at, now)}" if job.read_at is not None else f"for {job.outdated_for_text}"
    what = "; ".join(filter(None, (job.message, f"not read {since}" if job.outdated else "")))
    return f"[{STATE_COLOURS[job.state.value]}]{job.status_label}[/]", *names, seen, expected, _escape_markup(what)


def _escape_markup(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_table(headings: tuple[str, ...], rows: list[tuple[str, ...]], empty_message: str) -> None:
    from rich.table import Table

    if not rows:
        print(empty_message)
        return
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*row)
    create_console().print(table)
