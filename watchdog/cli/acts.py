"""What the commands that act share: they work on the database, in the name of the user of the operating system."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import (
    exit_with_error,
    load_database_config_or_exit,
    open_database_or_exit,
    read_database_clock,
)
from watchdog.cli.completion import complete_probe_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog.domain.acts import Actor, OperatorActRefusedError
    from watchdog.domain.model import Severity
    from watchdog.store.database import Database

MatchedProbeOption = Annotated[
    str, typer.Option("--id", help="Id or name of a probe.", autocompletion=complete_probe_name)
]
MatchedGroupOption = Annotated[str, typer.Option("--group", help="Group of the probes.")]
MatchedTagsOption = Annotated[
    list[str] | None, typer.Option("--tag", help="Tag; repeat it to require several.")
]  # fmt: skip
MatchedKindOption = Annotated[str, typer.Option("--kind", help="Kind of the probes, such as http.")]
MatchedSeverityOption = Annotated[str, typer.Option("--severity", help="info, warning or critical.")]
ActDurationOption = Annotated[str, typer.Option("--for", help="How long, such as 30m, 4h or 2d.")]
ActEndOption = Annotated[str, typer.Option("--until", help="When it ends, such as 22:00Z or 2026-12-01T22:00+01:00.")]
ActCommentOption = Annotated[
    str, typer.Option("--comment", help="Reason, shown to others on call; at most 500 characters.")
]


@contextmanager
def open_database_to_act(config_path: Path) -> Iterator[tuple[Database, Actor, int]]:
    """The configured database, the user and the time by the database's clock. Exits with one line if an act is refused,
    and as `open_database_or_exit` does."""
    from watchdog.domain.acts import OperatorActRefusedError

    with open_database_or_exit(load_database_config_or_exit(config_path)) as database:
        try:
            yield database, build_cli_actor_from_os_user(), read_database_clock(database)
        except OperatorActRefusedError as e:
            exit_with_error(describe_refusal(e))


def find_incident_id_to_act_on(database: Database, incident_or_probe: str) -> str:
    """The id of the incident that is stated: by its id, by the beginning of it, or by its probe. Raises
    OperatorActRefusedError."""
    from watchdog.store.read import incident_references

    with database.open_read_transaction() as connection:
        return incident_references.find_incident_id_to_act_on(connection, incident_or_probe)


def describe_refusal(error: OperatorActRefusedError) -> str:
    """Names the command that lists what does exist."""
    from watchdog.domain.acts import ActSubjectKind
    from watchdog.domain.text import append_list_hint

    commands = {
        ActSubjectKind.PROBE: "watchdog status",
        ActSubjectKind.INCIDENT: "watchdog incidents",
        ActSubjectKind.SILENCE: "watchdog silences",
        ActSubjectKind.MAINTENANCE: "watchdog maintenance",
    }
    if error.unknown_subject is None:
        return str(error)
    return append_list_hint(str(error), f"`{commands[error.unknown_subject]}`")


def build_cli_actor_from_os_user() -> Actor:
    """By the id of the process, and not by the environment, which anyone may set."""
    import os

    from watchdog.domain.acts import Actor, OperatorInterfaceKind

    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # not on this system, or a container without an entry for the user
        name = f"uid {os.getuid()}" if hasattr(os, "getuid") else os.getlogin()
    return Actor(name, OperatorInterfaceKind.CLI)


def parse_severity_option(text: str) -> Severity | None:
    """Exits with one line if there is no such severity."""
    from watchdog.domain.model import Severity

    try:
        return Severity(text) if text else None
    except ValueError:
        exit_with_error(f"--severity {text}: expected {', '.join(Severity)}")


def parse_for_option_ms(text: str) -> int:
    """Exits with one line if it is no duration."""
    from watchdog.config_types import parse_config_duration_ms

    try:
        return parse_config_duration_ms(text)
    except ValueError as e:
        exit_with_error(f"--for {text}: {e}")


def parse_instant_option(name: str, text: str, after: int | None = None) -> int:
    """The instant that an option such as --until states, in epoch ms. Exits with one line if it is none. A time of
    day is the next one after `after`; None: after now."""
    from watchdog.domain.acts import OperatorActRefusedError
    from watchdog.service.act_input import parse_act_instant
    from watchdog.service.clock import read_wall_clock_ms

    try:
        return parse_act_instant(text, "", read_wall_clock_ms() if after is None else after)
    except OperatorActRefusedError as e:
        exit_with_error(f"{name} {text}: {e}")
