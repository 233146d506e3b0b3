"""Notifications and their deliveries as JSON."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import DeliveryState
from watchdog.store.read.status import DeliveryRecord


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class DeliveryJson(TypedDict):
    """A notification about an incident to one destination."""

    incident: str
    """The id of the incident."""
    destination: str
    """A way to reach a receiver, such as oncall/slack."""
    event: str
    """opened, changed, acknowledged, reminder or resolved; or the reason for editing a message: silence, muting,
    maintenance_began, maintenance_ended or mutes."""
    state: str
    """waiting, sent, merged, undelivered, unconfirmed, silenced, muted or flapping."""
    failing: bool
    """It waits, and its last attempt failed."""
    attempts: int
    """How often it was sent so far."""
    detail: str
    """The error of the last attempt, or why it is held back."""
    created_at: str
    due_at: str
    """When the next attempt is due, or the last one was."""
    finished_at: str | None


def serialize_delivery(delivery: DeliveryRecord) -> DeliveryJson:
    return {
        "incident": delivery.incident,
        "destination": delivery.destination,
        "event": delivery.event.value,
        "state": delivery.state.value,
        "failing": delivery.state is DeliveryState.WAITING and delivery.attempts > 0,
        "attempts": delivery.attempts,
        "detail": delivery.detail,
        "created_at": format_iso8601(delivery.created_at),
        "due_at": format_iso8601(delivery.due_at),
        "finished_at": format_optional_iso8601(delivery.finished_at),
    }
