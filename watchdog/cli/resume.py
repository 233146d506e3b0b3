"""`watchdog resume`: runs a paused probe again."""

from __future__ import annotations

from watchdog.cli.acts import ActCommentOption, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import ProbeArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def resume_command(
    probe: ProbeArgument,
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Run a paused probe again, from its next slot on. Nothing is caught up.

    \b
    Example: watchdog resume "Legacy FTP"
    """
    from watchdog.api.serializers.acts import serialize_probe_pause
    from watchdog.domain.formatting import format_duration_rounded
    from watchdog.service.acts import resume_probe

    with open_database_to_act(config) as (database, user, now):
        ended = resume_probe(database, probe, user, comment, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_probe_pause(ended.probe_id, None))
        return
    print(f"Resumed after {format_duration_rounded(now - ended.pause.started_at)}: {ended.name}")
