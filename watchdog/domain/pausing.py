"""Whether a probe can be paused and resumed. Pure.

A paused probe claims no slots, and nothing about it is judged: results that arrive are stored and never evaluated, and
it has no deadlines. An incident that is open stays open. When the pause ends, the next slot runs, alert states continue
where they were, and deadlines count from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, format_utc_timestamp
from watchdog.domain.text import truncate_to_single_line

MAX_PAUSE_DURATION_MS = 365 * DAY_MS
MAX_DESCRIBED_COMMENT_CHARS = 80


@dataclass(frozen=True, slots=True)
class Pause:
    """A period in which a probe does not run. Instants are epoch milliseconds."""

    started_at: int
    ends_at: int | None
    """None: when a person resumes the probe."""
    actor: Actor
    comment: str = ""

    @property
    def is_in_configuration(self) -> bool:
        """It ends when the configuration no longer states it, and no person ends it."""
        return self.actor.interface is OperatorInterfaceKind.CONFIGURATION


class PauseReason(StrEnum):
    """Why a probe is paused or resumed, or cannot be."""

    BEGINS = "begins"
    ALREADY_PAUSED = "already_paused"
    """The pause goes on, with another end and comment."""
    PROBE_IS_RESUMED = "ends"
    NOT_PAUSED = "not_paused"
    PAUSED_IN_CONFIGURATION = "paused_in_configuration"
    WATCHDOG_SELF_PROBE_CANNOT_BE_PAUSED = "watchdog_itself"
    """The built-in probe reports Watchdog's own faults, which nothing may hide."""


class PauseDecision(NamedTuple):
    """Whether an act is carried out, and why."""

    is_allowed: bool
    reason: PauseReason


def decide_pause(*, is_paused: bool, is_in_configuration: bool, is_watchdog_itself: bool) -> PauseDecision:
    """`is_in_configuration`: the pause that is in effect."""
    if is_watchdog_itself:
        return PauseDecision(False, PauseReason.WATCHDOG_SELF_PROBE_CANNOT_BE_PAUSED)
    if is_in_configuration:
        return PauseDecision(False, PauseReason.PAUSED_IN_CONFIGURATION)
    return PauseDecision(True, PauseReason.ALREADY_PAUSED if is_paused else PauseReason.BEGINS)


def decide_resumption(*, is_paused: bool, is_in_configuration: bool, is_watchdog_itself: bool) -> PauseDecision:
    """`is_in_configuration`: the pause that is in effect."""
    if is_watchdog_itself:
        return PauseDecision(False, PauseReason.WATCHDOG_SELF_PROBE_CANNOT_BE_PAUSED)
    if is_in_configuration:
        return PauseDecision(False, PauseReason.PAUSED_IN_CONFIGURATION)
    return (
        PauseDecision(True, PauseReason.PROBE_IS_RESUMED) if is_paused else PauseDecision(False, PauseReason.NOT_PAUSED)
    )


def describe_pause(pause: Pause, now: int) -> str:
    """ "paused until 12:00 UTC by ana: decommissioned"; without an end "paused since 8 Nov 09:00 UTC by ana"; "paused
    since 09:00 UTC in the configuration"."""
    when = f"since {format_utc_timestamp(pause.started_at, now)}"
    if pause.ends_at is not None:
        when = f"until {format_utc_timestamp(pause.ends_at, now)}"
    return f"paused {when} {describe_pause_author_and_comment(pause)}"


def describe_pause_author_and_comment(pause: Pause) -> str:
    """ "by ana: decommissioned", "in the configuration"."""
    comment = truncate_to_single_line(pause.comment, MAX_DESCRIBED_COMMENT_CHARS)
    author = "in the configuration" if pause.is_in_configuration else f"by {pause.actor.name}"
    return author + (f": {comment}" if comment else "")
