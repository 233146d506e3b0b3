"""The operators' list of incidents, open ones first, and the notifications that were given up."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.model import ProbeInfo, State
from watchdog.store import views
from watchdog.store.views import Case, Connection, Pulse
from watchdog.web.incident import state
from watchdog.web.timeline import STATE_WORDS
from watchdog.words import about, span

LISTED = 200
"""Resolved incidents in the list."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    id: str
    probe: ProbeInfo
    message: str
    about: str
    state: State
    word: str
    severity: str
    since: int
    lasted: str


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    pulse: Pulse
    which: str
    open: tuple[IncidentRow, ...]
    over: tuple[IncidentRow, ...]


def read(connection: Connection, which: str, now: int) -> IncidentsPage:
    """`which`: "open", "resolved" or "" for both."""
    still = views.cases(connection, is_open=True) if which != "resolved" else []
    over = views.cases(connection, is_open=False, limit=LISTED) if which != "open" else []
    return IncidentsPage(
        views.pulse(connection), which, tuple(row(c, now) for c in still), tuple(row(c, now) for c in over)
    )


def row(case: Case, now: int) -> IncidentRow:
    incident = case.incident
    end = now if incident.resolved_at is None else incident.resolved_at
    word = STATE_WORDS[state(case)] if incident.resolved_at is None else "Resolved"
    subject = f"{incident.rule} {incident.subject}".strip()
    lasted = about(end - incident.since) if incident.resolved_at is None else span(end - incident.since)
    return IncidentRow(
        incident.id, case.probe, incident.message, subject, state(case), word, incident.severity, incident.since, lasted
    )
