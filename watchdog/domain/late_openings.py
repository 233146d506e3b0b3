"""Decides whether an incident without a destination is sent after a change of the routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.formatting import format_utc_timestamp

LATE_OPENING_ROUTING_LOG_PREFIX = "the routes changed"


class LateOpeningReason(StrEnum):
    """Why an open incident is sent after a change of the routes, or is not."""

    ROUTES_CHANGED = "routes_changed"
    """It had no destination so far, and the routes that are in force now lead to one."""
    ALREADY_ROUTED = "already_routed"
    """It has a destination: this was notified, or its notification waits or is held back."""
    INCIDENT_IS_OVER = "incident_is_over"
    NO_ROUTE = "no_route"
    """The routes that are in force now lead to no destination."""
    ACKNOWLEDGED = "acknowledged"
    """It is sent if the acknowledgement is removed."""
    PAUSED = "paused"
    """It is sent when its probe is resumed."""
    IN_MAINTENANCE = "in_maintenance"
    """It is sent when the maintenance of its probe ends."""


_HINDRANCE_BY_REASON = {
    LateOpeningReason.ACKNOWLEDGED: "the incident is acknowledged",
    LateOpeningReason.PAUSED: "the probe is paused",
    LateOpeningReason.IN_MAINTENANCE: "the probe is in maintenance",
}
"""What holds the notification back temporarily."""


class LateOpeningDecision(NamedTuple):
    """Whether the incident is sent now, and why."""

    is_due: bool
    reason: LateOpeningReason

    def build_steps_of_routing_log(
        self, destinations: Iterable[str], routing_log: Iterable[str], earlier_steps: Sequence[str], now: int
    ) -> list[str]:
        """ "the routes changed (16:05:12 UTC): oncall/slack is notified (routes_changed)", after each step of the
        routing. `routing_log`: of the routes that are in force now. A reason that the log already states is not
        repeated. A reason that ends the decision is not logged."""
        prefix = f"{LATE_OPENING_ROUTING_LOG_PREFIX} ({format_utc_timestamp(now, now, seconds=True)}): "
        names = ", ".join(destinations)
        if self.is_due:
            are = "are" if ", " in names else "is"
            steps = [*routing_log, f"{names} {are} notified ({self.reason})"]
            return [f"{prefix}{step}" for step in steps]
        if self.reason not in _HINDRANCE_BY_REASON:
            return []
        ending = f"({self.reason})"
        if any(step.startswith(LATE_OPENING_ROUTING_LOG_PREFIX) and step.endswith(ending) for step in earlier_steps):
            return []
        return [f"{prefix}not sent to {names} yet: {_HINDRANCE_BY_REASON[self.reason]} {ending}"]


def decide_late_opening(
    *,
    is_open: bool,
    is_routed: bool,
    has_route: bool,
    is_acknowledged: bool,
    is_paused: bool,
    is_in_maintenance: bool,
) -> LateOpeningDecision:
    """For one incident. `is_routed`: it has a destination. `has_route`: the routes that are in force now lead to a
    destination. Silences, muting and flapping hold its notification back like any other."""
    for is_reason, reason in (
        (not is_open, LateOpeningReason.INCIDENT_IS_OVER),
        (is_routed, LateOpeningReason.ALREADY_ROUTED),
        (not has_route, LateOpeningReason.NO_ROUTE),
        (is_acknowledged, LateOpeningReason.ACKNOWLEDGED),
        (is_paused, LateOpeningReason.PAUSED),
        (is_in_maintenance, LateOpeningReason.IN_MAINTENANCE),
    ):
        if is_reason:
            return LateOpeningDecision(False, reason)
    return LateOpeningDecision(True, LateOpeningReason.ROUTES_CHANGED)
