"""`watchdog unack`: takes an acknowledgement back."""

from __future__ import annotations

from watchdog.cli.acts import ActCommentOption, find_incident_id_to_act_on, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import OpenIncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def unack_command(
    incident: OpenIncidentArgument,
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Remove the acknowledgement of an open incident.

    \b
    Example: watchdog unack Website
    """
    from watchdog.api.serializers.acts import serialize_incident_acknowledgement
    from watchdog.service.acts import remove_acknowledgement

    with open_database_to_act(config) as (database, user, now):
        incident = find_incident_id_to_act_on(database, incident)
        was_acknowledged = remove_acknowledgement(database, incident, user, comment, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_incident_acknowledgement(incident, None))
    else:
        print(f"{'No longer acknowledged' if was_acknowledged else 'Was not acknowledged'}: {incident}")
