"""The list of incidents, open ones first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import format_duration, format_duration_rounded
from watchdog.domain.model import HealthState, ProbeInfo, Severity
from watchdog.domain.pausing import Pause
from watchdog.store.read import status
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.members import load_database_ids_of_active_probes
from watchdog.store.read.status import Connection, IncidentRecord, WatchdogStatus
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.acts import describe_acts, render_pause
from watchdog.web.pages.flapping import list_flapping_label_if_active
from watchdog.web.pages.incident import find_incident_health_state
from watchdog.web.pages.list_page import PageNumberPagination, compute_pagination
from watchdog.web.pages.muting import describe_muting
from watchdog.web.pages.search import does_probe_match_search_term
from watchdog.web.times import render_timestamp_with_zone

MAX_RESOLVED_INCIDENTS_ON_PAGE = 200
RESOLVED_INCIDENTS_PER_SEARCH_STEP = MAX_RESOLVED_INCIDENTS_ON_PAGE + 1
MAX_RESOLVED_INCIDENT_SEARCH_STEPS = 25
"""A search that finds few incidents reads 5,000 of them for a page; a link goes on from there."""


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
    """Who is handling it, and what holds back its notifications."""


@dataclass(frozen=True, slots=True)
class IncidentsPageFilter:
    """Empty: any."""

    search: str = ""
    """Terms that must all match: words in the message, the rule, the subject or the probe; `group:Core`, `kind:mcp`,
    `tag:prod`."""
    state: str = ""
    """open or resolved"""
    severity: str = ""
    probe: str = ""
    """The id of a probe."""

    @property
    def is_empty(self) -> bool:
        return self == IncidentsPageFilter()

    @property
    def is_only_open(self) -> bool:
        return self == IncidentsPageFilter(state="open")

    def matches_search(self, record: IncidentRecord) -> bool:
        incident = record.incident
        text = f"{incident.message} {incident.rule} {incident.subject}".lower()
        return all(
            term in text or does_probe_match_search_term(record.probe, term) for term in self.search.lower().split()
        )


class IncidentListPosition(NamedTuple):
    """Behind this incident, newest first."""

    opened_at: int
    id: str

    @classmethod
    def parse_url_value(cls, text: str) -> IncidentListPosition | None:
        """None for a text that `url_value` does not give."""
        match = _POSITION_PATTERN.fullmatch(text)
        return cls(int(match[1]), match[2]) if match else None

    @property
    def url_value(self) -> str:
        return f"{self.opened_at}-{self.id}"


_POSITION_PATTERN = re.compile(r"([0-9]{1,15})-([0-9a-f]{1,64})")


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    service_status: WatchdogStatus
    filter: IncidentsPageFilter
    open_incidents: tuple[IncidentsPageRow, ...]
    """Those on this page."""
    resolved_incidents: tuple[IncidentsPageRow, ...]
    """On the first page, the newest; behind a position, those after it."""
    older_from: IncidentListPosition | None
    """Where the list of resolved incidents goes on; None: there are no others."""
    searched_back_to: int | None
    """Set if the search ended before the page was full: older incidents have not been searched yet."""
    is_continued: bool
    """The page begins behind a position."""
    probe_name: str
    """Of the filter's probe; its id if none of its incidents is shown."""
    pagination: PageNumberPagination
    """Of the open incidents."""


class ResolvedIncidents(NamedTuple):
    records: list[IncidentRecord]
    older_from: IncidentListPosition | None
    searched_back_to: int | None


def load_incidents_page(
    connection: Connection,
    incident_filter: IncidentsPageFilter,
    now: int,
    *,
    page_number: int = 1,
    after: IncidentListPosition | None = None,
) -> IncidentsPage:
    """`page_number`: of the open incidents. `after`: show only resolved incidents behind this position."""
    probe_id, ids = incident_filter.probe, None
    if probe_id:
        ids = tuple(load_database_ids_of_active_probes(connection, [probe_id]).values())
    severity = Severity(incident_filter.severity) if incident_filter.severity else None
    load_incidents = partial(status.list_incidents, connection, probe_database_ids=ids, severity=severity)
    open_incidents: list[IncidentRecord] = []
    if incident_filter.state != "resolved" and after is None:
        open_incidents = list(filter(incident_filter.matches_search, load_incidents(is_open=True)))
    pagination = compute_pagination(len(open_incidents), page_number)
    resolved = ResolvedIncidents([], None, None)
    if incident_filter.state != "open" and pagination.page_number == 1:
        load_resolved = partial(load_incidents, is_open=False, limit=RESOLVED_INCIDENTS_PER_SEARCH_STEP)
        resolved = search_resolved_incidents(load_resolved, incident_filter.matches_search, after)
    shown_open_incidents = pagination.slice_items(open_incidents)
    probe_names = {record.probe.id: record.probe.name for record in (*shown_open_incidents, *resolved.records)}
    marks = load_acknowledgement_and_hold_marks_of_open_incidents(connection, shown_open_incidents, now)
    return IncidentsPage(
        service_status=status.load_watchdog_status(connection),
        filter=incident_filter,
        open_incidents=tuple(
            build_incidents_page_row(record, now, marks[record.incident.id]) for record in shown_open_incidents
        ),
        resolved_incidents=tuple(build_incidents_page_row(record, now) for record in resolved.records),
        older_from=resolved.older_from,
        searched_back_to=resolved.searched_back_to,
        is_continued=after is not None,
        probe_name=probe_names.get(probe_id, probe_id),
        pagination=pagination,
    )


def search_resolved_incidents(
    load_incidents: Callable[..., list[IncidentRecord]],
    matches: Callable[[IncidentRecord], bool],
    after: IncidentListPosition | None,
) -> ResolvedIncidents:
    """The first that match, newest first. `load_incidents(after=...)` loads RESOLVED_INCIDENTS_PER_SEARCH_STEP
    incidents, or fewer if no others follow."""
    matching: list[IncidentRecord] = []
    for _ in range(MAX_RESOLVED_INCIDENT_SEARCH_STEPS):
        records = load_incidents(after=after)
        for record in records:
            if matches(record):
                if len(matching) == MAX_RESOLVED_INCIDENTS_ON_PAGE:
                    return ResolvedIncidents(matching, _get_position_of_incident(matching[-1]), None)
                matching.append(record)
        if len(records) < RESOLVED_INCIDENTS_PER_SEARCH_STEP:
            return ResolvedIncidents(matching, None, None)
        after = _get_position_of_incident(records[-1])
    return ResolvedIncidents(matching, after, after.opened_at if after else None)


def _get_position_of_incident(record: IncidentRecord) -> IncidentListPosition:
    return IncidentListPosition(record.incident.opened_at, record.incident.id)


def describe_what_holds_back(record: IncidentRecord, now: int) -> tuple[str, ...]:
    """Of an open incident: who is handling it, and what holds back its notifications, except for a pause or
    maintenance of its probe."""
    return (
        *describe_acts(record.incident, record.silences, now),
        *describe_muting(record),
        *list_flapping_label_if_active(record),
    )


def load_acknowledgement_and_hold_marks_of_open_incidents(
    connection: Connection, records: Iterable[IncidentRecord], now: int
) -> dict[str, tuple[str, ...]]:
    """By incident: who is handling it, and what holds back its notifications: "acknowledged by Ana", "silenced until
    03:29 UTC". Incidents that are over are missing."""
    maintenance_ends = load_maintenance_ends_by_probe(connection, now)
    pauses = load_pauses_in_effect(connection)

    def iter_acknowledgement_and_hold_marks(record: IncidentRecord) -> Iterator[str]:
        yield from describe_what_holds_back(record, now)
        yield from iter_pause_and_maintenance_marks(
            pauses.get(record.incident.probe), maintenance_ends.get(record.incident.probe), now
        )

    is_open = (record for record in records if record.incident.resolved_at is None)
    return {record.incident.id: tuple(iter_acknowledgement_and_hold_marks(record)) for record in is_open}


def iter_pause_and_maintenance_marks(pause: Pause | None, maintenance_ends_at: int | None, now: int) -> Iterator[str]:
    """Why nothing about a probe is reported: "paused since 12:00 UTC by ana", "in maintenance until 12:00 UTC"."""
    if pause is not None:
        yield render_pause(pause, now)
    if maintenance_ends_at is not None:
        yield Markup("in maintenance until {}").format(render_timestamp_with_zone(maintenance_ends_at, now))


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
