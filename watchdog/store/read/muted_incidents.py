"""Which incidents are held back because of another probe, and which others an incident mutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.muting import IncidentMuting, MutingDecisionReason, MutingState
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.tables import incidents, probes

MAX_INCIDENTS_PER_QUERY = 5_000
"""SQLite takes 32,766 parameters by default."""
_muting_probe = probes.alias("muting_probe")
MUTING_PROBE_NAME_SUBQUERY = (
    sa.select(sa.func.max(_muting_probe.c.name))
    .where(_muting_probe.c.probe_id == muted_incidents.c.muting_probe_id)
    .correlate(muted_incidents)
    .scalar_subquery()
)
"""Of a query on the table muted_incidents."""


def add_muting_columns(incidents_query: sa.Select[Any]) -> sa.Select[Any]:
    """What `build_incident_muting_from_row` needs, for a query on the table incidents."""
    of_incident = muted_incidents.c.incident == incidents.c.id
    return incidents_query.outerjoin(muted_incidents, of_incident).add_columns(
        muted_incidents.c.state.label("muting_state"), muted_incidents.c.reason.label("muting_reason"),
        muted_incidents.c.since.label("muting_since"), muted_incidents.c.waits_until, muted_incidents.c.muting_probe_id,
        muted_incidents.c.muting_incident, MUTING_PROBE_NAME_SUBQUERY.label("muting_probe_name"),
    )  # fmt: skip


def build_incident_muting_from_row(row: sa.Row[Any]) -> IncidentMuting | None:
    """None: the incident is not held back."""
    if row.muting_state is None:
        return None
    return IncidentMuting(
        state=MutingState(row.muting_state),
        reason=MutingDecisionReason(row.muting_reason),
        probe_id=row.muting_probe_id,
        probe_name=row.muting_probe_name or row.muting_probe_id,
        incident=row.muting_incident,
        since=row.muting_since,
        waits_until=row.waits_until,
    )


class MutedIncident(NamedTuple):
    """An open incident whose notifications are held back because of another probe."""

    id: str
    probe_name: str
    message: str
    """Its cause."""


def list_names_of_probes_muted_by_incidents(
    connection: sa.Connection, muting_incidents: Iterable[str]
) -> tuple[str, ...]:
    """Of the open incidents that these mute: the name of the probe of each."""
    return tuple(muted.probe_name for muted in list_incidents_muted_by_others(connection, muting_incidents))


def list_incidents_muted_by_others(connection: sa.Connection, muting_incidents: Iterable[str]) -> list[MutedIncident]:
    """The open ones that these mute, also by way of incidents that are muted themselves; by the name of the probe."""
    muted: list[MutedIncident] = []
    visited = set(muting_incidents)
    remaining = sorted(visited)
    while remaining:
        chunk, remaining = remaining[:MAX_INCIDENTS_PER_QUERY], remaining[MAX_INCIDENTS_PER_QUERY:]
        query = (
            sa.select(incidents.c.id, probes.c.name, incidents.c.message)
            .join(incidents, muted_incidents.c.incident == incidents.c.id)
            .join(probes, probes.c.id == incidents.c.probe)
            .where(muted_incidents.c.muting_incident.in_(chunk), incidents.c.resolved_at.is_(None))
        )
        newly_muted = [MutedIncident(*row) for row in connection.execute(query) if row.id not in visited]
        muted += newly_muted
        visited |= {each.id for each in newly_muted}
        remaining += [each.id for each in newly_muted]
    return sorted(muted, key=lambda each: (each.probe_name, each.id))


def load_ids_of_held_back_incidents(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these incidents whose notifications wait or are muted."""
    held_back = connection.execute(sa.select(muted_incidents.c.incident)).scalars()
    return set(held_back).intersection(ids)


def find_incident_whose_message_states_muting(connection: sa.Connection, incident: str) -> str:
    """Of an incident that mutes others: itself, unless it is muted as well; then the one that mutes it, and so on."""
    visited = {incident}
    while True:
        is_muted = muted_incidents.c.incident == incident, muted_incidents.c.state == MutingState.MUTED
        muting = connection.execute(sa.select(muted_incidents.c.muting_incident).where(*is_muted)).scalar()
        if not muting or muting in visited:
            return incident
        visited.add(muting)
        incident = muting
