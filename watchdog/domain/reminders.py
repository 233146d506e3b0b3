"""When a destination is reminded of an incident that is still open. Pure.

The interval is counted from the last message that the destination got about the incident or its group: the opening, a
change of the cause, or a reminder.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ReminderDecisionReason(StrEnum):
    """Why a destination is reminded, or not."""

    STILL_OPEN = "still_open"
    """The interval is over."""
    OFF = "off"
    """The probe has no `repeat_interval`."""
    INCIDENT_IS_OVER = "incident_is_over"
    ACKNOWLEDGED = "acknowledged"
    """Someone is handling the incident."""
    SILENCED = "silenced"
    PAUSED = "paused"
    """The probe of the incident."""
    IN_MAINTENANCE = "in_maintenance"
    MUTED = "muted"
    """The incident is held back because of another probe."""
    FLAPPING = "flapping"
    """Its alert opens and resolves again and again."""
    DESTINATION_NOT_CONFIGURED = "destination_not_configured"
    """Not any more."""
    DESTINATION_REPEATS_ALERTS = "destination_repeats_alerts"
    """It reminds people itself."""
    OPENING_NOT_DELIVERED = "opening_not_delivered"
    """The destination has not confirmed that the incident opened."""
    MESSAGE_IS_WAITING = "message_is_waiting"
    """Another message is sent first."""
    TOO_EARLY = "too_early"


class ReminderDecision(NamedTuple):
    """Whether a destination is reminded now, and why."""

    is_due: bool
    reason: ReminderDecisionReason
    decide_again_at: int | None = None
    """Epoch ms: nothing that happens in the meantime makes a reminder due before. None: not before an act of a person
    or a change of the configuration."""


def decide_reminder(
    *,
    repeat_interval_ms: int,
    last_message_at: int | None,
    is_open: bool,
    is_acknowledged: bool,
    is_silenced: bool,
    is_paused: bool,
    is_in_maintenance: bool,
    is_muted: bool,
    is_flapping: bool,
    is_destination_configured: bool,
    destination_repeats_alerts: bool,
    is_message_waiting: bool,
    now: int,
) -> ReminderDecision:
    """For one incident and one destination. `repeat_interval_ms`: 0 for no reminders. `last_message_at`: epoch ms;
    None: the opening is not delivered. `is_paused`, `is_in_maintenance`: the probe of the incident. `is_flapping`: its
    alert.
    `is_message_waiting`: about the incident or its group, to this destination."""
    for is_reason, reason in (
        (not is_open, ReminderDecisionReason.INCIDENT_IS_OVER),
        (not repeat_interval_ms, ReminderDecisionReason.OFF),
        (not is_destination_configured, ReminderDecisionReason.DESTINATION_NOT_CONFIGURED),
        (destination_repeats_alerts, ReminderDecisionReason.DESTINATION_REPEATS_ALERTS),
        (is_acknowledged, ReminderDecisionReason.ACKNOWLEDGED),
        (is_silenced, ReminderDecisionReason.SILENCED),
        (is_paused, ReminderDecisionReason.PAUSED),
        (is_in_maintenance, ReminderDecisionReason.IN_MAINTENANCE),
        (is_muted, ReminderDecisionReason.MUTED),
        (is_flapping, ReminderDecisionReason.FLAPPING),
    ):
        if is_reason:
            return ReminderDecision(False, reason)
    if last_message_at is None:
        return ReminderDecision(False, ReminderDecisionReason.OPENING_NOT_DELIVERED, now + repeat_interval_ms)
    if is_message_waiting:
        return ReminderDecision(False, ReminderDecisionReason.MESSAGE_IS_WAITING, now + repeat_interval_ms)
    if now < last_message_at + repeat_interval_ms:
        return ReminderDecision(False, ReminderDecisionReason.TOO_EARLY, last_message_at + repeat_interval_ms)
    return ReminderDecision(True, ReminderDecisionReason.STILL_OPEN, now + repeat_interval_ms)
