"""`watchdog jobs`: scheduled jobs, heartbeats and tasks; `watchdog jobs forget`: jobs that are no longer missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from watchdog.cli.acts import ActCommentOption, open_database_to_act
from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_error,
    find_probes_by_name_or_exit,
    open_read_connection_or_exit,
)
from watchdog.cli.completion import complete_probe_name
from watchdog.cli.output import (
    CLI_HEALTH_STATE_COLOURS,
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json,
    print_json_or_table,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from watchdog.store.read.jobs import JobSummary


jobs_app = typer.Typer(cls=CommandGroupWithoutPydantic, invoke_without_command=True)


@jobs_app.callback()
def jobs_command(
    context: typer.Context,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    probe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this probe, by name or id.", autocompletion=complete_probe_name),
    ] = None,
    state: Annotated[str | None, typer.Option(metavar="down|degraded|unknown|up", help="Only in this state.")] = None,
    verdict: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only with this status, such as overdue or 'on time'.")
    ] = None,
    search: Annotated[
        str, typer.Option(metavar="WORDS", help="Words in the name of the job or its probe, or kind:jobs.")
    ] = "",
) -> None:
    """List scheduled jobs, heartbeats and tasks.

    Shows the schedule, the last run, when the next run is due, and any problem. A job must match every option that is
    given. Exits 1 if one of them has a problem.

    \b
    Example: watchdog jobs
             watchdog jobs --probe "Report schedules" --state down
    """
    if context.invoked_subcommand is None:
        _print_jobs_and_exit(config, output, _JobListOptions(probe, state and state.lower(), verdict, search))


@jobs_app.command("forget", cls=CommandWithoutPydantic)
def jobs_forget_command(
    probe: Annotated[
        str, typer.Argument(help="Name or id of the probe.", show_default=False, autocompletion=complete_probe_name)
    ],
    job: Annotated[str | None, typer.Argument(help="Name of the job; default: every missing job.")] = None,
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """End the incidents of jobs that were removed on purpose.

    The command takes effect at the probe's next run. A job that is listed again later is monitored again.

    \b
    Example: watchdog jobs forget "Report schedules" nightly-report
    """
    from watchdog.api.serializers.acts import serialize_forgotten_jobs
    from watchdog.domain.text import format_display_name
    from watchdog.service.acts import forget_missing_jobs

    with open_database_to_act(config) as (database, user, now):
        forgotten = forget_missing_jobs(database, probe, job or "", user, comment, now=now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_forgotten_jobs(forgotten))
        return
    names = ", ".join(map(format_display_name, forgotten.jobs))
    print(f"No longer expected, starting with the next run of {forgotten.probe_name}: {names}")


class _JobListOptions(NamedTuple):
    """Which jobs are listed; None and empty: any."""

    probe: str | None
    """Its name or id."""
    state: str | None
    verdict: str | None
    """The label of a job's status, in any case."""
    search: str
    """As on the page of jobs."""

    def load_jobs_or_exit(self, connection: Connection) -> list[JobSummary]:
        """Exits with one line if there is no such probe, state or verdict."""
        from watchdog.domain.model import HealthState
        from watchdog.store.read.jobs import list_jobs
        from watchdog.web.pages.jobs import JobsPageFilter

        states = [state.value for state in HealthState if state is not HealthState.PAUSED]
        if self.state is not None and self.state not in states:
            exit_with_error(f"--state {self.state}: expected {', '.join(states)}")
        probes = None if self.probe is None else find_probes_by_name_or_exit(connection, self.probe)
        jobs = list_jobs(connection, None if probes is None else [probe.database_id for probe in probes])
        verdict = None if self.verdict is None else self.verdict.lower()
        if verdict is not None and verdict not in (labels := {job.status_label.lower() for job in jobs}):
            exit_with_error(
                f"--verdict {self.verdict}: no job has it; there are {', '.join(sorted(labels)) or 'no jobs'}"
            )
        matches_search = JobsPageFilter(self.search).matches_search
        return [
            job
            for job in jobs
            if self.state in (None, job.state.value)
            and verdict in (None, job.status_label.lower())
            and matches_search(job)
        ]


def _print_jobs_and_exit(config: Path, output: CliOutputFormat, options: _JobListOptions) -> None:
    from watchdog.api.serializers.jobs import serialize_job_summary

    with open_read_connection_or_exit(config) as (connection, now):
        jobs = options.load_jobs_or_exit(connection)
    print_json_or_table(
        output,
        jobs,
        to_json=serialize_job_summary,
        headings=("status", "job", "probe", "schedule", "last run", "next run due", "problem"),
        to_row=lambda job: _format_job_cli_row(job, now),
        empty_text="no jobs" if not any(options) else "no job matches",
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
