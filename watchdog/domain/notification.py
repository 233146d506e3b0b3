"""A delivery of what happened to an incident, and its identity."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.model import DeliveryState, IncidentEvent

HELD_BACK_DELIVERY_STATES = (DeliveryState.SILENCED, DeliveryState.MUTED, DeliveryState.FLAPPING)
"""No one was sent such a notification, and it is not sent any more: another one may be."""
SENT_DELIVERY_STATES = (DeliveryState.SENT, DeliveryState.MERGED, DeliveryState.UNCONFIRMED)
"""The destination has such a notification, or a later one that states it."""
NOTIFICATION_HOLD_CHANGE_EVENTS = (
    IncidentEvent.SILENCE_BEGAN_OR_ENDED,
    IncidentEvent.MAINTENANCE_BEGAN,
    IncidentEvent.MAINTENANCE_ENDED,
    IncidentEvent.MUTING_BEGAN_OR_ENDED,
)
"""What holds back the notifications of an incident began, changed or ended."""
MESSAGE_EDIT_EVENTS = (IncidentEvent.ACKNOWLEDGED, *NOTIFICATION_HOLD_CHANGE_EVENTS, IncidentEvent.MUTES)
"""Only messages that can be edited show these events. Elsewhere, such a notification is dropped, except for an
acknowledgement at a receiver that tracks it. If several are due, the reply states the first of them."""

UNEDITABLE_MESSAGE_TEXT = "this receiver cannot edit a message that was sent"
"""Why a notification that only edits a message was dropped: an incoming webhook of Slack or an email, for example."""
UNACKNOWLEDGED_MESSAGE_TEXT = "an open incident of its alert is not acknowledged"
"""Why an acknowledgement was dropped: the receiver has one alert for several incidents. It is enqueued again when no
such incident is left."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One delivery to one destination. Its identity is (incident, destination, seq, batch)."""

    incident: str
    destination: str
    seq: int
    event: IncidentEvent
    batch: str = ""
    """Identifies what is merged into it; empty for a message about one incident or group."""

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt, so that a receiver can recognise a second copy."""
        key = f"{self.incident}:{self.destination}:{self.seq}"
        return f"{key}:{self.batch}" if self.batch else key
