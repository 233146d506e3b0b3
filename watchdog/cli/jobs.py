"""`watchdog jobs`: scheduled jobs, heartbeats and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, open_read_connection
from watchdog.cli.output import STATE_COLOURS, OutputFormat, OutputFormatOption, escape_markup, print_list

if TYPE_CHECKING:
    from watchdog.store.read.jobs import JobSummary


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

    with open_read_connection(config) as connection:
        jobs = list_jobs(connection)
    now = wall_clock_ms()
    print_list(
        output,
        jobs,
        to_json=job_json,
        headings=("status", "job", "probe", "schedule", "last run", "next run due", "problem"),
        to_row=lambda job: _format_row(job, now),
        empty_text="no jobs",
    )
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
