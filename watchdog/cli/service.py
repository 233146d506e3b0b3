"""`watchdog service`: what is wrong with Watchdog itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, open_read_connection_or_exit
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, escape_rich_markup, print_json_or_table

if TYPE_CHECKING:
    from watchdog.domain.model import Incident


def service_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH, output: OutputFormatOption = CliOutputFormat.TABLE
) -> None:
    """Show what is wrong with Watchdog itself.

    Lists the open findings of the built-in probe `watchdog`, such as a receiver that does not confirm notifications
    or a process that is overloaded. The web pages, `/readyz` and the MCP server show the same list.

    Exits 1 if there is a finding; otherwise 3 if `watchdog run` is not running; otherwise 0.

    \b
    Example: watchdog service -o json
    """
    from watchdog.api.serializers.findings import serialize_watchdog_finding
    from watchdog.domain.watermark import describe_outdated_watermark_with_advice
    from watchdog.store.read.status import load_watchdog_status

    with open_read_connection_or_exit(config) as (connection, now):
        status = load_watchdog_status(connection)
    outdated = describe_outdated_watermark_with_advice(status.watermark, now)
    if status.findings or not outdated or output is CliOutputFormat.JSON:  # without a service, nothing is found
        print_json_or_table(
            output,
            status.findings,
            to_json=serialize_watchdog_finding,
            headings=("severity", "what", "since", "incident"),
            to_row=lambda finding: _format_watchdog_finding_cli_row(finding, now),
            empty_text="no findings",
        )
    if outdated:
        print(f"watchdog: {outdated}", file=sys.stderr)
    raise typer.Exit(ExitCode.DOWN if status.findings else ExitCode.UNKNOWN if outdated else ExitCode.OK)


def _format_watchdog_finding_cli_row(finding: Incident, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago

    return finding.severity.value, escape_rich_markup(finding.message), format_time_ago(finding.since, now), finding.id
