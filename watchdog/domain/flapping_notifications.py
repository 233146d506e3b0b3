"""Which notifications are held back while an alert flaps, and what is sent when that is over. Pure.

The decision is made for each destination: one that was not notified of the flapping, for example because of a silence,
is sent the next opening as its notice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import IncidentEvent
from watchdog.domain.notification import MESSAGE_EDIT_EVENTS


class FlappingHoldReason(StrEnum):
    """Why a notification about an incident is sent or held back while its alert flaps."""

    IS_NOTICE = "is_notice"
    """The destination has not been notified of the flapping yet: this opening is what it is sent."""
    SEVERITY_IS_HIGHER = "severity_is_higher"
    """Than that of what the destination was sent."""
    DESTINATION_KNOWS_INCIDENT = "destination_knows_incident"
    """Its message shows who takes care of the incident, and whose alerts it mutes."""
    DESTINATION_HAS_NOTICE = "destination_has_notice"
    ANOTHER_IS_NOTICE = "another_is_notice"
    """A newer or more severe opening is what the destination is sent."""
    ALERT_IS_FLAPPING = "alert_is_flapping"
    """Changes of the cause and ends are not sent."""


class FlappingHoldDecision(NamedTuple):
    """Whether a notification is held back, and why."""

    is_held_back: bool
    reason: FlappingHoldReason


def decide_notification_while_flapping(
    event: IncidentEvent, *, has_notice: bool, is_more_severe: bool, is_best_opening: bool
) -> FlappingHoldDecision:
    """`has_notice`: the destination was sent an opening since the alert flaps. `is_more_severe`: than those that it was
    sent. `is_best_opening`: of those that wait to be sent there, none is more severe, or newer and as severe."""
    if event in MESSAGE_EDIT_EVENTS:
        return FlappingHoldDecision(False, FlappingHoldReason.DESTINATION_KNOWS_INCIDENT)
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
    """Why a destination is notified when an alert flaps no longer, or not."""

    STAYS_OPEN = "stays_open"
    """The open incident is sent as any other."""
    STAYS_RESOLVED = "stays_resolved"
    """It was sent that the alert flaps, and gets to know how that ended."""
    NOT_NOTIFIED = "not_notified"
    """It was sent nothing since the alert flaps."""
    WANTS_NO_RESOLVED = "wants_no_resolved"
    """It is not notified when an incident is resolved."""
    NO_ROUTE = "no_route"
    """No route leads to the destination any more."""


class NotificationAfterFlapping(NamedTuple):
    """What a destination is sent, and why. No event: nothing."""

    event: IncidentEvent | None
    reason: AfterFlappingReason


def decide_notification_after_flapping(
    *, is_open: bool, is_notified: bool, has_route: bool, wants_resolved: bool
) -> NotificationAfterFlapping:
    """For one destination. `is_open`: an incident of the alert. `is_notified`: the destination was sent an opening
    since the alert flaps, or one waits to be sent. `has_route`: the routes that are in force now lead to it.
    `wants_resolved`: it is notified of the end of incidents."""
    if is_open and (has_route or is_notified):
        return NotificationAfterFlapping(IncidentEvent.OPENED, AfterFlappingReason.STAYS_OPEN)
    if is_open:
        return NotificationAfterFlapping(None, AfterFlappingReason.NO_ROUTE)
    if not is_notified:
        return NotificationAfterFlapping(None, AfterFlappingReason.NOT_NOTIFIED)
    if not wants_resolved:
        return NotificationAfterFlapping(None, AfterFlappingReason.WANTS_NO_RESOLVED)
    return NotificationAfterFlapping(IncidentEvent.RESOLVED, AfterFlappingReason.STAYS_RESOLVED)
