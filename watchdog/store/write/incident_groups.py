"""Groups: incidents with a shared cause, which have one message at a destination."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent, IncidentTransition, Json
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.shared_cause import (
    SharedIncidentCause,
    compute_incident_group_window_ms,
    derive_shared_cause_of_incident,
)
from watchdog.store import codec
from watchdog.store.tables import evidence, incident_groups, incidents, outbox

INCIDENT_GROUPS_LOCK_KEY = -3
"""Advisory lock: two processes would otherwise start two groups with one cause. No probe has this id."""


def derive_grouping_cause_from_stored_evidence(
    connection: sa.Connection, transition: IncidentTransition, registered: RegisteredProbe
) -> SharedIncidentCause | None:
    """What broke, by the evidence of the result that decided the transition."""
    query = sa.select(evidence.c.facts).where(
        evidence.c.probe == transition.probe, evidence.c.slot == transition.slot
    )  # fmt: skip
    facts: Mapping[str, Json] = codec.decode_nullable_json(connection.execute(query.limit(1)).scalar()) or {}
    return derive_shared_cause_of_incident(registered.info, transition.rule, transition.reason, facts)


def add_incident_to_group_per_destination(
    connection: sa.Connection,
    transition: IncidentTransition,
    destinations: Collection[str],
    registered: RegisteredProbe,
    now: int,
) -> dict[str, str]:
    """Add the incident of a transition to a group at each destination, or start a group with it. Returns the first
    incident of the group, by destination; nothing if it is unknown what broke.

    A group accepts incidents while one of its own is open, for the interval of its slowest probe.
    """
    cause = derive_grouping_cause_from_stored_evidence(connection, transition, registered) if destinations else None
    if cause is None:
        return {}
    next_slot = registered.schedule.find_next_slot_after(transition.slot)
    window_ms = compute_incident_group_window_ms(registered.schedule.find_next_slot_after(next_slot) - next_slot)
    groups = _load_accepting_incident_groups(connection, cause, destinations, now)
    for destination, (lead, opened_at, accepts_until) in groups.items():
        if opened_at + window_ms > accepts_until:
            is_group = (incident_groups.c.lead_incident == lead, incident_groups.c.destination == destination)
            update = sa.update(incident_groups).where(*is_group)
            connection.execute(update.values(accepts_until=opened_at + window_ms))
    started = [
        {
            "lead_incident": transition.incident, "destination": destination, "cause": cause.what,
            "family": cause.family, "opened_at": now, "accepts_until": now + window_ms,
        }
        for destination in destinations
        if destination not in groups
    ]  # fmt: skip
    if started:
        connection.execute(sa.insert(incident_groups), started)
    return {name: groups[name][0] if name in groups else transition.incident for name in destinations}


def add_open_incident_to_group_per_destination(
    connection: sa.Connection, incident: Any, destinations: Collection[str], registered: RegisteredProbe, now: int
) -> dict[str, str]:
    """As above, for an incident that is notified to these destinations later. `incident`: its row."""
    transition = IncidentTransition(
        IncidentEvent.OPENED, incident.probe, incident.rule, incident.subject, incident.id,
        first_bad_slot=incident.since, slot=incident.opened_slot, reason=incident.reason,
        message=incident.message, generation=incident.generation,
    )  # fmt: skip
    return add_incident_to_group_per_destination(connection, transition, destinations, registered, now)


def _load_accepting_incident_groups(
    connection: sa.Connection, cause: SharedIncidentCause, destinations: Collection[str], now: int
) -> dict[str, tuple[str, int, int]]:
    """By destination: its group with this cause that accepts incidents now, as (first incident, opened_at,
    accepts_until)."""
    group = incident_groups.c
    has_open_incident = sa.exists().where(
        outbox.c.lead_incident == group.lead_incident, outbox.c.destination == group.destination,
        incidents.c.id == outbox.c.incident, incidents.c.resolved_at.is_(None),
    )  # fmt: skip
    query = sa.select(group.destination, group.lead_incident, group.opened_at, group.accepts_until).where(
        group.cause == cause.what, group.family == cause.family, group.accepts_until > now,
        group.destination.in_(destinations), has_open_incident,
    )  # fmt: skip
    rows = connection.execute(query.order_by(group.opened_at.desc(), group.lead_incident))
    return {destination: (lead, opened_at, until) for destination, lead, opened_at, until in rows}
