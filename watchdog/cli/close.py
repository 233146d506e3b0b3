"""`watchdog close`: ends an incident whose failure was handled outside Watchdog."""

from __future__ import annotations

from watchdog.cli.acts import ActCommentOption, find_incident_id_to_act_on, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import OpenIncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json


def close_command(
    incident: OpenIncidentArgument,
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Close an open incident that was handled outside Watchdog.

    Destinations that were notified of it are notified of the end. If the failure continues, another incident opens.

    \b
    Example: watchdog close 1c9b04ae77d2f00c3a51e9d8 --comment "the host was removed"
    """
    from watchdog.api.serializers.acts import serialize_incident_closure
    from watchdog.domain.formatting import format_utc_timestamp
    from watchdog.domain.text import format_as_sentence
    from watchdog.service.acts import close_incident

    with open_database_to_act(config) as (database, user, now):
        incident = find_incident_id_to_act_on(database, incident)
        closure, is_new, outlook = close_incident(database, incident, user, comment, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_incident_closure(incident, closure, outlook))
    elif is_new:
        print(f"Closed: {incident}")
        if outlook:
            print(format_as_sentence(outlook))
    else:
        print(f"Already closed by {closure.actor.name} at {format_utc_timestamp(closure.at, now)}: {incident}")
