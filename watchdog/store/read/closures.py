"""Incidents that people have closed, as the fold and pages read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    connection: sa.Connection, probes: Collection[int], generation: int, since: int = 0
) -> Mapping[int, list[ClosedFinding]]:
    """By probe; probes without any are missing. `generation`: of the clock in which they were closed. `since`: without
    those that no later slot depends on."""
    columns = ("probe", "rule", "subject", "id", "resolved_slot", "closed_after_slot", "closed_until_slot")
    of_probes = incidents.c.probe.in_(probes), incidents.c.resolved_generation == generation
    query = sa.select(*(incidents.c[name] for name in columns)).where(*of_probes, incidents.c.closed_until_slot > since)
    closed: dict[int, list[ClosedFinding]] = {}
    for probe, *values in connection.execute(query):
        closed.setdefault(probe, []).append(ClosedFinding(*values))
    return closed
