"""The messages that destinations have, and the open incidents that a person read in one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import Json
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES
from watchdog.store.flapping_tables import flapping_incidents
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.outbox_filters import build_flapping_filter
from watchdog.store.tables import incidents, messages, outbox, probes

MAX_CLOCK_SKEW_BETWEEN_PROCESSES_MS = 1_000
"""Between the process that stored a notification and the one that sent it."""


class SentMessage(NamedTuple):
    """A message at a destination."""

    destination: str
    receipt: Mapping[str, Json]
    """What its notifier returned, such as a Slack channel and ts."""


class IncidentOfMessage(NamedTuple):
    """An incident that a message lists."""

    id: str
    probe_id: str
    subject: str


def list_messages_of_incident(
    connection: sa.Connection, lead_incident: str, destinations: Collection[str]
) -> list[SentMessage]:
    """The messages that these destinations have. `lead_incident`: of a group, its first incident."""
    query = sa.select(messages.c.destination, messages.c.receipt).where(
        messages.c.incident == lead_incident, messages.c.destination.in_(destinations)
    )
    rows = connection.execute(query.order_by(messages.c.destination))
    return [SentMessage(destination, decode_nullable_json(receipt)) for destination, receipt in rows]


def list_probe_names_in_same_messages(connection: sa.Connection, incident: str) -> dict[str, list[str]]:
    """By destination: the names of the probes of the other incidents that share a message with this one there, without
    those that are held back, oldest first."""
    own, other = outbox.alias(), outbox.alias()
    shares_message = (
        other.c.lead_incident == own.c.lead_incident, other.c.destination == own.c.destination,
        other.c.incident != incident, other.c.state.not_in(HELD_BACK_DELIVERY_STATES),
    )  # fmt: skip
    columns = own.c.destination, incidents.c.opened_at, incidents.c.id, probes.c.name
    query = (
        sa.select(*columns)
        .join_from(own, other, sa.and_(*shares_message))
        .join(incidents, incidents.c.id == other.c.incident)
        .join(probes, probes.c.id == incidents.c.probe)
        .where(own.c.incident == incident)
        .distinct()
        .order_by(*columns[:3])
    )
    names: dict[str, list[str]] = {}
    for row in connection.execute(query):
        names.setdefault(row.destination, []).append(row.name)
    return names


def list_open_incidents_of_message(
    connection: sa.Connection, lead_incident: str, destination: str, shown_at: int
) -> list[IncidentOfMessage]:
    """The incidents that the message listed at this instant, and that are open, oldest first. While an alert flaps, the
    message about it is also about the incidents that were not sent."""
    listed = sa.select(outbox.c.incident).where(
        outbox.c.lead_incident == lead_incident, outbox.c.destination == destination,
        outbox.c.state.not_in(HELD_BACK_DELIVERY_STATES),
        outbox.c.created_at <= shown_at + MAX_CLOCK_SKEW_BETWEEN_PROCESSES_MS,
    )  # fmt: skip
    newer = flapping_incidents.alias()
    of_flapping_alert = (
        sa.select(newer.c.incident)
        .join(flapping_incidents, flapping_incidents.c.flapping == newer.c.flapping)
        .where(flapping_incidents.c.incident.in_(listed), build_flapping_filter(newer.c.incident))
    )
    query = (
        sa.select(incidents.c.id, probes.c.probe_id, incidents.c.subject)
        .join_from(incidents, probes, probes.c.id == incidents.c.probe)
        .where(incidents.c.id.in_(sa.union(listed, of_flapping_alert)), incidents.c.resolved_at.is_(None))
        .order_by(incidents.c.opened_at, incidents.c.id)
    )
    return [IncidentOfMessage(*row) for row in connection.execute(query)]
