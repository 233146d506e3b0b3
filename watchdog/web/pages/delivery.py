"""Notifications of an incident as operators see them: which destination, which state, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun, format_duration, format_utc_timestamp
from watchdog.domain.model import DeliveryState, HealthState, IncidentEvent
from watchdog.domain.notification import MESSAGE_EDIT_EVENTS, UNACKNOWLEDGED_MESSAGE_TEXT, UNEDITABLE_MESSAGE_TEXT
from watchdog.store.read.status import DeliveryRecord
from watchdog.web.times import render_time_of_day

NOT_SENT_LABEL, NOT_SENT_YET_LABEL = "Not sent", "Not sent yet"
DELIVERY_STATE_LABELS = {
    DeliveryState.SENT: "Delivered",
    DeliveryState.WAITING: "Queued",
    DeliveryState.MERGED: "Merged",
    DeliveryState.UNDELIVERED: "Undelivered",
    DeliveryState.UNCONFIRMED: "Unconfirmed",
    DeliveryState.SILENCED: "Silenced",
    DeliveryState.MUTED: "Muted",
    DeliveryState.FLAPPING: NOT_SENT_LABEL,
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
MUTED_DELIVERY_TEXT = "held back because of another probe"
WAITS_FOR_GROUP_TEXT = "waits for the next message of its group"
_NOT_SENT_TEXTS = (UNEDITABLE_MESSAGE_TEXT, UNACKNOWLEDGED_MESSAGE_TEXT)
"""Details of notifications that only edit a message, and were dropped."""
_GIVEN_UP_STATES = (DeliveryState.UNDELIVERED, DeliveryState.UNCONFIRMED)


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
        label=_get_delivery_label(delivery),
        detail=_format_delivery_detail(delivery),
        destination=delivery.destination,
        is_undelivered=delivery.state is DeliveryState.UNDELIVERED,
    )


def _get_delivery_label(delivery: DeliveryRecord) -> str:
    if delivery.state is DeliveryState.MERGED and delivery.detail in _NOT_SENT_TEXTS:
        return NOT_SENT_LABEL
    return NOT_SENT_YET_LABEL if _is_undecided_edit(delivery) else DELIVERY_STATE_LABELS[delivery.state]


def _is_undecided_edit(delivery: DeliveryRecord) -> bool:
    """Whether it only edits a message, and no process has decided yet whether its receiver can do that."""
    is_untouched = delivery.state is DeliveryState.WAITING and not delivery.attempts
    return is_untouched and delivery.event in MESSAGE_EDIT_EVENTS


def _format_delivery_detail(delivery: DeliveryRecord) -> Markup:
    at = render_time_of_day(delivery.due_at if delivery.finished_at is None else delivery.finished_at, seconds=True)
    match delivery.state:
        case DeliveryState.SENT:
            finished_at = delivery.finished_at or delivery.created_at
            return Markup("{} · {}").format(at, format_duration(finished_at - delivery.created_at))
        case DeliveryState.WAITING if _is_undecided_edit(delivery):
            return Markup("sent if the receiver can show it")
        case DeliveryState.WAITING if delivery.joins_message_of_group and not delivery.attempts:
            return Markup("{}").format(WAITS_FOR_GROUP_TEXT)
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
        case DeliveryState.MERGED:
            return Markup("{} · {}").format(at, _explain_merged_delivery(delivery))


def _explain_merged_delivery(delivery: DeliveryRecord) -> str:
    """Why it was not sent by itself."""
    if delivery.event is IncidentEvent.REMINDER:
        return "not needed any more"
    if delivery.event in MESSAGE_EDIT_EVENTS:
        return delivery.detail if delivery.detail in _NOT_SENT_TEXTS else "no message of its own"
    is_opened = delivery.event is IncidentEvent.OPENED
    return "sent as one message with a later event" if is_opened else "reported in another message"


def format_delivery_attempts(delivery: DeliveryRecord) -> str:
    return format_count_with_noun(delivery.attempts, "attempt")


def format_delivery_counts_by_state(deliveries: Sequence[DeliveryRecord]) -> str:
    """ "3 delivered · 1 queued · 1 undelivered"."""
    counts = Counter(map(_get_delivery_label, deliveries))
    labels = dict.fromkeys((*DELIVERY_STATE_LABELS.values(), NOT_SENT_YET_LABEL))
    return " · ".join(f"{counts[label]} {label.lower()}" for label in labels if counts[label])


def describe_who_was_notified(
    deliveries: Sequence[DeliveryRecord], now: int, *, is_open: bool = True, is_muted: bool = False
) -> str:
    """Which destinations received a message about an incident, and what the others wait for: "Notified: oncall/slack.
    Not sent yet: chat/slack: to be sent at 01:49:33 UTC". Empty: there is no delivery, or one was given up, which a
    banner states. `deliveries`: in order. `is_muted`: what is not sent yet waits because of another probe."""
    if any(each.state in _GIVEN_UP_STATES for each in deliveries):
        return ""
    notified = sorted({each.destination for each in deliveries if _has_delivery_reached_destination(each)})
    newest = {each.destination: each for each in deliveries if each.state is not DeliveryState.MERGED}
    waits = {}
    for name, delivery in sorted(newest.items()):
        is_end = delivery.event is IncidentEvent.RESOLVED
        if name not in notified or (is_end and delivery.state is not DeliveryState.SENT):
            label = f"{name} ({delivery.event.label})" if name in notified else name
            waits[label] = _describe_wait(delivery, now, is_muted=is_muted)
    others = "; ".join(f"{label}: {wait}" for label, wait in waits.items())
    if notified:
        return f"Notified: {', '.join(notified)}" + (f". Not sent yet: {others}" if others else "")
    no_one = "No one has been notified yet" if is_open else "No one was notified"
    return f"{no_one}. {others}" if others else ""


def _has_delivery_reached_destination(delivery: DeliveryRecord) -> bool:
    """By itself, or because another message states it. A reminder or an edit that is merged was not needed."""
    is_stated_elsewhere = delivery.state is DeliveryState.MERGED and delivery.event is IncidentEvent.OPENED
    return delivery.state is DeliveryState.SENT or is_stated_elsewhere


def _describe_wait(delivery: DeliveryRecord, now: int, *, is_muted: bool) -> str:
    """Of a notification that was not sent, and not given up. A due one may wait because its receiver asked for a pause,
    or because no process runs."""
    match delivery.state:
        case DeliveryState.WAITING if is_muted:
            return MUTED_DELIVERY_TEXT
        case DeliveryState.WAITING if delivery.attempts:
            error = f" ({delivery.detail})" if delivery.detail else ""
            at = format_utc_timestamp(delivery.due_at, now, seconds=True)
            following = f"next at {at}" if delivery.due_at > now else "waits to be sent again"
            return f"{format_delivery_attempts(delivery)} failed{error}, {following}"
        case DeliveryState.WAITING if delivery.due_at > now:
            return f"to be sent at {format_utc_timestamp(delivery.due_at, now, seconds=True)}"
        case DeliveryState.WAITING if delivery.joins_message_of_group:
            return WAITS_FOR_GROUP_TEXT
        case DeliveryState.SILENCED:
            return "held back by a silence"
        case DeliveryState.MUTED:
            return MUTED_DELIVERY_TEXT
        case DeliveryState.FLAPPING:
            return "held back while the alert flaps"
    return "waits to be sent"
