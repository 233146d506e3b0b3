"""Enqueues notifications of open incidents without a destination, once changed routes lead to one.

This is decided together with reminders and escalation: a changed configuration, or a start, makes these due at once for
every open incident of its probes. A notification in the outbox records that the incident has a destination, so a
repeated decision enqueues nothing.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from watchdog.domain.late_openings import decide_late_opening
from watchdog.domain.model import IncidentEvent
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.follow_ups import FollowUpFacts, IncidentHistoryAtDestination
from watchdog.store.write.flapping import load_lead_incident_by_destination_of_flapping
from watchdog.store.write.held_back_notifications import (
    decide_present_routing,
    enqueue_notifications_after_holding_back,
    load_notifications_by_destination,
)
from watchdog.store.write.outbox_rows import OPENED_NOTIFICATION_SEQUENCE_NUMBER
from watchdog.store.write.routing_log import append_routing_log_entries


def enqueue_late_opening_if_due(connection: sa.Connection, incident: Any, facts: FollowUpFacts) -> list[str]:
    """`incident`: its row. The caller has locked its probe and the incident groups. Returns the destinations, which
    `facts` then contains as notified."""
    registered, histories = facts.registered.get(incident.probe), facts.histories.destinations[incident.id]
    routing = decide_present_routing(incident, registered, {})
    decision = decide_late_opening(
        is_open=incident.resolved_at is None,
        is_routed=bool(histories),
        has_route=bool(routing.destinations),
        is_acknowledged=incident.acknowledged_at is not None,
        is_paused=incident.probe in facts.paused,
        is_in_maintenance=incident.probe in facts.maintenance_ends,
    )
    earlier = decode_nullable_json(incident.routing_log)
    steps = decision.build_steps_of_routing_log(routing.destinations, routing.routing_log, earlier, facts.now)
    if steps:
        append_routing_log_entries(connection, incident.id, steps)
    if not decision.is_due:
        return []
    flapping = facts.flapping.get(incident.id)
    leads = {} if flapping is None else load_lead_incident_by_destination_of_flapping(connection, flapping)
    events = dict.fromkeys(routing.destinations, (IncidentEvent.OPENED,))
    enqueue_notifications_after_holding_back(connection, incident, events, {}, registered, now=facts.now, leads=leads)
    for destination, rows in load_notifications_by_destination(connection, incident.id, facts.now).items():
        lead = rows[0].lead_incident
        histories[destination] = IncidentHistoryAtDestination(
            lead, OPENED_NOTIFICATION_SEQUENCE_NUMBER, is_notified=True
        )
        facts.histories.messages[lead, destination].is_waiting = True
    return list(routing.destinations)
