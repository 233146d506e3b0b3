"""Every command by name: one module each, whose function imports what it needs when it is called."""

from __future__ import annotations

from collections.abc import Callable

import typer

from watchdog.cli import config, db, demo, mcp, probe, run, status, test_alert, version
from watchdog.cli import exec as exec_module

cli_app = typer.Typer(
    name="watchdog",
    help="Is the service, and the background work behind it, really doing its job?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., object]] = {
    "run": run.run_command,
    "demo": demo.demo_command,
    "init": config.init_command,
    "validate": config.validate_command,
    "probe": probe.probe_command,
    "status": status.status_command,
    "incidents": status.incidents_command,
    "jobs": status.jobs_command,
    "schema": config.schema_command,
}

for name, command in COMMANDS.items():
    cli_app.command(name)(command)
exec_context_settings = {"allow_interspersed_args": False}
cli_app.command("exec", cls=exec_module.InterspersedCommand, context_settings=exec_context_settings)(
    exec_module.exec_command
)
cli_app.command("mcp")(mcp.mcp_command)
cli_app.command("test-alert")(test_alert.send_test_alert)
cli_app.add_typer(db.db_app, name="db")
cli_app.command("version")(version.version_command)
