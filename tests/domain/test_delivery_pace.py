"""Which message a destination is sent next, and how its pace is learnt from its refusals."""

from __future__ import annotations

import pytest

from watchdog.domain.delivery_pace import (
    DESTINATION_BURST_MESSAGES,
    FIRST_DESTINATION_MESSAGE_INTERVAL_MS,
    MAX_DESTINATION_MESSAGE_INTERVAL_MS,
    MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS,
    MAX_UNMERGED_DUE_MESSAGES,
    NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS,
    DestinationPace,
    DueAlertMessageSendOrder,
    choose_next_messages_to_send,
    compute_pace_after_message_confirmed,
    slow_destination_pace_after_refusal,
)

NOW = 1_700_000_000_000


def due(count: int, *, critical: int = 0, edits: int = 0) -> list[DueAlertMessageSendOrder]:
    """Messages, oldest first; the newest ones are critical."""
    return [
        DueAlertMessageSendOrder(i < count - critical, NOW + i, f"incident {i}", is_edit=i < edits)
        for i in range(count)
    ]  # fmt: skip


def without_news(messages: list[DueAlertMessageSendOrder], *numbers: int) -> list[DueAlertMessageSendOrder]:
    return [message._replace(states_no_news=i in numbers) for i, message in enumerate(messages)]


def names(chosen: list[DueAlertMessageSendOrder]) -> list[int]:
    return [int(message.lead_incident.removeprefix("incident ")) for message in chosen]


@pytest.mark.parametrize(
    ("waiting", "merged_ago", "chosen"),
    [
        (due(0), None, []),
        (due(3), None, [0]),
        (due(3, critical=1), None, [2]),
        (due(MAX_UNMERGED_DUE_MESSAGES), None, [0]),
        (due(MAX_UNMERGED_DUE_MESSAGES + 1), None, range(11)),
        (due(MAX_UNMERGED_DUE_MESSAGES + 1, critical=1), None, [10, *range(10)]),
        (due(500), 59_999, []),
        (due(500, critical=1), 0, [499]),
        (due(500), 60_000, range(500)),
        (due(2), 60_000, range(2)),
        (due(2), 119_999, range(2)),
        (due(2), 120_000, [0]),
        (due(1), 60_000, [0]),
        (due(11, edits=1), None, [0]),
        (due(12, edits=1), None, range(1, 12)),
        (due(3, edits=1), 0, [0]),
        (due(2, edits=1), 60_000, [0]),
        (without_news(due(3), 0), None, [1]),
        (without_news(due(3, critical=1), 2), None, [0]),
        (without_news(due(3, critical=1), 0, 1, 2), None, [2]),
    ],
    ids=[
        "nothing waits",
        "the oldest comes first",
        "a critical one comes first",
        "ten are separate messages",
        "more than ten are merged",
        "the critical one is named first",
        "after a merged message nothing is sent for a minute",
        "unless it is critical",
        "then what has come is merged",
        "even if it is little, while the storm lasts",
        "which is a second minute",
        "and ends by itself",
        "a single message needs no merging",
        "an edit is no message and is not counted",
        "nor merged",
        "nor does it wait",
        "nor is it overtaken by a message that needs no merging",
        "what people did comes after news",
        "even if that is about a critical incident",
        "and then in the same order",
    ],
)
def test_what_a_destination_is_sent_next(
    waiting: list[DueAlertMessageSendOrder], merged_ago: int | None, chosen: list[int]
) -> None:
    merged_at = None if merged_ago is None else NOW - merged_ago
    assert names(choose_next_messages_to_send(waiting, merged_at, NOW)) == list(chosen)


ACT_AND_NEWS = without_news(due(3, edits=1), 0)
"""The oldest of three messages is an edit that shows an act."""


@pytest.mark.parametrize(
    ("sentence", "waiting", "news_since_edit", "merged_ago", "chosen"),
    [
        ("news comes first", ACT_AND_NEWS, 0, None, [1]),
        ("for a few messages", ACT_AND_NEWS, MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS - 1, None, [1]),
        ("then an act is shown", ACT_AND_NEWS, MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [0]),
        ("at the latest", ACT_AND_NEWS, 1_000, None, [0]),
        (
            "the oldest act is shown first, even if another is about a critical incident",
            *(without_news(due(4, critical=1, edits=4), 1, 3), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [1]),
        ),
        ("an edit with news is news", due(3, critical=1, edits=2), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [2]),
        ("without an act there is nothing to show", due(3), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [0]),
        (
            "it is shown before a message that is merged",
            *(without_news(due(12, edits=1), 0), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [0]),
        ),
        (
            "which is not shown first otherwise",
            *(without_news(due(12, edits=1), 0), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS - 1, None, range(1, 12)),
        ),
        (
            "and before a critical one during the pause after that",
            *(without_news(due(3, critical=1, edits=1), 0), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, 0, [0]),
        ),
        (
            "an act that takes a message of its own waits for the end of the pause",
            *(without_news(due(3, critical=1), 0), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, 0, [2]),
        ),
        ("and then has its turn as well", without_news(due(3), 2), MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, None, [2]),
    ],
)
def test_an_act_is_shown_after_a_few_messages_with_news(
    sentence: str,
    waiting: list[DueAlertMessageSendOrder],
    news_since_edit: int,
    merged_ago: int | None,
    chosen: list[int],
) -> None:
    merged_at = None if merged_ago is None else NOW - merged_ago
    for may_merge in (True, False) if len(chosen) == 1 and merged_at is None else (True,):
        sent = choose_next_messages_to_send(
            waiting, merged_at, NOW, may_merge=may_merge, news_since_edit=news_since_edit
        )
        assert names(sent) == list(chosen), sentence


def test_a_destination_that_accepts_no_merged_messages_is_sent_one_after_another() -> None:
    waiting = due(MAX_UNMERGED_DUE_MESSAGES + 5, critical=1)
    assert choose_next_messages_to_send(waiting, NOW, NOW, may_merge=False) == [waiting[-1]]


def test_a_destination_that_refuses_nothing_has_no_limit() -> None:
    assert DestinationPace().next_message_at == 0
    assert compute_pace_after_message_confirmed(DestinationPace(), NOW).next_message_at <= NOW


def test_a_refusal_empties_the_bucket_until_its_pause_is_over() -> None:
    pace = slow_destination_pace_after_refusal(DestinationPace(), NOW, 0)
    assert pace.next_message_at == NOW + FIRST_DESTINATION_MESSAGE_INTERVAL_MS
    assert slow_destination_pace_after_refusal(DestinationPace(), NOW, 30_000).next_message_at == NOW + 30_000


def test_the_pause_doubles_up_to_a_minute() -> None:
    pace, pauses = DestinationPace(), []
    for _ in range(9):
        pace = slow_destination_pace_after_refusal(pace, NOW, 0)
        pauses.append((pace.next_message_at - NOW) // 1_000)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pace.interval_ms == MAX_DESTINATION_MESSAGE_INTERVAL_MS


def test_messages_follow_one_another_after_a_calm_period_and_then_at_the_learnt_interval() -> None:
    pace, now = DestinationPace(interval_ms=10_000), NOW
    sent_at: list[int] = []
    while len(sent_at) < DESTINATION_BURST_MESSAGES + 2:
        now = max(now, pace.next_message_at)
        sent_at.append(now - NOW)
        pace = compute_pace_after_message_confirmed(pace, now)
    assert sent_at[:DESTINATION_BURST_MESSAGES] == [0] * DESTINATION_BURST_MESSAGES
    assert sent_at[DESTINATION_BURST_MESSAGES:] == [5_904, 11_217], "shorter by a tenth after each message"


def test_a_destination_that_confirms_again_is_sent_more_and_more() -> None:
    pace = slow_destination_pace_after_refusal(DestinationPace(), NOW, 0)
    for i in range(30):
        pace = compute_pace_after_message_confirmed(pace, NOW + (i + 1) * NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS)
    assert pace.interval_ms == 0


@pytest.mark.parametrize(
    ("pace", "confirmed"),
    [
        (DestinationPace(interval_ms=1_000, full_at=NOW + 3), DestinationPace(interval_ms=900, full_at=NOW + 902)),
        (DestinationPace(interval_ms=1_000, full_at=NOW - 9), DestinationPace(interval_ms=900, full_at=NOW + 900)),
        (DestinationPace(interval_ms=112), DestinationPace(interval_ms=100, full_at=NOW + 100)),
        (DestinationPace(interval_ms=111, full_at=NOW + 50), DestinationPace()),
        (DestinationPace(7, 1_000, NOW, 9), DestinationPace(7, 900, NOW + 900, 9)),
    ],
    ids=[
        "one token more is missing",
        "a full bucket has no more tokens than it holds",
        "the shortest interval",
        "below it there is no limit",
        "the rest stays",
    ],
)
def test_a_confirmed_message_costs_a_token(pace: DestinationPace, confirmed: DestinationPace) -> None:
    assert compute_pace_after_message_confirmed(pace, NOW) == confirmed
