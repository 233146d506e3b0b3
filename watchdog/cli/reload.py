"""`watchdog reload`: has the running service read its configuration again."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from watchdog.cli.acts import ActCommentOption, build_cli_actor_from_os_user
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

RELOAD_RESPONSE_TIMEOUT_S = 90.0
"""Longer than the service takes to load the files, to apply them and to record who requested it."""


def reload_command(
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Reload the configuration of the running service.

    Sends a request to the service on this machine, at `server.listen`, with an API key from the configuration. The
    service reads the files with which it was started. If they are invalid, every problem is printed with file, line
    and field, and the former configuration stays in use.

    Exits 0 if the configuration is applied, 2 if it is invalid, and 3 if it is applied later because the database is
    unavailable, or if the service cannot be reached.

    \b
    Example: watchdog reload -c /etc/watchdog/watchdog.yaml
    """
    from watchdog.cli.service_requests import load_service_info_or_exit, post_to_service_or_exit
    from watchdog.service.config_reload import ConfigReloadResultKind

    service = load_service_info_or_exit(config)
    body = {"comment": comment, "on_behalf_of": build_cli_actor_from_os_user().name}
    answer = post_to_service_or_exit(service, "/api/v1/reload", body, RELOAD_RESPONSE_TIMEOUT_S)
    result, problems = answer.get("result"), answer.get("problems", [])
    if result not in tuple(ConfigReloadResultKind) or not isinstance(problems, list):
        exit_with_error(f"the server at {service.base_url} is not Watchdog", ExitCode.UNKNOWN)
    if output is CliOutputFormat.JSON:
        print_json(answer)
    _print_reload_result_and_exit(ConfigReloadResultKind(result), list(map(str, problems)), output)


def _print_reload_result_and_exit(result: str, problems: list[str], output: CliOutputFormat) -> NoReturn:
    from watchdog.service.config_reload import ConfigReloadResultKind

    match result:
        case ConfigReloadResultKind.APPLIED:
            if output is CliOutputFormat.TABLE:
                print("Reloaded: the configuration is valid and in use.")
            raise typer.Exit(ExitCode.OK)
        case ConfigReloadResultKind.INVALID:
            if output is CliOutputFormat.TABLE:
                print(*(" ".join(problem.splitlines()) for problem in problems), sep="\n", file=sys.stderr)
            advice = "the former one stays in use; `watchdog validate` shows more"
            exit_with_error(f"not reloaded: the configuration is invalid, and {advice}")
    exit_with_error("the configuration is applied later, because the database is unavailable", ExitCode.UNKNOWN)
