"""Transitions: recorded in the transaction that makes them, and numbered when a process reads them.

A transaction that began earlier may commit later, so the order of ids is not the order in which rows appear: a reader
that continues behind an id could skip one. Rows therefore get their number afterwards, from whichever process reads
them first and under a lock: a number appears only after all smaller ones.
"""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.transitions import TransitionKind
from watchdog.store.database import Database
from watchdog.store.transition_tables import transition_is_unnumbered, transitions

TRANSITION_NUMBERS_LOCK_KEY = -5
TRANSITION_RETENTION_MS = 7 * DAY_MS
MAX_TRANSITIONS_NUMBERED_AT_ONCE = 1_000


def record_transition(
    connection: sa.Connection,
    kind: TransitionKind,
    now: int,
    *,
    incident: str = "",
    silence: str = "",
    probe: str = "",
    maintenance: str = "",
    act: int | None = None,
    reason: str = "",
    message: str = "",
) -> None:
    """In the transaction that makes it. `probe`: its id in the configuration, if there is no incident. `act`: the
    entry of the audit log, if a person did it."""
    connection.execute(
        sa.insert(transitions).values(
            kind=kind,
            occurred_at=now,
            incident=incident,
            silence=silence,
            probe=probe,
            maintenance=maintenance,
            act=act,
            reason=reason,
            message=message,
        )
    )


def number_transitions(database: Database) -> None:
    """Give every transition that has none its number."""
    while _number_oldest_transitions(database) == MAX_TRANSITIONS_NUMBERED_AT_ONCE:
        pass


def _number_oldest_transitions(database: Database) -> int:
    """Returns how many."""
    unnumbered = sa.select(transitions.c.id).where(transition_is_unnumbered).order_by(transitions.c.id)
    with database.open_write_transaction(is_checked=False) as connection:  # no time is stored
        database.acquire_advisory_lock(connection, TRANSITION_NUMBERS_LOCK_KEY)
        ids = connection.execute(unnumbered.limit(MAX_TRANSITIONS_NUMBERED_AT_ONCE)).scalars().all()
        newest = connection.execute(sa.select(sa.func.coalesce(sa.func.max(transitions.c.number), 0))).scalar_one()
        if ids:
            update = sa.update(transitions).where(transitions.c.id == sa.bindparam("row_id"))
            rows = [{"row_id": id, "new_number": newest + place} for place, id in enumerate(ids, 1)]
            connection.execute(update.values(number=sa.bindparam("new_number")), rows)
        return len(ids)


def build_transition_is_expired_condition(now: int) -> sa.ColumnElement[bool]:
    """The newest numbered row stays: it shows which number comes next."""
    newest = transitions.alias()
    is_newest = transitions.c.number == sa.select(sa.func.max(newest.c.number)).scalar_subquery()
    return (transitions.c.occurred_at < now - TRANSITION_RETENTION_MS) & (transition_is_unnumbered | ~is_newest)
