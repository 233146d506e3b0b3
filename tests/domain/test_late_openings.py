"""When an incident of which no one was notified is sent after a change of the routes: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.late_openings import LateOpeningDecision, LateOpeningReason, decide_late_opening

NOW = 1_700_000_000_000
FACTS = {
    "is_open": True,
    "is_routed": False,
    "has_route": True,
    "is_acknowledged": False,
    "is_paused": False,
    "is_in_maintenance": False,
}


@pytest.mark.parametrize(
    ("sentence", "facts", "is_due", "reason"),
    [
        (
            "an open incident of which no one was notified is sent once a route leads to a destination",
            {},
            True,
            "routes_changed",
        ),
        ("one that is over is not", {"is_open": False}, False, "incident_is_over"),
        ("one that was routed is not sent again", {"is_routed": True}, False, "already_routed"),
        ("without a route, there is no one to notify", {"has_route": False}, False, "no_route"),
        ("while it is acknowledged, it is not sent", {"is_acknowledged": True}, False, "acknowledged"),
        ("while its probe is paused, it is not sent", {"is_paused": True}, False, "paused"),
        ("during maintenance, it is not sent", {"is_in_maintenance": True}, False, "in_maintenance"),
        ("what is over needs no other reason", {"is_open": False, "is_acknowledged": True}, False, "incident_is_over"),
    ],
)
def test_the_decision(sentence: str, facts: dict[str, bool], is_due: bool, reason: str) -> None:
    assert decide_late_opening(**{**FACTS, **facts}) == (is_due, reason), sentence


@pytest.mark.parametrize(
    ("destinations", "text"),
    [
        (["oncall/slack"], "oncall/slack is notified"),
        (["chat/slack", "oncall/email"], "chat/slack, oncall/email are notified"),
    ],
)
def test_the_steps_of_one_that_is_sent(destinations: list[str], text: str) -> None:
    decision = LateOpeningDecision(True, LateOpeningReason.ROUTES_CHANGED)
    assert decision.build_steps_of_routing_log(destinations, ["route 2 matches"], [], NOW) == [
        "the routes changed (22:13:20 UTC): route 2 matches",
        f"the routes changed (22:13:20 UTC): {text} (routes_changed)",
    ]


def test_the_step_of_one_that_is_held_back_is_noted_once() -> None:
    decision = LateOpeningDecision(False, LateOpeningReason.PAUSED)
    steps = decision.build_steps_of_routing_log(["oncall/slack"], [], ["route 1 does not match (paused)"], NOW)
    assert steps == ["the routes changed (22:13:20 UTC): not sent to oncall/slack yet: the probe is paused (paused)"]
    assert decision.build_steps_of_routing_log(["oncall/slack"], [], steps, NOW + 60_000) == []


def test_a_reason_that_holds_nothing_back_is_not_noted() -> None:
    decision = LateOpeningDecision(False, LateOpeningReason.NO_ROUTE)
    assert decision.build_steps_of_routing_log([], [], [], NOW) == []
