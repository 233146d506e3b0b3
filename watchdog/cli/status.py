"""`watchdog status`: the state of every probe."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_error,
    open_read_connection_or_exit,
)
from watchdog.cli.output import (
    CLI_HEALTH_STATE_COLOURS,
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json_or_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from watchdog.domain.membership import LiveWatchdogProcesses
    from watchdog.store.read.status import ProbeStatus


STATUS_REFRESH_INTERVAL_S = 2.0
CLEAR_SCREEN = "\x1b[H\x1b[2J"


def status_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    group: Annotated[str, typer.Option(help="Only the probes of this group.")] = "",
    states: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only in this state; repeat it to allow several."),
    ] = None,
    kind: Annotated[str, typer.Option(help="Only of this kind, such as http.")] = "",
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Only with this tag; repeat it to require several.")
    ] = None,
    search: Annotated[
        str, typer.Option(metavar="WORDS", help="As on the page of probes: words, or group:, kind:, tag:, state:.")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds, until Ctrl-C.")] = False,
) -> None:
    """Show the state of every probe.

    States are down, degraded, unknown, maintenance, paused and up. A probe must match every option that is given.

    Problems with Watchdog itself are printed to standard error. The JSON output lists them under the probe `watchdog`.
    With --watch, it is one line each time.

    Exits 1 if any of the probes is down; otherwise 3 if any state is unknown, if no probe has the group, kind or tags,
    or if `watchdog run` is not running; otherwise 0.

    \b
    Example: watchdog status -o json
             watchdog status --state down --state unknown --tag prod
    """
    options = _StatusOptions(tuple(state.lower() for state in states or ()), group, kind, frozenset(tags or ()), search)
    options.exit_if_state_unknown()
    while watch:
        if output is CliOutputFormat.TABLE and sys.stdout.isatty():
            print(CLEAR_SCREEN, end="")
        _print_status(config, output, options, json_on_one_line=True)
        sys.stdout.flush()
        time.sleep(STATUS_REFRESH_INTERVAL_S)
    raise typer.Exit(_print_status(config, output, options))


class _StatusOptions(NamedTuple):
    """Which probes are shown; empty: any."""

    states: tuple[str, ...]
    group: str
    kind: str
    tags: frozenset[str]
    search: str
    """As on the page of probes."""

    def exit_if_state_unknown(self) -> None:
        """Exits with one line."""
        from watchdog.web.pages.probes import LISTED_STATES

        names = [state.name for state in LISTED_STATES]
        for state in self.states:
            if state not in names:
                exit_with_error(f"--state {state}: expected {', '.join(names)}")

    def select_probes_or_explain(self, statuses: Sequence[ProbeStatus]) -> tuple[list[ProbeStatus], tuple[str, ...]]:
        """Those that match, and why no probe has the group, kind or tags, as clauses."""
        from watchdog.domain.routing import ProbeMatcher
        from watchdog.domain.selection import describe_empty_probe_selection
        from watchdog.web.pages.probes import ProbesPageFilter

        matcher = ProbeMatcher(tags=self.tags, group=self.group, kind=self.kind)
        matching = [status for status in statuses if not matcher.describe_mismatch(status.probe)]
        problems: tuple[str, ...] = ()
        if not matching and (self.tags or self.group or self.kind):
            problems = describe_empty_probe_selection(matcher, [status.probe for status in statuses])
        filters = [ProbesPageFilter(self.search, state) for state in self.states] or [ProbesPageFilter(self.search)]
        selected = [
            status
            for status in matching
            if any(each.matches_search(status) and each.matches_state(status) for each in filters)
        ]
        return selected, problems


def _print_status(
    config: Path, output: CliOutputFormat, options: _StatusOptions, *, json_on_one_line: bool = False
) -> ExitCode:
    from watchdog.api.serializers.findings import serialize_watchdog_self_probe
    from watchdog.api.serializers.probes import serialize_probe_status
    from watchdog.domain.rules import service
    from watchdog.domain.watermark import describe_outdated_watermark_with_advice
    from watchdog.store.read.members import load_live_watchdog_processes
    from watchdog.store.read.status import list_probe_statuses, load_watchdog_status

    with open_read_connection_or_exit(config) as (connection, now):
        is_json = output is CliOutputFormat.JSON
        all_statuses = list_probe_statuses(connection, now=now, with_silences=is_json)
        watchdog_status = load_watchdog_status(connection)
        statuses, problems = options.select_probes_or_explain(all_statuses)
        own_statuses = list_probe_statuses(connection, service.WATCHDOG_SELF_PROBE_ID, now=now)
        member_lines = list(_iter_process_conflict_note_lines(load_live_watchdog_processes(connection, now)))
        notes = {} if is_json else _load_notes_by_incident(connection, now)
    findings = watchdog_status.findings
    print_json_or_table(
        output,
        statuses,
        to_json=serialize_probe_status,
        more_json=[serialize_watchdog_self_probe(status, findings, member_lines) for status in own_statuses],
        json_on_one_line=json_on_one_line,
        headings=("state", "probe", "last result", "open incidents"),
        to_row=lambda status: _format_probe_cli_row(status, notes, now),
        empty_text="no probe matches" if any(options) else "no probes",
    )
    states = {status.state.value for status in statuses}
    if outdated := describe_outdated_watermark_with_advice(watchdog_status.watermark, now):
        print(f"watchdog: {outdated}", file=sys.stderr)
        states.add("unknown")
    for line in [*(finding.message for finding in findings), *member_lines, *problems]:
        print(f"watchdog: {line}", file=sys.stderr)
    is_unknown = bool(problems) or "unknown" in states
    return ExitCode.DOWN if "down" in states else ExitCode.UNKNOWN if is_unknown else ExitCode.OK


def _iter_process_conflict_note_lines(membership: LiveWatchdogProcesses) -> Iterator[str]:
    """What each running process leaves to others."""
    from watchdog.domain.membership import list_process_conflict_notes

    for member, *_ in membership.members:
        for note in list_process_conflict_notes(membership, member.id):
            yield f"{member.id}: {note}"


def _load_notes_by_incident(connection: Connection, now: int) -> dict[str, str]:
    """By incident: who is handling it, what holds back its notifications, and which of them fail. Empty: none."""
    from watchdog.store.read.delivery_problems import load_delivery_problems_of_open_incidents
    from watchdog.store.read.status import list_incidents
    from watchdog.web.pages.incidents import describe_what_holds_back
    from watchdog.web.times import convert_markup_to_plain_text

    problems = load_delivery_problems_of_open_incidents(connection)
    return {
        record.incident.id: ", ".join(
            (
                *map(convert_markup_to_plain_text, describe_what_holds_back(record, now)),
                *problems.get(record.incident.id, ()),
            )
        )
        for record in list_incidents(connection, is_open=True)
    }


def _format_probe_cli_row(status: ProbeStatus, notes: Mapping[str, str], now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_time_ago, format_utc_timestamp
    from watchdog.domain.pausing import describe_pause

    latest = status.latest_result
    state = f"[{CLI_HEALTH_STATE_COLOURS[status.state.value]}]{status.state.value}[/]"
    result = "none yet" if latest is None else f"{latest.outcome.value} {format_time_ago(latest.slot, now)}"
    if status.pending_findings and not status.open_incidents:
        result += f", {status.pending_findings[0].describe()}"
    incidents = "; ".join(
        f"{incident.message or incident.reason}{f' ({note})' if (note := notes.get(incident.id)) else ''}"
        for incident in status.open_incidents
    )
    probe_notes = [] if status.pause is None else [describe_pause(status.pause, now)]
    if status.maintenance_ends_at is not None:
        probe_notes.append(f"in maintenance until {format_utc_timestamp(status.maintenance_ends_at, now)}")
    if probe_notes:
        incidents = "; ".join([*probe_notes, f"open: {incidents}"] if incidents else probe_notes)
    return state, escape_rich_markup(status.probe.name), result, escape_rich_markup(incidents)
