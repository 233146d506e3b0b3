"""`watchdog unsilence`: ends a silence before its time."""

from __future__ import annotations

from typing import Annotated

import typer

from watchdog.cli.acts import open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def unsilence_command(
    silence: Annotated[str, typer.Argument(help="Id of the silence: see `watchdog silences`.", show_default=False)],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """End a silence. Notifications of incidents that are still open are sent at once.

    \b
    Example: watchdog unsilence s-4f0c2a91be
    """
    from watchdog.api.serializers.acts import serialize_silence
    from watchdog.service.acts import end_silence

    with open_database_to_act(config) as (database, user, now):
        ended = end_silence(database, silence, user, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_silence(ended))
    else:
        print(f"Ended: {silence}")
