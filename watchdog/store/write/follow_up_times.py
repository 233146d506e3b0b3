"""When reminders and escalation of an incident are decided next. The caller has locked the probe of the incident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.tables import incidents


def schedule_follow_ups(connection: sa.Connection, decide_at_by_incident: Mapping[str, int | None]) -> None:
    """Epoch ms by incident; None: no reminder or escalation is to come."""
    delete_follow_ups(connection, decide_at_by_incident)
    rows = [
        {"incident": incident, "decide_at": decide_at}
        for incident, decide_at in decide_at_by_incident.items()
        if decide_at is not None
    ]
    if rows:
        connection.execute(sa.insert(incident_follow_ups), rows)


def schedule_follow_ups_of_probes(connection: sa.Connection, probes: Iterable[int], now: int) -> None:
    """Decide about their open incidents at once: these probes have another configuration, are resumed,
    or maintenance of theirs begins or ends."""
    is_open = incidents.c.probe.in_(list(probes)), incidents.c.resolved_at.is_(None)
    open_incidents = connection.execute(sa.select(incidents.c.id).where(*is_open)).scalars()
    schedule_follow_ups(connection, dict.fromkeys(open_incidents, now))


def delete_follow_ups(connection: sa.Connection, ended_incidents: Iterable[str]) -> None:
    delete = sa.delete(incident_follow_ups).where(incident_follow_ups.c.incident == sa.bindparam("id"))
    if rows := [{"id": incident} for incident in ended_incidents]:
        connection.execute(delete, rows)
