"""Which notifications an alert that flaps holds back, and what is sent afterwards: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.flapping_notifications import (
    AfterFlappingReason,
    FlappingHoldDecision,
    FlappingHoldReason,
    NotificationAfterFlapping,
    decide_notification_after_flapping,
    decide_notification_while_flapping,
)
from watchdog.domain.model import IncidentEvent

BEST = {"is_best_opening": True}
SENT = {"has_notice": True}
WORSE = {"has_notice": True, "is_more_severe": True}


@pytest.mark.parametrize(
    ("sentence", "event", "facts", "is_held_back", "reason"),
    [
        ("the opening with which it begins is the notice", "opened", BEST, False, "is_notice"),
        ("of several that wait, one is enough", "opened", {}, True, "another_is_notice"),
        ("the next openings are not sent", "opened", SENT, True, "destination_has_notice"),
        ("not even the only one that waits", "opened", SENT | BEST, True, "destination_has_notice"),
        ("a more severe one is", "opened", WORSE | BEST, False, "severity_is_higher"),
        ("one of them is enough", "opened", WORSE, True, "another_is_notice"),
        ("no cause", "changed", SENT, True, "alert_is_flapping"),
        ("no end", "resolved", SENT, True, "alert_is_flapping"),
        ("no end to who knows nothing", "resolved", {}, True, "alert_is_flapping"),
        ("no reminder", "reminder", SENT, True, "alert_is_flapping"),
        ("who is handling the incident is shown", "acknowledged", SENT, False, "destination_knows_incident"),
        ("whose alerts it mutes as well", "mutes", SENT, False, "destination_knows_incident"),
    ],
)
def test_while_an_alert_flaps(
    sentence: str, event: str, facts: dict[str, Any], is_held_back: bool, reason: str
) -> None:
    defaults = {"has_notice": False, "is_more_severe": False, "is_best_opening": False}
    decision = decide_notification_while_flapping(IncidentEvent(event), **(defaults | facts))
    assert decision == FlappingHoldDecision(is_held_back, FlappingHoldReason(reason)), sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "event", "reason"),
    [
        ("who was notified gets to know that it is stable", {"is_notified": True}, "resolved", "stays_resolved"),
        ("even if no route leads there", {"is_notified": True, "has_route": False}, "resolved", "stays_resolved"),
        ("who was sent nothing is sent nothing", {}, None, "not_notified"),
        ("who wants no ends gets none", {"is_notified": True, "wants_resolved": False}, None, "wants_no_resolved"),
        ("what stays open is sent", {"is_open": True, "is_notified": True}, "opened", "stays_open"),
        ("also to who was sent nothing", {"is_open": True}, "opened", "stays_open"),
        ("and to who wants no ends", {"is_open": True, "wants_resolved": False}, "opened", "stays_open"),
        ("who knows of it, without a route", {"is_open": True, "is_notified": True, "has_route": False}, "opened",
         "stays_open"),
        ("others without a route are not notified", {"is_open": True, "has_route": False}, None, "no_route"),
    ],
)  # fmt: skip
def test_when_it_is_over(sentence: str, facts: dict[str, Any], event: str | None, reason: str) -> None:
    defaults = {"is_open": False, "is_notified": False, "has_route": True, "wants_resolved": True}
    decision = decide_notification_after_flapping(**(defaults | facts))
    expected = None if event is None else IncidentEvent(event)
    assert decision == NotificationAfterFlapping(expected, AfterFlappingReason(reason)), sentence
