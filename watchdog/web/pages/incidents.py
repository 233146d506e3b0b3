"""The list of incidents, open ones first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import format_duration, format_duration_rounded
from watchdog.domain.model import HealthState, ProbeInfo
from watchdog.domain.silencing import Silence
from watchdog.store.read import status
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.status import Connection, IncidentRecord, WatchdogStatus
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.acts import describe_acts, load_silences_by_incident, render_pause
from watchdog.web.pages.flapping import describe_flapping
from watchdog.web.pages.incident import find_incident_health_state
from watchdog.web.pages.list_page import Pagination, compute_pagination
from watchdog.web.pages.muting import describe_muting
from watchdog.web.times import render_timestamp_with_zone

MAX_RESOLVED_INCIDENTS_ON_PAGE = 200


@dataclass(frozen=True, slots=True)
class IncidentsPageRow:
    id: str
    probe: ProbeInfo
    message: str
    rule_and_subject: str
    state: HealthState
    state_label: str
    severity: str
    since: int
    is_open: bool
    duration_text: str
    marks: tuple[str, ...]
    """Who takes care of it, and what holds back its notifications."""


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    service_status: WatchdogStatus
    state_filter: str
    open_incidents: tuple[IncidentsPageRow, ...]
    """Those on this page."""
    resolved_incidents: tuple[IncidentsPageRow, ...]
    """The newest, on the first page."""
    pagination: Pagination
    """Of the open incidents."""


def load_incidents_page(connection: Connection, state_filter: str, page_number: int, now: int) -> IncidentsPage:
    """`state_filter`: "open", "resolved" or "" for both."""
    open_incidents: list[IncidentRecord] = []
    resolved_incidents: list[IncidentRecord] = []
    if state_filter != "resolved":
        open_incidents = status.list_incidents(connection, is_open=True)
    pagination = compute_pagination(len(open_incidents), page_number)
    if state_filter != "open" and pagination.page_number == 1:
        resolved_incidents = status.list_incidents(connection, is_open=False, limit=MAX_RESOLVED_INCIDENTS_ON_PAGE)
    shown_open_incidents = pagination.slice_items(open_incidents)
    marks = load_marks_of_open_incidents(connection, shown_open_incidents, now)
    return IncidentsPage(
        service_status=status.load_watchdog_status(connection),
        state_filter=state_filter,
        open_incidents=tuple(
            build_incidents_page_row(record, now, marks[record.incident.id]) for record in shown_open_incidents
        ),
        resolved_incidents=tuple(build_incidents_page_row(record, now) for record in resolved_incidents),
        pagination=pagination,
    )


def describe_what_holds_back(record: IncidentRecord, silences: Sequence[Silence], now: int) -> tuple[str, ...]:
    """Of an open incident: who takes care of it, and what holds back its notifications, except for a pause or
    maintenance of its probe. `silences`: those in effect that select it."""
    return (*describe_acts(record.incident, silences, now), *describe_muting(record), *describe_flapping(record))


def load_marks_of_open_incidents(
    connection: Connection, records: Iterable[IncidentRecord], now: int
) -> dict[str, tuple[str, ...]]:
    """By incident: who takes care of it, and what holds back its notifications: "acknowledged by Ana", "silenced until
    03:29 UTC". Incidents that are over are missing."""
    silences = load_silences_by_incident(connection)
    maintenance_ends = load_maintenance_ends_by_probe(connection, now)
    pauses = load_pauses_in_effect(connection)

    def iter_marks(record: IncidentRecord) -> Iterator[str]:
        incident = record.incident
        yield from describe_what_holds_back(record, silences.get(incident.id, ()), now)
        if (pause := pauses.get(incident.probe)) is not None:
            yield render_pause(pause, now)
        if (end := maintenance_ends.get(incident.probe)) is not None:
            yield Markup("in maintenance until {}").format(render_timestamp_with_zone(end, now))

    is_open = (record for record in records if record.incident.resolved_at is None)
    return {record.incident.id: tuple(iter_marks(record)) for record in is_open}


def build_incidents_page_row(record: IncidentRecord, now: int, marks: tuple[str, ...] = ()) -> IncidentsPageRow:
    incident, state = record.incident, find_incident_health_state(record)
    if incident.resolved_at is None:
        state_label, duration_text = PAGE_HEALTH_STATE_LABELS[state], format_duration_rounded(now - incident.since)
    else:
        state_label, duration_text = "Resolved", format_duration(incident.resolved_at - incident.since)
    return IncidentsPageRow(
        id=incident.id,
        probe=record.probe,
        message=incident.message,
        rule_and_subject=f"{incident.rule} {incident.subject}".strip(),
        state=state,
        state_label=state_label,
        severity=incident.severity,
        since=incident.since,
        is_open=incident.resolved_at is None,
        duration_text=duration_text,
        marks=marks,
    )
