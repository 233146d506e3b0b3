"""`watchdog explain`: why an incident opened or did not, who is notified of it, who is not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption
from watchdog.cli.completion import IncidentArgument
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json, print_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from watchdog.cli.incident_detail import LoadedIncident


def explain_incident_command(
    subject: IncidentArgument,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Explain an incident, or why a probe has none.

    For an incident, shows why it opened, which routes apply, the deliveries of each destination or why it has none,
    what happened, what people did, and what holds back notifications.

    For a probe, shows what may open an incident, whether it is paused, in maintenance, silenced or muted, and whom a
    new incident would notify. Then it shows the open incidents of the probe, or the newest one if none is open.

    \b
    Example: watchdog explain Website
             watchdog explain 1c9b04
    """
    from watchdog.cli.incident_detail import (
        load_incident_or_raise,
        open_incident_read_context_or_exit,
        serialize_loaded_incident,
    )
    from watchdog.cli.probe_explanation import (
        iter_probe_explanation_lines,
        load_explained_probe,
        serialize_explained_probe,
    )
    from watchdog.store.read.incident_references import find_incident_id_or_probe

    with open_incident_read_context_or_exit(config) as reader:
        referenced = find_incident_id_or_probe(reader.connection, subject)
        incident = load_incident_or_raise(reader, referenced) if isinstance(referenced, str) else None
        probe = None if isinstance(referenced, str) else load_explained_probe(reader, referenced)
    if incident is not None:
        _print_explanation(output, serialize_loaded_incident(incident), _iter_incident_explanation_lines(incident))
    elif probe is not None:
        lines = [*iter_probe_explanation_lines(probe)]
        silences = [silence.id for silence in probe.outlook.silences]
        for each in probe.incidents:
            lines += ["", *_iter_incident_explanation_lines(each, silences)]
        _print_explanation(output, serialize_explained_probe(probe), lines)


def _print_explanation(output: CliOutputFormat, body: Mapping[str, Any], lines: Iterable[str]) -> None:
    """As JSON or as text."""
    if output is CliOutputFormat.JSON:
        print_json(body)
    else:
        print_lines(lines)


def _iter_incident_explanation_lines(incident: LoadedIncident, silences_above: Collection[str] = ()) -> Iterator[str]:
    """`silences_above`: the ids of silences that earlier lines describe. Each silence in effect is described once."""
    from watchdog.cli.incident_detail import INDENT, iter_incident_head_lines, iter_incident_timeline_lines
    from watchdog.domain.routing import SILENCE_ROUTING_LOG_PREFIX
    from watchdog.domain.text import capitalize_first
    from watchdog.web.times import convert_markup_to_plain_text

    yield from iter_incident_head_lines(incident, silences_above)
    yield from ("", "Why it opened, and which routes apply")
    silences = filter(None, (banner.silence_id for banner in incident.page.banners))
    described_above = tuple(f"{capitalize_first(SILENCE_ROUTING_LOG_PREFIX)}{id} " for id in silences)
    for step, setting in incident.page.decision_steps:
        if step.startswith(described_above):
            continue
        yield f"{INDENT}{step} ({setting})" if setting else f"{INDENT}{step}"
    if incident.page.escalations:
        yield from ("", "Escalation")
    for escalation in incident.page.escalations:
        outcome = convert_markup_to_plain_text(escalation.outcome)
        yield f"{INDENT}{escalation.step} ({escalation.destination}): {outcome}"
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

    notified = {delivery.destination for delivery in incident.details.deliveries}
    names = sorted(notified.union(incident.details.configured_destinations))
    if not names:
        yield f"{INDENT}No receiver is configured."
    for name in names:
        why = explain_routing_of_destination(incident.page.record.routing_log, name, is_notified=name in notified)
        yield f"{INDENT}{name}: {'' if name in notified else 'not notified: '}{why}"
        if others := incident.names_in_messages.get(name):
            yield f"{INDENT * 2}in one message with {format_names(list(map(format_display_name, others)))}"
        own = [delivery for delivery in incident.details.deliveries if delivery.destination == name]
        yield from (f"{INDENT * 2}{line}" for line in iter_delivery_lines(own, with_destination=False))
