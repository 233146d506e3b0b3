"""`watchdog silence`: holds notifications back for a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.acts import (
    ActCommentOption,
    ActDurationOption,
    ActEndOption,
    MatchedGroupOption,
    MatchedKindOption,
    MatchedProbeOption,
    MatchedSeverityOption,
    MatchedTagsOption,
    find_incident_id_to_act_on,
    open_database_to_act,
    parse_for_option_ms,
    parse_instant_option,
    parse_severity_option,
)
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error
from watchdog.cli.completion import complete_open_incident_id
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from watchdog.domain.silencing import Silence
    from watchdog.service.acts import StartedSilence


def silence_command(
    probe: MatchedProbeOption = "",
    group: MatchedGroupOption = "",
    tags: MatchedTagsOption = None,
    kind: MatchedKindOption = "",
    severity: MatchedSeverityOption = "",
    subject: Annotated[
        str, typer.Option(help=r"Subject of the incident, such as a job. * is any text, \* a star.")
    ] = "",
    incident: Annotated[
        str,
        typer.Option(help="Silence this open incident until it is resolved.", autocompletion=complete_open_incident_id),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every incident, except Watchdog's own faults.")] = False,
    duration: ActDurationOption = "",
    until: ActEndOption = "",
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Hold back the notifications of matching incidents for a time.

    Probes run, and incidents and uptime continue. When the silence ends, incidents that are still open are sent. An
    incident must match every option that is given. At least one is necessary, or --all.

    \b
    Example: watchdog silence --group Search --for 2h --comment "upgrade"
             watchdog silence --incident 1c9b04ae77d2f00c3a51e9d8
    """
    from watchdog.domain.routing import ProbeMatcher
    from watchdog.domain.silencing import SilenceMatcher
    from watchdog.service.acts import SilenceRequest, begin_silence

    if incident:
        if any((probe, group, tags, kind, severity, subject, everything, duration, until)):
            exit_with_error("--incident cannot be combined with other options")
        _silence_incident(config, output, incident, comment)
        return
    match = ProbeMatcher(parse_severity_option(severity), frozenset(tags or ()), group, kind, probe)
    if bool(duration) == bool(until):
        exit_with_error("give --for (how long) or --until (when it ends)")
    duration_ms = parse_for_option_ms(duration) if duration else 0
    ends_at = parse_instant_option("--until", until) if until else 0
    with open_database_to_act(config) as (database, user, now):
        request = SilenceRequest(
            SilenceMatcher(match, subject), ends_at or now + duration_ms, comment, selects_everything=everything
        )
        started = begin_silence(database, request, user, now)
    _print_started_silence(output, started, now)


def _silence_incident(config: Path, output: CliOutputFormat, incident: str, comment: str) -> None:
    """Until it is resolved."""
    from watchdog.api.serializers.acts import serialize_silence
    from watchdog.service.acts import silence_until_resolved

    with open_database_to_act(config) as (database, user, now):
        incident = find_incident_id_to_act_on(database, incident)
        silence = silence_until_resolved(database, incident, user, comment, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_silence(silence))
    else:
        _print_silence(silence, now, "{command} ends it earlier.")


def _print_started_silence(output: CliOutputFormat, started: StartedSilence, now: int) -> None:
    """And on standard error why it selects nothing at present."""
    from watchdog.api.serializers.acts import serialize_started_silence
    from watchdog.domain.formatting import format_count_with_noun

    body, selection = serialize_started_silence(*started), started.selection
    for warning in body["warnings"]:
        print(f"watchdog: warning: {warning}", file=sys.stderr)
    if output is CliOutputFormat.JSON:
        print_json({**body["silence"], **{name: value for name, value in body.items() if name != "silence"}})
        return
    count = started.open_incident_count
    incidents = format_count_with_noun(count, "open incident") if count else "no open incident"
    covered = f"{format_count_with_noun(selection.probe_count, 'probe')} and {incidents}"
    _print_silence(started.silence, now, f"It covers {covered}. {{command}} ends it.")


def _print_silence(silence: Silence, now: int, last_line: str) -> None:
    """`last_line`: with a place for the command that ends the silence."""
    print(f"{silence.id} silences {silence.describe_selection()} {silence.describe_end(now)}")
    print(last_line.format(command=f"`watchdog unsilence {silence.id}`"))
