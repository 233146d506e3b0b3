"""One incident as commands show it: what is known about it, loaded once, and its lines."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from watchdog.cli.acts import describe_refusal
from watchdog.cli.common import (
    exit_with_error,
    load_database_and_service_info_or_exit,
    open_database_or_exit,
    read_database_clock,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from watchdog.api.serializers.incidents import IncidentDetailJson
    from watchdog.config.problems import ServiceConnectionInfo
    from watchdog.store.read.incident_details import IncidentDetails
    from watchdog.store.read.status import DeliveryRecord
    from watchdog.web.pages.compare import ResultComparisonSide
    from watchdog.web.pages.incident import IncidentDetailPage

INDENT = "  "


class LoadedIncident(NamedTuple):
    """An incident with everything that is shown of it."""

    page: IncidentDetailPage
    details: IncidentDetails
    names_in_messages: Mapping[str, Sequence[str]]
    """Of the probes whose incidents share a message with this one, by destination."""
    now: int
    """When it was read, in epoch ms."""
    link: str
    """Its page; empty if the address of the pages is not known."""


class IncidentReadContext(NamedTuple):
    """What reading incidents takes."""

    connection: Connection
    now: int
    """By the clock of the database, in epoch ms."""
    service: ServiceConnectionInfo | None
    """Whose pages show them; None: not known."""


@contextmanager
def open_incident_read_context_or_exit(config_path: Path) -> Iterator[IncidentReadContext]:
    """Exits with one line if what is looked for does not exist, and as `open_database_or_exit` does."""
    from watchdog.domain.acts import OperatorActRefusedError

    configured, service = load_database_and_service_info_or_exit(config_path)
    with open_database_or_exit(configured) as database:
        now = read_database_clock(database)
        with database.open_read_transaction() as connection:
            try:
                yield IncidentReadContext(connection, now, service)
            except OperatorActRefusedError as e:
                exit_with_error(describe_refusal(e))


def load_incident_or_exit(config_path: Path, incident: str) -> LoadedIncident:
    """`incident`: its id, or the beginning of it. Exits as `open_incident_read_context_or_exit` does."""
    from watchdog.store.read.incident_references import find_incident_id_or_probe

    with open_incident_read_context_or_exit(config_path) as reader:
        referenced = find_incident_id_or_probe(reader.connection, incident)
        if not isinstance(referenced, str):
            exit_with_error(f"{incident} is a probe: use `watchdog incidents --probe NAME` or `watchdog explain NAME`")
        return load_incident_or_raise(reader, referenced)


def load_incident_or_raise(reader: IncidentReadContext, incident: str) -> LoadedIncident:
    """`incident`: its id. Raises LookupError if there is none with it."""
    from watchdog.store.read.incident_details import load_incident_details
    from watchdog.store.read.messages import list_probe_names_in_same_messages
    from watchdog.web.pages.incident import load_incident_detail_page

    connection, now, service = reader
    page = load_incident_detail_page(connection, incident, {}, now)
    details = load_incident_details(connection, incident, now)
    if page is None or details is None:
        raise LookupError(incident)
    return LoadedIncident(
        page=page,
        details=details,
        names_in_messages=list_probe_names_in_same_messages(connection, incident),
        now=now,
        link=_build_incident_link(service, incident),
    )


def _build_incident_link(service: ServiceConnectionInfo | None, incident: str) -> str:
    base_url = service and (service.public_url or service.base_url)
    return f"{base_url}/incidents/{incident}" if base_url else ""


def serialize_loaded_incident(incident: LoadedIncident) -> IncidentDetailJson:
    """As the API returns it."""
    from watchdog.api.serializers.incidents import serialize_incident_detail

    return serialize_incident_detail(incident.details)


def iter_incident_head_lines(incident: LoadedIncident, silences_above: Collection[str] = ()) -> Iterator[str]:
    """What is wrong, who has been notified, what holds notifications back, and what to do. `silences_above`: the ids of
    silences that earlier lines describe, so that these do not."""
    from watchdog.web.pages.delivery import describe_who_was_notified
    from watchdog.web.times import convert_markup_to_plain_text

    page, record = incident.page, incident.page.record
    yield page.title
    yield f"{page.state_label} · {record.incident.severity}"
    is_open, is_muted = record.incident.resolved_at is None, record.muting is not None
    headline = describe_who_was_notified(incident.details.deliveries, incident.now, is_open=is_open, is_muted=is_muted)
    if headline:
        yield headline
    for banner in page.banners:
        if banner.silence_id in silences_above:
            continue
        yield ". ".join(map(convert_markup_to_plain_text, filter(None, (banner.title, banner.text))))
    if page.advice_parts:
        yield f"What to do: {''.join(page.advice_parts)}"


def iter_incident_timeline_lines(incident: LoadedIncident) -> Iterator[str]:
    """What happened, oldest first."""
    from watchdog.domain.formatting import format_utc_timestamp_without_zone
    from watchdog.web.times import convert_markup_to_plain_text

    yield "What happened (UTC)"
    for event in reversed(incident.page.timeline):
        at = format_utc_timestamp_without_zone(event.occurred_at, incident.now, seconds=True)
        text = ": ".join(map(convert_markup_to_plain_text, filter(None, (event.title, event.detail))))
        yield f"{INDENT}{at}  {text}"


def iter_delivery_lines(deliveries: Sequence[DeliveryRecord], *, with_destination: bool) -> Iterator[str]:
    """The state of each delivery, such as "oncall/slack opened: delivered, 01:49:03 · 1 s"."""
    from watchdog.web.pages.delivery import build_delivery_page_row
    from watchdog.web.times import convert_markup_to_plain_text

    for delivery in deliveries:
        row = build_delivery_page_row(delivery, {})
        what = f"{delivery.destination} {row.event}" if with_destination else row.event
        yield f"{what}: {row.label.lower()}, {convert_markup_to_plain_text(row.detail)}"


def iter_incident_detail_lines(incident: LoadedIncident) -> Iterator[str]:
    """Everything that the page of the incident shows, except why each destination was chosen."""
    from watchdog.web.times import convert_markup_to_plain_text

    page = incident.page
    yield from iter_incident_head_lines(incident)
    if page.record.probe.runbook:
        yield f"Runbook: {page.record.probe.runbook}"
    if incident.link:
        yield f"Page: {incident.link}"
    yield from ("", "About")
    yield from (f"{INDENT}{name:9}{value}" for name, value in _list_incident_facts(incident) if value)
    for result in filter(None, (page.first_bad, page.last_good)):
        yield ""
        yield from _iter_evidence_lines(result)
    if page.latest_result_text:
        yield from ("", f"Latest: {convert_markup_to_plain_text(page.latest_result_text)}")
    yield from ("", f"Notifications: {page.delivery_summary or 'none'}")
    yield from (f"{INDENT}{line}" for line in iter_delivery_lines(incident.details.deliveries, with_destination=True))
    yield ""
    yield from iter_incident_timeline_lines(incident)


def _list_incident_facts(incident: LoadedIncident) -> list[tuple[str, str]]:
    """Label and value; an empty value is not shown."""
    from watchdog.domain.formatting import format_utc_timestamp

    record, now = incident.page.record, incident.now
    probe, about = record.probe, record.incident
    name_and_kind = f"{probe.name} ({probe.id}, {probe.kind})"
    times = {"since": about.since, "opened": about.opened_at, "resolved": about.resolved_at}
    return [
        ("probe", name_and_kind),
        ("target", probe.target),
        ("group", probe.group),
        ("tags", ", ".join(probe.tags)),
        ("rule", about.rule),
        ("subject", about.subject),
        ("reason", about.reason),
        *((name, "" if at is None else format_utc_timestamp(at, now, seconds=True)) for name, at in times.items()),
    ]


def _iter_evidence_lines(result: ResultComparisonSide) -> Iterator[str]:
    """Of a result. The excerpt is text of the target, without control characters."""
    from watchdog.web.times import convert_markup_to_plain_text

    yield f"{result.title}: {convert_markup_to_plain_text(result.time_and_location)}"
    width = max((len(label) for label, *_ in result.facts), default=0) + 2
    for label, value, _ in result.facts:
        yield f"{INDENT}{label:{width}}{value}"
    if result.excerpt:
        yield f"{INDENT}response excerpt (untrusted):"
        excerpt = "".join(text for text, _ in result.excerpt)
        yield from (f"{INDENT * 2}{line}" for line in excerpt.splitlines())
    if result.evidence_note:
        yield f"{INDENT}{result.evidence_note}"
