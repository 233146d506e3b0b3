"""Whether an incident can be closed by hand: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.acts import Actor, Closure, OperatorInterfaceKind
from watchdog.domain.closing import (
    CLOSED_BY_HAND_RESOLUTION,
    ClosingDecision,
    ClosingReason,
    decide_whether_incident_can_be_closed,
    describe_closure,
)
from watchdog.domain.reasons import REASON_CATALOGUE, ReasonCategory

OPEN = {"is_open": True, "is_closed_by_hand": False, "is_watchdog_itself": False}


@pytest.mark.parametrize(
    ("sentence", "facts", "is_refused", "reason"),
    [
        ("an open incident is closed", {}, False, "closes"),
        (
            "one that a person has closed stays closed by that person",
            {"is_open": False, "is_closed_by_hand": True},
            False,
            "already_closed",
        ),
        ("one that ended by itself is refused", {"is_open": False}, True, "already_resolved"),
        ("a fault of Watchdog itself ends with the fault", {"is_watchdog_itself": True}, True, "watchdog_itself"),
        (
            "one that is over is refused because it is over",
            {"is_open": False, "is_watchdog_itself": True},
            True,
            "already_resolved",
        ),
        (
            "a repeated close is harmless also if a later version refuses it",
            {"is_open": False, "is_closed_by_hand": True, "is_watchdog_itself": True},
            False,
            "already_closed",
        ),
    ],
)
def test_when_an_incident_can_be_closed(sentence: str, facts: dict[str, bool], is_refused: bool, reason: str) -> None:
    assert decide_whether_incident_can_be_closed(**{**OPEN, **facts}) == ClosingDecision(
        is_refused, ClosingReason(reason)
    ), sentence


@pytest.mark.parametrize(
    ("name", "comment", "text"),
    [
        ("Ana", "", "closed by Ana"),
        ("Ana", "host removed", "closed by Ana: host removed"),
        ("Ana", "first line\nsecond line", "closed by Ana: first line second line"),
        ("Ana", "x" * 100, f"closed by Ana: {'x' * 79}…"),
        ("a" * 60, "", f"closed by {'a' * 39}…"),
    ],
)
def test_a_closure_in_words(name: str, comment: str, text: str) -> None:
    assert describe_closure(Closure(0, Actor(name, OperatorInterfaceKind.CLI), comment), 80) == text


def test_its_resolution_is_in_the_catalogue() -> None:
    assert REASON_CATALOGUE[CLOSED_BY_HAND_RESOLUTION].scope is ReasonCategory.RESOLUTION
