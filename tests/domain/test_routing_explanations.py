"""Why a destination is notified or not agrees with the decision itself, for random tables."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import (
    NotificationRoute,
    NotificationRoutingTable,
    ProbeMatcher,
    explain_routing_of_destination,
    state_routing_step_in_past,
)

NAMES = ("oncall", "chat", "no", "pager one")
RECEIVERS = {name: (f"{name}/slack", f"{name}/email") for name in NAMES}
ROUTES = st.builds(
    NotificationRoute,
    receivers=st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple),
    match=st.builds(ProbeMatcher, group=st.sampled_from(["", "Core", "Search"])),
    continue_matching=st.booleans(),
)


@settings(derandomize=True, deadline=None)
@given(
    st.lists(ROUTES, max_size=4).map(tuple), st.sampled_from(["Core", "Other"]), st.sampled_from(["http", "service"])
)
def test_the_step_that_notified_a_destination_names_its_receiver(
    routes: tuple[NotificationRoute, ...], group: str, kind: str
) -> None:
    probe = ProbeInfo(1, "api", "API", kind, group)
    decision = NotificationRoutingTable(RECEIVERS, routes).decide_routing(probe, "http.503")
    for receiver, destinations in RECEIVERS.items():
        for destination in destinations:
            is_notified = destination in decision.destinations
            reason = explain_routing_of_destination(decision.routing_log, destination, is_notified=is_notified)
            if not is_notified:
                assert reason == "; ".join(decision.routing_log)
            elif reason in decision.routing_log:
                assert receiver in reason.rpartition(": ")[2].removeprefix("notifies ").split(", ") or kind == "service"


def test_a_destination_that_an_incident_is_about_is_left_out() -> None:
    probe = ProbeInfo(1, "watchdog", "Watchdog", "service")
    decision = NotificationRoutingTable(RECEIVERS).decide_routing(probe, "watchdog.receiver", "chat/slack")
    reason = explain_routing_of_destination(decision.routing_log, "chat/slack", is_notified=False)
    assert reason == "chat/slack is left out: the incident is about it"


def test_a_destination_that_no_route_leads_to_is_explained_by_all_steps() -> None:
    steps = ("route 1 does not match: group is Core, not Search", "no route matches")
    assert explain_routing_of_destination(steps, "chat/slack", is_notified=False) == "; ".join(steps)


def test_what_holds_notifications_back_does_not_explain_why_a_destination_has_none() -> None:
    steps = (
        "route 1 does not match: group is Core, not Search",
        "silenced by s-1 (Ana): no one is notified",
        "muting: x",
    )
    assert explain_routing_of_destination(steps, "chat/slack", is_notified=False) == steps[0]


def test_a_destination_that_was_added_later_is_explained_as_such() -> None:
    later = "it was added after the incident opened, and is notified of later incidents"
    to_all = ("no routes are configured: every receiver is notified: oncall, chat",)
    assert explain_routing_of_destination(to_all, "pager/webhook", is_notified=False) == later
    routed = ("route 1 does not match: group is Core, not Search", "route 2 matches: notifies oncall")
    assert explain_routing_of_destination(routed, "oncall/email", is_notified=False) == later
    assert explain_routing_of_destination(routed, "pager/webhook", is_notified=False) == "; ".join(routed)
    assert explain_routing_of_destination(to_all, "pager/webhook", is_notified=True) == to_all[0]


def test_what_was_true_when_it_opened_is_stated_in_the_past() -> None:
    without_route = NotificationRoutingTable(RECEIVERS, (NotificationRoute((), ProbeMatcher(group="Core")),))
    probe = ProbeInfo(1, "api", "API", "http", group="Search")
    tables = without_route, NotificationRoutingTable({})
    steps = {step for table in tables for step in table.decide_routing(probe, "http.503").routing_log}
    assert {state_routing_step_in_past(step) for step in steps} == {
        "route 1 does not match: group is Search, not Core",
        "no route matched when it opened: no one was notified",
        "no receivers were configured when it opened: no one was notified",
    }
