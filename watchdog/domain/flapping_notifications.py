"""Decides which notifications are held back while an alert flaps, and what is sent when flapping is over. Pure.

The decision is made for each destination. If a destination was not notified of the flapping, for example because of a
silence, the next opening is sent to it as its notice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import IncidentEvent
from watchdog.domain.notification import MESSAGE_EDIT_EVENTS


class FlappingHoldReason(StrEnum):
    """Why a notification about an incident is sent or held back while its alert flaps."""

    IS_NOTICE = "is_notice"
    """The destination has not been notified of the flapping yet: this opening is its notice."""
    SEVERITY_IS_HIGHER = "severity_is_higher"
    """The severity is higher than that of the openings that were sent to the destination."""
    SENT_AS_EDIT_OF_EXISTING_MESSAGE = "destination_knows_incident"
    """The destination has a message about the incident. It shows acknowledgements, holds and muted alerts."""
    DESTINATION_HAS_NOTICE = "destination_has_notice"
    ANOTHER_IS_NOTICE = "another_is_notice"
    """A newer or more severe opening is the notice."""
    ALERT_IS_FLAPPING = "alert_is_flapping"
    """Changes of the cause and ends are not sent."""


class FlappingHoldDecision(NamedTuple):
    """Whether a notification is held back, and why."""

    is_held_back: bool
    reason: FlappingHoldReason


def decide_notification_while_flapping(
    event: IncidentEvent, *, has_notice: bool, is_more_severe: bool, is_best_opening: bool
) -> FlappingHoldDecision:
    """`has_notice`: an opening was sent to the destination since flapping began. `is_more_severe`: than these openings.
    `is_best_opening`: no other opening that waits for the destination is more severe, or newer with equal severity."""
    if event in MESSAGE_EDIT_EVENTS:
        return FlappingHoldDecision(False, FlappingHoldReason.SENT_AS_EDIT_OF_EXISTING_MESSAGE)
    if event is not IncidentEvent.OPENED:
        return FlappingHoldDecision(True, FlappingHoldReason.ALERT_IS_FLAPPING)
    if has_notice and not is_more_severe:
        return FlappingHoldDecision(True, FlappingHoldReason.DESTINATION_HAS_NOTICE)
    if not is_best_opening:
        return FlappingHoldDecision(True, FlappingHoldReason.ANOTHER_IS_NOTICE)
    return FlappingHoldDecision(
        False, FlappingHoldReason.SEVERITY_IS_HIGHER if has_notice else FlappingHoldReason.IS_NOTICE
    )


class AfterFlappingReason(StrEnum):
    """Why a destination is or is not notified when flapping ends."""

    STAYS_OPEN = "stays_open"
    """An incident is open: it is sent like any other."""
    RESOLVED_IS_SENT = "stays_resolved"
    """The destination has the notice, and is notified of the end."""
    NOT_NOTIFIED = "not_notified"
    """Nothing was sent to the destination since flapping began."""
    WANTS_NO_RESOLVED = "wants_no_resolved"
    """The destination is not notified when incidents resolve (`send_resolved: false`)."""
    NO_ROUTE = "no_route"
    """No route leads to the destination any more."""


class NotificationAfterFlapping(NamedTuple):
    """What is sent to a destination, and why. No event: nothing is sent."""

    event: IncidentEvent | None
    reason: AfterFlappingReason


def decide_notification_after_flapping(
    *, is_open: bool, is_notified: bool, has_route: bool, wants_resolved: bool
) -> NotificationAfterFlapping:
    """For one destination. `is_open`: whether an incident of the alert is open. `is_notified`: an opening was sent to
    the destination since flapping began, or waits to be sent. `has_route`: a route that is in force now leads to it.
    `wants_resolved`: it is notified of the end of incidents."""
    if is_open and (has_route or is_notified):
        return NotificationAfterFlapping(IncidentEvent.OPENED, AfterFlappingReason.STAYS_OPEN)
    if is_open:
        return NotificationAfterFlapping(None, AfterFlappingReason.NO_ROUTE)
    if not is_notified:
        return NotificationAfterFlapping(None, AfterFlappingReason.NOT_NOTIFIED)
    if not wants_resolved:
        return NotificationAfterFlapping(None, AfterFlappingReason.WANTS_NO_RESOLVED)
    return NotificationAfterFlapping(IncidentEvent.RESOLVED, AfterFlappingReason.RESOLVED_IS_SENT)
