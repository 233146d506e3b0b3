"""Incidents that a route groups become one message, which may wait, with receivers that get real requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers
from tests.support.store import INTERVAL_MS, StoreHarness, make_registered_probe
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, NBSP
from watchdog.domain.model import Severity
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.service.acts import acknowledge_incident, begin_silence, end_silence
from watchdog.service.follow_ups import send_due_reminders_and_escalations
from watchdog.store.database import Database
from watchdog.store.group_tables import incident_groups
from watchdog.store.outbox_filters import MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS, MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS
from watchdog.store.read.destinations import load_stuck_destinations
from watchdog.store.read.messages import list_probe_names_in_same_messages
from watchdog.store.tables import incidents, outbox

ELSEWHERE = ("channel/slack", "mail/email", "pager/webhook")
"""Destinations that cannot edit a message."""
WAIT_MS, REPEAT_MS, AFTER_MS = 30_000, 4 * HOUR_MS, 15 * MINUTE_MS
BY_GROUP = NotificationRoute(("all",), group_by=("group",), group_wait_ms=WAIT_MS)


def make_probe(id: str, group: str = "Search", *, target: str = "", **policy: Any) -> RegisteredProbe:
    """By default, each on a host of its own."""
    probe = make_registered_probe(id, failure_threshold=1, success_threshold=1, staleness_threshold=HOUR_MS, **policy)
    info = replace(probe.info, group=group, target=target or f"https://{id}.example/")
    return replace(probe, policy=replace(probe.policy, probe=info), repeat_interval_ms=REPEAT_MS)


def make_harness(
    database: Database,
    receivers: Receivers,
    *probes: RegisteredProbe,
    routes: tuple[NotificationRoute, ...] = (BY_GROUP,),
    destinations: tuple[str, ...] = DESTINATIONS,
) -> DeliveryHarness:
    named = {name.partition("/")[0]: (name,) for name in DESTINATIONS}
    table = NotificationRoutingTable({"all": destinations, **named}, routes)
    three = [make_probe("a"), make_probe("b"), make_probe("c")]
    return DeliveryHarness(database, receivers, list(probes) or three, destinations, table)


def record(harness: DeliveryHarness, outcome: str, *ids: str, **fields: Any) -> None:
    harness.record([harness.store.database_id(id) for id in ids], outcome, **fields)


def list_members(harness: DeliveryHarness) -> list[list[str]]:
    """The probes that each document of the webhook is about."""
    documents = [request.json for request in harness.pager.received]
    return [
        sorted(member["probe"]["id"] for member in document["members"]) or [document["probe"]["id"]]
        for document in documents
    ]


def list_events(harness: DeliveryHarness) -> list[str]:
    return [request.json["event"] for request in harness.pager.received]


def find_incident(harness: DeliveryHarness, id: str) -> dict[str, Any]:
    return harness.store.select_row(incidents, incidents.c.probe == harness.store.database_id(id))


def list_grouping_steps(harness: DeliveryHarness, id: str) -> list[str]:
    text = str(find_incident(harness, id)["routing_log"]).replace(NBSP, " ")
    return [step for step in text.strip('["]').split('","') if step.startswith("grouping: ")]


async def test_incidents_with_equal_labels_are_one_message_that_waits(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "a")
        await harness.advance(20_000, 10_000)
        record(harness, "fail", "b")
        await harness.advance(WAIT_MS - 20_001, 10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 0)
        with database.open_read_transaction() as connection:
            assert load_stuck_destinations(connection, harness.now + HOUR_MS) == set(DESTINATIONS)
            assert load_stuck_destinations(connection, harness.now) == set()
        await harness.advance(1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert (list_members(harness), list_events(harness)) == ([["a", "b"]], ["opened"])
        assert all(
            "2 probes (group Search): A: HTTP 503, and 1 more" in texts[0] for texts in harness.list_texts().values()
        )
        assert harness.pager.received[0].json["group_labels"] == {"group": "Search"}
        record(harness, "fail", "c")
        await harness.advance(MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS, 10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert "3 probes (group Search)" in harness.list_texts()["bot/slack"][0]
        await harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, MINUTE_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert list_members(harness)[1] == ["a", "b", "c"]
        record(harness, "pass", "a")
        await harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, MINUTE_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 3)}
        assert "2 of 3 probes (group Search)" in harness.list_texts()["mail/email"][2]
        record(harness, "pass", "b", "c")
        await harness.settle()
        assert list_events(harness) == ["opened", "changed", "changed", "resolved"]
        assert all("3 probes (group Search) recovered" in texts[-1] for texts in harness.list_texts().values())
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}
        assert list_grouping_steps(harness, "a") == [
            f"grouping: {', '.join(DESTINATIONS)}: begins a message, sent in 30 s (waits_for_others: group Search)"
        ]
        assert list_grouping_steps(harness, "b") == [
            f"grouping: {', '.join(DESTINATIONS)}: in one message with the incident of A, sent in 10 s"
            " (equal_labels: group Search)"
        ]
        with database.open_read_transaction() as connection:
            names = list_probe_names_in_same_messages(connection, find_incident(harness, "a")["id"])
        assert names == {name: ["B", "C"] for name in DESTINATIONS}


async def test_each_value_has_a_message_and_a_critical_incident_waits_as_well(
    database: Database, receivers: Receivers
) -> None:
    probes = [make_probe("a"), make_probe("m", "Media"), make_probe("z", "Media", severity=Severity.CRITICAL)]
    async with make_harness(database, receivers, *probes, destinations=("pager/webhook",)) as harness:
        record(harness, "fail", "a", "m")
        await harness.advance(1_000)
        record(harness, "fail", "z")
        await harness.advance(WAIT_MS - 1_001, 10_000)
        assert list_members(harness) == []
        await harness.advance(1)
        assert sorted(list_members(harness)) == [["a"], ["m", "z"]]


async def test_the_first_critical_incident_after_the_first_message_is_sent_at_once(
    database: Database, receivers: Receivers
) -> None:
    probes = [make_probe("a"), make_probe("z", severity=Severity.CRITICAL)]
    async with make_harness(database, receivers, *probes) as harness:
        record(harness, "fail", "a")
        await harness.advance(WAIT_MS, 10_000)
        record(harness, "fail", "z")
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert list_members(harness) == [["a"], ["a", "z"]]


async def test_a_shared_cause_comes_before_labels(database: Database, receivers: Receivers) -> None:
    shared = "https://db.example/"
    probes = [
        make_probe("a"),
        make_probe("b"),
        make_probe("d1", target=shared),
        make_probe("d2", "Media", target=shared),
    ]
    async with make_harness(database, receivers, *probes, destinations=("pager/webhook",)) as harness:
        refused = {"reason": "connection.refused", "message": "connection refused"}
        record(harness, "fail", "d1", "d2", **refused)
        record(harness, "fail", "a", "b")
        await harness.advance(WAIT_MS, 10_000)
        assert sorted(list_members(harness)) == [["a", "b"], ["d1", "d2"]]
        documents = {member["title"]: member for member in (each.json for each in harness.pager.received)}
        by_cause = documents["2 probes (db.example:443): connection refused"]
        by_labels = documents["2 probes (group Search): A: HTTP 503, and 1 more"]
        assert (by_cause["shared_cause"], by_cause["group_labels"]) == ("db.example:443", None)
        assert (by_labels["shared_cause"], by_labels["group_labels"]) == (None, {"group": "Search"})
        assert "same_cause: db.example:443" in list_grouping_steps(harness, "d2")[0]


async def test_an_incident_that_is_over_before_the_first_message_is_in_it(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "a", "b")
        await harness.advance(10_000, 10_000)
        record(harness, "pass", "a")
        await harness.advance(WAIT_MS, 10_000)
        assert (list_events(harness), list_members(harness)) == (["opened"], [["a", "b"]])
        assert harness.pager.received[0].json["title"] == "1 of 2 probes (group Search): B: HTTP 503"
        record(harness, "pass", "b")
        await harness.settle()
        assert (list_events(harness), list_members(harness)) == (["opened", "resolved"], [["a", "b"]] * 2)
        harness.now += INTERVAL_MS
        record(harness, "fail", "c")
        harness.now += 10_000
        record(harness, "pass", "c")
        await harness.advance(WAIT_MS, 10_000)
        assert (list_events(harness)[2:], list_members(harness)[2:]) == (["resolved"], [["c"]])
        assert harness.pager.received[2].json["merged"]


async def test_an_incident_joins_a_message_that_waits_although_its_incidents_are_over(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "a")
        await harness.advance(10_000, 10_000)
        record(harness, "pass", "a")
        record(harness, "fail", "b")
        await harness.advance(WAIT_MS - 10_001, 10_000)
        assert list_members(harness) == []
        await harness.advance(1)
        assert (list_events(harness), list_members(harness)) == (["opened"], [["a", "b"]])
        record(harness, "fail", "a")
        await harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, MINUTE_MS)
        assert list_members(harness)[1:] == [["a", "a", "b"]], "it is another incident"
        assert {row["state"] for row in harness.store.select_rows(outbox)} <= {"sent", "merged"}


async def test_a_process_that_is_killed_during_the_wait_loses_nothing(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "a", "b")
        await harness.advance(10_000, 10_000)
        harness.start_sender()
        await harness.advance(WAIT_MS - 10_001, 10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 0)
        await harness.advance(1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert list_members(harness) == [["a", "b"]]


@pytest.mark.parametrize(
    "new_route",
    [
        NotificationRoute(("all",)),
        replace(BY_GROUP, group_by=("kind",)),
        replace(BY_GROUP, group_wait_ms=HOUR_MS),
        replace(BY_GROUP, match=ProbeMatcher(kind="http")),
        NotificationRoute(("pager",), ProbeMatcher(kind="mcp")),
    ],
    ids=["removed", "other labels", "a longer wait", "another match", "no route matches"],
)
async def test_a_route_that_changes_while_a_message_waits(
    database: Database, receivers: Receivers, new_route: NotificationRoute
) -> None:
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "a")
        harness.now += 1_000
        table = replace(harness.store.routes, routes=(new_route,))
        probes = list(harness.store.registry.values())
        reloaded = StoreHarness(database, probes, routes=table, now=harness.now, create_schema=False)
        harness.store.membership.leave(harness.now)
        harness.store = reloaded.without_downtime()
        await harness.advance(WAIT_MS, 10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1), "what waited is sent in its time"
        record(harness, "fail", "b")
        await harness.advance(HOUR_MS + MINUTE_MS, 10 * MINUTE_MS)
        record(harness, "pass", "a", "b")
        await harness.advance(HOUR_MS, 10 * MINUTE_MS)
        sent = [row for row in harness.store.select_rows(outbox) if row["event"] == "opened"]
        is_routed = not new_route.match.kind or new_route.match.kind == "http"
        assert len(sent) == len(DESTINATIONS) * (1 + is_routed)
        assert {row["state"] for row in harness.store.select_rows(outbox)} <= {"sent", "merged"}
        assert sorted({id for members in list_members(harness) for id in members}) == ["a", "b"][: 1 + is_routed]


async def test_a_silence_and_a_group_that_waits(database: Database, receivers: Receivers) -> None:
    """The message does not name what is silenced, and waits from the first incident that is not."""
    async with make_harness(database, receivers, destinations=("pager/webhook",)) as harness:
        silence = begin_silence(database, make_silence_request(harness.now + HOUR_MS, id="a"), ANA, harness.now).silence
        record(harness, "fail", "a")
        await harness.advance(20_000, 10_000)
        record(harness, "fail", "b")
        await harness.advance(WAIT_MS - 1, 10_000)
        assert list_members(harness) == []
        await harness.advance(1)
        assert list_members(harness) == [["b"]]
        end_silence(database, silence.id, BEN, harness.now)
        await harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, MINUTE_MS)
        assert list_members(harness) == [["b"], ["a", "b"]]
        record(harness, "pass", "a", "b")
        await harness.settle()
        assert list_events(harness) == ["opened", "changed", "resolved"]


async def test_what_a_silence_releases_while_the_message_waits_waits_with_it(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, destinations=("pager/webhook",)) as harness:
        record(harness, "fail", "a")
        silence = begin_silence(database, make_silence_request(harness.now + HOUR_MS, id="b"), ANA, harness.now).silence
        record(harness, "fail", "b")
        await harness.advance(10_000, 10_000)
        end_silence(database, silence.id, BEN, harness.now)
        await harness.advance(WAIT_MS - 10_001, 10_000)
        assert list_members(harness) == []
        await harness.advance(1)
        assert list_members(harness) == [["a", "b"]]


async def test_escalation_does_not_wait_and_one_reminder_is_for_all(database: Database, receivers: Receivers) -> None:
    step = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
    route = NotificationRoute(("mail",), group_by=("group",), group_wait_ms=WAIT_MS, escalation_steps=(step,))
    destinations = ("mail/email", "pager/webhook")
    async with make_harness(database, receivers, routes=(route,), destinations=destinations) as harness:

        async def follow_up(after_ms: int) -> None:
            harness.now += after_ms
            await send_due_reminders_and_escalations(harness.executor, harness.sender, lambda: harness.now)
            await harness.settle()

        record(harness, "fail", "a", "b", "c")
        opened_at = harness.now
        await harness.advance(WAIT_MS, 10_000)
        acknowledge_incident(database, find_incident(harness, "c")["id"], ANA, "", harness.now)
        await follow_up(opened_at + AFTER_MS - harness.now)
        assert list_members(harness) == [["a", "b"]], "no one has to wait for it again"
        await follow_up(opened_at + WAIT_MS + REPEAT_MS - harness.now - 1)
        assert harness.count_messages()["mail/email"] == 1
        await follow_up(1)
        assert harness.count_messages() == {"mail/email": 2, "pager/webhook": 1}
        assert "3 probes (group Search)" in harness.list_texts()["mail/email"][1]


async def test_all_incidents_of_a_route_are_one_message(database: Database, receivers: Receivers) -> None:
    route = replace(BY_GROUP, group_by=())
    probes = [make_probe("a"), make_probe("m", "Media"), make_probe("n", "")]
    async with make_harness(database, receivers, *probes, routes=(route,)) as harness:
        record(harness, "fail", "a", "m", "n")
        await harness.advance(WAIT_MS, 10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert harness.pager.received[0].json["title"] == "3 probes: A: HTTP 503, and 2 more"
        assert "replaces them" not in harness.list_texts()["mail/email"][0], "they are a group"


async def test_a_storm_of_one_group_is_one_message(database: Database, receivers: Receivers) -> None:
    probes = [make_probe(f"p{n:03}") for n in range(60)]
    async with make_harness(database, receivers, *probes) as harness:
        ids = harness.store.database_ids
        for start in range(0, 60, 15):
            harness.record(ids[start : start + 15], "fail")
            await harness.advance(5_000, 5_000)
        await harness.advance(WAIT_MS, 5_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert [len(members) for members in list_members(harness)] == [60]
        assert len(harness.store.select_rows(incident_groups)) == len(DESTINATIONS)
        harness.record(ids, "pass")
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}


async def test_a_group_of_an_earlier_version_goes_on_by_its_cause(database: Database, receivers: Receivers) -> None:
    """After an upgrade, its row has no labels and no wait."""
    shared = "https://db.example/"
    probes = [make_probe("d1", target=shared), make_probe("d2", target=shared)]
    async with make_harness(database, receivers, *probes, destinations=("bot/slack",)) as harness:
        record(harness, "fail", "d1")
        with database.open_write_transaction() as connection:
            connection.execute(sa.update(incident_groups).values(label_key="", labels=None, first_message_at=0))
            connection.execute(sa.update(outbox).values(due_at=harness.now))
        await harness.settle()
        record(harness, "fail", "d2")
        await harness.advance(MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS, 10_000)
        assert "2 probes (db.example:443)" in harness.list_texts()["bot/slack"][0]
