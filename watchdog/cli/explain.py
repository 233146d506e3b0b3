"""`watchdog explain`: why an incident opened, who was notified of it, who was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import IncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog.cli.incident_detail import LoadedIncident


def explain_command(
    incident: IncidentArgument,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Explain why an incident opened, and who was notified.

    Lists the routes that apply, each destination with its deliveries or why it has none, and what happened, including
    what people did and what holds notifications back.

    \b
    Example: watchdog explain 1c9b04ae77d2f00c3a51e9d8
    """
    from watchdog.cli.incident_detail import load_incident_or_exit, print_incident_json

    loaded = load_incident_or_exit(config, incident)
    if output is CliOutputFormat.JSON:
        print_incident_json(loaded)
    else:
        print("\n".join(_iter_explanation_lines(loaded)))


def _iter_explanation_lines(incident: LoadedIncident) -> Iterator[str]:
    from watchdog.cli.incident_detail import INDENT, iter_incident_head_lines, iter_incident_timeline_lines

    yield from iter_incident_head_lines(incident)
    yield from ("", "Why it opened, and which routes apply")
    for step, setting in incident.page.decision_steps:
        yield f"{INDENT}{step} ({setting})" if setting else f"{INDENT}{step}"
    yield from ("", "Who was notified")
    yield from _iter_destination_lines(incident)
    yield ""
    yield from iter_incident_timeline_lines(incident)


def _iter_destination_lines(incident: LoadedIncident) -> Iterator[str]:
    """Each configured destination with its deliveries, or why it has none."""
    from watchdog.cli.incident_detail import INDENT, iter_delivery_lines
    from watchdog.domain.formatting import format_names
    from watchdog.domain.routing import explain_routing_of_destination
    from watchdog.domain.text import format_display_name

    notified = {delivery.destination for delivery in incident.deliveries}
    names = sorted(notified.union(incident.destinations))
    if not names:
        yield f"{INDENT}No receiver is configured."
    for name in names:
        why = explain_routing_of_destination(incident.page.record.routing_log, name, is_notified=name in notified)
        yield f"{INDENT}{name}: {'' if name in notified else 'not notified: '}{why}"
        if others := incident.names_in_messages.get(name):
            yield f"{INDENT * 2}in one message with {format_names(list(map(format_display_name, others)))}"
        own = [delivery for delivery in incident.deliveries if delivery.destination == name]
        yield from (f"{INDENT * 2}{line}" for line in iter_delivery_lines(own, with_destination=False))
