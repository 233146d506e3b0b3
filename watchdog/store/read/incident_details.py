"""All that is stored about one incident, as the API, tools and commands show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from watchdog.domain.acts import OperatorAuditLogEntry
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import IncidentEvent
from watchdog.domain.notification import Notification
from watchdog.domain.silencing import Silence
from watchdog.store.read.acts import list_operator_acts_about_incident, list_silences_of_incident
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.destinations import list_destination_names
from watchdog.store.read.escalations import IncidentEscalationStep, load_incident_escalations
from watchdog.store.read.status import DeliveryRecord, IncidentRecord, list_incident_deliveries, list_incidents


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentDetails:
    """An incident with its results, notifications and acts."""

    record: IncidentRecord
    context: AlertMessageContext
    deliveries: Sequence[DeliveryRecord]
    """In order."""
    configured_destinations: Sequence[str] = ()
    """All, also those that were not notified."""
    acts: Sequence[OperatorAuditLogEntry] = ()
    """Oldest first, without silences."""
    silences: Sequence[Silence] = ()
    """Every one that selected it, in effect or ended, in the order in which they began."""
    escalations: Sequence[IncidentEscalationStep] = ()
    """Those that come first first."""


def load_incident_details(connection: Connection, incident_id: str, now: int) -> IncidentDetails | None:
    """None: there is no such incident. `now`: epoch ms."""
    records = list_incidents(connection, incident=incident_id)
    if not records:
        return None
    id = records[0].incident.id
    return IncidentDetails(
        record=records[0],
        context=load_alert_message_context(connection, Notification(id, "", 0, IncidentEvent.OPENED), now),
        deliveries=list_incident_deliveries(connection, id),
        configured_destinations=list_destination_names(connection),
        acts=list_operator_acts_about_incident(connection, id),
        silences=list_silences_of_incident(connection, id),
        escalations=load_incident_escalations(connection, id, now),
    )
