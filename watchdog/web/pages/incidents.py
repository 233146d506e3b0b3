"""The operators' list of incidents, open ones first, and the notifications that were given up."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.formatting import format_duration, format_duration_rounded
from watchdog.domain.model import HealthState, ProbeInfo
from watchdog.store.read import status
from watchdog.store.read.status import Connection, IncidentRecord, ServiceStatus
from watchdog.web.pages.incident import incident_state
from watchdog.web.pages.timeline import PAGE_STATE_LABELS

MAX_RESOLVED_INCIDENTS = 200
"""Resolved incidents in the list."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    id: str
    probe: ProbeInfo
    message: str
    rule_and_subject: str
    state: HealthState
    state_label: str
    severity: str
    since: int
    duration_text: str


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    service_status: ServiceStatus
    state_filter: str
    open_incidents: tuple[IncidentRow, ...]
    resolved_incidents: tuple[IncidentRow, ...]


def load_incidents_page(connection: Connection, state_filter: str, now: int) -> IncidentsPage:
    """`which`: "open", "resolved" or "" for both."""
    still = status.list_incidents(connection, is_open=True) if state_filter != "resolved" else []
    over = (
        status.list_incidents(connection, is_open=False, limit=MAX_RESOLVED_INCIDENTS) if state_filter != "open" else []
    )
    return IncidentsPage(
        status.load_service_status(connection),
        state_filter,
        tuple(build_incident_row(c, now) for c in still),
        tuple(build_incident_row(c, now) for c in over),
    )


def build_incident_row(record: IncidentRecord, now: int) -> IncidentRow:
    incident = record.incident
    end = now if incident.resolved_at is None else incident.resolved_at
    word = PAGE_STATE_LABELS[incident_state(record)] if incident.resolved_at is None else "Resolved"
    subject = f"{incident.rule} {incident.subject}".strip()
    lasted = (
        format_duration_rounded(end - incident.since)
        if incident.resolved_at is None
        else format_duration(end - incident.since)
    )
    return IncidentRow(
        incident.id,
        record.probe,
        incident.message,
        subject,
        incident_state(record),
        word,
        incident.severity,
        incident.since,
        lasted,
    )
