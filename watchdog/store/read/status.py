"""The present, as pages, commands and tools show it; history.py has the past.

A probe's newest result is found by an index seek, never by grouping results.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection as Connection  # its users need no import of their own

from watchdog.domain.alert_flapping import AlertFlapping
from watchdog.domain.model import (
    DeliveryState,
    HealthState,
    Incident,
    IncidentEvent,
    Outcome,
    PendingFinding,
    ProbeInfo,
    Severity,
)
from watchdog.domain.muting import IncidentMuting
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.domain.pausing import Pause
from watchdog.domain.probe_state import WAITING_FOR_FIRST_RUN_STATE_KEY
from watchdog.domain.routing import state_routing_step_in_past
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, derive_probe_health_state, no_verdict, service
from watchdog.domain.silencing import Silence
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.codec import OUTCOMES_BY_VALUE, decode_probe_info
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.acts import load_pauses_in_effect, load_silences_by_incident, load_silences_by_probe
from watchdog.store.read.alert_context import INCIDENTS_WITH_PROBE_INFO_QUERY, build_incident_from_row
from watchdog.store.read.flapping import add_flapping_columns_to_incidents_query, build_alert_flapping_from_row
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.muted_incidents import add_muting_columns, build_incident_muting_from_row
from watchdog.store.read.pending_findings import (
    NO_PENDING_FINDINGS,
    PendingFindingsOfProbe,
    load_pending_findings_by_probe,
)
from watchdog.store.tables import (
    clock_steps,
    effective_results,
    incidents,
    newest_results,
    outbox,
    outbox_is_undelivered,
    probe_state,
    probes,
    schedule,
    watermarks,
)

OUTCOMES_WITH_VERDICT = (Outcome.PASS, Outcome.FAIL)
MAX_LISTED_UNDELIVERED_NOTIFICATIONS = 200
MAX_CACHED_PROBE_STATUSES = 8_192
"""About 1 KB each."""


class ResultRow(NamedTuple):
    """A result without its details."""

    slot: int
    location: str
    outcome: Outcome
    reason: str
    message: str
    duration: int | None
    slot_count: int
    """How many slots a row of outcome `missed` stands for."""
    recorded_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStatus:
    """The current state of a probe."""

    probe: ProbeInfo
    created_at: int
    state: HealthState
    open_incidents: tuple[Incident, ...]
    """Those that decide the state come first."""
    latest_result: ResultRow | None
    """The newest result, of any outcome."""
    last_judged_slot: int | None
    """The newest slot that passed or failed."""
    next_due: int | None
    """None while it is paused."""
    pause: Pause | None = None
    """None: it runs."""
    maintenance_ends_at: int | None = None
    """Until when it is in maintenance, in epoch ms; None: it is not, or this was not loaded."""
    pending_findings: tuple[PendingFinding, ...] = ()
    """Those that may open an incident soon, the highest count first."""
    silences: tuple[Silence, ...] = ()
    """Those in effect that may select incidents of it, by their end; empty also if they were not loaded."""


@dataclass(frozen=True, slots=True)
class WatchdogStatus:
    """The current state of Watchdog itself."""

    watermark: int | None
    """Every slot due by then was claimed; None: it has never run."""
    open_incident_count: int
    undelivered_count: int
    """Notifications that were given up."""
    findings: Sequence[Incident] = ()
    """What is wrong with Watchdog itself, as `list_service_findings` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRecord:
    """An incident, its probe, and how it was decided."""

    incident: Incident
    probe: ProbeInfo
    opened_slot: int
    """The slot that opened it."""
    threshold: int
    """How many consecutive bad slots were needed."""
    routing_log: tuple[str, ...]
    """Each step of the routing decision, in words."""
    resolved_slot: int | None
    generation: int
    """The clock generation in which it began."""
    muting: IncidentMuting | None = None
    """None: its notifications are not held back because of another probe."""
    flapping: AlertFlapping | None = None
    """None: the alert did not flap when the incident opened."""
    silences: tuple[Silence, ...] = ()
    """Those in effect that select it, by their end; none if it is over, or if they were not loaded."""


class DeliveryRecord(NamedTuple):
    """A notification and its delivery."""

    incident: str
    destination: str
    seq: int
    event: IncidentEvent
    state: DeliveryState
    created_at: int
    due_at: int
    attempts: int
    detail: str
    """The last error."""
    finished_at: int | None
    lead_incident: str = ""
    """The incident whose message at the destination states this one. Of a group, it is another one."""

    @property
    def joins_message_of_group(self) -> bool:
        """Whether the group has a message at the destination, which may state enough for a while."""
        return self.lead_incident not in ("", self.incident)


RESULT_ROW_COLUMNS = [effective_results.c[name] for name in ResultRow._fields]
_incident_came_again = sa.exists().where(
    clock_steps.c.generation == incidents.c.resolved_generation + 1, clock_steps.c.valid_until < incidents.c.opened_at
)
_NOT_REMOVED_AND_NOT_SELF_PROBE_CONDITIONS = (
    probes.c.removed_at.is_(None),
    probes.c.kind != service.WATCHDOG_SELF_PROBE_KIND,
)
_WATCHDOG_STATUS_QUERY = sa.select(
    sa.select(sa.func.min(watermarks.c.claimed_until)).scalar_subquery(),
    sa.select(sa.func.count()).select_from(incidents).where(incidents.c.resolved_at.is_(None)).scalar_subquery(),
    sa.select(sa.func.count()).select_from(outbox).where(outbox_is_undelivered).scalar_subquery(),
)
_SERVICE_FINDINGS_QUERY = INCIDENTS_WITH_PROBE_INFO_QUERY.where(
    incidents.c.resolved_at.is_(None), probes.c.kind == service.WATCHDOG_SELF_PROBE_KIND
).order_by(incidents.c.since, incidents.c.id)
_INCIDENT_RECORDS_QUERY = add_flapping_columns_to_incidents_query(add_muting_columns(INCIDENTS_WITH_PROBE_INFO_QUERY))
DELIVERY_RECORD_COLUMNS = [outbox.c[name] for name in DeliveryRecord._fields]


def _build_probe_statuses_query() -> sa.Select[Any]:
    newest = newest_results.alias("newest")
    slots = sa.select(newest.c.slot).where(newest.c.probe == probes.c.id).order_by(newest.c.slot.desc()).limit(1)
    is_newest = sa.and_(effective_results.c.probe == probes.c.id, effective_results.c.slot == slots.scalar_subquery())
    judged_slot = sa.case(  # mostly the newest, which spares a search for each probe
        (effective_results.c.outcome.in_(OUTCOMES_WITH_VERDICT), effective_results.c.slot),
        else_=slots.where(newest.c.outcome.in_(OUTCOMES_WITH_VERDICT)).scalar_subquery(),
    )
    next_due = sa.select(sa.func.min(schedule.c.next_due)).where(schedule.c.probe == probes.c.id).scalar_subquery()
    is_waiting = sa.exists().where(
        probe_state.c.probe == probes.c.id, probe_state.c.key == WAITING_FOR_FIRST_RUN_STATE_KEY
    )
    columns = (probes.c.id, probes.c.info, probes.c.created_at, judged_slot, next_due, is_waiting)
    return (
        sa.select(*columns, *RESULT_ROW_COLUMNS)
        .join_from(probes, effective_results, is_newest, isouter=True)
        .order_by(probes.c.name, probes.c.id)
    )


_PROBE_STATUSES_QUERY = _build_probe_statuses_query()
_LISTED_PROBE_STATUSES_QUERY = _PROBE_STATUSES_QUERY.where(*_NOT_REMOVED_AND_NOT_SELF_PROBE_CONDITIONS)


def result_row_from_columns(row: Sequence[Any]) -> ResultRow:
    """`row`: the values of RESULT_ROW_COLUMNS."""
    slot, location, outcome, *rest = row
    return ResultRow(slot, location, OUTCOMES_BY_VALUE[outcome], *rest)


def load_watchdog_status(connection: Connection) -> WatchdogStatus:
    return WatchdogStatus(*connection.execute(_WATCHDOG_STATUS_QUERY).one(), list_service_findings(connection))


def list_service_findings(connection: Connection) -> tuple[Incident, ...]:
    """What is wrong with Watchdog itself: the open incidents of its built-in probe, critical ones first, then the
    oldest. Every page, command and tool shows this list."""
    findings = map(build_incident_from_row, connection.execute(_SERVICE_FINDINGS_QUERY))
    return tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.CRITICAL))


def list_probe_infos(connection: Connection, after: tuple[str, int] | None = None) -> list[ProbeInfo]:
    """Every configured probe but Watchdog's own, by name. `after`: behind the probe with this name and database id."""
    query = sa.select(probes.c.id, probes.c.info).where(*_NOT_REMOVED_AND_NOT_SELF_PROBE_CONDITIONS)
    if after is not None:
        name, id = replace_unstorable_characters(after[0]), after[1]
        query = query.where((probes.c.name > name) | sa.and_(probes.c.name == name, probes.c.id > id))
    rows = connection.execute(query.order_by(probes.c.name, probes.c.id))
    return [decode_probe_info(id, info) for id, info in rows]


def list_probe_statuses(
    connection: Connection,
    probe_id: str | None = None,
    database_ids: Collection[int] | None = None,
    now: int | None = None,
    *,
    with_silences: bool = True,
) -> list[ProbeStatus]:
    """Every configured probe, or those with this id or these database ids; by name. Watchdog's own probe is listed only
    by its id. `now`: to load until when each is in maintenance, and, `with_silences`, the silences that may select
    incidents of it: of many probes, these may take longer than everything else."""
    if probe_id is None:
        query = _LISTED_PROBE_STATUSES_QUERY
    else:
        is_probe = probes.c.probe_id == replace_unstorable_characters(probe_id)
        query = _PROBE_STATUSES_QUERY.where(probes.c.removed_at.is_(None), is_probe)
    if database_ids is not None:
        query = query.where(probes.c.id.in_(database_ids))
    # One row a probe, even if several locations have a result in the newest slot.
    row_by_probe = {row[0]: row for row in connection.execute(query).all()}
    if not row_by_probe:
        return []
    only_probes = None if probe_id is None and database_ids is None else row_by_probe.keys()
    open_incidents: dict[int, list[Incident]] = {}
    for record in list_incidents(connection, is_open=True, probe_database_ids=only_probes, with_silences=False):
        open_incidents.setdefault(record.incident.probe, []).append(record.incident)
    paused = load_pauses_in_effect(connection, only_probes)
    maintenance_ends = {} if now is None else load_maintenance_ends_by_probe(connection, now, only_probes)
    pending = load_pending_findings_by_probe(connection, only_probes)

    def build_probe_status(id: int, row: sa.Row[Any]) -> ProbeStatus:
        open_here, pending_here = tuple(open_incidents.get(id, ())), pending.get(id, NO_PENDING_FINDINGS)
        return _probe_status_from_row(tuple(row), open_here, pending_here, paused.get(id), maintenance_ends.get(id))

    statuses = [build_probe_status(id, row) for id, row in row_by_probe.items()]
    if now is None or not with_silences:
        return statuses
    silences = load_silences_by_probe(connection, [status.probe for status in statuses])
    return [replace(s, silences=silences.get(s.probe.database_id, ())) for s in statuses] if silences else statuses


@lru_cache(maxsize=MAX_CACHED_PROBE_STATUSES)  # most rows are the same at the next request, which takes half the time
def _probe_status_from_row(
    row: tuple[Any, ...], open_incidents: tuple[Incident, ...], pending: PendingFindingsOfProbe, pause: Pause | None,
    maintenance_ends_at: int | None,
) -> ProbeStatus:  # fmt: skip
    probe, info, created_at, judged_slot, next_due, is_waiting, newest_slot, *_ = row
    has_verdict = judged_slot is not None and not is_waiting and pending.has_passed
    latest_result = None if newest_slot is None else result_row_from_columns(row[-len(RESULT_ROW_COLUMNS) :])
    rules = [incident.rule for incident in open_incidents]
    if latest_result is not None and latest_result.reason == WATCHDOG_NETWORK_FAULT_REASON:
        rules.append(no_verdict.ALERT_RULE_NAME)  # whose incident is about Watchdog, not about the probe
    state = derive_probe_health_state(rules, has_verdict=has_verdict)
    return ProbeStatus(
        probe=decode_probe_info(probe, info),
        created_at=created_at,
        state=state if pause is None else HealthState.PAUSED,
        open_incidents=tuple(
            sorted(open_incidents, key=lambda i: (INCIDENT_HEALTH_STATE_BY_RULE[i.rule] is not state, i.since))
        ),
        latest_result=latest_result,
        last_judged_slot=judged_slot,
        next_due=next_due if pause is None else None,
        pause=pause,
        maintenance_ends_at=maintenance_ends_at,
        pending_findings=pending.findings,
    )


def list_incidents(
    connection: Connection, *, incident: str | None = None, is_open: bool | None = None, limit: int | None = None,
    probe_database_ids: Collection[int] | None = None, after: tuple[int, str] | None = None, since: int | None = None,
    incident_ids: Collection[str] | None = None, severity: Severity | None = None, only_current: bool = False,
    with_silences: bool = True,
) -> list[IncidentRecord]:  # fmt: skip
    """Incidents, newest first, that match every filter that is given. `since`: opened at or after this instant.
    `after`: behind the incident that was opened at this instant and has this id. `only_current`: without those that are
    over and whose beginning came again after a step of the clock. `with_silences`: to load the silences of each."""
    # As an expression, so that SQLite reads the few open incidents by their index, and not all by the time of opening.
    opened_at = incidents.c.opened_at + 0 if is_open else incidents.c.opened_at
    query = _INCIDENT_RECORDS_QUERY.order_by(opened_at.desc(), incidents.c.id).limit(limit)
    if incident is not None:
        query = query.where(incidents.c.id == replace_unstorable_characters(incident))
    if incident_ids is not None:
        query = query.where(incidents.c.id.in_(incident_ids))
    if probe_database_ids is not None:
        query = query.where(incidents.c.probe.in_(probe_database_ids))
    if severity is not None:
        query = query.where(incidents.c.severity == severity)
    if after is not None:
        instant, id = after
        is_same_instant = sa.and_(incidents.c.opened_at == instant, incidents.c.id > replace_unstorable_characters(id))
        query = query.where(incidents.c.opened_at <= instant, (incidents.c.opened_at < instant) | is_same_instant)
    if is_open is not None:
        resolved_at = incidents.c.resolved_at
        query = query.where(resolved_at.is_(None) if is_open else resolved_at.is_not(None))
    if since is not None:
        query = query.where(incidents.c.opened_at >= since)
    if only_current:
        query = query.where(~_incident_came_again)
    records = [_incident_record_from_row(row) for row in connection.execute(query)]
    open_ids = [record.incident.id for record in records if record.incident.resolved_at is None]
    silences = load_silences_by_incident(connection, open_ids) if with_silences else {}
    return [replace(r, silences=silences.get(r.incident.id, ())) for r in records] if silences else records


def _incident_record_from_row(row: sa.Row[Any]) -> IncidentRecord:
    return IncidentRecord(
        incident=build_incident_from_row(row),
        probe=decode_probe_info(row.probe, row.info),
        opened_slot=row.opened_slot,
        threshold=row.threshold,
        routing_log=tuple(map(state_routing_step_in_past, decode_nullable_json(row.routing_log))),
        resolved_slot=row.resolved_slot,
        generation=row.generation,
        muting=build_incident_muting_from_row(row),
        flapping=build_alert_flapping_from_row(row),
    )


def count_incidents_opened_since_by_probe(connection: Connection, since: int) -> dict[int, int]:
    """Probe -> how many incidents were opened at or after an instant, without those whose instants came again; probes
    without incidents are missing."""
    query = sa.select(incidents.c.probe, sa.func.count()).where(incidents.c.opened_at >= since, ~_incident_came_again)
    return {row[0]: row[1] for row in connection.execute(query.group_by(incidents.c.probe))}


def list_incident_deliveries(connection: Connection, incident: str) -> list[DeliveryRecord]:
    """The notifications of an incident, in order."""
    query = sa.select(*DELIVERY_RECORD_COLUMNS).where(outbox.c.incident == incident)
    rows = connection.execute(query.order_by(outbox.c.created_at, outbox.c.destination, outbox.c.seq))
    return [build_delivery_record_from_row(row) for row in rows]


def build_delivery_record_from_row(row: Any) -> DeliveryRecord:
    return DeliveryRecord(*row)._replace(event=IncidentEvent(row.event), state=DeliveryState(row.state))


def list_given_up_notifications(
    connection: Connection,
) -> list[tuple[DeliveryRecord, IncidentRecord]]:
    """The MAX_LISTED_UNDELIVERED_NOTIFICATIONS newest notifications that were given up, newest first, each with its
    incident."""
    query = (
        sa.select(*DELIVERY_RECORD_COLUMNS)
        .where(outbox_is_undelivered)
        .order_by(outbox.c.created_at.desc())
        .limit(MAX_LISTED_UNDELIVERED_NOTIFICATIONS)
    )
    deliveries = [build_delivery_record_from_row(row) for row in connection.execute(query)]
    their_incidents = _INCIDENT_RECORDS_QUERY.where(incidents.c.id.in_({delivery.incident for delivery in deliveries}))
    records = map(_incident_record_from_row, connection.execute(their_incidents))
    record_by_incident = {record.incident.id: record for record in records}
    return [(delivery, record_by_incident[delivery.incident]) for delivery in deliveries]
