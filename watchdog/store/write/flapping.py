"""Stores whether an alert flaps. This is decided from stored incidents, in the transaction that opens or resolves an
incident, under the lock of its probe. So every process decides the same, and a restart changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.alert_flapping import AlertFlapping
from watchdog.domain.flapping import (
    FLAPPING_WINDOW_MS,
    STABLE_AFTER_MS,
    decide_flapping_of_opened_incident,
    describe_flapping_of_opened_incident,
)
from watchdog.domain.model import IncidentTransition
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts, flapping_incidents
from watchdog.store.tables import incidents, outbox


class FlappingOfOpenedIncident(NamedTuple):
    """How the flapping of its alert affects an incident that opens."""

    lead_incidents: Mapping[str, str] = {}
    """The first incident of the message that it belongs to, by destination; empty if the alert did not flap before."""
    routing_log: tuple[str, ...] = ()


def decide_and_store_flapping_of_opened_incident(
    connection: sa.Connection, transition: IncidentTransition, now: int
) -> FlappingOfOpenedIncident:
    """Decide for an incident that opens whether its alert flaps, and store that."""
    key = transition.probe, transition.rule, transition.subject
    former = _load_active_flapping(connection, *key)
    others = _list_earlier_opening_times_of_alert(connection, transition, now) if former is None else []
    decision = decide_flapping_of_opened_incident(others, is_flapping=former is not None, now=now)
    if not decision.is_flapping:
        return FlappingOfOpenedIncident()
    flapping = former.id if former is not None else transition.incident
    if former is None:
        connection.execute(
            sa.insert(flapping_alerts).values(
                id=flapping,
                **dict(zip(("probe", "rule", "subject"), key, strict=True)),
                began_at=now,
                first_opened_at=decision.first_opened_at,
                incident_count=decision.incident_count,
                changed_at=now,
                decide_at=now + STABLE_AFTER_MS,
                end_reason="",
            )
        )
        stored = AlertFlapping(now, decision.first_opened_at, decision.incident_count, now)
    else:
        count = former.incident_count + decision.incident_count
        is_row = flapping_alerts.c.id == flapping
        values = {"incident_count": count, "changed_at": now, "decide_at": now + STABLE_AFTER_MS}
        connection.execute(sa.update(flapping_alerts).where(is_row).values(values))
        stored = AlertFlapping(former.began_at, former.first_opened_at, count, now)
    leads = {} if former is None else load_lead_incident_by_destination_of_flapping(connection, flapping)
    connection.execute(sa.insert(flapping_incidents).values(incident=transition.incident, flapping=flapping))
    step = describe_flapping_of_opened_incident(decision.reason, stored)
    return FlappingOfOpenedIncident(leads, (step,))


def _load_active_flapping(connection: sa.Connection, probe: int, rule: str, subject: str) -> Any | None:
    is_alert = flapping_alerts.c.probe == probe, flapping_alerts.c.rule == rule, flapping_alerts.c.subject == subject
    return connection.execute(sa.select(flapping_alerts).where(*is_alert, alert_is_flapping)).first()


def _list_earlier_opening_times_of_alert(
    connection: sa.Connection, transition: IncidentTransition, now: int
) -> list[int]:
    query = sa.select(incidents.c.opened_at).where(
        incidents.c.probe == transition.probe, incidents.c.rule == transition.rule,
        incidents.c.subject == transition.subject, incidents.c.opened_at > now - FLAPPING_WINDOW_MS,
        incidents.c.id != transition.incident,
    )  # fmt: skip
    return list(connection.execute(query).scalars())


def load_lead_incident_by_destination_of_flapping(connection: sa.Connection, flapping: str) -> dict[str, str]:
    """By destination: the first incident of the message about the flapping, sent or not. `flapping`: its id."""
    members = sa.select(flapping_incidents.c.incident).where(flapping_incidents.c.flapping == flapping)
    is_sent = sa.case((outbox.c.state.in_(HELD_BACK_DELIVERY_STATES), 0), else_=1)
    query = sa.select(outbox.c.destination, outbox.c.lead_incident).where(outbox.c.incident.in_(members))
    rows = connection.execute(query.order_by(is_sent, outbox.c.created_at, outbox.c.incident))
    return {row.destination: row.lead_incident for row in rows}


def restart_stability_period_of_flapping_alert(connection: sa.Connection, incident: str, now: int) -> None:
    """An incident is resolved: if its alert flaps, the time until it counts as stable begins again."""
    of_incident = sa.select(flapping_incidents.c.flapping).where(flapping_incidents.c.incident == incident)
    is_active = flapping_alerts.c.id.in_(of_incident), alert_is_flapping
    update = sa.update(flapping_alerts).where(*is_active)
    connection.execute(update.values(changed_at=now, decide_at=now + STABLE_AFTER_MS))
