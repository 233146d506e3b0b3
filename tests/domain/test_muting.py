"""Which alerts wait, are muted and are sent because of other probes: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.model import HealthState, IncidentEvent
from watchdog.domain.muting import (
    MAX_WAIT_FOR_MUTING_PROBE_MS,
    AfterMutingReason,
    MutingAction,
    MutingDecision,
    MutingDecisionReason,
    MutingProbe,
    MutingProbeStatus,
    NotificationsAfterMuting,
    decide_muting_of_muted_incident,
    decide_muting_of_opened_incident,
    decide_notifications_after_muting,
    is_notification_held_back_while_muted,
)
from watchdog.domain.routing import explain_routing_of_destination

OPENED, CHANGED, RESOLVED = IncidentEvent.OPENED, IncidentEvent.CHANGED, IncidentEvent.RESOLVED


def status(id: str, state: HealthState, *, has_passed: bool = False, name: str = "") -> MutingProbeStatus:
    incident = f"incident-of-{id}" if state is HealthState.DOWN else ""
    probe = MutingProbe(id)
    is_unknown = state is HealthState.UNKNOWN and id != "new"
    return MutingProbeStatus(
        probe=probe, name=name or id, state=state, incident=incident, has_passed=has_passed,
        is_reported_unknown=is_unknown,
    )  # fmt: skip


DOWN = status("down", HealthState.DOWN)
ALSO_DOWN = status("also-down", HealthState.DOWN)
UNDECIDED = status("undecided", HealthState.UP)
PASSED = status("passed", HealthState.UP, has_passed=True)
DEGRADED = status("degraded", HealthState.DEGRADED)
DEGRADED_PASSED = status("degraded-passed", HealthState.DEGRADED, has_passed=True)
UNKNOWN = status("unknown", HealthState.UNKNOWN)
PAUSED = status("paused", HealthState.PAUSED)
NEW = status("new", HealthState.UNKNOWN)
"""It has no verdict yet, and no incident."""


@pytest.mark.parametrize(
    ("sentence", "statuses", "facts", "action", "reason", "decided_by"),
    [
        ("nothing mutes it", [], {}, "send", "no_muting_probe", None),
        ("the other probe is down", [DOWN], {}, "mute", "muting_probe_is_down", DOWN),
        ("it opened first, and waits", [UNDECIDED], {}, "wait", "waiting_for_muting_probe", UNDECIDED),
        ("then the other probe is down", [DOWN], {"wait_left_ms": 30_000}, "mute", "muting_probe_is_down", DOWN),
        ("or the other probe passes", [PASSED], {"wait_left_ms": 30_000}, "send", "muting_probe_has_passed", PASSED),
        ("or neither in time", [UNDECIDED], {"wait_left_ms": 0}, "send", "wait_is_over", UNDECIDED),
        ("a moment before, it waits", [UNDECIDED], {"wait_left_ms": 1}, "wait", "waiting_for_muting_probe", UNDECIDED),
        ("after a downtime it is late", [UNDECIDED], {"wait_left_ms": -9}, "send", "wait_is_over", UNDECIDED),
        ("late, the other probe may be down", [DOWN], {"wait_left_ms": -9}, "mute", "muting_probe_is_down", DOWN),
        ("the other probe passed before it opened", [PASSED], {}, "send", "muting_probe_has_passed", PASSED),
        ("an unknown state mutes nothing", [UNKNOWN], {}, "send", "muting_probe_is_unknown", UNKNOWN),
        ("a paused probe mutes nothing", [PAUSED], {}, "send", "muting_probe_is_paused", PAUSED),
        ("it is not waited for", [PAUSED, PASSED], {}, "send", "muting_probe_has_passed", PASSED),
        ("one that has never run may be down soon", [NEW], {}, "wait", "waiting_for_muting_probe", NEW),
        ("a degraded probe is not down", [DEGRADED], {}, "wait", "waiting_for_muting_probe", DEGRADED),
        ("and may pass", [DEGRADED_PASSED], {}, "send", "muting_probe_has_passed", DEGRADED_PASSED),
        ("one that is down is enough", [PASSED, UNKNOWN, UNDECIDED, DOWN], {}, "mute", "muting_probe_is_down", DOWN),
        ("the first of two", [DOWN, ALSO_DOWN], {}, "mute", "muting_probe_is_down", DOWN),
        ("all must have passed", [PASSED, UNDECIDED], {}, "wait", "waiting_for_muting_probe", UNDECIDED),
        ("an unknown one is not waited for", [UNKNOWN, PASSED], {}, "send", "muting_probe_has_passed", PASSED),
        ("the known one is", [UNKNOWN, UNDECIDED], {}, "wait", "waiting_for_muting_probe", UNDECIDED),
        ("it is over, and waits", [UNDECIDED], {"is_open": False}, "wait", "waiting_for_muting_probe", UNDECIDED),
        ("it is over, and would be muted", [DOWN], {"is_open": False}, "drop", "muting_probe_is_down", DOWN),
        ("it is over, and is sent", [PASSED], {"is_open": False}, "send", "muting_probe_has_passed", PASSED),
    ],
)
def test_an_incident_that_opened(
    sentence: str,
    statuses: list[MutingProbeStatus],
    facts: dict[str, Any],
    action: str,
    reason: str,
    decided_by: MutingProbeStatus | None,
) -> None:
    decision = decide_muting_of_opened_incident(statuses, **facts)
    assert decision == MutingDecision(MutingAction(action), MutingDecisionReason(reason), decided_by), sentence


@pytest.mark.parametrize(
    ("sentence", "statuses", "former", "is_open", "action", "reason", "decided_by"),
    [
        ("it stays muted", [DOWN], DOWN, True, "mute", "muting_probe_is_down", DOWN),
        ("the other probe is up again", [PASSED], PASSED, True, "send", "muting_probe_is_no_longer_down", PASSED),
        ("without another wait", [UNDECIDED], UNDECIDED, True, "send", "muting_probe_is_no_longer_down", UNDECIDED),
        ("its state is unknown", [UNKNOWN], UNKNOWN, True, "send", "muting_probe_is_no_longer_down", UNKNOWN),
        ("the other probe is paused", [PAUSED], PAUSED, True, "send", "muting_probe_is_paused", PAUSED),
        ("one is paused, a second one is down", [PAUSED, DOWN], PAUSED, True, "mute", "muting_probe_is_down", DOWN),
        ("a second probe is down, too", [DOWN, ALSO_DOWN], ALSO_DOWN, True, "mute", "muting_probe_is_down", ALSO_DOWN),
        ("a second probe is still down", [PASSED, DOWN], PASSED, True, "mute", "muting_probe_is_down", DOWN),
        ("it needs that probe no longer", [PASSED], DOWN, True, "send", "no_muting_probe", None),
        ("it needs none any more", [], DOWN, True, "send", "no_muting_probe", None),
        ("it is over, and no one is notified", [DOWN], DOWN, False, "drop", "incident_is_over", DOWN),
        ("both are over", [PASSED], PASSED, False, "drop", "incident_is_over", PASSED),
    ],
)
def test_an_incident_that_is_muted(
    sentence: str,
    statuses: list[MutingProbeStatus],
    former: MutingProbeStatus,
    is_open: bool,
    action: str,
    reason: str,
    decided_by: MutingProbeStatus | None,
) -> None:
    decision = decide_muting_of_muted_incident(statuses, former.probe.probe_id, is_open=is_open)
    assert decision == MutingDecision(MutingAction(action), MutingDecisionReason(reason), decided_by), sentence


@pytest.mark.parametrize(
    ("sentence", "event", "is_notified", "is_held_back"),
    [
        ("an opening is held back", OPENED, False, True),
        ("also one by escalation", OPENED, True, True),
        ("a change of what no one knows", CHANGED, False, True),
        ("a change of what people know", CHANGED, True, True),
        ("the end of what no one knows", RESOLVED, False, True),
        ("people who know of the incident get its end", RESOLVED, True, False),
        ("and see who is handling it", IncidentEvent.ACKNOWLEDGED, True, False),
        ("a message that was not sent shows nothing", IncidentEvent.ACKNOWLEDGED, False, True),
    ],
)
def test_what_is_held_back(sentence: str, event: IncidentEvent, is_notified: bool, is_held_back: bool) -> None:
    assert is_notification_held_back_while_muted(event, is_notified=is_notified) is is_held_back, sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "events", "reason"),
    [
        ("an open incident that no one knows of", {}, (OPENED,), "muting_ended"),
        ("a destination that knows of it gets it once", {"is_notified": True}, (), "already_notified"),
        (
            "and the change that was held back",
            {"is_notified": True, "has_held_back_change": True},
            (CHANGED,),
            "cause_changed_while_muted",
        ),
        ("the opening shows the newest cause", {"has_held_back_change": True}, (OPENED,), "muting_ended"),
        ("a destination without a route is left out", {"has_route": False}, (), "no_route"),
        (
            "unless it knows of the incident",
            {"has_route": False, "is_notified": True, "has_held_back_change": True},
            (CHANGED,),
            "cause_changed_while_muted",
        ),
        ("a silence holds it back longer", {"is_silenced": True}, (), "still_silenced"),
        ("also what is over", {"is_silenced": True, "is_open": False}, (), "still_silenced"),
        ("it was over while it waited", {"is_open": False}, (OPENED, RESOLVED), "over_before_it_was_sent"),
        (
            "a destination that wants no ends",
            {"is_open": False, "wants_resolved": False},
            (OPENED,),
            "over_before_it_was_sent",
        ),
        ("its end was sent already", {"is_open": False, "is_notified": True}, (), "already_notified"),
        (
            "without the change before it",
            {"is_open": False, "is_notified": True, "has_held_back_change": True},
            (),
            "already_notified",
        ),
    ],
)
def test_what_is_sent_afterwards(
    sentence: str, facts: dict[str, bool], events: tuple[IncidentEvent, ...], reason: str
) -> None:
    defaults = {"is_open": True, "is_silenced": False, "is_notified": False, "has_held_back_change": False}
    decision = decide_notifications_after_muting(**{**defaults, "has_route": True, "wants_resolved": True, **facts})
    assert decision == NotificationsAfterMuting(events, AfterMutingReason(reason)), sentence


@pytest.mark.parametrize("reason", MutingDecisionReason)
@pytest.mark.parametrize("action", MutingAction)
def test_each_decision_is_described_with_the_name_of_its_reason(
    reason: MutingDecisionReason, action: MutingAction
) -> None:
    assert f"({reason}: needs)" in MutingDecision(action, reason, DOWN).describe()
    assert f"({reason})" in MutingDecision(action, reason).describe()


HOSTILE_NAME = "API\n matches: notifies chat\x1b[31m\u202e, it escalates to chat" + "x" * 500


def test_the_name_of_a_probe_is_one_line_and_names_no_receiver() -> None:
    """A log of routing is searched for the step that notified a receiver."""
    hostile = status("api", HealthState.DOWN, name=HOSTILE_NAME)
    step = decide_muting_of_opened_incident([hostile]).describe()
    assert "\n" not in step
    assert "\x1b" not in step
    assert "\u202e" not in step
    assert len(step) < 250
    log = [step, "route 1 matches: notifies chat"]
    assert explain_routing_of_destination(log, "chat/slack", is_notified=True) == "route 1 matches: notifies chat"
    for is_notified in (False, True):
        assert explain_routing_of_destination([step], "chat/slack", is_notified=is_notified) == ""


def test_the_longest_wait_is_stated() -> None:
    assert MAX_WAIT_FOR_MUTING_PROBE_MS == 60_000
    assert "at most 1\N{NO-BREAK SPACE}min" in decide_muting_of_opened_incident([UNDECIDED]).describe()
