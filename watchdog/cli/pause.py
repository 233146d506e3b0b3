"""`watchdog pause`: stops running a probe for a time."""

from __future__ import annotations

from watchdog.cli.acts import (
    ActCommentOption,
    ActDurationOption,
    ActEndOption,
    open_database_to_act,
    parse_for_option_ms,
    parse_instant_option,
)
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error
from watchdog.cli.completion import ProbeArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def pause_command(
    probe: ProbeArgument,
    duration: ActDurationOption = "",
    until: ActEndOption = "",
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Stop running a probe for a time, or until `watchdog resume`.

    Nothing about it is reported, and the time does not count for uptime. An incident that is open stays open. If the
    probe is paused already, the end and the comment change.

    \b
    Example: watchdog pause "Legacy FTP" --for 2d --comment "server is moved"
    """
    from watchdog.api.serializers.acts import serialize_probe_pause
    from watchdog.domain.formatting import format_utc_timestamp
    from watchdog.service.acts import pause_probe

    if duration and until:
        exit_with_error("give --for (how long) or --until (when it ends), not both")
    duration_ms = parse_for_option_ms(duration) if duration else None
    ends_at = parse_instant_option("--until", until) if until else None
    with open_database_to_act(config) as (database, user, now):
        ends_at = ends_at if duration_ms is None else now + duration_ms
        paused = pause_probe(database, probe, ends_at, user, comment, now=now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_probe_pause(paused.probe_id, paused.pause))
        return
    end = "until it is resumed" if ends_at is None else f"until {format_utc_timestamp(ends_at, now)}"
    print(f"{'Still paused' if paused.is_changed else 'Paused'} {end}: {paused.name}")
