"""When an alert flaps, and when that is over: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.alert_flapping import AlertFlapping, FlappingEndReason
from watchdog.domain.flapping import (
    FLAPPING_WINDOW_MS,
    STABLE_AFTER_MS,
    FlappingBeginDecision,
    FlappingBeginReason,
    FlappingEndDecision,
    build_end_of_flapping_step_of_routing_log,
    decide_end_of_flapping,
    decide_flapping_of_opened_incident,
    describe_flapping_incidents,
    describe_flapping_of_opened_incident,
)
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, NBSP
from watchdog.domain.routing import explain_routing_of_destination

NOW = 1_790_000_000_000
EDGE = NOW - FLAPPING_WINDOW_MS


@pytest.mark.parametrize(
    ("sentence", "earlier", "is_flapping", "begins", "reason", "first", "count"),
    [
        ("the first incident", [], False, False, "few_incidents", NOW, 1),
        ("the second one", [NOW - 1], False, False, "few_incidents", NOW - 1, 2),
        ("the third one", [NOW - 2, NOW - 1], False, True, "several_incidents", NOW - 2, 3),
        ("in any order", [NOW - 1, NOW - 2], False, True, "several_incidents", NOW - 2, 3),
        ("in the same instant", [NOW, NOW], False, True, "several_incidents", NOW, 3),
        ("the first is just within the time", [EDGE + 1, NOW - 1], False, True, "several_incidents", EDGE + 1, 3),
        ("the first is too old", [EDGE, NOW - 1], False, False, "few_incidents", NOW - 1, 2),
        ("all within the time count", [EDGE, NOW - 3, NOW - 2, NOW - 1], False, True, "several_incidents", NOW - 3, 4),
        ("later ones are from before a step", [NOW + 1, NOW + 2], False, False, "few_incidents", NOW, 1),
        ("it flaps already", [NOW - 1], True, True, "already_flapping", NOW, 1),
        ("it flaps already, for hours", [], True, True, "already_flapping", NOW, 1),
    ],
)
def test_when_an_alert_flaps(
    sentence: str, earlier: list[int], is_flapping: bool, begins: bool, reason: str, first: int, count: int
) -> None:
    decision = decide_flapping_of_opened_incident(earlier, is_flapping=is_flapping, now=NOW)
    assert decision == FlappingBeginDecision(begins, FlappingBeginReason(reason), first, count), sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "is_over", "reason", "again_after_ms"),
    [
        ("no incident has opened for long enough", {}, True, "stays_resolved", None),
        ("its incident has been open for long enough", {"is_open": True}, True, "stays_open", None),
        ("a moment before", {"stable_since": NOW - STABLE_AFTER_MS + 1}, False, "changed_too_recently", 1),
        ("right after a change", {"stable_since": NOW}, False, "changed_too_recently", STABLE_AFTER_MS),
        ("long after, because Watchdog did not run", {"stable_since": NOW - HOUR_MS}, True, "stays_resolved", None),
        ("a paused probe shows nothing", {"is_paused": True}, False, "probe_is_paused", STABLE_AFTER_MS),
        ("nor does maintenance", {"is_in_maintenance": True}, False, "probe_is_in_maintenance", STABLE_AFTER_MS),
        ("a pause comes first", {"is_paused": True, "is_in_maintenance": True}, False, "probe_is_paused", None),
        ("a removed probe", {"is_removed": True}, True, "probe_removed", None),
        ("at once", {"is_removed": True, "stable_since": NOW, "is_paused": True}, True, "probe_removed", None),
    ],
)
def test_when_that_is_over(
    sentence: str, facts: dict[str, Any], is_over: bool, reason: str, again_after_ms: int | None
) -> None:
    defaults: dict[str, Any] = {"stable_since": NOW - STABLE_AFTER_MS, "is_open": False, "is_removed": False}
    defaults |= {"is_paused": False, "is_in_maintenance": False, "now": NOW}
    decision = decide_end_of_flapping(**{**defaults, **facts})
    assert (decision.is_over, decision.reason) == (is_over, FlappingEndReason(reason)), sentence
    if again_after_ms is not None:
        assert decision.decide_again_at == NOW + again_after_ms
    assert (decision.decide_again_at is None) == is_over


def test_steps_of_the_routing_log() -> None:
    flapping = AlertFlapping(NOW, NOW - 22 * MINUTE_MS, 3, NOW)
    assert flapping.is_active
    begins = describe_flapping_of_opened_incident(FlappingBeginReason.SEVERAL_INCIDENTS, flapping)
    assert begins.replace(NBSP, " ") == (
        "flapping: 3 incidents in 22 min: further incidents are not sent until the alert is stable (several_incidents)"
    )
    goes_on = describe_flapping_of_opened_incident(FlappingBeginReason.ALREADY_FLAPPING, flapping)
    assert goes_on == ("flapping: since 14:13:20 UTC: not sent to destinations that have the notice (already_flapping)")
    ends = build_end_of_flapping_step_of_routing_log(FlappingEndDecision(True, FlappingEndReason.STAYS_OPEN))
    assert ends == "flapping: over (stays_open)"
    log = ["route 1 matches: notifies oncall", begins, goes_on, ends]
    assert explain_routing_of_destination(log, "oncall/slack", is_notified=True) == log[0]


def test_incidents_in_words() -> None:
    flapping = AlertFlapping(NOW, NOW - 50 * MINUTE_MS, 9, NOW + 20 * MINUTE_MS, NOW + HOUR_MS)
    assert describe_flapping_incidents(flapping).replace(NBSP, " ") == "9 incidents in 1 h 10 min"
    assert not flapping.is_active
