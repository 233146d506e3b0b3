"""Locking of an incident, for acts that change it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import ActSubjectKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.tables import incidents


def lock_incident(database: Database, connection: sa.Connection, incident: str) -> Any:
    """The row of an incident, which nothing changes until the transaction ends. Raises OperatorActRefusedError if the
    incident is unknown."""
    id = replace_unstorable_characters(incident)
    is_incident = incidents.c.id == id
    probe = connection.execute(sa.select(incidents.c.probe).where(is_incident)).scalar()
    if probe is None:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.NOT_FOUND,
            f"no incident has the id {id}",
            unknown_subject=ActSubjectKind.INCIDENT,
        )
    database.lock_probes(connection, [probe])
    return connection.execute(sa.select(incidents).where(is_incident)).one()


def lock_incidents(database: Database, connection: sa.Connection, ids: Collection[str]) -> list[Any]:
    """The rows of those of these incidents that exist, oldest first, which nothing changes until the transaction
    ends."""
    is_incident = incidents.c.id.in_([replace_unstorable_characters(id) for id in ids])
    database.lock_probes(connection, set(connection.execute(sa.select(incidents.c.probe).where(is_incident)).scalars()))
    query = sa.select(incidents).where(is_incident).order_by(incidents.c.opened_at, incidents.c.id)
    return list(connection.execute(query))
