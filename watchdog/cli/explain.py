"""`watchdog explain`: why an incident opened, who was notified of it, who was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error, open_read_connection_or_exit
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from watchdog.store.read.status import DeliveryRecord
    from watchdog.web.pages.incident import IncidentDetailPage

INDENT = "  "


def explain_command(
    incident: Annotated[str, typer.Argument(help="Id of the incident.", show_default=False)],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Explain why an incident opened, and who was notified.

    Lists the routes that apply, each destination with its deliveries or why it has none, and what happened.

    \b
    Example: watchdog explain 1c9b04ae77d2f00c3a51e9d8
    """
    from watchdog.api.serializers.incidents import serialize_incident_detail
    from watchdog.domain.model import IncidentEvent
    from watchdog.domain.notification import Notification
    from watchdog.store.read.alert_context import load_alert_message_context
    from watchdog.store.read.destinations import list_destination_names
    from watchdog.store.read.messages import list_probe_names_in_same_messages
    from watchdog.store.read.status import list_incident_deliveries
    from watchdog.web.pages.incident import load_incident_detail_page

    with open_read_connection_or_exit(config) as (connection, now):
        page = load_incident_detail_page(connection, incident, {}, now)
        if page is None:
            exit_with_error(f"there is no incident with the id {incident}: `watchdog incidents` lists them")
        context = load_alert_message_context(connection, Notification(incident, "", 0, IncidentEvent.OPENED), now)
        deliveries = list_incident_deliveries(connection, incident)
        destinations = list_destination_names(connection)
        names_in_messages = list_probe_names_in_same_messages(connection, incident)
    if output is CliOutputFormat.JSON:
        print_json(serialize_incident_detail(page.record, context, deliveries, destinations))
    else:
        print("\n".join(_iter_explanation_lines(page, deliveries, destinations, names_in_messages, now)))


def _iter_explanation_lines(
    page: IncidentDetailPage,
    deliveries: Sequence[DeliveryRecord],
    destinations: Sequence[str],
    names_in_messages: Mapping[str, Sequence[str]],
    now: int,
) -> Iterator[str]:
    from watchdog.domain.formatting import format_utc_timestamp_without_zone
    from watchdog.web.pages.delivery import describe_who_was_notified
    from watchdog.web.times import remove_time_markup

    yield page.title
    yield f"{page.state_label} · {page.record.incident.severity}"
    is_open, is_muted = page.record.incident.resolved_at is None, page.record.muting is not None
    if headline := describe_who_was_notified(deliveries, now, is_open=is_open, is_muted=is_muted):
        yield headline
    for banner in page.banners:
        yield ". ".join(map(remove_time_markup, filter(None, (banner.title, banner.text))))
    if page.advice_parts:
        yield f"What to do: {''.join(page.advice_parts)}"
    yield from ("", "Why it opened, and which routes apply")
    for step, setting in page.decision_steps:
        yield f"{INDENT}{step} ({setting})" if setting else f"{INDENT}{step}"
    yield from ("", "Who was notified")
    yield from _iter_destination_lines(page, deliveries, destinations, names_in_messages)
    yield from ("", "What happened (UTC)")
    for event in reversed(page.timeline):
        at = format_utc_timestamp_without_zone(event.occurred_at, now, seconds=True)
        text = ": ".join(map(remove_time_markup, filter(None, (event.title, event.detail))))
        yield f"{INDENT}{at}  {text}"


def _iter_destination_lines(
    page: IncidentDetailPage,
    deliveries: Sequence[DeliveryRecord],
    destinations: Sequence[str],
    names_in_messages: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Each configured destination with its deliveries, or why it has none. `names_in_messages`: of the probes whose
    incidents share a message with this one, by destination."""
    from watchdog.domain.formatting import format_names
    from watchdog.domain.routing import explain_routing_of_destination
    from watchdog.domain.text import format_display_name
    from watchdog.web.pages.delivery import build_delivery_page_row
    from watchdog.web.times import remove_time_markup

    notified = {delivery.destination for delivery in deliveries}
    names = sorted(notified.union(destinations))
    if not names:
        yield f"{INDENT}No receiver is configured."
    for name in names:
        why = explain_routing_of_destination(page.record.routing_log, name, is_notified=name in notified)
        yield f"{INDENT}{name}: {'' if name in notified else 'not notified: '}{why}"
        if others := names_in_messages.get(name):
            yield f"{INDENT * 2}in one message with {format_names(list(map(format_display_name, others)))}"
        for delivery in deliveries:
            if delivery.destination == name:
                row = build_delivery_page_row(delivery, {})
                yield f"{INDENT * 2}{row.event}: {row.label.lower()}, {remove_time_markup(row.detail)}"
