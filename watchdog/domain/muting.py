"""Which alerts are muted because another probe is down, which wait for it, and what is sent afterwards. Pure.

The configuration states which probe mutes the alerts of which: `needs` of a probe, and `inhibit`. Muting holds back
notifications only: probes run, and incidents open, change and resolve as without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import HealthState, IncidentEvent
from watchdog.domain.routing import MUTING_ROUTING_LOG_PREFIX
from watchdog.domain.text import format_display_name

MAX_WAIT_FOR_MUTING_PROBE_MS = 60_000
"""An alert that opens before it is certain whether a muting probe is down waits for this time, and is then sent."""
NEEDS_SETTING_NAME = "needs"
MUTED_INCIDENT_IS_OVER_TEXT = "it is over: what was held back is not sent"


class MutingProbe(NamedTuple):
    """A probe that mutes the alerts of another one while it is down."""

    probe_id: str
    setting: str = NEEDS_SETTING_NAME
    """What states it: `needs`, or `inhibit.0`."""


class MutingState(StrEnum):
    """How an incident's notifications are held back."""

    WAITING = "waiting"
    """It is not certain yet whether a muting probe is down."""
    MUTED = "muted"


class MutingAction(StrEnum):
    """What becomes of an incident's notifications."""

    WAIT = "wait"
    MUTE = "mute"
    SEND = "send"
    """Nothing holds them back, or not any more."""
    DROP = "drop"
    """The incident is over, and no one is notified of it."""


class MutingDecisionReason(StrEnum):
    """Why an incident's notifications wait, are muted, or are sent."""

    NO_MUTING_PROBE = "no_muting_probe"
    """The configuration states none, or not any more."""
    MUTING_PROBE_IS_DOWN = "muting_probe_is_down"
    MUTING_PROBE_IS_UNKNOWN = "muting_probe_is_unknown"
    """None of them has a state that Watchdog knows: they mute nothing."""
    MUTING_PROBE_IS_PAUSED = "muting_probe_is_paused"
    """A paused probe mutes nothing, even if an incident of it is open."""
    MUTING_PROBE_HAS_PASSED = "muting_probe_has_passed"
    """Each whose state is known has a good result that is newer than the first bad slot of the incident."""
    WAITING_FOR_MUTING_PROBE = "waiting_for_muting_probe"
    """One has neither an open incident nor such a result yet."""
    WAIT_IS_OVER = "wait_is_over"
    """None was down within MAX_WAIT_FOR_MUTING_PROBE_MS."""
    MUTING_PROBE_IS_NO_LONGER_DOWN = "muting_probe_is_no_longer_down"
    INCIDENT_IS_OVER = "incident_is_over"
    """It resolved while it was muted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutingProbeStatus:
    """A muting probe, as far as one incident of another probe is concerned."""

    probe: MutingProbe
    name: str
    state: HealthState
    incident: str = ""
    """Its oldest open incident that makes it down; empty if there is none."""
    is_reported_unknown: bool = False
    """An open incident states that its state is unknown."""
    has_passed: bool = False
    """It has a good result that is newer than the first bad slot of the other probe's incident."""

    @property
    def is_down(self) -> bool:
        return self.state is HealthState.DOWN and bool(self.incident)

    @property
    def may_open_incident_soon(self) -> bool:
        """Whether its incident may open soon: it is up or degraded, or has no verdict yet. In any other state, it may
        not run at all."""
        is_without_verdict = self.state is HealthState.UNKNOWN and not self.is_reported_unknown
        return is_without_verdict or self.state in (HealthState.UP, HealthState.DEGRADED)

    @property
    def display_name(self) -> str:
        return format_display_name(self.name)


class IncidentMuting(NamedTuple):
    """That an incident's notifications are held back, and why."""

    state: MutingState
    reason: MutingDecisionReason
    probe_id: str
    """Of the muting probe."""
    probe_name: str
    incident: str
    """The open incident of that probe; empty while it waits."""
    since: int
    waits_until: int | None
    """None: it is muted."""


class MutingDecision(NamedTuple):
    """What becomes of an incident's notifications, and why."""

    action: MutingAction
    reason: MutingDecisionReason
    status: MutingProbeStatus | None = None
    """Of the muting probe that decided it."""

    def describe(self) -> str:
        """As a step of the routing log: "muting: held back while API is down (muting_probe_is_down: needs)"."""
        name = "the probe" if self.status is None else self.status.display_name
        text = {
            MutingDecisionReason.NO_MUTING_PROBE: "not held back any more: no probe mutes it",
            MutingDecisionReason.MUTING_PROBE_IS_DOWN: f"held back while {name} is down",
            MutingDecisionReason.MUTING_PROBE_IS_UNKNOWN: f"not held back: the state of {name} is not known",
            MutingDecisionReason.MUTING_PROBE_IS_PAUSED: f"not held back: {name} is paused",
            MutingDecisionReason.MUTING_PROBE_HAS_PASSED: f"not held back: {name} passed after the first bad result",
            MutingDecisionReason.WAITING_FOR_MUTING_PROBE: (
                f"held back for at most {format_duration(MAX_WAIT_FOR_MUTING_PROBE_MS)}, until {name} is down or passes"
            ),
            MutingDecisionReason.WAIT_IS_OVER: (
                f"not held back any more: {name} was not down within {format_duration(MAX_WAIT_FOR_MUTING_PROBE_MS)}"
            ),
            MutingDecisionReason.MUTING_PROBE_IS_NO_LONGER_DOWN: f"not held back any more: {name} is no longer down",
            MutingDecisionReason.INCIDENT_IS_OVER: MUTED_INCIDENT_IS_OVER_TEXT,
        }[self.reason]
        if self.action is MutingAction.DROP:
            text = MUTED_INCIDENT_IS_OVER_TEXT
        setting = "" if self.status is None else f": {self.status.probe.setting}"
        return f"{MUTING_ROUTING_LOG_PREFIX}{text} ({self.reason}{setting})"


def decide_muting_of_opened_incident(
    statuses: Sequence[MutingProbeStatus], *, is_open: bool = True, wait_left_ms: int = MAX_WAIT_FOR_MUTING_PROBE_MS
) -> MutingDecision:
    """For an incident that opens, or waits since then. `statuses`: of all probes that mute it. `wait_left_ms`: for how
    long it may still wait. The incident may resolve while it waits: then it is sent together with its end."""
    for status in statuses:
        if status.is_down:
            action = MutingAction.MUTE if is_open else MutingAction.DROP
            return MutingDecision(action, MutingDecisionReason.MUTING_PROBE_IS_DOWN, status)
    awaited = [status for status in statuses if status.may_open_incident_soon]
    for status in awaited:
        if not status.has_passed:
            if wait_left_ms > 0:
                return MutingDecision(MutingAction.WAIT, MutingDecisionReason.WAITING_FOR_MUTING_PROBE, status)
            return MutingDecision(MutingAction.SEND, MutingDecisionReason.WAIT_IS_OVER, status)
    if awaited:
        return MutingDecision(MutingAction.SEND, MutingDecisionReason.MUTING_PROBE_HAS_PASSED, awaited[0])
    if statuses:
        is_paused = statuses[0].state is HealthState.PAUSED
        unknown, paused = MutingDecisionReason.MUTING_PROBE_IS_UNKNOWN, MutingDecisionReason.MUTING_PROBE_IS_PAUSED
        return MutingDecision(MutingAction.SEND, paused if is_paused else unknown, statuses[0])
    return MutingDecision(MutingAction.SEND, MutingDecisionReason.NO_MUTING_PROBE)


def decide_muting_of_muted_incident(
    statuses: Sequence[MutingProbeStatus], former_probe_id: str, *, is_open: bool
) -> MutingDecision:
    """For an incident that is muted. `former_probe_id`: of the probe that has muted it so far."""
    former = next((status for status in statuses if status.probe.probe_id == former_probe_id), None)
    if not is_open:
        return MutingDecision(MutingAction.DROP, MutingDecisionReason.INCIDENT_IS_OVER, former)
    for status in (former, *statuses):
        if status is not None and status.is_down:
            return MutingDecision(MutingAction.MUTE, MutingDecisionReason.MUTING_PROBE_IS_DOWN, status)
    if former is None:
        return MutingDecision(MutingAction.SEND, MutingDecisionReason.NO_MUTING_PROBE)
    if former.state is HealthState.PAUSED:
        return MutingDecision(MutingAction.SEND, MutingDecisionReason.MUTING_PROBE_IS_PAUSED, former)
    return MutingDecision(MutingAction.SEND, MutingDecisionReason.MUTING_PROBE_IS_NO_LONGER_DOWN, former)


def is_notification_held_back_while_muted(event: IncidentEvent, *, is_notified: bool) -> bool:
    """Of an incident that waits or is muted. `is_notified`: the destination was sent that it opened. Who knows of the
    incident gets its end, and is shown who is handling it."""
    return event in (IncidentEvent.OPENED, IncidentEvent.CHANGED) or not is_notified


class AfterMutingReason(StrEnum):
    """Why a destination is notified of an incident that is no longer held back, or not."""

    STILL_SILENCED = "still_silenced"
    """It is sent when the silence ends, unless it was over by then."""
    MUTING_ENDED = "muting_ended"
    OVER_BEFORE_IT_WAS_SENT = "over_before_it_was_sent"
    """It resolved while it waited."""
    CAUSE_CHANGED_WHILE_MUTED = "cause_changed_while_muted"
    ALREADY_NOTIFIED = "already_notified"
    NO_ROUTE = "no_route"
    """No route leads to the destination any more."""


class NotificationsAfterMuting(NamedTuple):
    """What a destination is sent, in this order, and why."""

    events: tuple[IncidentEvent, ...]
    reason: AfterMutingReason


def decide_notifications_after_muting(
    *,
    is_open: bool,
    is_silenced: bool,
    is_notified: bool,
    has_held_back_change: bool,
    has_route: bool,
    wants_resolved: bool,
) -> NotificationsAfterMuting:
    """For one incident that is no longer held back, and one destination. `has_route`: the routes that are in force now
    lead to it. `wants_resolved`: it is notified of the end of incidents."""
    if is_silenced:
        return NotificationsAfterMuting((), AfterMutingReason.STILL_SILENCED)
    if is_notified and is_open and has_held_back_change:
        return NotificationsAfterMuting((IncidentEvent.CHANGED,), AfterMutingReason.CAUSE_CHANGED_WHILE_MUTED)
    if is_notified:
        return NotificationsAfterMuting((), AfterMutingReason.ALREADY_NOTIFIED)
    if not has_route:
        return NotificationsAfterMuting((), AfterMutingReason.NO_ROUTE)
    if is_open:
        return NotificationsAfterMuting((IncidentEvent.OPENED,), AfterMutingReason.MUTING_ENDED)
    events = (IncidentEvent.OPENED, IncidentEvent.RESOLVED) if wants_resolved else (IncidentEvent.OPENED,)
    return NotificationsAfterMuting(events, AfterMutingReason.OVER_BEFORE_IT_WAS_SENT)
