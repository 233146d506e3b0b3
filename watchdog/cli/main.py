"""Every command by name. A module holds one command, whose function imports what it needs when it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from watchdog.cli.ack import ack_command
from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.close import close_command
from watchdog.cli.contracts import contracts_app
from watchdog.cli.db import db_app
from watchdog.cli.demo import demo_command
from watchdog.cli.diff import diff_command
from watchdog.cli.exec import ExecClickCommand, exec_command
from watchdog.cli.explain import explain_incident_command
from watchdog.cli.incidents import incidents_command
from watchdog.cli.init import init_command
from watchdog.cli.jobs import jobs_app
from watchdog.cli.maintenance import maintenance_app
from watchdog.cli.mcp import mcp_command
from watchdog.cli.pause import pause_command
from watchdog.cli.probe import probe_command
from watchdog.cli.reload import reload_command
from watchdog.cli.resend import resend_command
from watchdog.cli.resume import resume_command
from watchdog.cli.run import run_command
from watchdog.cli.run_now import run_now_command
from watchdog.cli.schema import schema_command
from watchdog.cli.service import service_command
from watchdog.cli.silence import silence_command
from watchdog.cli.silences import silences_command
from watchdog.cli.status import status_command
from watchdog.cli.test_alert import send_test_alert_command
from watchdog.cli.unack import unack_command
from watchdog.cli.unsilence import unsilence_command
from watchdog.cli.validate import validate_command
from watchdog.cli.version import version_command

CLI_HELP_TEXT = """Monitor services and the background work behind them.

Probes HTTP endpoints, MCP servers, queues and scheduled jobs, and sends notifications when one fails.

\b
First steps:
  watchdog demo                  try it on sample services
  watchdog init                  write a starter configuration
  watchdog validate              check it
  watchdog probe Website         run one probe now
  watchdog run                   run the service
"""

cli_app = typer.Typer(
    name="watchdog",
    cls=CommandGroupWithoutPydantic,
    help=CLI_HELP_TEXT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version_and_exit(is_requested: bool) -> None:
    if is_requested:
        version_command()
        raise typer.Exit


@cli_app.callback()
def declare_global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version_and_exit, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that come before the command."""


CLI_COMMANDS_BY_NAME: dict[str, Callable[..., None]] = {
    "run": run_command,
    "demo": demo_command,
    "init": init_command,
    "validate": validate_command,
    "diff": diff_command,
    "reload": reload_command,
    "probe": probe_command,
    "status": status_command,
    "incidents": incidents_command,
    "explain": explain_incident_command,
    "ack": ack_command,
    "unack": unack_command,
    "close": close_command,
    "silence": silence_command,
    "unsilence": unsilence_command,
    "silences": silences_command,
    "resend": resend_command,
    "pause": pause_command,
    "resume": resume_command,
    "run-now": run_now_command,
    "service": service_command,
    "test-alert": send_test_alert_command,
    "schema": schema_command,
    "mcp": mcp_command,
}

for name, command in CLI_COMMANDS_BY_NAME.items():
    cli_app.command(name, cls=CommandWithoutPydantic)(command)
cli_app.command("exec", cls=ExecClickCommand, context_settings={"allow_interspersed_args": False})(exec_command)
cli_app.add_typer(jobs_app, name="jobs")
cli_app.add_typer(contracts_app, name="contracts")
cli_app.add_typer(maintenance_app, name="maintenance")
cli_app.add_typer(db_app, name="db")
cli_app.command("version", cls=CommandWithoutPydantic)(version_command)
