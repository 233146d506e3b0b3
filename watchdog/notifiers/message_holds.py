"""The texts about silences, muting and maintenance, which hold back further notifications of incidents of a message."""

from __future__ import annotations

from typing import NamedTuple

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import IncidentEvent
from watchdog.domain.notification_holds import NotificationHold, NotificationHoldKind
from watchdog.notifiers.message_fields import (
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    format_texts_with_share_of_incidents,
    to_safe_single_line,
)


class _HoldTexts(NamedTuple):
    label: str
    ended: str


_TEXTS_BY_HOLD_KIND = {
    NotificationHoldKind.SILENCE: _HoldTexts("Silenced", "No longer silenced"),
    NotificationHoldKind.MUTING: _HoldTexts("Muted", "No longer muted"),
    NotificationHoldKind.MAINTENANCE: _HoldTexts("In maintenance", "No longer in maintenance"),
}
_HOLD_KIND_BY_EVENT = {
    IncidentEvent.SILENCE_BEGAN_OR_ENDED: NotificationHoldKind.SILENCE,
    IncidentEvent.MUTING_BEGAN_OR_ENDED: NotificationHoldKind.MUTING,
    IncidentEvent.MAINTENANCE_BEGAN: NotificationHoldKind.MAINTENANCE,
    IncidentEvent.MAINTENANCE_ENDED: NotificationHoldKind.MAINTENANCE,
}


def build_hold_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """One for each kind that applies: "by Ana until 03:12 UTC", "2 of 7 because API is down"."""
    described = ((texts.label, _describe_holds(context, kind)) for kind, texts in _TEXTS_BY_HOLD_KIND.items())
    return tuple(AlertMessageField(label, text) for label, text in described if text)


def format_hold_change(context: AlertMessageContext) -> str:
    """ "Silenced by Ana until 03:12 UTC", "No longer silenced"; empty if the event is another one."""
    kind = _HOLD_KIND_BY_EVENT.get(context.event)
    if kind is None:
        return ""
    text, texts = _describe_holds(context, kind), _TEXTS_BY_HOLD_KIND[kind]
    return f"{texts.label} {text}" if text else texts.ended


def _describe_holds(context: AlertMessageContext, kind: NotificationHoldKind) -> str:
    """The holds of incidents of the message that are open, or whose alert flaps; empty if there are none."""
    is_flapping = context.flapping is not None and context.flapping.is_active
    incidents = [(member.incident, member.is_flapping) for member in context.members]
    incidents = incidents or [(context.incident, is_flapping)]
    open_ids = {incident.id for incident, is_going_on in incidents if is_going_on or incident.resolved_at is None}
    holds = [hold for hold in context.holds if hold.kind is kind and hold.incident in open_ids]
    return format_texts_with_share_of_incidents([_format_hold(hold) for hold in holds], len(open_ids))


def _format_hold(hold: NotificationHold) -> str:
    name = to_safe_single_line(hold.by, MAX_MESSAGE_NAME_CHARS)
    if hold.kind is NotificationHoldKind.MUTING:
        return f"because {name} is down"
    comment = to_safe_single_line(hold.comment, MAX_MESSAGE_CAUSE_CHARS)
    text = f"{'by ' if hold.is_by_person else ''}{name} {hold.end}"
    return f"{text}: {comment}" if comment else text
