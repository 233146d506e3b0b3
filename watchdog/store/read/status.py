"""Where things stand now, as pages, the command line and other programs read it. What was, is in history.py.

Read-only: each function is given a connection. A probe's newest result is found by a seek of its own, never by grouping
results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.model import HealthState, Incident, Outcome, ProbeInfo
from watchdog.domain.rules import HEALTH_STATE_BY_RULE, derive_health_state
from watchdog.store.codec import loads, probe_info_from_json
from watchdog.store.read.alert_context import incident_from_row
from watchdog.store.tables import incidents, outbox, probes, results, schedule, watermarks

__all__ = [
    "MAX_WATERMARK_LAG_MS",
    "Connection",
    "DeliveryStatus",
    "IncidentRecord",
    "ProbeStatus",
    "ResultRow",
    "ServiceStatus",
    "count_incidents_by_probe",
    "list_dead_letters",
    "list_deliveries",
    "list_incidents",
    "list_probe_statuses",
    "load_probe_config_yaml",
    "load_service_status",
]

JUDGED_OUTCOMES = (Outcome.PASS.value, Outcome.FAIL.value)
MAX_WATERMARK_LAG_MS = 60_000
"""The watermark this far behind: Watchdog itself stands still, and no state is current. In ms."""


class ResultRow(NamedTuple):
    """One result, without its details."""

    slot: int
    location: str
    outcome: Outcome
    reason: str
    message: str
    duration: int | None
    slot_count: int
    """How many slots a row of outcome `missed` stands for."""
    recorded_at: int


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """Where one probe stands."""

    probe: ProbeInfo
    created_at: int
    state: HealthState
    open_incidents: tuple[Incident, ...]
    """Open ones; those that decide the state come first."""
    latest_result: ResultRow | None
    """The newest result, whatever came of it."""
    last_judged_slot: int | None
    """The slot of the newest result that passed or failed."""
    next_due: int | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How Watchdog itself is."""

    watermark: int | None
    """Every slot due by then was claimed; None: nothing ever was."""
    open_incident_count: int
    """Open incidents."""
    dead_letter_count: int
    """Notifications that were given up."""


@dataclass(frozen=True, slots=True)
class IncidentRecord:
    """An incident, whose it is, and how it was decided."""

    incident: Incident
    probe: ProbeInfo
    opened_slot: int
    """The slot that opened it."""
    threshold: int
    """How many bad slots in a row that took."""
    routing_log: tuple[str, ...]
    """Why these destinations were told, in words."""
    resolved_slot: int | None


class DeliveryStatus(NamedTuple):
    """One notification and its delivery."""

    incident: str
    destination: str
    seq: int
    event: str
    state: str
    """waiting, sent, merged or dead."""
    created_at: int
    due_at: int
    attempts: int
    detail: str
    finished_at: int | None


RESULT_ROW_COLUMNS = [results.c[name] for name in ResultRow._fields]
DELIVERY_STATUS_COLUMNS = [outbox.c[name] for name in DeliveryStatus._fields]


def result_row_from_columns(row: Sequence[Any]) -> ResultRow:
    """`row`: the columns of SEEN, in their order."""
    slot, location, outcome, *rest = row
    return ResultRow(slot, location, Outcome(outcome), *rest)


def load_service_status(connection: Connection) -> ServiceStatus:
    open_, dead = incidents.c.resolved_at.is_(None), outbox.c.state == "dead"
    counts = sa.select(
        sa.select(sa.func.min(watermarks.c.claimed_until)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(incidents).where(open_).scalar_subquery(),
        sa.select(sa.func.count()).select_from(outbox).where(dead).scalar_subquery(),
    )
    return ServiceStatus(*connection.execute(counts).one())


def list_probe_statuses(connection: Connection, probe_id: str | None = None) -> list[ProbeStatus]:
    """Every probe of the configuration, or the one with this key; by name."""
    newest = results.alias("newest")
    seek = sa.select(newest.c.slot).where(newest.c.probe == probes.c.id).order_by(newest.c.slot.desc()).limit(1)
    judged = seek.where(newest.c.outcome.in_(JUDGED_OUTCOMES)).scalar_subquery()
    due = sa.select(sa.func.min(schedule.c.next_due)).where(schedule.c.probe == probes.c.id).scalar_subquery()
    last = sa.and_(results.c.probe == probes.c.id, results.c.slot == seek.scalar_subquery())
    statement = (
        sa.select(probes.c.id, probes.c.info, probes.c.created_at, judged, due, *RESULT_ROW_COLUMNS)
        .join_from(probes, results, last, isouter=True)
        .where(probes.c.removed_at.is_(None))
        .order_by(probes.c.name, probes.c.id)
    )
    if probe_id is not None:
        statement = statement.where(probes.c.probe_id == probe_id)
    rows = {row[0]: row for row in connection.execute(statement)}  # one a probe, also where locations share a slot
    still: dict[int, list[Incident]] = {}
    for case in list_incidents(connection, is_open=True, probe=None if probe_id is None else next(iter(rows), None)):
        still.setdefault(case.incident.probe, []).append(case.incident)
    return [_probe_status_from_row(row, still.get(probe, [])) for probe, row in rows.items()]


def _probe_status_from_row(row: Sequence[Any], open_incidents: Iterable[Incident]) -> ProbeStatus:
    probe, info, created_at, judged_at, next_due, *last = row
    state = derive_health_state([incident.rule for incident in open_incidents], has_verdict=judged_at is not None)
    first = tuple(sorted(open_incidents, key=lambda i: (HEALTH_STATE_BY_RULE[i.rule] is not state, i.since)))
    newest = None if last[0] is None else result_row_from_columns(last)
    return ProbeStatus(probe_info_from_json(probe, info), created_at, state, first, newest, judged_at, next_due)


def load_probe_config_yaml(connection: Connection, probe: int) -> str:
    """The probe's configuration as written, without the values of variables."""
    text: str = connection.execute(sa.select(probes.c.config_yaml).where(probes.c.id == probe)).scalar_one()
    return text


def list_incidents(
    connection: Connection, *, incident: str | None = None, probe: int | None = None, is_open: bool | None = None,
    since: int | None = None, limit: int | None = None,
) -> list[IncidentRecord]:  # fmt: skip
    """Incidents, newest first: this one, of a probe, open or resolved, opened at or after an instant."""
    statement = _INCIDENTS_QUERY.order_by(incidents.c.opened_at.desc(), incidents.c.id).limit(limit)
    if incident is not None:
        statement = statement.where(incidents.c.id == incident)
    if probe is not None:
        statement = statement.where(incidents.c.probe == probe)
    if is_open is not None:
        resolved = incidents.c.resolved_at
        statement = statement.where(resolved.is_(None) if is_open else resolved.is_not(None))
    if since is not None:
        statement = statement.where(incidents.c.opened_at >= since)
    return [_incident_record_from_row(row) for row in connection.execute(statement)]


_INCIDENTS_QUERY = sa.select(incidents, probes.c.info).join_from(incidents, probes, probes.c.id == incidents.c.probe)


def _incident_record_from_row(row: sa.Row[Any]) -> IncidentRecord:
    probe, routing_log = probe_info_from_json(row.probe, row.info), tuple(loads(row.routing_log))
    return IncidentRecord(incident_from_row(row), probe, row.opened_slot, row.threshold, routing_log, row.resolved_slot)


def count_incidents_by_probe(connection: Connection, since: int) -> dict[int, int]:
    """Probe -> how many incidents opened at or after an instant; probes without any are left out."""
    counted = sa.select(incidents.c.probe, sa.func.count()).where(incidents.c.opened_at >= since)
    return {row[0]: row[1] for row in connection.execute(counted.group_by(incidents.c.probe))}


def list_deliveries(connection: Connection, incident: str) -> list[DeliveryStatus]:
    """Who was told of an incident, in order."""
    of_it = sa.select(*DELIVERY_STATUS_COLUMNS).where(outbox.c.incident == incident)
    rows = connection.execute(of_it.order_by(outbox.c.created_at, outbox.c.destination, outbox.c.seq))
    return [DeliveryStatus(*row) for row in rows]


def list_dead_letters(connection: Connection, limit: int = 200) -> list[tuple[DeliveryStatus, IncidentRecord]]:
    """Notifications that were given up, newest first, each with its incident."""
    dead = (
        sa.select(*DELIVERY_STATUS_COLUMNS)
        .where(outbox.c.state == "dead")
        .order_by(outbox.c.created_at.desc())
        .limit(limit)
    )
    letters = [DeliveryStatus(*row) for row in connection.execute(dead)]
    those = _INCIDENTS_QUERY.where(incidents.c.id.in_({letter.incident for letter in letters}))
    about = {case.incident.id: case for case in map(_incident_record_from_row, connection.execute(those))}
    return [(letter, about[letter.incident]) for letter in letters]
