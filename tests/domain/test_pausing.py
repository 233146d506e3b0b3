"""Whether a probe can be paused and resumed: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.pausing import (
    Pause,
    PauseDecision,
    PauseReason,
    decide_pause,
    decide_resumption,
    describe_pause,
)

NOW = 1_700_000_040_000
ANA = Actor("ana", OperatorInterfaceKind.CLI)


@pytest.mark.parametrize(
    ("sentence", "is_paused", "is_watchdog_itself", "is_allowed", "reason"),
    [
        ("a probe that runs is paused", False, False, True, "begins"),
        ("a paused probe gets another end and comment", True, False, True, "already_paused"),
        ("nothing hides the faults of Watchdog itself", False, True, False, "watchdog_itself"),
        ("not even if an earlier version has paused it", True, True, False, "watchdog_itself"),
    ],
)
def test_when_a_probe_can_be_paused(
    sentence: str, is_paused: bool, is_watchdog_itself: bool, is_allowed: bool, reason: str
) -> None:
    decision = decide_pause(is_paused=is_paused, is_watchdog_itself=is_watchdog_itself)
    assert decision == PauseDecision(is_allowed, PauseReason(reason)), sentence


@pytest.mark.parametrize(
    ("sentence", "is_paused", "is_watchdog_itself", "is_allowed", "reason"),
    [
        ("a paused probe runs again", True, False, True, "ends"),
        ("a probe that runs cannot be resumed", False, False, False, "not_paused"),
        ("the built-in probe is never paused", False, True, False, "watchdog_itself"),
        ("nor resumed", True, True, False, "watchdog_itself"),
    ],
)
def test_when_a_probe_can_be_resumed(
    sentence: str, is_paused: bool, is_watchdog_itself: bool, is_allowed: bool, reason: str
) -> None:
    decision = decide_resumption(is_paused=is_paused, is_watchdog_itself=is_watchdog_itself)
    assert decision == PauseDecision(is_allowed, PauseReason(reason)), sentence


@pytest.mark.parametrize(
    ("pause", "text"),
    [
        (Pause(NOW, None, ANA), "paused since 22:14 UTC by ana"),
        (Pause(NOW, NOW + 60_000, ANA, "moved"), "paused until 22:15 UTC by ana: moved"),
        (Pause(NOW, None, ANA, "two\nlines"), "paused since 22:14 UTC by ana: two lines"),
    ],
)
def test_a_pause_in_words(pause: Pause, text: str) -> None:
    assert describe_pause(pause, NOW) == text
