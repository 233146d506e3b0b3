"""`watchdog resend`: sends again what could not be delivered."""

from __future__ import annotations

from typing import Annotated

import typer

from watchdog.cli.acts import ActCommentOption, find_incident_id_to_act_on, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import IncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def resend_command(
    incident: IncidentArgument,
    destination: Annotated[
        str, typer.Argument(help="Such as oncall/slack; default: every destination.", show_default=False)
    ] = "",
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Send the undelivered notifications of an incident again.

    `watchdog run` sends them within a second, with new retries.

    \b
    Example: watchdog resend 1c9b04ae77d2f00c3a51e9d8 oncall/slack
    """
    from watchdog.api.serializers.acts import serialize_resent_notifications
    from watchdog.service.acts import resend_undelivered_notifications

    with open_database_to_act(config) as (database, user, now):
        incident = find_incident_id_to_act_on(database, incident)
        destinations = resend_undelivered_notifications(database, incident, destination, user, comment, now=now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_resent_notifications(incident, destinations))
    else:
        print(f"Sent again to {', '.join(destinations)}: {incident}")
