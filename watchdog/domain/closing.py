"""Decides whether a person can close an incident whose failure was handled outside Watchdog. Pure.

The finding of a closed incident is clear again, and counting starts again: only findings of later slots may open
another incident. What a job did before (a run that failed, a run that did not start) no longer counts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.acts import Closure
from watchdog.domain.text import truncate_to_single_line

CLOSED_BY_HAND_RESOLUTION = "incident.closed"
"""The resolution of an incident that a person has closed."""
MAX_DESCRIBED_CLOSER_CHARS = 40


class ClosingReason(StrEnum):
    """Why an incident is closed, or is not."""

    CLOSES_ON_REQUEST_OF_PERSON = "closes"
    ALREADY_CLOSED = "already_closed"
    """A person has closed it before. The first closure stays."""
    ALREADY_RESOLVED = "already_resolved"
    """It was resolved, but no person closed it."""
    WATCHDOG_SELF_INCIDENT_CANNOT_BE_CLOSED = "watchdog_itself"
    """Watchdog observes its own faults without interruption: the incident ends with the fault, and would open again at
    once."""


class ClosingDecision(NamedTuple):
    """Whether closing is refused, and why."""

    is_refused: bool
    reason: ClosingReason


def decide_whether_incident_can_be_closed(
    *, is_open: bool, is_closed_by_hand: bool, is_watchdog_itself: bool
) -> ClosingDecision:
    """`is_closed_by_hand`: a person has closed it."""
    if is_closed_by_hand:
        return ClosingDecision(False, ClosingReason.ALREADY_CLOSED)
    if not is_open:
        return ClosingDecision(True, ClosingReason.ALREADY_RESOLVED)
    if is_watchdog_itself:
        return ClosingDecision(True, ClosingReason.WATCHDOG_SELF_INCIDENT_CANNOT_BE_CLOSED)
    return ClosingDecision(False, ClosingReason.CLOSES_ON_REQUEST_OF_PERSON)


class ClosedFinding(NamedTuple):
    """A finding whose incident a person has closed, as the fold reads it."""

    rule: str
    subject: str
    incident: str
    closed_at: int
    """Epoch ms."""
    after_slot: int
    """The newest slot that was evaluated before the closure."""
    until_slot: int
    """Only results of later slots count for the finding. It may be later than `after_slot`."""


def describe_closure(closure: Closure, max_comment_chars: int) -> str:
    """ "closed by Ana: the host was removed"."""
    comment = truncate_to_single_line(closure.comment, max_comment_chars)
    name = truncate_to_single_line(closure.actor.name, MAX_DESCRIBED_CLOSER_CHARS)
    return f"closed by {name}" + (f": {comment}" if comment else "")
