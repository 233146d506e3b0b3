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
CONFIGURATION = Actor("configuration", OperatorInterfaceKind.CONFIGURATION)
RUNS = {"is_paused": False, "is_in_configuration": False, "is_watchdog_itself": False}


@pytest.mark.parametrize(
    ("sentence", "facts", "is_allowed", "reason"),
    [
        ("a probe that runs is paused", {}, True, "begins"),
        ("a paused probe gets another end and comment", {"is_paused": True}, True, "already_paused"),
        (
            "a pause in the configuration gets none",
            {"is_paused": True, "is_in_configuration": True},
            False,
            "paused_in_configuration",
        ),
        ("nothing hides the faults of Watchdog itself", {"is_watchdog_itself": True}, False, "watchdog_itself"),
        (
            "not even if an earlier version has paused it",
            {"is_paused": True, "is_watchdog_itself": True},
            False,
            "watchdog_itself",
        ),
    ],
)
def test_when_a_probe_can_be_paused(sentence: str, facts: dict[str, bool], is_allowed: bool, reason: str) -> None:
    decision = decide_pause(**{**RUNS, **facts})
    assert decision == PauseDecision(is_allowed, PauseReason(reason)), sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "is_allowed", "reason"),
    [
        ("a paused probe runs again", {"is_paused": True}, True, "ends"),
        (
            "unless the configuration pauses it",
            {"is_paused": True, "is_in_configuration": True},
            False,
            "paused_in_configuration",
        ),
        ("a probe that runs cannot be resumed", {}, False, "not_paused"),
        ("the built-in probe is never paused", {"is_watchdog_itself": True}, False, "watchdog_itself"),
        ("nor resumed", {"is_paused": True, "is_watchdog_itself": True}, False, "watchdog_itself"),
    ],
)
def test_when_a_probe_can_be_resumed(sentence: str, facts: dict[str, bool], is_allowed: bool, reason: str) -> None:
    decision = decide_resumption(**{**RUNS, **facts})
    assert decision == PauseDecision(is_allowed, PauseReason(reason)), sentence


@pytest.mark.parametrize(
    ("pause", "text"),
    [
        (Pause(NOW, None, ANA), "paused since 22:14 UTC by ana"),
        (Pause(NOW, NOW + 60_000, ANA, "moved"), "paused until 22:15 UTC by ana: moved"),
        (Pause(NOW, None, ANA, "two\nlines"), "paused since 22:14 UTC by ana: two lines"),
        (Pause(NOW, None, CONFIGURATION), "paused since 22:14 UTC in the configuration"),
    ],
)
def test_a_pause_in_words(pause: Pause, text: str) -> None:
    assert describe_pause(pause, NOW) == text
