"""Which incidents share a message, and until when it waits: a sentence for each row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from watchdog.domain.formatting import NBSP, SECOND_MS
from watchdog.domain.message_grouping import (
    ALLOWED_GROUP_BY_LABELS,
    MAX_LABEL_GROUP_AGE_MS,
    LabelGrouping,
    MessageGroup,
    MessageGroupDecision,
    MessageGroupReason,
    build_grouping_steps_of_routing_log,
    decide_message_group,
    format_labels,
    get_label_values_of_probe,
)
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import (
    NotificationRoute,
    NotificationRoutingTable,
    ProbeMatcher,
    explain_routing_of_destination,
)
from watchdog.domain.shared_cause import SharedIncidentCauseKey

NOW, OPENED_AT = 1_700_000_000_000, 1_700_000_000_000 - 10 * SECOND_MS
WINDOW_MS, WAIT_MS = 60 * SECOND_MS, 30 * SECOND_MS
DATABASE, SHOP = SharedIncidentCauseKey("db:5432"), SharedIncidentCauseKey("shop.example:443", "http")
SEARCH = LabelGrouping("search", {"group": "Search"}, WAIT_MS)
MEDIA = LabelGrouping("media", {"group": "Media"}, WAIT_MS)
AT_ONCE = SEARCH._replace(wait_ms=0)


def group(
    cause: SharedIncidentCauseKey | None, grouping: LabelGrouping | None, lead: str = "first", **fields: Any
) -> MessageGroup:
    """It waits, if a route groups it."""
    labels = None if grouping is None else grouping.labels
    wait_ms = 0 if grouping is None else grouping.wait_ms
    values: dict[str, Any] = {"opened_at": OPENED_AT, "accepts_cause_until": OPENED_AT + WINDOW_MS}
    values |= {"first_message_at": OPENED_AT + wait_ms} | fields
    return MessageGroup(
        lead_incident=lead, lead_probe_name="API", cause=cause, label_key="" if grouping is None else grouping.key,
        labels=labels, **values,
    )  # fmt: skip


BOTH = group(DATABASE, SEARCH)
ONLY_CAUSE, ONLY_LABELS = group(DATABASE, None), group(None, SEARCH)
OLDER = replace(BOTH, lead_incident="older", opened_at=OPENED_AT - 1, first_message_at=OPENED_AT - 1 + WAIT_MS)
AGED = group(DATABASE, SEARCH, opened_at=NOW - WINDOW_MS, accepts_cause_until=NOW, first_message_at=0)
OLD = replace(AGED, opened_at=NOW - MAX_LABEL_GROUP_AGE_MS)
SENT = group(None, SEARCH, first_message_at=NOW - 1)
HELD_BACK = replace(SENT, is_held_back=True)


@pytest.mark.parametrize(
    ("sentence", "groups", "cause", "grouping", "lead", "reason", "first_message_in_ms"),
    [
        ("nothing is known of it", [], None, None, None, "not_grouped", None),
        ("it begins a group of its cause, at once", [], DATABASE, None, "new", "begins_group", 0),
        ("it waits for others of its labels", [], DATABASE, SEARCH, "new", "waits_for_others", WAIT_MS),
        ("also if it is unknown what broke", [], None, SEARCH, "new", "waits_for_others", WAIT_MS),
        ("without group_wait it does not wait", [], DATABASE, AT_ONCE, "new", "begins_group", 0),
        ("the same cause", [ONLY_CAUSE], DATABASE, None, "first", "same_cause", -10_000),
        ("the same labels", [ONLY_LABELS], SHOP, SEARCH, "first", "equal_labels", 20_000),
        ("labels of one that has a cause", [BOTH], SHOP, SEARCH, "first", "equal_labels", 20_000),
        ("the cause of one with other labels", [BOTH], DATABASE, MEDIA, "first", "same_cause", 20_000),
        ("both", [BOTH], DATABASE, SEARCH, "first", "same_cause", 20_000),
        ("the cause comes first", [ONLY_LABELS, replace(ONLY_CAUSE, lead_incident="other")], DATABASE, SEARCH, "other",
         "same_cause", -10_000),
        ("both come before the cause alone", [replace(ONLY_CAUSE, lead_incident="other"), BOTH], DATABASE, SEARCH,
         "first", "same_cause", 20_000),
        ("of two groups, the older one", [BOTH, OLDER], SHOP, SEARCH, "older", "equal_labels", 19_999),
        ("other labels, another cause", [BOTH], SHOP, MEDIA, "new", "waits_for_others", WAIT_MS),
        ("another family of reasons", [ONLY_CAUSE], DATABASE._replace(family="http"), None, "new", "begins_group", 0),
        ("an unknown cause is no shared cause", [ONLY_LABELS], None, None, None, "not_grouped", None),
        ("one that no route groups joins no labels", [ONLY_LABELS], SHOP, None, "new", "begins_group", 0),
        ("a cause is shared for its window", [AGED], DATABASE, MEDIA, "new", "waits_for_others", WAIT_MS),
        ("labels are shared for longer", [AGED], DATABASE, SEARCH, "first", "equal_labels", -NOW),
        ("for a day at most", [OLD], DATABASE, SEARCH, "new", "waits_for_others", WAIT_MS),
        ("what joins a message that was sent does not wait", [SENT], SHOP, SEARCH, "first", "equal_labels", -1),
        ("if all others are held back, the wait begins again", [HELD_BACK], SHOP, SEARCH, "first", "equal_labels",
         WAIT_MS),
        ("one that does not wait ends the wait", [BOTH], DATABASE, None, "first", "same_cause", 0),
        ("a shorter wait does so earlier", [ONLY_LABELS], SHOP, SEARCH._replace(wait_ms=5_000), "first",
         "equal_labels", 5_000),
        ("a longer wait does not prolong it", [ONLY_LABELS], SHOP, SEARCH._replace(wait_ms=90_000), "first",
         "equal_labels", 20_000),
    ],
)  # fmt: skip
def test_which_incidents_share_a_message(
    sentence: str,
    groups: list[MessageGroup],
    cause: SharedIncidentCauseKey | None,
    grouping: LabelGrouping | None,
    lead: str | None,
    reason: str,
    first_message_in_ms: int | None,
) -> None:
    decision = decide_message_group("new", groups, cause, grouping, cause_window_ms=WINDOW_MS, now=NOW)
    assert decision.reason == reason, sentence
    joined = decision.group
    assert (joined and joined.lead_incident) == lead, sentence
    assert (joined and joined.first_message_at - NOW) == first_message_in_ms, sentence


@pytest.mark.parametrize(
    ("sentence", "group", "cause", "grouping", "shared_cause", "shared_labels"),
    [
        ("all of it", BOTH, DATABASE, SEARCH, DATABASE, {"group": "Search"}),
        ("the labels alone", BOTH, SHOP, SEARCH, None, {"group": "Search"}),
        ("the cause alone", BOTH, DATABASE, MEDIA, DATABASE, None),
        ("the cause alone, without a route that groups", BOTH, DATABASE, None, DATABASE, None),
        ("a cause that is not accepted any more is still shared", AGED, DATABASE, SEARCH, DATABASE,
         {"group": "Search"}),
        ("an unknown cause is another one", BOTH, None, SEARCH, None, {"group": "Search"}),
    ],
)  # fmt: skip
def test_a_group_has_what_all_of_its_incidents_share(
    sentence: str,
    group: MessageGroup,
    cause: SharedIncidentCauseKey | None,
    grouping: LabelGrouping | None,
    shared_cause: SharedIncidentCauseKey | None,
    shared_labels: dict[str, str] | None,
) -> None:
    joined = decide_message_group("new", [group], cause, grouping, cause_window_ms=WINDOW_MS, now=NOW).group
    assert joined is not None
    assert (joined.cause, joined.labels, bool(joined.label_key)) == (
        shared_cause, shared_labels, shared_labels is not None,
    ), sentence  # fmt: skip


def test_a_slower_probe_prolongs_the_time_in_which_its_cause_is_accepted() -> None:
    def join(cause: SharedIncidentCauseKey) -> int:
        decision = decide_message_group("new", [BOTH], cause, SEARCH, cause_window_ms=3 * WINDOW_MS, now=NOW)
        assert decision.group is not None
        return decision.group.accepts_cause_until

    assert join(DATABASE) == OPENED_AT + 3 * WINDOW_MS
    assert join(SHOP) == OPENED_AT + WINDOW_MS, "they share no cause"


@pytest.mark.parametrize(
    ("groups", "cause", "grouping", "text"),
    [
        ([], None, None, ""),
        ([], DATABASE, None, ""),
        ([], DATABASE, AT_ONCE, "begins a message (begins_group: group Search)"),
        ([], None, SEARCH, "begins a message, sent in 30 s (waits_for_others: group Search)"),
        ([], None, SEARCH._replace(labels={}), "begins a message, sent in 30 s (waits_for_others)"),
        ([BOTH], DATABASE, MEDIA, "in one message with the incident of API, sent in 20 s (same_cause: db:5432)"),
        ([ONLY_CAUSE], DATABASE, None, "in one message with the incident of API (same_cause: db:5432)"),
        ([SENT], SHOP, SEARCH, "in one message with the incident of API (equal_labels: group Search)"),
        (
            [ONLY_LABELS], SHOP, SEARCH,
            "in one message with the incident of API, sent in 20 s (equal_labels: group Search)",
        ),
    ],
)  # fmt: skip
def test_the_routing_log_states_what_an_incident_shares(
    groups: list[MessageGroup], cause: SharedIncidentCauseKey | None, grouping: LabelGrouping | None, text: str
) -> None:
    decision = decide_message_group("new", groups, cause, grouping, cause_window_ms=WINDOW_MS, now=NOW)
    assert decision.describe(NOW).replace(NBSP, " ") == text


def test_destinations_with_the_same_decision_are_one_step_of_the_routing_log() -> None:
    alone = MessageGroupDecision(None, MessageGroupReason.NOT_GROUPED, None)
    joined = MessageGroupDecision(ONLY_CAUSE, MessageGroupReason.SAME_CAUSE, None)
    steps = build_grouping_steps_of_routing_log({"a/slack": joined, "b/email": alone, "c/log": joined}, NOW)
    assert steps == ["grouping: a/slack, c/log: in one message with the incident of API (same_cause: db:5432)"]
    log = ["route 1 matches: notifies a", *steps]
    assert explain_routing_of_destination(log, "a/slack", is_notified=True) == log[0]
    assert explain_routing_of_destination(log, "b/email", is_notified=False) == log[0]


PROBE = ProbeInfo(1, "search-api", "Search API", "http", group="Search", severity=Severity.CRITICAL)
RECEIVERS = {"chat": ("chat/slack", "chat/email"), "pager": ("pager/webhook",)}


def test_every_label_has_a_value() -> None:
    assert get_label_values_of_probe(PROBE, ALLOWED_GROUP_BY_LABELS) == {
        "group": "Search", "kind": "http", "severity": "critical", "probe": "search-api",
    }  # fmt: skip
    assert (
        format_labels(get_label_values_of_probe(replace(PROBE, group=""), ("group", "kind"))) == "group none, kind http"
    )


def find(*routes: NotificationRoute, destination: str = "chat/slack", probe: ProbeInfo = PROBE) -> Any:
    return NotificationRoutingTable(RECEIVERS, routes).find_label_grouping(probe, "http.503", destination)


def test_the_first_route_that_leads_to_a_destination_groups_there() -> None:
    by_group = NotificationRoute(("chat",), group_by=("group",), group_wait_ms=WAIT_MS)
    by_kind = NotificationRoute(("chat",), group_by=("kind",))
    not_grouped = NotificationRoute(("chat",), continue_matching=True)
    elsewhere = NotificationRoute(("pager",), continue_matching=True, group_by=("severity",))
    other_probes = NotificationRoute(("chat",), ProbeMatcher(kind="mcp"), group_by=("severity",))
    assert find(by_group)[1:] == ({"group": "Search"}, WAIT_MS)
    assert find(replace(by_group, continue_matching=True), by_kind)[1:] == ({"group": "Search"}, WAIT_MS)
    assert find(elsewhere, by_kind)[1:] == ({"kind": "http"}, 0)
    assert find(other_probes, by_kind)[1:] == ({"kind": "http"}, 0)
    assert find(not_grouped, by_group) is None, "the first one that leads there does not group"
    assert find(by_group, destination="pager/webhook") is None, "no route leads there"
    assert find(NotificationRoute(("chat",), group_by=()))[1:] == ({}, 0), "all incidents of the route"
    assert NotificationRoutingTable(RECEIVERS).find_label_grouping(PROBE, "", "chat/slack") is None


def test_incidents_of_one_route_with_equal_values_have_one_key() -> None:
    route = NotificationRoute(("chat",), group_by=("group", "kind"))
    same = NotificationRoute(("chat", "pager"), group_by=("kind", "group"), group_wait_ms=WAIT_MS)
    other_name = replace(PROBE, id="other", name="Other", severity=Severity.WARNING)
    assert find(route).key == find(route, probe=other_name).key == find(same).key
    different = [
        find(route, probe=replace(PROBE, group="Media")),
        find(replace(route, group_by=("group",))),
        find(replace(route, match=ProbeMatcher(group="Search"))),
        find(replace(route, match=ProbeMatcher(severity=Severity.CRITICAL))),
        find(replace(route, reason_patterns=("http",))),
    ]
    assert len({find(route).key, *(each.key for each in different)}) == 6
