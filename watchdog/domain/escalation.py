"""When further receivers are notified of an incident that is still open. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class EscalationStep:
    """Further receivers of a route's incidents, and when they are notified."""

    after_ms: int
    """Counted from the opening of the incident."""
    receivers: tuple[str, ...]
    unless_acknowledged: bool = False
    """Only if no one has acknowledged the incident. If an acknowledgement is taken back, the time begins again."""


class EscalationDecisionReason(StrEnum):
    """Why a destination is notified of an incident by escalation, or not."""

    STILL_OPEN = "still_open"
    """The time of the step is over."""
    INCIDENT_IS_OVER = "incident_is_over"
    ALREADY_NOTIFIED = "already_notified"
    """By the route itself, or by another step."""
    ACKNOWLEDGED = "acknowledged"
    """Someone is handling the incident."""
    SILENCED = "silenced"
    """It is sent when the silence ends."""
    PAUSED = "paused"
    """It is sent when the probe of the incident is resumed."""
    IN_MAINTENANCE = "in_maintenance"
    """It is sent when the maintenance of the probe ends."""
    MUTED = "muted"
    """It is sent when the incident is no longer held back because of another probe."""
    FLAPPING = "flapping"
    """The destination has the notice that the alert flaps. An incident that is open when flapping ends is sent."""
    TOO_EARLY = "too_early"


_HINDRANCE_BY_REASON = {
    EscalationDecisionReason.INCIDENT_IS_OVER: "not escalated: the incident is over",
    EscalationDecisionReason.ALREADY_NOTIFIED: "not escalated: already notified",
    EscalationDecisionReason.ACKNOWLEDGED: "not escalated: acknowledged",
    EscalationDecisionReason.SILENCED: "not escalated yet: silenced",
    EscalationDecisionReason.PAUSED: "not escalated yet: the probe is paused",
    EscalationDecisionReason.IN_MAINTENANCE: "not escalated yet: the probe is in maintenance",
    EscalationDecisionReason.MUTED: "not escalated yet: muted because of another probe",
    EscalationDecisionReason.FLAPPING: "not escalated yet: the alert flaps, and the receiver was notified of this",
}
"""What keeps a destination from being notified."""


class EscalationDecision(NamedTuple):
    """Whether a destination is notified now, and why."""

    is_due: bool
    reason: EscalationDecisionReason
    decide_again_at: int | None = None
    """Epoch ms. None: not before an act of a person or a change of the configuration."""

    @property
    def hindrance(self) -> str:
        """ "not escalated: acknowledged"; empty: it is due, now or at `decide_again_at`."""
        return _HINDRANCE_BY_REASON.get(self.reason, "")


def decide_escalation(
    step: EscalationStep,
    *,
    opened_at: int,
    unacknowledged_at: int | None,
    is_open: bool,
    is_acknowledged: bool,
    is_silenced: bool,
    is_paused: bool,
    is_in_maintenance: bool,
    is_muted: bool,
    has_flapping_notice: bool,
    is_notified: bool,
    now: int,
) -> EscalationDecision:
    """For one incident and one destination of the step. Instants in epoch ms. `unacknowledged_at`: when an
    acknowledgement was last taken back. `is_paused`, `is_in_maintenance`: the probe of the incident. `is_muted`: the
    incident is held back because of another probe. `has_flapping_notice`: its alert flaps, and the destination has
    the notice. `is_notified`: the incident was sent to the destination, or is being sent."""
    for is_reason, reason in (
        (not is_open, EscalationDecisionReason.INCIDENT_IS_OVER),
        (is_notified, EscalationDecisionReason.ALREADY_NOTIFIED),
        (step.unless_acknowledged and is_acknowledged, EscalationDecisionReason.ACKNOWLEDGED),
        (is_silenced, EscalationDecisionReason.SILENCED),
        (is_paused, EscalationDecisionReason.PAUSED),
        (is_in_maintenance, EscalationDecisionReason.IN_MAINTENANCE),
        (is_muted, EscalationDecisionReason.MUTED),
        (has_flapping_notice, EscalationDecisionReason.FLAPPING),
    ):
        if is_reason:
            return EscalationDecision(False, reason)
    begins_at = opened_at
    if step.unless_acknowledged and unacknowledged_at is not None:
        begins_at = max(opened_at, unacknowledged_at)
    if now < begins_at + step.after_ms:
        return EscalationDecision(False, EscalationDecisionReason.TOO_EARLY, begins_at + step.after_ms)
    return EscalationDecision(True, EscalationDecisionReason.STILL_OPEN)
