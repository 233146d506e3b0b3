"""Which destinations are notified and why, one case per row."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import (
    NotificationRoute,
    NotificationRoutingTable,
    ProbeMatcher,
    list_evaluated_routes_with_mismatches,
)

API = ProbeInfo(1, "api", "API", "http", group="Core", tags=("prod", "eu"), severity=Severity.CRITICAL)
RECEIVERS = {"oncall": ("oncall/slack", "oncall/email"), "chat": ("chat/slack",), "pager": ("pager/webhook",)}


class Miss(NamedTuple):
    sentence: str
    match: ProbeMatcher
    misses: str = ""
    """The mismatch; empty if the probe matches."""
    probe: ProbeInfo = API


MISSES = [
    Miss("an empty match matches every probe", ProbeMatcher()),
    Miss("the severity matches", ProbeMatcher(severity=Severity.CRITICAL)),
    Miss(
        "another severity does not match", ProbeMatcher(severity=Severity.WARNING), "severity is critical, not warning"
    ),
    Miss("a tag matches", ProbeMatcher(tags=frozenset({"prod"}))),
    Miss("every tag of the match is required", ProbeMatcher(tags=frozenset({"prod", "eu"}))),
    Miss("one tag of two is not enough", ProbeMatcher(tags=frozenset({"prod", "us"})), "no tag us"),
    Miss(
        "all missing tags are reported, in order",
        ProbeMatcher(tags=frozenset({"z", "prod", "b", "a"})),
        "no tag a, b, z",
    ),
    Miss(
        "a probe without tags has none of them",
        ProbeMatcher(tags=frozenset({"prod"})),
        "no tag prod",
        replace(API, tags=()),
    ),
    Miss("the group matches", ProbeMatcher(group="Core")),
    Miss("another group does not match", ProbeMatcher(group="Search"), "group is Core, not Search"),
    Miss(
        "an empty group does not match",
        ProbeMatcher(group="Search"),
        "group is empty, not Search",
        replace(API, group=""),
    ),
    Miss("the kind matches", ProbeMatcher(kind="http")),
    Miss("another kind does not match", ProbeMatcher(kind="mcp"), "kind is http, not mcp"),
    Miss("the probe matches by its id", ProbeMatcher(probe="api")),
    Miss("the probe matches by its name", ProbeMatcher(probe="API")),
    Miss("another probe does not match", ProbeMatcher(probe="web"), "probe is api, not web"),
    Miss("all fields together match", ProbeMatcher(Severity.CRITICAL, frozenset({"eu"}), "Core", "http", "api")),
    Miss(
        "only the first of several mismatches is reported",
        ProbeMatcher(Severity.INFO, frozenset({"x"}), "y", "z", "w"),
        "severity is critical, not info",
    ),
]


@pytest.mark.parametrize("row", MISSES, ids=lambda row: row.sentence)
def test_match(row: Miss) -> None:
    assert row.match.describe_mismatch(row.probe) == row.misses


YES, NO = ProbeMatcher(kind="http"), ProbeMatcher(kind="mcp")


class Row(NamedTuple):
    sentence: str
    routes: tuple[NotificationRoute, ...]
    destinations: tuple[str, ...]
    why: tuple[str, ...]
    receivers: dict[str, tuple[str, ...]] = RECEIVERS


ALL_DESTINATIONS = ("oncall/slack", "oncall/email", "chat/slack", "pager/webhook")
TABLE = [
    Row(
        "without receivers there are no destinations",
        (NotificationRoute(("oncall",)),),
        (),
        ("no receivers are configured: no one is notified",),
        {},
    ),
    Row(
        "without routes every receiver is notified",
        (),
        ALL_DESTINATIONS,
        ("no routes are configured: every receiver is notified: oncall, chat, pager",),
    ),
    Row(
        "a single matching route decides",
        (NotificationRoute(("chat",), YES),),
        ("chat/slack",),
        ("route 1 matches: notifies chat",),
    ),
    Row(
        "every destination of a receiver is notified",
        (NotificationRoute(("oncall",)),),
        ("oncall/slack", "oncall/email"),
        ("route 1 matches: notifies oncall",),
    ),
    Row(
        "a route may name several receivers",
        (NotificationRoute(("pager", "chat")),),
        ("pager/webhook", "chat/slack"),
        ("route 1 matches: notifies pager, chat",),
    ),
    Row(
        "the first match decides, later routes are not evaluated",
        (NotificationRoute(("chat",), YES), NotificationRoute(("pager",), YES)),
        ("chat/slack",),
        ("route 1 matches: notifies chat", "evaluation stops at route 1"),
    ),
    Row(
        "a route that does not match is skipped",
        (NotificationRoute(("chat",), NO), NotificationRoute(("pager",), YES)),
        ("pager/webhook",),
        ("route 1 does not match: kind is http, not mcp", "route 2 matches: notifies pager"),
    ),
    Row(
        "`continue` evaluates the next route",
        (NotificationRoute(("chat",), YES, continue_matching=True), NotificationRoute(("pager",), YES)),
        ("chat/slack", "pager/webhook"),
        ("route 1 matches: notifies chat", "route 2 matches: notifies pager"),
    ),
    Row(
        "evaluation ends at the first match without `continue`",
        (
            NotificationRoute(("chat",), continue_matching=True),
            NotificationRoute(("pager",)),
            NotificationRoute(("oncall",)),
        ),
        ("chat/slack", "pager/webhook"),
        ("route 1 matches: notifies chat", "route 2 matches: notifies pager", "evaluation stops at route 2"),
    ),
    Row(
        "`continue` of a route that does not match has no effect",
        (
            NotificationRoute(("chat",), NO, continue_matching=True),
            NotificationRoute(("pager",)),
            NotificationRoute(("oncall",)),
        ),
        ("pager/webhook",),
        (
            "route 1 does not match: kind is http, not mcp",
            "route 2 matches: notifies pager",
            "evaluation stops at route 2",
        ),
    ),
    Row(
        "`continue` on the last route is valid",
        (NotificationRoute(("chat",), continue_matching=True),),
        ("chat/slack",),
        ("route 1 matches: notifies chat",),
    ),
    Row(
        "later routes that do not match leave the destinations unchanged",
        (NotificationRoute(("chat",), continue_matching=True), NotificationRoute(("pager",), NO)),
        ("chat/slack",),
        ("route 1 matches: notifies chat", "route 2 does not match: kind is http, not mcp"),
    ),
    Row(
        "a destination of two routes is notified once, in its first position",
        (NotificationRoute(("pager", "chat"), continue_matching=True), NotificationRoute(("chat", "oncall"))),
        ("pager/webhook", "chat/slack", "oncall/slack", "oncall/email"),
        ("route 1 matches: notifies pager, chat", "route 2 matches: notifies chat, oncall"),
    ),
    Row(
        "without a matching route there are no destinations",
        (NotificationRoute(("chat",), NO), NotificationRoute(("pager",), ProbeMatcher(group="Jobs"))),
        (),
        (
            "route 1 does not match: kind is http, not mcp",
            "route 2 does not match: group is Core, not Jobs",
            "no route matches: no one is notified",
        ),
    ),
    Row(
        "a matching route without receivers suppresses notifications",
        (NotificationRoute((), YES), NotificationRoute(("pager",))),
        (),
        ("route 1 matches: notifies no one", "evaluation stops at route 1"),
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_routes(row: Row) -> None:
    decided = NotificationRoutingTable(row.receivers, row.routes).decide_routing(API, "http.503")
    assert decided.destinations == row.destinations
    assert decided.routing_log == row.why


@pytest.mark.parametrize(
    ("sentence", "patterns", "why"),
    [
        ("a route without reasons takes all", (), "route 1 matches: notifies chat"),
        ("the reason itself", ("http.503",), "route 1 matches: notifies chat"),
        ("its class", ("http.5xx",), "route 1 matches: notifies chat"),
        ("its family, as one of several", ("tls", "http"), "route 1 matches: notifies chat"),
        ("other reasons", ("tls", "http.502"), "route 1 does not match: reason is http.503, not tls or http.502"),
    ],
)
def test_a_route_selects_incidents_by_their_reason(sentence: str, patterns: tuple[str, ...], why: str) -> None:
    decided = NotificationRoutingTable(
        RECEIVERS, (NotificationRoute(("chat",), YES, reason_patterns=patterns),)
    ).decide_routing(API, "http.503")
    assert decided.routing_log[0] == why, sentence


def test_the_probe_is_compared_before_the_reason() -> None:
    decided = NotificationRoutingTable(
        RECEIVERS, (NotificationRoute(("chat",), NO, reason_patterns=("tls",)),)
    ).decide_routing(API, "http.503")
    assert decided.routing_log[0] == "route 1 does not match: kind is http, not mcp"


@pytest.mark.parametrize(
    ("sentence", "reason", "evaluated"),
    [
        ("any reason: the first route is for some incidents, the second for all", "", [(0, ""), (1, "")]),
        ("an incident that the first route is for", "tls.expired", [(0, "")]),
        ("another incident", "http.503", [(0, "reason is http.503, not tls"), (1, "")]),
    ],
)
def test_routes_are_evaluated_up_to_the_first_that_takes_every_such_incident(
    sentence: str, reason: str, evaluated: list[tuple[int, str]]
) -> None:
    routes = (
        NotificationRoute(("chat",), reason_patterns=("tls",)),
        NotificationRoute(("pager",)),
        NotificationRoute(()),
    )
    assert list(list_evaluated_routes_with_mismatches(routes, API, reason)) == evaluated, sentence
    if not reason:
        assert list(list_evaluated_routes_with_mismatches(routes, API)) == evaluated


def test_a_destination_without_resolved_is_notified_of_opened() -> None:
    routes = NotificationRoutingTable(
        RECEIVERS, (NotificationRoute(("oncall",)),), without_resolved=frozenset({"oncall/email"})
    )
    assert routes.decide_routing(API, "http.503").destinations == ("oncall/slack", "oncall/email")
    assert routes.without_resolved == {"oncall/email"}
    assert NotificationRoutingTable(RECEIVERS).without_resolved == frozenset()


def test_a_destination_is_one_of_any_receiver_even_if_no_route_leads_to_it() -> None:
    routes = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("chat",)),))
    names = ("oncall/slack", "oncall/email", "chat/slack", "oncall", "chat/email", "")
    assert [name for name in names if routes.has_destination(name)] == ["oncall/slack", "oncall/email", "chat/slack"]


# ------------------------------------------------------------------------------------- an incident about a destination

WATCHDOG = ProbeInfo(2, "watchdog", "Watchdog", "service")


class OwnFault(NamedTuple):
    sentence: str
    routes: tuple[NotificationRoute, ...]
    destinations: tuple[str, ...]
    last_step: str
    failing: str = "oncall/slack"


OWN_FAULTS = [
    OwnFault(
        "without routes, all others are notified", (), ("oncall/email", "chat/slack", "pager/webhook"),
        "oncall/slack is left out: the incident is about it",
    ),
    OwnFault(
        "routes that lead to others are followed",
        (NotificationRoute(("oncall", "chat")),), ("oncall/email", "chat/slack"),
        "oncall/slack is left out: the incident is about it",
    ),
    OwnFault(
        "routes that lead only to it are replaced by all others", (NotificationRoute(("chat",)),),
        ("oncall/slack", "oncall/email", "pager/webhook"),
        "no route leads to another destination: oncall/slack, oncall/email, pager/webhook are notified",
        failing="chat/slack",
    ),
    OwnFault(
        "if no route matches, all others are notified", (NotificationRoute(("oncall",), ProbeMatcher(group="Core")),),
        ("oncall/email", "chat/slack", "pager/webhook"),
        "no route leads to another destination: oncall/email, chat/slack, pager/webhook are notified",
    ),
    OwnFault(
        "routes to no one are replaced as well",
        (NotificationRoute(()),), ("oncall/email", "chat/slack", "pager/webhook"),
        "no route leads to another destination: oncall/email, chat/slack, pager/webhook are notified",
    ),
    OwnFault(
        "a route for Watchdog itself is followed",
        (NotificationRoute(("pager",), ProbeMatcher(kind="service")), NotificationRoute(("oncall",))),
        ("pager/webhook",), "oncall/slack is left out: the incident is about it",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", OWN_FAULTS, ids=lambda row: row.sentence)
def test_an_incident_about_a_destination(row: OwnFault) -> None:
    decision = NotificationRoutingTable(RECEIVERS, row.routes).decide_routing(
        WATCHDOG, "watchdog.delivery_failing", row.failing
    )
    assert decision.destinations == row.destinations
    assert decision.routing_log[-1] == row.last_step


def test_if_the_only_destination_fails_no_one_is_notified() -> None:
    table = NotificationRoutingTable({"oncall": ("oncall/slack",)})
    decision = table.decide_routing(WATCHDOG, "watchdog.delivery_failing", "oncall/slack")
    assert decision.destinations == ()
    assert decision.routing_log[-1] == "no route leads to another destination: no one is notified"


@pytest.mark.parametrize(
    ("failing", "step"),
    [
        ("", "no route leads to a destination: a/slack, b/slack are notified"),
        ("a/slack", "no route leads to another destination: b/slack is notified"),
    ],
)
def test_the_destinations_that_replace_the_routes_are_named(failing: str, step: str) -> None:
    table = NotificationRoutingTable({"a": ("a/slack",), "b": ("b/slack",)}, (NotificationRoute(()),))
    assert table.decide_routing(WATCHDOG, "watchdog.delivery_failing", failing).routing_log[-1] == step


@pytest.mark.parametrize(
    ("sentence", "routes", "destinations"),
    [
        ("without routes", (), ("oncall/slack", "oncall/email", "chat/slack", "pager/webhook")),
        ("a route that matches is followed", (NotificationRoute(("chat",)),), ("chat/slack",)),
        (
            "if no route matches, everyone is notified",
            (NotificationRoute(("chat",), ProbeMatcher(group="Core")),),
            ("oncall/slack", "oncall/email", "chat/slack", "pager/webhook"),
        ),
        (
            "also if a route matches another reason alone",
            (NotificationRoute(("chat",), reason_patterns=("watchdog.delivery_failing",)),),
            ("oncall/slack", "oncall/email", "chat/slack", "pager/webhook"),
        ),
    ],
)
def test_someone_is_notified_of_every_own_fault(
    sentence: str, routes: tuple[NotificationRoute, ...], destinations: tuple[str, ...]
) -> None:
    decision = NotificationRoutingTable(RECEIVERS, routes).decide_routing(WATCHDOG, "watchdog.configurations_differ")
    assert decision.destinations == destinations, sentence
    assert not any("left out" in step for step in decision.routing_log)
    assert NotificationRoutingTable({}).decide_routing(WATCHDOG, "watchdog.configurations_differ").destinations == ()
