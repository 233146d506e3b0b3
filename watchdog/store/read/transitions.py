"""Transitions in the order of their numbers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.transitions import RecordedTransition, StoredTransitionNumberRange, TransitionKind
from watchdog.store.act_tables import acts
from watchdog.store.tables import incidents, probes
from watchdog.store.transition_tables import transition_is_unnumbered, transitions

_columns = (
    *transitions.c,
    acts.c.author,
    acts.c.interface,
    acts.c.comment,
    probes.c.probe_id.label("probe_id"),
    probes.c.name.label("probe_name"),
)
_query = (
    sa.select(*_columns)
    .select_from(transitions)
    .outerjoin(acts, acts.c.id == transitions.c.act)
    .outerjoin(incidents, incidents.c.id == transitions.c.incident)
    .outerjoin(probes, (probes.c.id == incidents.c.probe) | (probes.c.probe_id == transitions.c.probe))
    .order_by(transitions.c.number)
)


def load_transitions_after(connection: sa.Connection, number: int, limit: int) -> list[RecordedTransition]:
    """The next ones behind this number, oldest first."""
    query = _query.where(transitions.c.number > number).limit(limit)
    return [_build_transition_from_row(row) for row in connection.execute(query)]


def has_unnumbered_transitions(connection: sa.Connection) -> bool:
    """Whether `number_transitions` has something to do."""
    return bool(connection.execute(sa.select(sa.exists().where(transition_is_unnumbered))).scalar())


def load_stored_transition_numbers(connection: sa.Connection) -> StoredTransitionNumberRange:
    number = transitions.c.number
    oldest, newest = (sa.func.coalesce(extreme(number), 0) for extreme in (sa.func.min, sa.func.max))
    row = connection.execute(sa.select(sa.select(oldest).scalar_subquery(), sa.select(newest).scalar_subquery())).one()
    return StoredTransitionNumberRange(*row)


def _build_transition_from_row(row: Any) -> RecordedTransition:
    return RecordedTransition(
        number=row.number,
        kind=TransitionKind(row.kind),
        occurred_at=row.occurred_at,
        incident=row.incident,
        silence=row.silence,
        probe_id=row.probe_id or row.probe,
        probe_name=row.probe_name or "",
        reason=row.reason,
        message=row.message,
        actor=None if row.author is None else Actor(row.author, OperatorInterfaceKind(row.interface)),
        comment=row.comment or "",
        maintenance=row.maintenance,
    )
