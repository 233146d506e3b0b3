"""Maintenance windows and what is in maintenance, as the fold, pages, commands and tools read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.maintenance import MaintenancePeriods
from watchdog.domain.maintenance_windows import MaintenanceWindow, MaintenanceWindowState, build_maintenance_index
from watchdog.domain.model import LOCAL_LOCATION_NAME, Json, ProbeInfo, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.maintenance_tables import (
    maintenance_has_not_ended_early,
    maintenance_periods,
    maintenance_windows,
)
from watchdog.store.tables import watermarks

_current_generation: sa.ColumnElement[int] = sa.func.coalesce(
    sa.select(watermarks.c.generation).where(watermarks.c.location == LOCAL_LOCATION_NAME).scalar_subquery(), 0
)
is_of_current_generation = maintenance_periods.c.generation == _current_generation


def load_clock_generation(connection: sa.Connection) -> int:
    return connection.execute(sa.select(_current_generation)).scalar_one()


def encode_probe_matcher(matcher: ProbeMatcher) -> str:
    values: dict[str, Json] = {
        "id": matcher.probe,
        "group": matcher.group,
        "tags": sorted(matcher.tags),
        "kind": matcher.kind,
        "severity": matcher.severity,
    }
    return encode_storable_json({name: value for name, value in values.items() if value})


def decode_probe_matcher(text: str) -> ProbeMatcher:
    values: Mapping[str, Any] = decode_nullable_json(text)
    severity = values.get("severity")
    return ProbeMatcher(
        severity=None if severity is None else Severity(severity),
        tags=frozenset(values.get("tags", ())),
        group=values.get("group", ""),
        kind=values.get("kind", ""),
        probe=values.get("id", ""),
    )


def build_maintenance_window_from_row(row: Any) -> MaintenanceWindow:
    """`row`: of the table maintenance_windows."""
    return MaintenanceWindow(
        id=row.id,
        name=row.name,
        matcher=decode_probe_matcher(row.matcher),
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        actor=None if row.is_configured else Actor(row.author, OperatorInterfaceKind(row.interface)),
        comment=row.comment,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
    )


def load_maintenance_periods(
    connection: sa.Connection, probes: Collection[int], generation: int | None = None, since: int = 0
) -> dict[int, MaintenancePeriods]:
    """By probe; probes that were never in maintenance are missing. `generation`: of the clock; None: all. `since`:
    without those that ended before."""
    columns = maintenance_periods.c.probe, maintenance_periods.c.starts_at, maintenance_periods.c.ends_at
    query = sa.select(*columns).where(maintenance_periods.c.probe.in_(probes), maintenance_periods.c.ends_at > since)
    if generation is not None:
        query = query.where(maintenance_periods.c.generation == generation)
    periods: dict[int, list[tuple[int, int]]] = {}
    for probe, start, end in connection.execute(query):
        periods.setdefault(probe, []).append((start, end))
    return {probe: MaintenancePeriods(of_probe) for probe, of_probe in periods.items()}


def list_present_and_next_maintenance(
    connection: sa.Connection, now: int, limit: int | None = None
) -> list[MaintenanceWindow]:
    """The windows in effect, and those that are planned: the next time of each configured one. By their start."""
    query = sa.select(maintenance_windows).where(maintenance_has_not_ended_early, maintenance_windows.c.ends_at > now)
    ordered = query.order_by(maintenance_windows.c.starts_at, maintenance_windows.c.id).limit(limit)
    rows = connection.execute(ordered)
    return [build_maintenance_window_from_row(row) for row in rows]


def list_maintenance_windows(
    connection: sa.Connection,
    now: int,
    *,
    limit: int,
    state: MaintenanceWindowState | None = None,
    after: tuple[int, str] | None = None,
) -> list[MaintenanceWindow]:
    """Those that start last come first. `after`: behind the window with this start and id."""
    query = sa.select(maintenance_windows).order_by(maintenance_windows.c.starts_at.desc(), maintenance_windows.c.id)
    if state is not None:
        query = query.where(_build_state_condition(state, now))
    if after is not None:
        starts_at, id = after
        is_same_start = sa.and_(
            maintenance_windows.c.starts_at == starts_at, maintenance_windows.c.id > replace_unstorable_characters(id)
        )
        query = query.where((maintenance_windows.c.starts_at < starts_at) | is_same_start)
    return [build_maintenance_window_from_row(row) for row in connection.execute(query.limit(limit))]


def _build_state_condition(state: MaintenanceWindowState, now: int) -> sa.ColumnElement[bool]:
    is_over = ~maintenance_has_not_ended_early | (maintenance_windows.c.ends_at <= now)
    if state is MaintenanceWindowState.ENDED:
        return is_over
    has_started = maintenance_windows.c.starts_at <= now
    return ~is_over & (has_started if state is MaintenanceWindowState.IN_EFFECT else ~has_started)


def list_maintenance_with_probes(
    connection: sa.Connection, now: int, limit: int, infos: Collection[ProbeInfo]
) -> list[tuple[MaintenanceWindow, set[int]]]:
    """The first `limit` windows in effect or planned, by their start, each with the probes that it selects; of `infos`
    alone if it was planned by a person and its periods are still to be stored."""
    windows = list_present_and_next_maintenance(connection, now, limit)
    columns = maintenance_periods.c.maintenance, maintenance_periods.c.probe
    is_current = is_of_current_generation, maintenance_periods.c.ends_at > now
    query = sa.select(*columns).where(maintenance_periods.c.maintenance.in_([window.id for window in windows]))
    probes: dict[str, set[int]] = {window.id: set() for window in windows}
    for id, probe in connection.execute(query.where(*is_current)):
        probes[id].add(probe)
    without_periods = [window for window in windows if window.actor is not None and not probes[window.id]]
    index = build_maintenance_index((window.matcher, window.id) for window in without_periods)
    for info in infos if without_periods else ():
        for id in index.list_matching(info):
            probes[id].add(info.database_id)
    return [(window, probes[window.id]) for window in windows]


def list_maintenance_in_effect_of_probe(connection: sa.Connection, probe: int, now: int) -> list[MaintenanceWindow]:
    """The windows that a probe is in now, by their end."""
    is_in = maintenance_periods.c.maintenance == maintenance_windows.c.id, maintenance_periods.c.probe == probe
    is_now = maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now
    is_in_effect = maintenance_has_not_ended_early, sa.exists().where(*is_in, *is_now, is_of_current_generation)
    query = sa.select(maintenance_windows).where(maintenance_windows.c.ends_at > now, *is_in_effect)
    rows = connection.execute(query.order_by(maintenance_windows.c.ends_at, maintenance_windows.c.id))
    return [build_maintenance_window_from_row(row) for row in rows]


def load_maintenance_window(connection: sa.Connection, window: str) -> MaintenanceWindow | None:
    is_window = maintenance_windows.c.id == replace_unstorable_characters(window)
    row = connection.execute(sa.select(maintenance_windows).where(is_window)).first()
    return None if row is None else build_maintenance_window_from_row(row)


def build_probe_in_maintenance_filter(probe: sa.ColumnElement[int], now: int) -> sa.ColumnElement[bool]:
    """Whether the probe of a column is in maintenance."""
    is_now = maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now
    return sa.exists().where(maintenance_periods.c.probe == probe, *is_now, is_of_current_generation)


def load_maintenance_ends_by_probe(
    connection: sa.Connection, now: int, probes: Collection[int] | None = None
) -> dict[int, int]:
    """Probe -> until when it is in maintenance; probes that are not in maintenance now are missing. `probes`: of these
    alone."""
    columns = maintenance_periods.c.probe, maintenance_periods.c.ends_at
    is_now = maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now
    query = sa.select(*columns).where(*is_now, is_of_current_generation)
    if probes is not None:
        query = query.where(maintenance_periods.c.probe.in_(probes))
    ends: dict[int, int] = {}
    for probe, end in connection.execute(query):
        ends[probe] = max(end, ends.get(probe, end))
    return ends
