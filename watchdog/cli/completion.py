"""What the completion of a shell offers. It never prints: a message would appear in the middle of the command.

Shells evaluate what is offered: zsh at once, in double quotes, and Typer escapes no backslash; bash when the command is
run. Others write names and messages, so only characters that no shell interprets are offered.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH
from watchdog.cli.environment import CONFIG_FILE_ENV_VAR

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.config.load import LoadedConfig
    from watchdog.store.read.status import IncidentRecord

MAX_INCIDENT_COMPLETIONS = 100
"""The newest ones."""
MAX_DESCRIPTION_CHARS = 80
_OFFERED_NAME_PATTERN = re.compile(r"\w[\w.,@/+-]*( \w[\w.,@/+-]*)*")
"""In which no word can be taken for an option, a home folder or a comment."""
_UNSAFE_CHARACTER_PATTERN = re.compile(r"[^\w .,/+@-]")


def complete_probe_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids and names of probes that begin so; none if the configuration cannot be loaded."""
    return _list_probe_name_completions(ctx, incomplete, lambda _: True)


def complete_heartbeat_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same of heartbeats."""
    return _list_probe_name_completions(ctx, incomplete, lambda kind: kind == "heartbeat")


def complete_runnable_probe_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same of probes that can be run: a heartbeat cannot."""
    return _list_probe_name_completions(ctx, incomplete, lambda kind: kind != "heartbeat")


def _list_probe_name_completions(ctx: typer.Context, incomplete: str, is_offered: Callable[[str], bool]) -> list[str]:
    """`is_offered`: of a kind of probe."""
    loaded = _load_config_or_none(ctx)
    probes = [] if loaded is None else [probe for probe in loaded.config.probes if is_offered(probe.kind)]
    names = (text for probe in probes for text in dict.fromkeys((probe.id, probe.name)))
    return [name for name in names if name.startswith(incomplete) and _OFFERED_NAME_PATTERN.fullmatch(name)]


def _load_config_or_none(ctx: typer.Context) -> LoadedConfig | None:
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    try:
        return load_config(_get_stated_config_path(ctx) or DEFAULT_CONFIG_PATH, regular_files_only=True)
    except ConfigError:
        return None


def _get_stated_config_path(ctx: typer.Context) -> Path | None:
    """None: the file in this directory is read, and anyone may have put it there."""
    if path := os.environ.get(CONFIG_FILE_ENV_VAR):
        return Path(ctx.params.get("config") or path)
    path = ctx.params.get("config")
    return Path(path) if path and Path(path) != DEFAULT_CONFIG_PATH else None


def complete_incident_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids of incidents that begin so, newest first, each with what it is about."""
    return _list_incident_completions(ctx, incomplete, is_open=None)


def complete_open_incident_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The same of open ones."""
    return _list_incident_completions(ctx, incomplete, is_open=True)


def complete_incident_id_or_probe_name(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Incidents first."""
    return complete_incident_id(ctx, incomplete) + [(name, "") for name in complete_probe_name(ctx, incomplete)]


def complete_open_incident_id_or_probe_name(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The same with open incidents alone."""
    return complete_open_incident_id(ctx, incomplete) + [(name, "") for name in complete_probe_name(ctx, incomplete)]


def _list_incident_completions(ctx: typer.Context, incomplete: str, *, is_open: bool | None) -> list[tuple[str, str]]:
    from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

    try:
        records = _load_newest_incidents(ctx, is_open=is_open)
    except (StoreUnavailableError, WatchdogDatabaseSchemaError):
        return []
    incidents = [each for each in records if each.incident.id.startswith(incomplete)]
    return [(each.incident.id, _describe_for_shell(each.probe.name, each.incident.message)) for each in incidents]


def _describe_for_shell(name: str, message: str) -> str:
    """ "API, HTTP 503"; other characters than those that no shell interprets become blanks."""
    from watchdog.domain.text import truncate_to_single_line

    return truncate_to_single_line(_UNSAFE_CHARACTER_PATTERN.sub(" ", f"{name}, {message}"), MAX_DESCRIPTION_CHARS)


def _load_newest_incidents(ctx: typer.Context, *, is_open: bool | None) -> list[IncidentRecord]:
    """None without a database. A file that the user did not name may be of a stranger: a key press must not send
    variables to a server that it names. Raises StoreUnavailableError and WatchdogDatabaseSchemaError."""
    from watchdog.cli.common import find_missing_database_file
    from watchdog.store.database import Database
    from watchdog.store.read.status import list_incidents

    loaded = _load_config_or_none(ctx)
    if loaded is None or find_missing_database_file(loaded.database) is not None:
        return []
    if _get_stated_config_path(ctx) is None and not loaded.database.url.startswith("sqlite"):
        return []
    database = Database(loaded.database.url)
    try:
        with database.open_read_transaction() as connection:
            return list(list_incidents(connection, is_open=is_open, limit=MAX_INCIDENT_COMPLETIONS))
    finally:
        database.close()


ProbeArgument = Annotated[
    str, typer.Argument(help="Name or id of a probe.", show_default=False, autocompletion=complete_probe_name)
]
IncidentArgument = Annotated[
    str,
    typer.Argument(
        help="Id of an incident or its first 6 or more characters, or name or id of a probe.",
        metavar="INCIDENT|PROBE",
        show_default=False,
        autocompletion=complete_incident_id_or_probe_name,
    ),
]
OpenIncidentArgument = Annotated[
    str,
    typer.Argument(
        help="Id of an incident or its first 6 or more characters, or name or id of a probe with one open incident.",
        metavar="INCIDENT|PROBE",
        show_default=False,
        autocompletion=complete_open_incident_id_or_probe_name,
    ),
]
SelectedProbeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Only those that select this probe, by name or id.", autocompletion=complete_probe_name
    ),
]
