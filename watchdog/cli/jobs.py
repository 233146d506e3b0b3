"""`watchdog jobs`: scheduled jobs, heartbeats and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    OutputFormat,
    OutputFormatOption,
    load_config_or_exit,
    open_read_connection,
    print_json,
)
from watchdog.cli.tables import STATE_COLOURS, escape_markup, print_table

if TYPE_CHECKING:
    from watchdog.store.read.jobs import JobSummary

HEADINGS = ("status", "job", "probe", "schedule", "last run", "next run due", "problem")


def jobs_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = OutputFormat.TABLE
) -> None:
    """List scheduled jobs, heartbeats and tasks.

    Shows the schedule, the last run, when the next run is due, and what is wrong. Exits 1 if a job has a problem.

    \b
    Example: watchdog jobs
    """
    from watchdog.api.serializers import job_json
    from watchdog.service.clock import wall_clock_ms
    from watchdog.store.read.jobs import list_jobs

    with open_read_connection(load_config_or_exit(config)) as connection:
        jobs = list_jobs(connection)
    if output is OutputFormat.JSON:
        print_json([job_json(job) for job in jobs])
    elif jobs:
        now = wall_clock_ms()
        print_table(HEADINGS, [_format_row(job, now) for job in jobs])
    else:
        print("no jobs")
    raise typer.Exit(ExitCode.DOWN if any(job.reason for job in jobs) else ExitCode.OK)


def _format_row(job: JobSummary, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago, format_timestamp

    read = f"since {format_timestamp(job.read_at, now)}"
    problem = "; ".join(filter(None, (job.message, f"not read {read}" if job.outdated else "")))
    return (
        f"[{STATE_COLOURS[job.state.value]}]{job.status_label}[/]",
        escape_markup(job.name),
        escape_markup(job.probe.name),
        escape_markup(job.schedule_text),
        "never" if job.last_start is None else format_time_ago(job.last_start, now),
        "" if job.next_expected_at is None else format_timestamp(job.next_expected_at, now),
        escape_markup(problem),
    )
