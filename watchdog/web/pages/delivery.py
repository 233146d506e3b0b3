"""Notifications of an incident as operators see them: which destination, which state, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun, format_duration
from watchdog.domain.model import DeliveryState, HealthState, IncidentEvent
from watchdog.domain.notification import MESSAGE_EDIT_EVENTS
from watchdog.store.read.status import DeliveryRecord
from watchdog.web.times import render_time_of_day

DELIVERY_STATE_LABELS = {
    DeliveryState.SENT: "Delivered",
    DeliveryState.WAITING: "Queued",
    DeliveryState.MERGED: "Merged",
    DeliveryState.UNDELIVERED: "Undelivered",
    DeliveryState.UNCONFIRMED: "Unconfirmed",
    DeliveryState.SILENCED: "Silenced",
    DeliveryState.MUTED: "Muted",
    DeliveryState.FLAPPING: "Not sent",
}
_STATE_AND_GLYPH_BY_DELIVERY_STATE = {
    DeliveryState.SENT: (HealthState.UP, "up"),
    DeliveryState.WAITING: (HealthState.DEGRADED, "wait"),
    DeliveryState.MERGED: (HealthState.UNKNOWN, "unknown"),
    DeliveryState.UNDELIVERED: (HealthState.DOWN, "down"),
    DeliveryState.UNCONFIRMED: (HealthState.DEGRADED, "degraded"),
    DeliveryState.SILENCED: (HealthState.UNKNOWN, "unknown"),
    DeliveryState.MUTED: (HealthState.UNKNOWN, "unknown"),
    DeliveryState.FLAPPING: (HealthState.UNKNOWN, "unknown"),
}
"""State (for its colour) and glyph."""


@dataclass(frozen=True, slots=True)
class DeliveryPageRow:
    receiver: str
    notifier: str
    address: str
    event: str
    state: HealthState
    glyph: str
    label: str
    detail: Markup
    destination: str
    is_undelivered: bool


def build_delivery_page_row(delivery: DeliveryRecord, destination_addresses: Mapping[str, str]) -> DeliveryPageRow:
    receiver, _, notifier = delivery.destination.partition("/")
    state, glyph = _STATE_AND_GLYPH_BY_DELIVERY_STATE[delivery.state]
    return DeliveryPageRow(
        receiver=receiver,
        notifier=notifier,
        address=destination_addresses.get(delivery.destination, ""),
        event=delivery.event.label,
        state=state,
        glyph=glyph,
        label=DELIVERY_STATE_LABELS[delivery.state],
        detail=_format_delivery_detail(delivery),
        destination=delivery.destination,
        is_undelivered=delivery.state is DeliveryState.UNDELIVERED,
    )


def _format_delivery_detail(delivery: DeliveryRecord) -> Markup:
    at = render_time_of_day(delivery.due_at if delivery.finished_at is None else delivery.finished_at, seconds=True)
    match delivery.state:
        case DeliveryState.SENT:
            finished_at = delivery.finished_at or delivery.created_at
            return Markup("{} · {}").format(at, format_duration(finished_at - delivery.created_at))
        case DeliveryState.WAITING:
            attempt = Markup("attempt {} at {}").format(delivery.attempts + 1, at)
            return Markup(" · ").join(filter(None, (attempt, delivery.detail)))
        case DeliveryState.UNDELIVERED:
            return Markup("{} until {} · {}").format(format_delivery_attempts(delivery), at, delivery.detail)
        case DeliveryState.UNCONFIRMED:
            times = format_count_with_noun(delivery.attempts, "time")
            return Markup("sent {} until {} · {}").format(times, at, delivery.detail)
        case DeliveryState.SILENCED:
            return Markup("{} · held back by a silence ({})").format(at, delivery.detail)
        case DeliveryState.MUTED:
            return Markup("{} · held back because of another probe ({})").format(at, delivery.detail)
        case DeliveryState.FLAPPING:
            return Markup("{} · {}").format(at, delivery.detail)
        case DeliveryState.MERGED if delivery.event is IncidentEvent.REMINDER:
            return Markup("{} · not needed any more").format(at)
        case DeliveryState.MERGED if delivery.event in MESSAGE_EDIT_EVENTS:
            return Markup("{} · no message of its own").format(at)
        case DeliveryState.MERGED:
            is_opened = delivery.event is IncidentEvent.OPENED
            where = "sent as one message with a later event" if is_opened else "reported in another message"
            return Markup("{} · {}").format(at, where)


def format_delivery_attempts(delivery: DeliveryRecord) -> str:
    return format_count_with_noun(delivery.attempts, "attempt")


def summarize_deliveries(deliveries: Sequence[DeliveryRecord]) -> str:
    """ "3 delivered · 1 queued · 1 undelivered"."""
    counts = {
        label.lower(): sum(delivery.state == state for delivery in deliveries)
        for state, label in DELIVERY_STATE_LABELS.items()
    }
    return " · ".join(f"{count} {label}" for label, count in counts.items() if count)
