"""`watchdog ack`: shows that someone is handling an incident."""

from __future__ import annotations

from watchdog.cli.acts import ActCommentOption, find_incident_id_to_act_on, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import OpenIncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def ack_command(
    incident: OpenIncidentArgument,
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Acknowledge an open incident: you are handling it.

    The pages show who is handling it, and so does the message of a Slack bot. A message that was sent through an
    incoming webhook cannot be edited. The first acknowledgement stays until `watchdog unack` removes it.

    \b
    Example: watchdog ack 1c9b04 --comment "restarting the worker"
             watchdog ack Website
    """
    from watchdog.api.serializers.acts import serialize_incident_acknowledgement
    from watchdog.domain.formatting import format_utc_timestamp
    from watchdog.service.acts import acknowledge_incident

    with open_database_to_act(config) as (database, user, now):
        incident = find_incident_id_to_act_on(database, incident)
        acknowledgement, is_new = acknowledge_incident(database, incident, user, comment, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_incident_acknowledgement(incident, acknowledgement))
    elif is_new:
        print(f"Acknowledged: {incident}")
    else:
        at = format_utc_timestamp(acknowledgement.at, now)
        print(f"Already acknowledged by {acknowledgement.actor.name} at {at}: {incident}")
