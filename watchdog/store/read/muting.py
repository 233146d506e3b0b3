"""What muting is decided by, and which decisions are due."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.model import HealthState, Outcome
from watchdog.domain.muting import (
    MutingAction,
    MutingDecision,
    MutingProbe,
    MutingProbeStatus,
    MutingState,
    decide_muting_of_muted_incident,
    decide_muting_of_opened_incident,
)
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.store.act_tables import pause_is_in_effect, pauses
from watchdog.store.muting_tables import muted_incidents, muting_probes
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.status import ProbeStatus, list_probe_statuses
from watchdog.store.tables import effective_results, incidents, probes

MAX_MUTING_DECISIONS_PER_TRANSACTION = 500
RULES_WITH_INCIDENT_HEALTH_STATE_UNKNOWN = [
    rule for rule, state in INCIDENT_HEALTH_STATE_BY_RULE.items() if state is HealthState.UNKNOWN
]
RULES_OF_DOWN_PROBES = [rule for rule, state in INCIDENT_HEALTH_STATE_BY_RULE.items() if state is HealthState.DOWN]
_INCIDENT_COLUMNS = (
    *(incidents.c.id, incidents.c.probe, incidents.c.since, incidents.c.generation, incidents.c.clock_shift),
    incidents.c.resolved_at,
)
_MUTED_INCIDENT_COLUMNS = (
    *(muted_incidents.c.state, muted_incidents.c.waits_until),
    *(muted_incidents.c.muting_probe_id, muted_incidents.c.muting_incident),
)
_is_of_incident = muted_incidents.c.incident == incidents.c.id
_muting_probe = probes.alias("muting_probe")
_is_muting_probe = sa.and_(
    _muting_probe.c.probe_id == muting_probes.c.muting_probe_id, _muting_probe.c.removed_at.is_(None)
)


class DueMutingDecision(NamedTuple):
    """A decision that changes whether an incident's notifications are held back."""

    incident: str
    probe: int
    state: MutingState | None
    """Before; None: they are not held back."""
    decision: MutingDecision


def list_due_muting_decisions(connection: sa.Connection, now: int) -> list[DueMutingDecision]:
    """At most MAX_MUTING_DECISIONS_PER_TRANSACTION. While a probe is paused or in maintenance, nothing is sent that was
    held back."""
    # Not an inner join, for which SQLite may read every incident: each of these rows has one.
    held_back_first = muted_incidents.outerjoin(incidents, _is_of_incident)
    is_configured = sa.exists().where(
        muting_probes.c.probe == incidents.c.probe,
        muting_probes.c.muting_probe_id == muted_incidents.c.muting_probe_id,
    )
    columns = *_INCIDENT_COLUMNS, *_MUTED_INCIDENT_COLUMNS, is_configured.label("is_configured")
    query = sa.select(*columns).select_from(held_back_first)
    held_back = connection.execute(query.order_by(muted_incidents.c.since, incidents.c.id)).all()
    undecided = _drop_incidents_that_stay_muted(connection, held_back)
    undecided += _list_incidents_not_held_back_of_down_probes(connection)
    due = decide_muting_and_select_due_decisions(connection, undecided, now)
    not_reported = (
        _load_ids_of_probes_paused_or_in_maintenance(connection, {each.probe for each in due}, now) if due else ()
    )
    due = [each for each in due if each.decision.action is not MutingAction.SEND or each.probe not in not_reported]
    return due[:MAX_MUTING_DECISIONS_PER_TRANSACTION]


def _load_ids_of_probes_paused_or_in_maintenance(
    connection: sa.Connection, ids: Collection[int], now: int
) -> Collection[int]:
    paused = load_pauses_in_effect(connection, ids)
    return paused.keys() | load_maintenance_ends_by_probe(connection, now, ids).keys()


def decide_muting_and_select_due_decisions(
    connection: sa.Connection, rows: Sequence[Any], now: int
) -> list[DueMutingDecision]:
    """Of these, the decisions that change something. `rows`: as `load_incidents_for_muting_decision` returns them."""
    due = []
    statuses: dict[str, list[MutingProbeStatus]] = {}
    for start in range(0, len(rows), MAX_MUTING_DECISIONS_PER_TRANSACTION):
        statuses |= load_muting_probe_statuses(connection, rows[start : start + MAX_MUTING_DECISIONS_PER_TRANSACTION])
    for row in rows:
        state = None if row.state is None else MutingState(row.state)
        decision = _decide_muting_of_incident(row, state, statuses[row.id], now)
        is_same = (
            decision.action is MutingAction.MUTE and _get_muting_incident_of_decision(decision) == row.muting_incident
        )
        if state is None:
            is_due = decision.action is MutingAction.MUTE
        elif state is MutingState.WAITING:
            is_due = decision.action is not MutingAction.WAIT
        else:
            is_due = not is_same
        if is_due:
            due.append(DueMutingDecision(row.id, row.probe, state, decision))
    return due


def load_incidents_for_muting_decision(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool], is_locking: bool = False
) -> Sequence[Any]:
    """Rows of incidents, with whether their notifications are held back. `is_locking`: those that no other transaction
    has locked; to wait for it could be a deadlock."""
    query = sa.select(*_INCIDENT_COLUMNS, *_MUTED_INCIDENT_COLUMNS).outerjoin(muted_incidents, _is_of_incident)
    if is_locking:
        query = query.with_for_update(of=incidents, skip_locked=True)
    return sorted(connection.execute(query.where(*conditions)), key=lambda row: row.id)


def lock_and_list_incidents_not_yet_muted_by_probes(connection: sa.Connection, ids: Collection[int]) -> Sequence[Any]:
    """Those of other probes that these mute while they are down, and that are not muted yet. They are locked. Those
    that another transaction has locked are left to the background task."""
    muted = (
        sa.select(muting_probes.c.probe).join(_muting_probe, _is_muting_probe).where(_muting_probe.c.id.in_(list(ids)))
    )
    is_muted_yet = sa.func.coalesce(muted_incidents.c.state, MutingState.WAITING) == MutingState.MUTED
    return load_incidents_for_muting_decision(
        connection, incidents.c.probe.in_(muted), incidents.c.resolved_at.is_(None), ~is_muted_yet, is_locking=True
    )


def load_muting_probe_statuses(connection: sa.Connection, rows: Sequence[Any]) -> dict[str, list[MutingProbeStatus]]:
    """By incident, those that `needs` states first. `rows`: of incidents."""
    pairs_by_probe = _load_muting_pairs(connection, {row.probe for row in rows})
    pairs = [(row, pair) for row in rows for pair in pairs_by_probe.get(row.probe, ())]
    statuses = _load_probe_statuses(connection, {pair.muting_probe for _, pair in pairs})
    first_slots: dict[int, int] = {}
    for row, pair in pairs:
        status = statuses.get(pair.muting_probe)
        if status is not None and status.state is not HealthState.DOWN and row.state != MutingState.MUTED:
            first_slot = min(row.since, row.since + row.clock_shift)
            first_slots[pair.muting_probe] = min(first_slot, first_slots.get(pair.muting_probe, first_slot))
    newest = {probe: _load_newest_good_slot_after(connection, probe, slot) for probe, slot in first_slots.items()}
    by_incident: dict[str, list[MutingProbeStatus]] = {row.id: [] for row in rows}
    for row, pair in pairs:
        if (status := statuses.get(pair.muting_probe)) is not None:
            by_incident[row.id].append(_build_muting_probe_status(row, pair, status, newest.get(pair.muting_probe)))
    return by_incident


def list_down_muting_probes(connection: sa.Connection, probe: int) -> list[MutingProbeStatus]:
    """Those that would mute a new incident of a probe now. `probe`: database id."""
    pairs = _load_muting_pairs(connection, [probe]).get(probe, [])
    statuses = _load_probe_statuses(connection, {pair.muting_probe for pair in pairs})
    muting_statuses = (
        _build_muting_probe_status(None, pair, statuses[pair.muting_probe], None)
        for pair in pairs
        if pair.muting_probe in statuses
    )
    return [status for status in muting_statuses if status.is_down]


def _load_muting_pairs(connection: sa.Connection, ids: Collection[int]) -> dict[int, list[Any]]:
    """By the probe that is muted: rows of muting_probes, with the database id and the name of the muting probe."""
    query = (
        sa.select(muting_probes, _muting_probe.c.id.label("muting_probe"), _muting_probe.c.name)
        .join(_muting_probe, _is_muting_probe)
        .where(muting_probes.c.probe.in_(ids))
        .order_by(muting_probes.c.setting.desc(), muting_probes.c.muting_probe_id)
    )
    pairs: dict[int, list[Any]] = {}
    for pair in connection.execute(query) if ids else ():
        pairs.setdefault(pair.probe, []).append(pair)
    return pairs


def _decide_muting_of_incident(
    row: Any, state: MutingState | None, statuses: Sequence[MutingProbeStatus], now: int
) -> MutingDecision:
    is_open = row.resolved_at is None
    if state is not MutingState.MUTED:
        wait_left_ms = 0 if row.waits_until is None else row.waits_until - now
        return decide_muting_of_opened_incident(statuses, is_open=is_open, wait_left_ms=wait_left_ms)
    return decide_muting_of_muted_incident(statuses, row.muting_probe_id, is_open=is_open)


def _get_muting_incident_of_decision(decision: MutingDecision) -> str:
    return "" if decision.status is None else decision.status.incident


def _drop_incidents_that_stay_muted(connection: sa.Connection, rows: Sequence[Any]) -> list[Any]:
    """Without those that the same incident still mutes: in an outage, nearly all. `rows`: of incidents that are held
    back."""
    muted = [row for row in rows if row.state == MutingState.MUTED and row.resolved_at is None]
    if not muted:
        return list(rows)
    probe_ids = {row.muting_probe_id for row in muted}
    active = probes.c.probe_id.in_(probe_ids), probes.c.removed_at.is_(None)
    ids = set(connection.execute(sa.select(probes.c.id).where(*active)).scalars())
    muting = {
        (status.probe.id, incident.id)
        for status in _load_probe_statuses(connection, ids).values()
        if status.state is HealthState.DOWN
        for incident in status.open_incidents
    }
    stay = {row.id for row in muted if row.is_configured and (row.muting_probe_id, row.muting_incident) in muting}
    return [row for row in rows if row.id not in stay]


def _list_incidents_not_held_back_of_down_probes(connection: sa.Connection) -> list[Any]:
    """Open ones whose notifications are not held back although a muting probe that is not paused has an open
    incident."""
    muting_incident = incidents.alias("muting_incident")
    has_down_probe = sa.exists().where(
        muting_probes.c.probe == incidents.c.probe, _is_muting_probe, muting_incident.c.probe == _muting_probe.c.id,
        muting_incident.c.resolved_at.is_(None), muting_incident.c.rule.in_(RULES_OF_DOWN_PROBES),
        muting_incident.c.probe.not_in(sa.select(pauses.c.probe).where(pause_is_in_effect)),
    )  # fmt: skip
    return list(
        load_incidents_for_muting_decision(
            connection, incidents.c.resolved_at.is_(None), muted_incidents.c.incident.is_(None), has_down_probe
        )
    )


def _load_probe_statuses(connection: sa.Connection, ids: Collection[int]) -> dict[int, ProbeStatus]:
    if not ids:
        return {}
    statuses = list_probe_statuses(connection, database_ids=ids)
    return {status.probe.database_id: status for status in statuses}


def _build_muting_probe_status(
    incident: Any, pair: Any, status: ProbeStatus, newest_good: tuple[int, int] | None
) -> MutingProbeStatus:
    """`incident`: the row of the incident that may be muted. `pair`: of the table muting_probes. `newest_good`: clock
    generation and slot of the newest good result, if it may be newer than the incident's first bad slot."""
    is_down = status.state is HealthState.DOWN
    return MutingProbeStatus(
        probe=MutingProbe(pair.muting_probe_id, pair.setting),
        name=pair.name,
        state=status.state,
        incident=status.open_incidents[0].id if is_down else "",
        is_reported_unknown=any(
            each.rule in RULES_WITH_INCIDENT_HEALTH_STATE_UNKNOWN for each in status.open_incidents
        ),
        has_passed=newest_good is not None and newest_good > (incident.generation, incident.since),
    )


def _load_newest_good_slot_after(connection: sa.Connection, probe: int, slot: int) -> tuple[int, int] | None:
    """Clock generation and slot."""
    results = effective_results.c
    is_good = results.probe == probe, results.slot > slot, results.outcome == Outcome.PASS, ~results.late
    query = sa.select(results.slot, results.location).where(*is_good).order_by(results.slot.desc()).limit(1)
    newest = connection.execute(query).first()
    return None if newest is None else (parse_clock_generation_of_timeline_id(newest.location), newest.slot)
