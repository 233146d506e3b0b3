"""Incidents that people have closed, as the fold and pages read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor, Closure, OperatorInterfaceKind
from watchdog.domain.closing import CLOSED_BY_HAND_RESOLUTION, ClosedFinding
from watchdog.store.tables import incidents


def build_closure_from_row(row: Any) -> Closure | None:
    """`row`: of the table incidents. None if no person has closed it."""
    if row.resolution != CLOSED_BY_HAND_RESOLUTION:
        return None
    actor = Actor(row.closed_by, OperatorInterfaceKind(row.closed_through))
    return Closure(row.resolved_at, actor, row.closure_comment)


def load_closed_findings(
    connection: sa.Connection, after_slots: Mapping[int, int], generation: int
) -> Mapping[int, list[ClosedFinding]]:
    """By probe, without probes that have none. `after_slots`: probe -> slot; only those that affect later slots are
    loaded. `generation`: the clock generation in which they were closed."""
    columns = ("probe", "rule", "subject", "id", "resolved_slot", "closed_after_slot", "closed_until_slot")
    of_probes = incidents.c.probe.in_(list(after_slots)), incidents.c.resolved_generation == generation
    is_relevant = incidents.c.closed_until_slot > min(after_slots.values(), default=0)
    closed: dict[int, list[ClosedFinding]] = {}
    for probe, *values in connection.execute(
        sa.select(*(incidents.c[name] for name in columns)).where(*of_probes, is_relevant)
    ):
        finding = ClosedFinding(*values)
        if finding.until_slot > after_slots[probe]:
            closed.setdefault(probe, []).append(finding)
    return closed
