"""`watchdog reload`: reloads the configuration of the running service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from watchdog.cli.acts import ActCommentOption, build_cli_actor_from_os_user
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANGED_NOUNS = {
    "added": "probe",
    "removed": "probe",
    "changed": "probe",
    "rerouted": "probe",
    "destinations": "destination",
    "sections": "other section",
}
"""The noun for the count of each kind of change."""
CHANGE_VERBS = {"destinations": "added, removed or changed", "sections": "changed"}
"""The verb, if it is not the name of the kind."""
ISO8601_SECONDS_LENGTH = len("2026-11-22T01:48:07")
RELOAD_RESPONSE_TIMEOUT_S = 90.0
"""Longer than the service takes to load the files, to apply them and to record who requested it."""


def reload_command(
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Reload the configuration of the running service.

    Sends a request to the service on this machine, at `server.listen`, with an API key from the configuration. The
    service reads again the files that it was started with. The command prints the number of changes, and the warnings.
    If the configuration is invalid, it prints every problem with file, line and field, and the former configuration
    stays in use.

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
    elif result == ConfigReloadResultKind.APPLIED:
        _print_applied_reload(answer)
    _print_reload_result_and_exit(ConfigReloadResultKind(result), list(map(str, problems)), output)


def _print_applied_reload(answer: Mapping[str, Any]) -> None:
    """The number of changes, and the warnings of the configuration."""
    from watchdog.cli.output import print_lines

    warnings = answer.get("warnings")
    lines = [f"warning: {warning}" for warning in warnings] if isinstance(warnings, list) else []
    print_lines([f"Reloaded: the configuration is valid and in use{_describe_changes(answer)}.", *lines])


def _describe_changes(answer: Mapping[str, Any]) -> str:
    """Empty: the service is an earlier version, which does not return changes."""
    counts = answer.get("changes")
    if not isinstance(counts, dict):
        return ""
    if changes := _format_change_counts(counts):
        return f". Changes: {changes}"
    former_applied_at = str(answer.get("former_applied_at") or "")[:ISO8601_SECONDS_LENGTH].replace("T", " ")
    former_changes = _format_change_counts(answer.get("former_changes"))
    changed_then = f", with these changes: {former_changes}" if former_changes else ""
    return f". Nothing has changed since it was loaded at {former_applied_at} UTC{changed_then}"


def _format_change_counts(counts: object) -> str:
    """ "1 probe added, 2 destinations added, removed or changed"; empty: there are none."""
    from watchdog.domain.formatting import format_count_with_noun

    counts = counts if isinstance(counts, dict) else {}
    return ", ".join(
        f"{format_count_with_noun(counts[kind], noun)} {CHANGE_VERBS.get(kind, kind)}"
        for kind, noun in CHANGED_NOUNS.items()
        if isinstance(counts.get(kind), int)
    )


def _print_reload_result_and_exit(result: str, problems: list[str], output: CliOutputFormat) -> NoReturn:
    from watchdog.service.config_reload import ConfigReloadResultKind

    match result:
        case ConfigReloadResultKind.APPLIED:
            raise typer.Exit(ExitCode.OK)
        case ConfigReloadResultKind.INVALID:
            if output is CliOutputFormat.TABLE:
                print(*(" ".join(problem.splitlines()) for problem in problems), sep="\n", file=sys.stderr)
            exit_with_error(
                "not reloaded: the configuration is invalid, so the former one stays in use; `watchdog validate` shows "
                "details"
            )
    exit_with_error("the configuration is applied later, because the database is unavailable", ExitCode.UNKNOWN)
