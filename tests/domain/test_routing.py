"""Who is told, and why, a sentence per row."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import ProbeMatcher, Route, RoutingTable

API = ProbeInfo(1, "api", "API", "http", group="Core", tags=("prod", "eu"), severity=Severity.CRITICAL)
RECEIVERS = {"oncall": ("oncall/slack", "oncall/email"), "chat": ("chat/slack",), "pager": ("pager/webhook",)}


class Miss(NamedTuple):
    sentence: str
    match: ProbeMatcher
    misses: str = ""
    """What is said; empty when it matches."""
    probe: ProbeInfo = API


MISSES = [
    Miss("an empty match matches every probe", ProbeMatcher()),
    Miss("the severity matches", ProbeMatcher(severity=Severity.CRITICAL)),
    Miss("another severity does not", ProbeMatcher(severity=Severity.WARNING), "severity is critical, not warning"),
    Miss("a tag matches", ProbeMatcher(tags=frozenset({"prod"}))),
    Miss("every tag is needed", ProbeMatcher(tags=frozenset({"prod", "eu"}))),
    Miss("one tag of two is not enough", ProbeMatcher(tags=frozenset({"prod", "us"})), "no tag us"),
    Miss(
        "all missing tags are told, in order",
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
    Miss("another group does not", ProbeMatcher(group="Search"), "group is Core, not Search"),
    Miss(
        "no group is another group", ProbeMatcher(group="Search"), "group is empty, not Search", replace(API, group="")
    ),
    Miss("the kind matches", ProbeMatcher(kind="http")),
    Miss("another kind does not", ProbeMatcher(kind="mcp"), "kind is http, not mcp"),
    Miss("the probe matches by its key", ProbeMatcher(probe="api")),
    Miss("the probe matches by its name", ProbeMatcher(probe="API")),
    Miss("another probe does not", ProbeMatcher(probe="web"), "probe is api, not web"),
    Miss("everything at once matches", ProbeMatcher(Severity.CRITICAL, frozenset({"eu"}), "Core", "http", "api")),
    Miss(
        "of many misses the first is told",
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
    routes: tuple[Route, ...]
    destinations: tuple[str, ...]
    why: tuple[str, ...]
    receivers: dict[str, tuple[str, ...]] = RECEIVERS


EVERYONE = ("oncall/slack", "oncall/email", "chat/slack", "pager/webhook")
TABLE = [
    Row(
        "without receivers nobody can be told",
        (Route(("oncall",)),),
        (),
        ("no receivers are configured: no one is notified",),
        {},
    ),
    Row(
        "without routes every receiver hears everything",
        (),
        EVERYONE,
        ("no routes are configured: every receiver is notified: oncall, chat, pager",),
    ),
    Row(
        "the one route that matches decides",
        (Route(("chat",), YES),),
        ("chat/slack",),
        ("route 1 matches: notifies chat",),
    ),
    Row(
        "each destination of a receiver is told",
        (Route(("oncall",)),),
        ("oncall/slack", "oncall/email"),
        ("route 1 matches: notifies oncall",),
    ),
    Row(
        "a route may name several receivers",
        (Route(("pager", "chat")),),
        ("pager/webhook", "chat/slack"),
        ("route 1 matches: notifies pager, chat",),
    ),
    Row(
        "the first match decides, and those after it are not looked at",
        (Route(("chat",), YES), Route(("pager",), YES)),
        ("chat/slack",),
        ("route 1 matches: notifies chat", "route 1 does not continue"),
    ),
    Row(
        "a route that does not match is passed over",
        (Route(("chat",), NO), Route(("pager",), YES)),
        ("pager/webhook",),
        ("route 1 does not match: kind is http, not mcp", "route 2 matches: notifies pager"),
    ),
    Row(
        "one that says to go on goes on",
        (Route(("chat",), YES, continue_matching=True), Route(("pager",), YES)),
        ("chat/slack", "pager/webhook"),
        ("route 1 matches: notifies chat", "route 2 matches: notifies pager"),
    ),
    Row(
        "until one does not say so",
        (Route(("chat",), continue_matching=True), Route(("pager",)), Route(("oncall",))),
        ("chat/slack", "pager/webhook"),
        ("route 1 matches: notifies chat", "route 2 matches: notifies pager", "route 2 does not continue"),
    ),
    Row(
        "going on from a route that does not match means nothing",
        (Route(("chat",), NO, continue_matching=True), Route(("pager",)), Route(("oncall",))),
        ("pager/webhook",),
        (
            "route 1 does not match: kind is http, not mcp",
            "route 2 matches: notifies pager",
            "route 2 does not continue",
        ),
    ),
    Row(
        "going on past the last one is no fault",
        (Route(("chat",), continue_matching=True),),
        ("chat/slack",),
        ("route 1 matches: notifies chat",),
    ),
    Row(
        "going on past routes that do not match leaves what was decided",
        (Route(("chat",), continue_matching=True), Route(("pager",), NO)),
        ("chat/slack",),
        ("route 1 matches: notifies chat", "route 2 does not match: kind is http, not mcp"),
    ),
    Row(
        "what two routes tell is told once, where it came first",
        (Route(("pager", "chat"), continue_matching=True), Route(("chat", "oncall"))),
        ("pager/webhook", "chat/slack", "oncall/slack", "oncall/email"),
        ("route 1 matches: notifies pager, chat", "route 2 matches: notifies chat, oncall"),
    ),
    Row(
        "when no route matches nobody is told",
        (Route(("chat",), NO), Route(("pager",), ProbeMatcher(group="Jobs"))),
        (),
        (
            "route 1 does not match: kind is http, not mcp",
            "route 2 does not match: group is Core, not Jobs",
            "no route matches: no one is notified",
        ),
    ),
    Row(
        "a route without receivers keeps silent on purpose",
        (Route((), YES), Route(("pager",))),
        (),
        ("route 1 matches: notifies no one", "route 1 does not continue"),
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_routes(row: Row) -> None:
    decided = RoutingTable(row.receivers, row.routes).decide_routing(API)
    assert decided.destinations == row.destinations
    assert decided.routing_log == row.why


def test_a_destination_that_wants_no_resolved_hears_what_opens() -> None:
    routes = RoutingTable(RECEIVERS, (Route(("oncall",)),), without_resolved=frozenset({"oncall/email"}))
    assert routes.decide_routing(API).destinations == ("oncall/slack", "oncall/email")
    assert routes.without_resolved == {"oncall/email"}
    assert RoutingTable(RECEIVERS).without_resolved == frozenset()
