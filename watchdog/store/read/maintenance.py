"""Maintenance windows and what is in maintenance, as the fold, pages, commands and tools read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.maintenance import MaintenancePeriods
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.model import LOCAL_LOCATION_NAME, Json, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.codec import decode_nullable_json, encode_storable_json
from watchdog.store.maintenance_tables import (
    maintenance_has_not_ended_early,
    maintenance_periods,
    maintenance_windows,
)
from watchdog.store.tables import watermarks

MAX_LISTED_ENDED_MAINTENANCE_WINDOWS = 100
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
    connection: sa.Connection, probes: Collection[int], generation: int | None = None
) -> dict[int, MaintenancePeriods]:
    """By probe; probes that were never in maintenance are missing. `generation`: of the clock; None: all."""
    columns = maintenance_periods.c.probe, maintenance_periods.c.starts_at, maintenance_periods.c.ends_at
    query = sa.select(*columns).where(maintenance_periods.c.probe.in_(probes))
    if generation is not None:
        query = query.where(maintenance_periods.c.generation == generation)
    periods: dict[int, list[tuple[int, int]]] = {}
    for probe, start, end in connection.execute(query):
        periods.setdefault(probe, []).append((start, end))
    return {probe: MaintenancePeriods(of_probe) for probe, of_probe in periods.items()}


def list_present_and_next_maintenance(connection: sa.Connection, now: int) -> list[MaintenanceWindow]:
    """The windows in effect, and those that are planned: the next time of each configured one. By their start."""
    query = sa.select(maintenance_windows).where(maintenance_has_not_ended_early, maintenance_windows.c.ends_at > now)
    rows = connection.execute(query.order_by(maintenance_windows.c.starts_at, maintenance_windows.c.id))
    return [build_maintenance_window_from_row(row) for row in rows]


def list_ended_maintenance(connection: sa.Connection, now: int) -> list[MaintenanceWindow]:
    """The MAX_LISTED_ENDED_MAINTENANCE_WINDOWS that began last, newest first."""
    is_over = ~maintenance_has_not_ended_early | (maintenance_windows.c.ends_at <= now)
    query = sa.select(maintenance_windows).where(is_over)
    query = query.order_by(maintenance_windows.c.starts_at.desc(), maintenance_windows.c.id)
    rows = connection.execute(query.limit(MAX_LISTED_ENDED_MAINTENANCE_WINDOWS))
    return [build_maintenance_window_from_row(row) for row in rows]


def load_maintenance_window(connection: sa.Connection, window: str) -> MaintenanceWindow | None:
    is_window = maintenance_windows.c.id == replace_unstorable_characters(window)
    row = connection.execute(sa.select(maintenance_windows).where(is_window)).first()
    return None if row is None else build_maintenance_window_from_row(row)


def load_maintenance_ends_by_probe(connection: sa.Connection, now: int) -> dict[int, int]:
    """Probe -> until when it is in maintenance; probes that are not in maintenance now are missing."""
    columns = maintenance_periods.c.probe, sa.func.max(maintenance_periods.c.ends_at)
    is_now = maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now
    query = sa.select(*columns).where(*is_now, is_of_current_generation).group_by(maintenance_periods.c.probe)
    return dict(map(tuple, connection.execute(query)))
