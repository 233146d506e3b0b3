"""`watchdog incidents`: open and resolved incidents, or one of them in detail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    exit_with_error,
    find_probes_by_name_or_exit,
    open_read_connection_or_exit,
)
from watchdog.cli.completion import complete_incident_id, complete_probe_name
from watchdog.cli.output import (
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json,
    print_json_or_table,
    print_lines,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from watchdog.store.read.status import IncidentRecord


def incidents_command(
    incident: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="Show this incident in detail; the first 6 characters are enough.",
            show_default=False,
            autocompletion=complete_incident_id,
        ),
    ] = None,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    only_open: Annotated[bool, typer.Option("--open", help="Only open incidents.")] = False,
    probe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this probe, by name or id.", autocompletion=complete_probe_name),
    ] = None,
    severity: Annotated[
        str | None, typer.Option(metavar="info|warning|critical", help="Only of this severity.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of incidents.")] = 100,
) -> None:
    """List incidents, newest first, or show one in detail.

    The detail has the evidence, the notifications and the timeline. The notes on an incident state who acknowledged or
    closed it, what holds back its notifications, which of them fail, and whether no one is notified.
    `watchdog explain` shows why an incident opened, and why each destination was notified or not.

    \b
    Example: watchdog incidents --open --severity critical
             watchdog incidents 1c9b04ae77d2f00c3a51e9d8
    """
    if incident is not None:
        if only_open or probe is not None or severity is not None:
            exit_with_error("the id of an incident cannot be combined with --open, --probe or --severity")
        _load_and_print_incident(config, output, incident)
        return
    _load_and_print_incidents(config, output, only_open=only_open, probe=probe, severity=severity, limit=limit)


def _load_and_print_incidents(
    config: Path, output: CliOutputFormat, *, only_open: bool, probe: str | None, severity: str | None, limit: int
) -> None:
    from watchdog.api.serializers.incidents import serialize_incident
    from watchdog.domain.acts import MAX_ACT_COMMENT_CHARS
    from watchdog.domain.closing import describe_closure
    from watchdog.domain.model import Severity
    from watchdog.store.read.delivery_problems import load_delivery_problems_of_open_incidents
    from watchdog.store.read.status import list_incidents
    from watchdog.web.pages.incidents import load_acknowledgement_and_hold_marks_of_open_incidents

    if severity is not None and severity not in tuple(Severity):
        exit_with_error(f"--severity {severity}: expected {', '.join(Severity)}")
    with open_read_connection_or_exit(config) as (connection, now):
        probes = None if probe is None else find_probes_by_name_or_exit(connection, probe)
        records = list_incidents(
            connection,
            probe_database_ids=None if probes is None else [info.database_id for info in probes],
            is_open=True if only_open else None,
            severity=None if severity is None else Severity(severity),
            limit=limit,
        )
        marks = load_acknowledgement_and_hold_marks_of_open_incidents(connection, records, now)
        problems = load_delivery_problems_of_open_incidents(connection)
        closures = {record.incident.id: record.incident.closure for record in records}
    notes = {
        id: (
            *marks.get(id, ()),
            *problems.get(id, ()),
            *([] if closure is None else [describe_closure(closure, MAX_ACT_COMMENT_CHARS)]),
        )
        for id, closure in closures.items()
    }
    print_json_or_table(
        output,
        records,
        to_json=lambda record: {
            **serialize_incident(record),
            "notes": _list_incident_notes_as_plain_text(record, notes),
        },
        headings=("state", "probe", "what", "opened", "id", "notes"),
        to_row=lambda record: _format_incident_cli_row(record, _list_incident_notes_as_plain_text(record, notes), now),
        empty_text="no incidents",
    )


def _load_and_print_incident(config: Path, output: CliOutputFormat, incident: str) -> None:
    from watchdog.cli.incident_detail import (
        iter_incident_detail_lines,
        load_incident_or_exit,
        serialize_loaded_incident,
    )

    loaded = load_incident_or_exit(config, incident)
    if output is CliOutputFormat.JSON:
        print_json(serialize_loaded_incident(loaded))
    else:
        print_lines(iter_incident_detail_lines(loaded))


def _list_incident_notes_as_plain_text(record: IncidentRecord, notes: Mapping[str, Sequence[str]]) -> list[str]:
    """`notes`: by incident, as on pages."""
    from watchdog.web.times import convert_markup_to_plain_text

    return [convert_markup_to_plain_text(note) for note in notes.get(record.incident.id, ())]


def _format_incident_cli_row(record: IncidentRecord, notes: Sequence[str], now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago

    incident = record.incident
    return (
        "[red]open[/]" if incident.state == "open" else "resolved",
        escape_rich_markup(record.probe.name),
        escape_rich_markup(incident.message or incident.reason),
        format_time_ago(incident.opened_at, now),
        incident.id,
        escape_rich_markup(", ".join(notes)),
    )
