"""Groups of incidents that share a message at a destination, by a shared cause or by labels of a route."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.message_grouping import (
    MAX_LABEL_GROUP_AGE_MS,
    LabelGrouping,
    MessageGroup,
    MessageGroupDecision,
    build_grouping_steps_of_routing_log,
    decide_message_group,
)
from watchdog.domain.model import IncidentEvent, IncidentTransition, Json
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.shared_cause import (
    SharedIncidentCauseKey,
    compute_incident_group_window_ms,
    derive_shared_cause_of_incident,
)
from watchdog.domain.text import format_display_name
from watchdog.store.group_tables import incident_groups
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.outbox_filters import build_flapping_filter
from watchdog.store.tables import evidence, incidents, outbox, probes
from watchdog.store.write.routing_log import append_routing_log_entries

INCIDENT_GROUPS_LOCK_KEY = -3
"""Advisory lock: two processes would otherwise start two groups with one cause. No probe has this id."""


def derive_grouping_cause_from_stored_evidence(
    connection: sa.Connection, transition: IncidentTransition, registered: RegisteredProbe
) -> SharedIncidentCauseKey | None:
    """What broke, by the evidence of the result that decided the transition."""
    query = sa.select(evidence.c.facts).where(
        evidence.c.probe == transition.probe, evidence.c.slot == transition.slot
    )  # fmt: skip
    facts: Mapping[str, Json] = decode_nullable_json(connection.execute(query.limit(1)).scalar()) or {}
    return derive_shared_cause_of_incident(registered.info, transition.rule, transition.reason, facts)


class GroupsJoinedByIncident(NamedTuple):
    """The groups that an incident joined or began."""

    lead_incidents: dict[str, str]
    """The first incident of the group, by destination; the id of the incident itself where it is alone."""
    first_message_at: dict[str, int]
    """When the first message of the group is sent at the earliest, by destination."""
    routing_log: list[str]
    """Why, as steps of the routing log."""


def add_incident_to_group_per_destination(
    connection: sa.Connection,
    transition: IncidentTransition,
    destinations: Collection[str],
    registered: RegisteredProbe,
    now: int,
    *,
    waits: bool = True,
) -> GroupsJoinedByIncident:
    """Add the incident of a transition to a group at each destination, or start a group with it. `waits`: its routes
    may let the first message of a group wait.

    Under the lock of incident groups. `decide_message_group` decides.
    """
    if not destinations:
        return GroupsJoinedByIncident({}, {}, [])
    cause = derive_grouping_cause_from_stored_evidence(connection, transition, registered)
    groupings: dict[str, LabelGrouping] = {}
    for name in destinations:
        grouping = registered.routes.find_label_grouping(registered.info, transition.reason, name)
        if grouping is not None:
            groupings[name] = grouping if waits else grouping._replace(wait_ms=0)
    accepting = _load_accepting_incident_groups(connection, cause, groupings, destinations, now)
    next_slot = registered.schedule.find_next_slot_after(transition.slot)
    window_ms = compute_incident_group_window_ms(registered.schedule.find_next_slot_after(next_slot) - next_slot)
    decisions = {
        name: decide_message_group(
            transition.incident, accepting.get(name, ()), cause, groupings.get(name), cause_window_ms=window_ms, now=now
        )
        for name in destinations
    }
    _store_incident_groups(connection, decisions, accepting)
    leads = {
        name: decision.group.lead_incident if decision.group is not None else transition.incident
        for name, decision in decisions.items()
    }
    first_message_at = {
        name: decision.group.first_message_at for name, decision in decisions.items() if decision.group is not None
    }
    return GroupsJoinedByIncident(leads, first_message_at, build_grouping_steps_of_routing_log(decisions, now))


def add_open_incident_to_group_per_destination(
    connection: sa.Connection,
    incident: Any,
    destinations: Collection[str],
    registered: RegisteredProbe,
    now: int,
    *,
    waits: bool,
) -> dict[str, str]:
    """As above, for an incident that is notified to these destinations later, and log why. `incident`: its row.
    Returns the first incident of the group, by destination."""
    transition = IncidentTransition(
        IncidentEvent.OPENED, incident.probe, incident.rule, incident.subject, incident.id,
        first_bad_slot=incident.since, slot=incident.opened_slot, reason=incident.reason,
        message=incident.message, generation=incident.generation,
    )  # fmt: skip
    groups = add_incident_to_group_per_destination(
        connection, transition, destinations, registered, now, waits=waits
    )  # fmt: skip
    if groups.routing_log:
        append_routing_log_entries(connection, incident.id, groups.routing_log)
    return groups.lead_incidents


def _load_accepting_incident_groups(
    connection: sa.Connection,
    cause: SharedIncidentCauseKey | None,
    groupings: Mapping[str, LabelGrouping],
    destinations: Collection[str],
    now: int,
) -> dict[str, list[MessageGroup]]:
    """By destination: its groups with this cause or these labels that have an open incident or one whose alert flaps,
    or whose first message waits."""
    group, lead = incident_groups.c, incidents.alias()
    accepts: list[sa.ColumnElement[bool]] = []
    if cause is not None:
        same_cause = sa.and_(group.cause == cause.what, group.family == cause.family)
        accepts.append(same_cause & (group.accepts_until > now))
    if keys := {grouping.key for grouping in groupings.values()}:
        accepts.append(group.label_key.in_(keys) & (group.opened_at > now - MAX_LABEL_GROUP_AGE_MS))
    if not accepts:
        return {}
    of_group = (outbox.c.lead_incident == group.lead_incident, outbox.c.destination == group.destination)
    is_going_on = incidents.c.resolved_at.is_(None) | build_flapping_filter(incidents.c.id)
    is_current = sa.exists().where(*of_group, incidents.c.id == outbox.c.incident, is_going_on) | (
        group.first_message_at > now
    )
    is_reported = sa.exists().where(*of_group, outbox.c.state.not_in(HELD_BACK_DELIVERY_STATES))
    query = (
        sa.select(incident_groups, probes.c.name.label("lead_probe_name"), (~is_reported).label("is_held_back"))
        .join(lead, lead.c.id == group.lead_incident)
        .join(probes, probes.c.id == lead.c.probe)
        .where(sa.or_(*accepts), group.destination.in_(destinations), is_current)
    )
    groups: dict[str, list[MessageGroup]] = {}
    for row in connection.execute(query):
        groups.setdefault(row.destination, []).append(_build_message_group_from_row(row))
    return groups


def _build_message_group_from_row(row: Any) -> MessageGroup:
    return MessageGroup(
        lead_incident=row.lead_incident,
        lead_probe_name=format_display_name(row.lead_probe_name),
        cause=SharedIncidentCauseKey(row.cause, row.family) if row.cause else None,
        label_key=row.label_key,
        labels=decode_nullable_json(row.labels),
        opened_at=row.opened_at,
        accepts_cause_until=row.accepts_until,
        first_message_at=row.first_message_at,
        is_held_back=bool(row.is_held_back),
    )


def _store_incident_groups(
    connection: sa.Connection,
    decisions: Mapping[str, MessageGroupDecision],
    accepting: Mapping[str, Collection[MessageGroup]],
) -> None:
    """Insert the groups that begin, and update those that have changed. By destination."""
    started: list[dict[str, Any]] = []
    for destination, decision in decisions.items():
        group = decision.group
        if group is None or group in accepting.get(destination, ()):
            continue
        cause = group.cause or SharedIncidentCauseKey("")
        values = {
            "cause": cause.what, "family": cause.family, "label_key": group.label_key,
            "labels": None if group.labels is None else encode_storable_json(dict(group.labels)),
            "accepts_until": group.accepts_cause_until, "first_message_at": group.first_message_at,
        }  # fmt: skip
        key = {"lead_incident": group.lead_incident, "destination": destination}
        if any(group.lead_incident == each.lead_incident for each in accepting.get(destination, ())):
            is_group = (incident_groups.c[name] == value for name, value in key.items())
            connection.execute(sa.update(incident_groups).where(*is_group).values(values))
        else:
            started.append({**key, **values, "opened_at": group.opened_at})
    if started:
        connection.execute(sa.insert(incident_groups), started)
