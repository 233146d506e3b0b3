"""Which of the waiting messages a destination is sent next, and how fast. Pure.

The pace is a token bucket, learnt from the destination's own refusals (429): a message costs one token, and a token is
added every `interval_ms`. The bucket is stored as the instant at which it will be full (`full_at`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

DESTINATION_BURST_MESSAGES = 5
"""Tokens that the bucket holds: messages that may follow one another after a calm period."""
FIRST_DESTINATION_MESSAGE_INTERVAL_MS, MAX_DESTINATION_MESSAGE_INTERVAL_MS = 1_000, 60_000
"""The interval after the first refusal, doubled with each further one up to the maximum."""
DESTINATION_THROTTLING_ENDS_BELOW_INTERVAL_MS = 100
"""Each confirmed message shortens the interval by a tenth; below this, the destination has no limit any more."""
MAX_UNMERGED_DUE_MESSAGES = 10
"""If more messages wait for a destination, they are merged into one."""
NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS = 60_000
"""Between a merged message and the next message, unless that is critical."""
MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS = 4
"""How many messages with news are sent to a destination in a row while an edit that only shows an act waits."""


class DestinationPace(NamedTuple):
    """What was learnt about a destination. Instants are epoch milliseconds."""

    retry_at: int = 0
    """It asked that nothing is sent before this instant."""
    interval_ms: int = 0
    """Between two messages, in the long run; 0: no limit is known."""
    full_at: int = 0
    """When the bucket will be full again."""
    merged_at: int | None = None
    """When it was last sent a merged message."""

    @property
    def next_message_at(self) -> int:
        """The earliest instant at which a message may be sent."""
        return max(self.retry_at, self.full_at - (DESTINATION_BURST_MESSAGES - 1) * self.interval_ms)


def slow_destination_pace_after_refusal(pace: DestinationPace, now: int, requested_pause_ms: int) -> DestinationPace:
    """The destination refused a message because it gets too many. `requested_pause_ms`: its `Retry-After`, or 0. The
    bucket is empty until the pause is over, which is at least one interval."""
    interval = min(
        max(2 * pace.interval_ms, FIRST_DESTINATION_MESSAGE_INTERVAL_MS), MAX_DESTINATION_MESSAGE_INTERVAL_MS
    )
    full_at = now + max(requested_pause_ms, interval) + (DESTINATION_BURST_MESSAGES - 1) * interval
    return pace._replace(interval_ms=interval, full_at=full_at)


def compute_pace_after_message_confirmed(pace: DestinationPace, now: int) -> DestinationPace:
    """The destination confirmed a message. The interval becomes shorter, and the number of tokens stays the same."""
    if not pace.interval_ms:
        return pace
    interval = pace.interval_ms * 9 // 10
    if interval < DESTINATION_THROTTLING_ENDS_BELOW_INTERVAL_MS:
        return pace._replace(interval_ms=0, full_at=0)
    until_full = max(pace.full_at - now, 0) + pace.interval_ms
    return pace._replace(interval_ms=interval, full_at=now + until_full * interval // pace.interval_ms)


class DueAlertMessageSendOrder(NamedTuple):
    """A message that is due at a destination. News is sent first, then critical messages, then older ones."""

    is_not_critical: bool
    created_at: int
    lead_incident: str
    """Identifies the message."""
    is_edit: bool = False
    """It edits a message that the destination has, and posts none."""
    states_no_news: bool = False
    """It only shows acts of people, or what holds the incident back."""

    @property
    def order(self) -> tuple[bool, bool, int, str]:
        """News about an incident comes before edits that show acts about many others: see also
        MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS."""
        return self.states_no_news, self.is_not_critical, self.created_at, self.lead_incident


def choose_next_messages_to_send(
    due: Sequence[DueAlertMessageSendOrder],
    merged_at: int | None,
    now: int,
    *,
    may_merge: bool = True,
    news_since_edit: int = 0,
) -> list[DueAlertMessageSendOrder]:
    """What a destination is sent next: one message, or several that are merged into one; empty: nothing yet.
    `may_merge`: whether the destination accepts merged messages. `news_since_edit`: how many messages with news it was
    sent since the last one without.

    After MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS messages with news, the oldest one without is sent, so that an act of
    a person does not stay invisible until a storm is over. More than MAX_UNMERGED_DUE_MESSAGES are merged. For
    NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS after that, only critical ones and edits are sent; what has come in the
    meantime is merged again.
    """
    ordered = sorted(due, key=lambda message: message.order)
    merged_ago = math.inf if merged_at is None or not may_merge else now - merged_at
    is_pausing = merged_ago < NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS
    is_storm = merged_ago < 2 * NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS
    allowed = [message for message in ordered if not (is_pausing and message.is_not_critical and not message.is_edit)]
    without_news = [message for message in allowed if message.states_no_news]
    if without_news and news_since_edit >= MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS:
        return [min(without_news, key=lambda message: (message.created_at, message.lead_incident))]
    posts = [message for message in allowed if not message.is_edit]
    is_too_much = len(posts) > MAX_UNMERGED_DUE_MESSAGES or (is_storm and not is_pausing and len(posts) > 1)
    return posts if may_merge and is_too_much else allowed[:1]
