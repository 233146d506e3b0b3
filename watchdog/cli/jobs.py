"""`watchdog jobs`: scheduled jobs, heartbeats and tasks; `watchdog jobs forget`: jobs that are no longer missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_error,
    load_database_or_exit,
    open_database_or_exit,
    open_read_connection_or_exit,
    read_database_clock,
)
from watchdog.cli.completion import complete_probe_name
from watchdog.cli.output import (
    CLI_HEALTH_STATE_COLOURS,
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json_or_table,
)

if TYPE_CHECKING:
    from watchdog.store.read.jobs import JobSummary


jobs_app = typer.Typer(cls=CommandGroupWithoutPydantic, invoke_without_command=True)


@jobs_app.callback()
def jobs_command(
    context: typer.Context,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """List scheduled jobs, heartbeats and tasks.

    Shows the schedule, the last run, when the next run is due, and any problem. Exits 1 if a job has a problem.

    \b
    Example: watchdog jobs
    """
    if context.invoked_subcommand is None:
        _print_jobs_and_exit(config, output)


@jobs_app.command("forget", cls=CommandWithoutPydantic)
def jobs_forget_command(
    probe: Annotated[
        str, typer.Argument(help="Name or id of the probe.", show_default=False, autocompletion=complete_probe_name)
    ],
    job: Annotated[str | None, typer.Argument(help="Name of the job; default: every missing job.")] = None,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
) -> None:
    """End the incidents of jobs that were removed on purpose.

    The command takes effect at the probe's next run. A job that is listed again later is monitored again.

    \b
    Example: watchdog jobs forget "Report schedules" nightly-report
    """
    from watchdog.service.run_once import find_probe_by_name_or_id
    from watchdog.store.read.status import list_probe_infos
    from watchdog.store.write.forgotten_jobs import mark_missing_jobs_as_forgotten

    with open_database_or_exit(load_database_or_exit(config)) as database:
        with database.open_read_transaction() as connection:
            probes = list_probe_infos(connection)
        try:
            probe_id = find_probe_by_name_or_id(probes, probe).id
            names = mark_missing_jobs_as_forgotten(database, probe_id, job, read_database_clock(database))
        except LookupError as e:
            exit_with_error(e.args[0])
    print(f"No longer expected, starting with the next run of {probe}: {', '.join(names)}")


def _print_jobs_and_exit(config: Path, output: CliOutputFormat) -> None:
    from watchdog.api.serializers.jobs import serialize_job_summary
    from watchdog.store.read.jobs import list_jobs

    with open_read_connection_or_exit(config) as (connection, now):
        jobs = list_jobs(connection)
    print_json_or_table(
        output,
        jobs,
        to_json=serialize_job_summary,
        headings=("status", "job", "probe", "schedule", "last run", "next run due", "problem"),
        to_row=lambda job: _format_job_cli_row(job, now),
        empty_text="no jobs",
    )
    raise typer.Exit(ExitCode.DOWN if any(job.reason for job in jobs) else ExitCode.OK)


def _format_job_cli_row(job: JobSummary, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago, format_utc_timestamp_without_zone

    read = f"since {format_utc_timestamp_without_zone(job.read_at, now)}"
    problem = "; ".join(filter(None, (job.message, f"not read {read}" if job.outdated else "")))
    return (
        f"[{CLI_HEALTH_STATE_COLOURS[job.state.value]}]{job.status_label}[/]",
        escape_rich_markup(job.name),
        escape_rich_markup(job.probe.name),
        escape_rich_markup(job.schedule_text),
        "never" if job.last_start is None else format_time_ago(job.last_start, now),
        "" if job.next_expected_at is None else format_utc_timestamp_without_zone(job.next_expected_at, now),
        escape_rich_markup(problem),
    )
