"""The log of how it was decided which destinations are notified of an incident."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.tables import incidents


def append_routing_log_entries(
    connection: sa.Connection, incident: str, entries: Sequence[str], *, max_steps: int | None = None
) -> None:
    """Further steps of the decision, in words. The caller has locked the incident groups. `max_steps`: nothing is added
    to a log that has as many."""
    is_incident = incidents.c.id == incident
    log: list[str] = decode_nullable_json(
        connection.execute(sa.select(incidents.c.routing_log).where(is_incident)).scalar_one()
    )
    if max_steps is not None and len(log) >= max_steps:
        return
    log += entries
    connection.execute(sa.update(incidents).where(is_incident).values(routing_log=encode_storable_json(log)))
