"""`watchdog exec`: its options and help. `main` runs it without Typer unless help or an error is to be printed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from watchdog.cli.click_classes import CommandWithoutPydantic
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error
from watchdog.cli.completion import complete_heartbeat_name
from watchdog.cli.exec_process import CHECK_IN_URL_ENV_VAR
from watchdog.cli.exec_run import WatchdogExecArguments, run_external_command_and_send_check_ins


class ExecClickCommand(CommandWithoutPydantic):
    """Options may follow the name, too. Everything after them belongs to the wrapped command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {word for param in self.params for word in param.opts if word.startswith("-")}
        n = 1
        while n < len(args) and (args[n].partition("=")[0] in options or args[n][:2] in options):  # -cFILE, too
            n += 2 if args[n] in options else 1
        return super().parse_args(ctx, [*args[1:n], *args[:1], *args[n:]])


def exec_command(
    name: Annotated[
        str, typer.Argument(help="Name or id of a heartbeat probe.", autocompletion=complete_heartbeat_name)
    ],
    command: Annotated[list[str], typer.Argument(help="The command to run, after `--`.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    url: Annotated[
        str, typer.Option(envvar=CHECK_IN_URL_ENV_VAR, help="Check-in URL; if set, the configuration file is not read.")
    ] = "",
) -> None:
    """Run a command and report the run to a heartbeat probe.

    Reports the start, the exit code, the duration and the end of the output. Passes the output, the exit code and
    signals through. If Watchdog cannot be reached, the command still runs, and the check-ins are sent with the next
    run.

    \b
    Examples:
      watchdog exec backup -- /usr/local/bin/backup.sh
      watchdog exec backup --url https://status.example/in/TOKEN -- backup.sh
    """
    if command[0] == "--":
        del command[0]
    if not command:
        exit_with_error("missing command: watchdog exec NAME -- COMMAND ...")
    raise typer.Exit(run_external_command_and_send_check_ins(WatchdogExecArguments(name, command, config, url)))
