"""When further receivers are notified: a sentence for each row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from watchdog.domain.escalation import EscalationDecision, EscalationDecisionReason, EscalationStep, decide_escalation
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import (
    NotificationRoute,
    NotificationRoutingTable,
    ProbeMatcher,
    explain_routing_of_destination,
)

OPENED_AT = 1_700_000_000_000
AFTER_MS = 15 * MINUTE_MS
DUE_AT = OPENED_AT + AFTER_MS
UNLESS_ACKNOWLEDGED = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
ALWAYS = EscalationStep(AFTER_MS, ("pager",))


@pytest.mark.parametrize(
    ("sentence", "step", "facts", "is_due", "reason", "decide_again_at"),
    [
        ("no one acknowledged it in time", UNLESS_ACKNOWLEDGED, {}, True, "still_open", None),
        ("a moment before, it is too early", UNLESS_ACKNOWLEDGED, {"now": DUE_AT - 1}, False, "too_early", DUE_AT),
        ("after a downtime, it is late", UNLESS_ACKNOWLEDGED, {"now": DUE_AT * 2}, True, "still_open", None),
        ("an incident that is over", UNLESS_ACKNOWLEDGED, {"is_open": False}, False, "incident_is_over", None),
        ("once for each destination", UNLESS_ACKNOWLEDGED, {"is_notified": True}, False, "already_notified", None),
        ("someone is handling it", UNLESS_ACKNOWLEDGED, {"is_acknowledged": True}, False, "acknowledged", None),
        ("a step that no one can cancel", ALWAYS, {"is_acknowledged": True}, True, "still_open", None),
        ("a silence postpones it", UNLESS_ACKNOWLEDGED, {"is_silenced": True}, False, "silenced", None),
        ("a silence postpones every step", ALWAYS, {"is_silenced": True}, False, "silenced", None),
        ("a pause postpones every step", ALWAYS, {"is_paused": True}, False, "paused", None),
        ("maintenance postpones every step", ALWAYS, {"is_in_maintenance": True}, False, "in_maintenance", None),
        ("what another probe mutes is not escalated", ALWAYS, {"is_muted": True}, False, "muted", None),
        ("who was sent that it flaps waits", ALWAYS, {"has_flapping_notice": True}, False, "flapping", None),
        (
            "an acknowledgement that is taken back begins the time again",
            UNLESS_ACKNOWLEDGED,
            {"unacknowledged_at": OPENED_AT + MINUTE_MS},
            False,
            "too_early",
            DUE_AT + MINUTE_MS,
        ),
        (
            "and then it is due",
            UNLESS_ACKNOWLEDGED,
            {"unacknowledged_at": OPENED_AT + MINUTE_MS, "now": DUE_AT + MINUTE_MS},
            True,
            "still_open",
            None,
        ),
        (
            "a step that no one can cancel goes on from the opening",
            ALWAYS,
            {"unacknowledged_at": OPENED_AT + MINUTE_MS},
            True,
            "still_open",
            None,
        ),
        (
            "what the destination knows of comes before every other reason",
            UNLESS_ACKNOWLEDGED,
            {"is_notified": True, "is_acknowledged": True, "is_silenced": True},
            False,
            "already_notified",
            None,
        ),
    ],
)
def test_when_further_receivers_are_notified(
    sentence: str, step: EscalationStep, facts: dict[str, Any], is_due: bool, reason: str, decide_again_at: int | None
) -> None:
    defaults: dict[str, Any] = {"opened_at": OPENED_AT, "unacknowledged_at": None, "now": DUE_AT}
    defaults |= {"is_open": True, "is_acknowledged": False, "is_silenced": False, "is_paused": False}
    defaults |= {"is_notified": False, "is_in_maintenance": False, "is_muted": False, "has_flapping_notice": False}
    decision = decide_escalation(step, **{**defaults, **facts})
    assert decision == EscalationDecision(is_due, EscalationDecisionReason(reason), decide_again_at), sentence


PROBE = ProbeInfo(1, "api", "API", "http", group="Core", severity=Severity.CRITICAL)
TO_PAGER = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
TO_BOSS = EscalationStep(MINUTE_MS, ("boss",))
CORE = NotificationRoute(("chat",), ProbeMatcher(group="Core"), escalation_steps=(TO_PAGER, TO_BOSS))
TLS = NotificationRoute(("chat",), reason_patterns=("tls",), escalation_steps=(TO_BOSS,))
RECEIVERS = {"chat": ("chat/slack",), "pager": ("pager/pagerduty", "pager/webhook"), "boss": ("boss/email",)}
PAGER_AND_BOSS = ["boss/email", "pager/pagerduty", "pager/webhook"]


@pytest.mark.parametrize(
    ("sentence", "routes", "reason", "failing", "destinations"),
    [
        ("without routes there is none", (), "http.503", "", []),
        ("the first step comes first", (CORE,), "http.503", "", PAGER_AND_BOSS),
        ("a route for another reason", (TLS, CORE), "http.503", "", PAGER_AND_BOSS),
        ("a route that ends the evaluation", (TLS, CORE), "tls.expired", "", ["boss/email"]),
        ("a fault of a destination does not lead there", (CORE,), "http.503", "boss/email", PAGER_AND_BOSS[1:]),
        ("a route that does not match", (replace(CORE, match=ProbeMatcher(group="Search")),), "http.503", "", []),
        ("a route without steps", (NotificationRoute(("chat",)), CORE), "http.503", "", []),
    ],
)
def test_the_steps_of_the_routes_that_apply(
    sentence: str, routes: tuple[NotificationRoute, ...], reason: str, failing: str, destinations: list[str]
) -> None:
    table = NotificationRoutingTable(RECEIVERS, routes)
    escalations = table.list_escalations(PROBE, reason, failing)
    assert [escalation.destination for escalation in escalations] == destinations, sentence


def test_the_destinations_of_a_step_count_as_possible() -> None:
    """So that `watchdog diff` shows them."""
    table = NotificationRoutingTable(RECEIVERS, (CORE,))
    assert table.list_possible_destinations_of_probe(PROBE) == (
        "chat/slack",
        "pager/pagerduty",
        "pager/webhook",
        "boss/email",
    )


def test_a_step_of_the_routing_log_explains_who_was_notified() -> None:
    escalations = NotificationRoutingTable(RECEIVERS, (CORE,)).list_escalations(PROBE, "http.503")
    log = ["route 1 matches: notifies chat", *dict.fromkeys(escalation.describe() for escalation in escalations)]
    explanations = [explain_routing_of_destination(log, name, is_notified=True) for name in PAGER_AND_BOSS]
    assert [text.replace(NBSP, " ") for text in explanations] == [
        "route 1: 1 min after the opening, it escalates to boss",
        "route 1: 15 min after the opening, not acknowledged, it escalates to pager",
        "route 1: 15 min after the opening, not acknowledged, it escalates to pager",
    ]


def test_every_reason_against_an_escalation_is_stated() -> None:
    due = {EscalationDecisionReason.STILL_OPEN, EscalationDecisionReason.TOO_EARLY}
    for reason in EscalationDecisionReason:
        hindrance = EscalationDecision(False, reason).hindrance
        assert hindrance.startswith("not escalated") == (reason not in due), reason
        assert bool(hindrance) == (reason not in due), reason
