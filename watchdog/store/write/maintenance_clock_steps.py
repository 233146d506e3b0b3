"""Maintenance at a step of the clock: which slots of the generation that begins are in maintenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from watchdog.domain.clock_steps import ClockStep
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.store.maintenance_tables import (
    maintenance_has_not_ended_early,
    maintenance_periods,
    maintenance_windows,
)


def restart_maintenance_after_clock_step(connection: sa.Connection, step: ClockStep) -> None:
    """Maintenance that people began keeps its distance from now; configured windows, and those that people have planned
    for later, keep to the calendar. An aftermath that is not over starts again. What was decided in the former
    generation stays decided.

    The caller has locked the probes and evaluated everything up to the step.
    """
    is_ended_generation = maintenance_periods.c.generation == step.generation - 1
    goes_on_until = min(step.stepped_from - POST_MAINTENANCE_RUN_GRACE_PERIOD_MS, step.stepped_to)
    has_begun = maintenance_windows.c.starts_at <= step.stepped_from
    is_shifted = ~maintenance_windows.c.is_configured, has_begun, maintenance_windows.c.ends_at > step.stepped_from
    columns = (
        maintenance_windows.c.ended_at,
        (~maintenance_windows.c.is_configured & has_begun).label("keeps_distance"),
    )
    query = sa.select(maintenance_periods, *columns).join(
        maintenance_windows, maintenance_windows.c.id == maintenance_periods.c.maintenance
    )
    rows = connection.execute(query.where(is_ended_generation, maintenance_periods.c.ends_at > goes_on_until))
    if periods := _list_periods_after_clock_step(rows, step):
        connection.execute(sa.insert(maintenance_periods), periods)
    is_to_come = is_ended_generation, maintenance_periods.c.starts_at > step.stepped_from
    connection.execute(sa.delete(maintenance_periods).where(*is_to_come))
    goes_on = is_ended_generation, maintenance_periods.c.ends_at > step.stepped_from
    connection.execute(sa.update(maintenance_periods).where(*goes_on).values(ends_at=step.stepped_from + 1))
    shifted = {name: maintenance_windows.c[name] + step.signed_clock_step_ms for name in ("starts_at", "ends_at")}
    connection.execute(
        sa.update(maintenance_windows).where(maintenance_has_not_ended_early, *is_shifted).values(shifted)
    )


def _list_periods_after_clock_step(rows: Iterable[Any], step: ClockStep) -> list[dict[str, Any]]:
    """`rows`: of the generation that ended, with `ended_at` and `keeps_distance` of the window."""
    ends_at: dict[tuple[int, str, int], int] = {}
    to = step.stepped_to
    for row in rows:
        distance = step.signed_clock_step_ms if row.keeps_distance else 0
        is_over = row.ended_at is not None or (row.keeps_distance and row.ends_at <= step.stepped_from)
        parts = [] if is_over else [(max(row.starts_at + distance, to), row.ends_at + distance)]
        if row.starts_at <= step.stepped_from < row.ends_at + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS:
            parts.append((to, to + 1))  # the shortest period, whose aftermath follows
        for start, end in parts:
            key = row.probe, row.maintenance, start
            ends_at[key] = max(end, ends_at.get(key, end))
    return [
        {"probe": probe, "maintenance": id, "generation": step.generation, "starts_at": start, "ends_at": end}
        for (probe, id, start), end in ends_at.items()
        if start < end
    ]
