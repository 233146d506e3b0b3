"""Decides when an alert begins to flap, and when flapping is over. Pure.

An alert is a rule for a subject of a probe: its incidents differ only in their time. Flapping holds back only
notifications: probes run, and incidents open, change and resolve as usual. `flapping_notifications.py` decides which
notifications are held back.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.alert_flapping import AlertFlapping, FlappingEndReason
from watchdog.domain.formatting import MINUTE_MS, format_count_with_noun, format_duration, format_utc_timestamp

FLAPPING_INCIDENT_COUNT = 3
FLAPPING_WINDOW_MS = 30 * MINUTE_MS
"""An alert flaps once FLAPPING_INCIDENT_COUNT of its incidents have opened within this time."""
STABLE_AFTER_MS = 15 * MINUTE_MS
"""Flapping is over once no incident of the alert has opened or resolved for this time."""
FLAPPING_ROUTING_LOG_PREFIX = "flapping: "
"""Prefix of steps of the routing log about notifications that are held back. Such a step notifies no one."""


class FlappingBeginReason(StrEnum):
    """Why an alert flaps or does not flap when an incident of it opens."""

    FEW_INCIDENTS = "few_incidents"
    """Fewer than FLAPPING_INCIDENT_COUNT have opened within FLAPPING_WINDOW_MS."""
    SEVERAL_INCIDENTS = "several_incidents"
    """At least FLAPPING_INCIDENT_COUNT have opened within FLAPPING_WINDOW_MS: the alert flaps from now on."""
    ALREADY_FLAPPING = "already_flapping"


class FlappingBeginDecision(NamedTuple):
    """Whether an alert flaps when an incident of it opens, and why."""

    is_flapping: bool
    reason: FlappingBeginReason
    first_opened_at: int
    """When the first of the counted incidents opened; epoch ms."""
    incident_count: int
    """The counted incidents, with the one that opens. 1 if the alert flaps already."""


class FlappingEndDecision(NamedTuple):
    """Whether flapping is over, and why."""

    is_over: bool
    reason: FlappingEndReason
    decide_again_at: int | None = None
    """Epoch ms; None: it is over."""


def decide_flapping_of_opened_incident(
    earlier_openings: Iterable[int], *, is_flapping: bool, now: int
) -> FlappingBeginDecision:
    """For an incident that opens now. `earlier_openings`: when other incidents of its alert opened, epoch ms. Instants
    after `now` do not count: the clock was set back since. `is_flapping`: whether the alert flapped before."""
    if is_flapping:
        return FlappingBeginDecision(True, FlappingBeginReason.ALREADY_FLAPPING, now, 1)
    counted = [*(at for at in earlier_openings if now - FLAPPING_WINDOW_MS < at <= now), now]
    begins = len(counted) >= FLAPPING_INCIDENT_COUNT
    reason = FlappingBeginReason.SEVERAL_INCIDENTS if begins else FlappingBeginReason.FEW_INCIDENTS
    return FlappingBeginDecision(begins, reason, min(counted), len(counted))


def decide_end_of_flapping(
    *, stable_since: int, is_open: bool, is_removed: bool, is_paused: bool, is_in_maintenance: bool, now: int
) -> FlappingEndDecision:
    """`stable_since`: when an incident of the alert last opened or resolved; or, if that was later, when its probe was
    last resumed, its maintenance ended, or a downtime of Watchdog ended. `is_open`: whether an incident of the alert is
    open. The other parameters are about its probe."""
    if is_removed:
        return FlappingEndDecision(True, FlappingEndReason.PROBE_REMOVED)
    for is_reason, reason in (
        (is_paused, FlappingEndReason.PROBE_IS_PAUSED),
        (is_in_maintenance, FlappingEndReason.PROBE_IS_IN_MAINTENANCE),
    ):
        if is_reason:
            return FlappingEndDecision(False, reason, now + STABLE_AFTER_MS)
    if now < stable_since + STABLE_AFTER_MS:
        return FlappingEndDecision(False, FlappingEndReason.CHANGED_TOO_RECENTLY, stable_since + STABLE_AFTER_MS)
    return FlappingEndDecision(True, FlappingEndReason.STAYS_OPEN if is_open else FlappingEndReason.STAYS_RESOLVED)


def describe_flapping_incidents(flapping: AlertFlapping) -> str:
    """ "9 incidents in 1 h 10 min": from the first opening to the newest change."""
    duration = format_duration(flapping.changed_at - flapping.first_opened_at)
    return f"{format_count_with_noun(flapping.incident_count, 'incident')} in {duration}"


def describe_flapping_of_opened_incident(reason: FlappingBeginReason, flapping: AlertFlapping) -> str:
    """As a step of the routing log of an incident that opened now: "flapping: 3 incidents in 22 min
    (several_incidents)"."""
    if reason is FlappingBeginReason.ALREADY_FLAPPING:
        since = format_utc_timestamp(flapping.began_at, flapping.changed_at, seconds=True)
        text = f"since {since}: not sent to destinations that have the notice"
    else:
        text = f"{describe_flapping_incidents(flapping)}: further incidents are not sent until the alert is stable"
    return f"{FLAPPING_ROUTING_LOG_PREFIX}{text} ({reason})"


def build_end_of_flapping_step_of_routing_log(decision: FlappingEndDecision) -> str:
    """As a step of the routing log: "flapping: over (stays_open)"."""
    return f"{FLAPPING_ROUTING_LOG_PREFIX}over ({decision.reason})"
