"""Incidents that share a cause become one message, with receivers that get real requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse
from tests.support.store import INTERVAL_MS, LEASE_MS, make_registered_probe, make_result
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Evidence, ResultToRecord, Severity
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.domain.schedule import IntervalSchedule
from watchdog.domain.shared_cause import MIN_GROUP_WINDOW_MS
from watchdog.service.notifications import MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED
from watchdog.store.database import Database
from watchdog.store.group_tables import incident_groups
from watchdog.store.outbox_filters import MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
from watchdog.store.read.destinations import load_stuck_destinations
from watchdog.store.tables import outbox

ELSEWHERE = ("channel/slack", "mail/email", "pager/webhook")
"""Destinations that cannot edit a message."""
REFUSED = {"reason": "connection.refused", "message": "connection refused"}


def make_target(
    probe_id: str, target: str, *, interval_ms: int = INTERVAL_MS, severity: Severity = Severity.WARNING
) -> RegisteredProbe:
    schedule = IntervalSchedule(interval_ms)
    probe = make_registered_probe(
        probe_id, schedule=schedule, failure_threshold=1, success_threshold=1, severity=severity,
        staleness_threshold=10 * HOUR_MS,
    )  # fmt: skip
    return replace(probe, policy=replace(probe.policy, probe=replace(probe.info, target=target)))


def make_dead_host(count: int, host: str = "api.example") -> list[RegisteredProbe]:
    return [make_target(f"{host}-{i:02}", f"https://{host}/{i}") for i in range(count)]


def record_with_address(harness: DeliveryHarness, probe_id: str, reason: str, address: str) -> None:
    result = make_result(harness.store.database_id(probe_id), harness.now, "fail", reason=reason, message=reason)
    recorded = ResultToRecord(result, Evidence({"address": address}))
    harness.store.recorder.record_results([recorded], harness.now)


def list_members(harness: DeliveryHarness) -> list[list[str]]:
    """The probes that each document of the webhook names."""
    documents = [request.json for request in harness.pager.received]
    return [[member["probe"]["id"] for member in document["members"]] for document in documents]


def list_events(harness: DeliveryHarness) -> list[str]:
    return [request.json["event"] for request in harness.pager.received]


async def test_sixty_probes_on_one_dead_host_are_one_message_of_the_bot_and_two_elsewhere(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(60)) as harness:
        for probe in harness.store.database_ids:
            harness.record([probe], "fail", **REFUSED)
            await harness.settle()
            harness.now += 900
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        await harness.advance(2 * INTERVAL_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        names = {registered.info.name for registered in harness.store.registry.values()}
        for texts in harness.list_texts().values():
            assert [name for name in names if name not in texts[-1]] == []
            assert "60 probes (api.example:443): connection refused" in texts[-1]
        assert list_events(harness) == ["opened", "changed"]
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}
        harness.now += 10 * INTERVAL_MS
        first, *others = harness.store.database_ids
        harness.record(others, "pass")
        await harness.advance(INTERVAL_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}, "one is still down"
        assert "1 of 60 probes" in harness.list_texts()["bot/slack"][-1]
        harness.record([first], "pass")
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 3)}
        assert all("60 probes (api.example:443) recovered" in texts[-1] for texts in harness.list_texts().values())
        assert list_events(harness) == ["opened", "changed", "resolved"]
        first_mail, *replies = [mail.message for mail in harness.mail.received]
        assert {mail["in-reply-to"] for mail in replies} == {first_mail["message-id"]}
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}


async def test_two_unrelated_faults_at_once_are_two_messages(database: Database, receivers: Receivers) -> None:
    probes = [*make_dead_host(30), *make_dead_host(30, "shop.example")]
    async with DeliveryHarness(database, receivers, probes) as harness:
        harness.record(harness.store.database_ids, "fail", **REFUSED)
        await harness.advance(2 * INTERVAL_MS)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 2)
        assert sorted(map(len, list_members(harness))) == [30, 30]


BROKER = "redis://cache:6379/0"
GROUPS: dict[str, tuple[list[tuple[str, str, str]], list[int]]] = {
    "a broker that a canary, a queue and a jobs probe share": (
        [
            (f"{BROKER}, queue mail", "connection.refused", ""),
            (f"{BROKER}, queue sms", "broker.unreachable", ""),
            (BROKER, "timeout.read", ""),
        ],
        [3],
    ),
    "a database": (
        [
            ("postgresql://db:5432/app, table jobs", "connection.refused", ""),
            ("postgresql://db:5432/app, queue q", "connection.reset", ""),
        ],
        [2],
    ),
    "the resolver, for any names": (
        [
            ("https://a.example/", "dns.no_response", ""),
            ("https://b.example/", "timeout.dns", ""),
            ("redis://c.example/0", "dns.failed", ""),
        ],
        [3],
    ),
    "one address under several names": (
        [
            ("https://a.example/", "connection.unreachable", "192.0.2.1:443"),
            ("http://b.example/", "timeout.connect", "192.0.2.1:80"),
        ],
        [2],
    ),
    "an address of version 6": (
        [
            ("https://a.example/", "timeout.connect", "[2001:db8::1]:443, 192.0.2.1:443"),
            ("https://b.example/", "timeout.connect", "192.0.2.1:8443, [2001:db8::1]:8443"),
        ],
        [2],
    ),
    "two ports of one host that refuse connections are two faults": (
        [
            ("http://a.example:8080/", "connection.refused", "192.0.2.1:8080"),
            ("http://a.example:9090/", "connection.refused", "192.0.2.1:9090"),
        ],
        [1, 1],
    ),
    "two ports of one host that is unreachable are one": (
        [
            ("http://a.example:8080/", "timeout.connect", "192.0.2.1:8080"),
            ("http://a.example:9090/", "timeout.connect", "192.0.2.1:9090"),
        ],
        [2],
    ),
    "failures before a response": (
        [
            ("https://a.example/1", "connection.reset", "192.0.2.1:443"),
            ("https://a.example/2", "timeout.first_byte", "192.0.2.1:443"),
            ("https://a.example/3", "tls.handshake_refused", "192.0.2.1:443"),
        ],
        [3],
    ),
    "responses are divided by reason family": (
        [
            ("https://a.example/1", "http.503", ""),
            ("https://a.example/2", "http.502", ""),
            ("https://a.example/3", "json.invalid", ""),
            ("https://a.example/4", "connection.closed", ""),
        ],
        [1, 1, 2],
    ),
    "a reason family alone is no shared cause": (
        [("https://a.example/", "http.503", ""), ("https://b.example/", "http.503", "")],
        [1, 1],
    ),
    "targets without a host share nothing": (
        [("check-ins, expected daily", "job.failed", ""), ("check-ins, expected daily", "job.failed", "")],
        [1, 1],
    ),
}


@pytest.mark.parametrize("name", GROUPS)
async def test_what_shares_a_cause(database: Database, receivers: Receivers, name: str) -> None:
    findings, sizes = GROUPS[name]
    probes = [make_target(f"p{i}", target) for i, (target, _, _) in enumerate(findings)]
    async with DeliveryHarness(database, receivers, probes, ("pager/webhook",)) as harness:
        for i, (_, reason, address) in enumerate(findings):
            record_with_address(harness, f"p{i}", reason, address)
        await harness.settle()
        assert sorted(len(members) or 1 for members in list_members(harness)) == sizes


async def test_a_single_incident_is_reported_as_without_groups(database: Database, receivers: Receivers) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(1)) as harness:
        harness.record(harness.store.database_ids, "fail", **REFUSED)
        await harness.settle()
        harness.now += INTERVAL_MS
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert list_members(harness) == [[], []]
        assert [request.json["shared_cause"] for request in harness.pager.received] == [None, None]
        assert harness.channel.posts[0]["text"].endswith("Down: Api.Example-00: connection refused · warning")


async def test_a_member_that_recovers_early_is_named_and_ends_with_the_others(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(3)) as harness:
        early, *others = harness.store.database_ids
        harness.record([early], "fail", **REFUSED)
        await harness.settle()
        harness.now += 1_000
        harness.record(others, "fail", **REFUSED)
        await harness.advance(10_000)
        harness.record([early], "pass")
        await harness.advance(10_000)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert "2 of 3 probes" in harness.list_texts()["bot/slack"][0]
        await harness.advance(MIN_GROUP_WINDOW_MS)
        assert list_events(harness) == ["opened", "changed"]
        states = [member["incident"]["state"] for member in harness.pager.received[-1].json["members"]]
        assert sorted(states) == ["open", "open", "resolved"]
        harness.record(others, "pass")
        await harness.settle()
        assert list_events(harness) == ["opened", "changed", "resolved"]
        assert {len(members) for members in list_members(harness)[1:]} == {3}


async def test_a_group_that_ends_within_its_window_needs_no_second_message(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(3)) as harness:
        first, *others = harness.store.database_ids
        harness.record([first], "fail", **REFUSED)
        await harness.settle()
        harness.now += 1_000
        harness.record(others, "fail", **REFUSED)
        await harness.advance(10_000)
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert list_events(harness) == ["opened", "resolved"]
        assert [len(members) for members in list_members(harness)] == [0, 3]
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        await harness.advance(2 * INTERVAL_MS)
        assert list_events(harness) == ["opened", "resolved"]


async def test_a_slow_probe_keeps_its_group_open_for_its_interval(database: Database, receivers: Receivers) -> None:
    probes = [make_target(f"p{i}", "https://a.example/", interval_ms=2 * INTERVAL_MS) for i in range(2)]
    async with DeliveryHarness(database, receivers, probes) as harness:
        first, second = harness.store.database_ids
        harness.record([first], "fail", **REFUSED)
        await harness.advance(90_000)
        harness.record([second], "fail", **REFUSED)
        await harness.advance(INTERVAL_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert [len(members) for members in list_members(harness)] == [0, 2]


async def test_an_incident_after_the_window_has_a_message_of_its_own(database: Database, receivers: Receivers) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(2)) as harness:
        first, second = harness.store.database_ids
        harness.record([first], "fail", **REFUSED)
        await harness.advance(MIN_GROUP_WINDOW_MS)
        harness.record([second], "fail", **REFUSED)
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 2)
        assert list_members(harness) == [[], []]


async def test_an_incident_after_the_end_of_a_group_has_a_message_of_its_own(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(1)) as harness:
        for outcome in ("fail", "pass", "fail"):
            harness.record(harness.store.database_ids, outcome, **(REFUSED if outcome == "fail" else {}))
            await harness.advance(5_000)
        assert list_events(harness) == ["opened", "resolved", "opened"]
        assert len(harness.store.select_rows(incident_groups)) == 2 * len(DESTINATIONS)


async def test_a_rise_to_critical_is_sent_at_once(database: Database, receivers: Receivers) -> None:
    critical = [
        make_target(f"z{i}", "https://api.example/pay", severity=Severity.CRITICAL) for i in range(2)
    ]  # fmt: skip
    async with DeliveryHarness(database, receivers, [*make_dead_host(2), *critical]) as harness:
        first, second, third, fourth = harness.store.database_ids
        harness.record([first], "fail", **REFUSED)
        await harness.settle()
        harness.now += 1_000
        harness.record([second], "fail", **REFUSED)
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        harness.now += 1_000
        harness.record([third], "fail", **REFUSED)
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}
        assert "[DOWN critical] 3 probes" in harness.list_texts()["mail/email"][-1]
        (reply,) = [post for post in harness.bot.posts if "thread_ts" in post]
        assert reply["reply_broadcast"], "an edit alone alerts no person"
        harness.now += 1_000
        harness.record([fourth], "fail", **REFUSED)
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(ELSEWHERE, 2)}, "it was critical before"


async def test_the_bot_edits_its_message_at_most_once_in_ten_seconds(database: Database, receivers: Receivers) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(20), ("bot/slack",)) as harness:
        for probe in harness.store.database_ids:
            harness.record([probe], "fail", **REFUSED)
            await harness.advance(1_000, 500)
        edits = [request for request in harness.bot.received if request.path.endswith("chat.update")]
        assert len(edits) == 1
        await harness.advance(MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS)
        assert "20 probes" in harness.list_texts()["bot/slack"][0]
        assert harness.count_messages() == {"bot/slack": 1}


async def test_an_edit_does_not_wait_for_one_from_before_the_clock_was_set_back(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(2), ("bot/slack",)) as harness:
        first, second = harness.store.database_ids
        harness.record([first], "fail", **REFUSED)
        harness.now += HOUR_MS
        await harness.settle()
        harness.now -= HOUR_MS
        harness.record([second], "fail", **REFUSED)
        await harness.settle()
        assert "2 probes" in harness.list_texts()["bot/slack"][0]


async def test_a_name_that_cannot_be_resolved_is_named_until_another_one_fails(
    database: Database, receivers: Receivers
) -> None:
    probes = [make_target(f"p{i}", target) for i, target in enumerate(("https://a.example/", "http://a.example/"))]
    probes.append(make_target("p2", "redis://cache.example/0"))
    async with DeliveryHarness(database, receivers, probes, ("bot/slack",)) as harness:
        *same_name, other_name = harness.store.database_ids
        harness.record(same_name, "fail", reason="dns.not_found", message="host name not found")
        await harness.settle()
        assert "2 probes (a.example): host name not found" in harness.list_texts()["bot/slack"][0]
        harness.record([other_name], "fail", reason="dns.failed", message="lookup failed")
        await harness.advance(MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS)
        assert "3 probes (the resolver)" in harness.list_texts()["bot/slack"][0]


async def test_destinations_that_get_some_severities_only_have_groups_of_their_own(
    database: Database, receivers: Receivers
) -> None:
    """Each names what is routed there, under the highest severity of that."""
    critical = NotificationRoute(("all", "pager"), ProbeMatcher(severity=Severity.CRITICAL))
    routes = NotificationRoutingTable(
        {"all": ("mail/email",), "pager": ("pager/webhook",)}, (critical, NotificationRoute(("all",)))
    )
    probes = make_dead_host(2)
    probes += [make_target(f"z{i}", "https://api.example/pay", severity=Severity.CRITICAL) for i in range(2)]
    async with DeliveryHarness(database, receivers, probes, ("mail/email", "pager/webhook"), routes) as harness:
        harness.record(harness.store.database_ids, "fail", **REFUSED)
        await harness.settle()
        assert harness.count_messages() == {"mail/email": 1, "pager/webhook": 1}
        assert sorted(list_members(harness)[0]) == ["z0", "z1"]
        assert "[DOWN critical] 4 probes (api.example:443)" in harness.list_texts()["mail/email"][0]
        warnings, criticals = harness.store.database_ids[:2], harness.store.database_ids[2:]
        harness.now += 1_000
        harness.record(criticals, "pass")
        await harness.settle()
        assert list_events(harness) == ["opened", "resolved"], "all that is routed there is over"
        assert harness.count_messages()["mail/email"] == 1
        harness.now += 1_000
        harness.record(warnings, "pass")
        await harness.settle()
        assert (harness.count_messages()["mail/email"], list_events(harness)) == (2, ["opened", "resolved"])


async def test_a_group_that_shrinks_while_its_receiver_is_away_still_names_who_recovered(
    database: Database, receivers: Receivers
) -> None:
    """It is open, and its first message states how many are left; the last one comes when the rest is over."""
    async with DeliveryHarness(database, receivers, make_dead_host(3), ("pager/webhook",)) as harness:
        first, second, third = harness.store.database_ids
        harness.record([first, second, third], "fail", **REFUSED)
        harness.now += 10_000
        harness.record([first, second], "pass")
        await harness.settle()
        await harness.advance(2 * INTERVAL_MS)
        assert list_events(harness) == ["opened"]
        states = [member["incident"]["state"] for member in harness.pager.received[0].json["members"]]
        assert (sorted(states), harness.pager.received[0].json["title"]) == (
            ["open", "resolved", "resolved"],
            "1 of 3 probes (api.example:443): connection refused",
        )
        harness.record([third], "pass")
        await harness.settle()
        assert list_events(harness) == ["opened", "resolved"]
        assert [len(members) for members in list_members(harness)] == [3, 3]


@pytest.mark.parametrize("is_sent", [False, True], ids=["before it is sent", "before it is marked as sent"])
@pytest.mark.parametrize("event", ["opened", "changed", "resolved"])
async def test_a_crash_costs_at_most_one_copy(
    database: Database, receivers: Receivers, monkeypatch: pytest.MonkeyPatch, event: str, *, is_sent: bool
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(4), ELSEWHERE) as harness:
        first, *others = harness.store.database_ids

        async def send_or_crash(of: str) -> None:
            """What a killed process leaves behind: leased rows, and maybe a message."""
            if of != event:
                return await harness.settle()
            with monkeypatch.context() as killed:
                if is_sent:
                    killed.setattr(harness.store.outbox, "mark_sent", lambda *_: 1 / 0)
                    await harness.settle()
                else:
                    assert harness.store.outbox.lease_due_notifications(harness.now, LEASE_MS, ELSEWHERE)
            harness.start_sender()
            await harness.settle()
            await harness.advance(LEASE_MS)
            return None

        harness.record([first, others[0]], "fail", **REFUSED)
        await send_or_crash("opened")
        harness.now += 1_000
        harness.record(others[1:], "fail", **REFUSED)
        await harness.settle()
        harness.now += MIN_GROUP_WINDOW_MS
        await send_or_crash("changed")
        harness.record(harness.store.database_ids, "pass")
        await send_or_crash("resolved")
        expected = {name: 1 + (is_sent and name == event) for name in ("opened", "changed", "resolved")}
        assert {name: list_events(harness).count(name) for name in expected} == expected
        assert list_events(harness) == sorted(list_events(harness), key=list(expected).index), "in order"
        keys = {request.json["idempotency_key"] for request in harness.pager.received}
        assert len(keys) == 3, "a receiver recognises a copy"
        assert harness.count_messages() == dict.fromkeys(ELSEWHERE, 3 + is_sent)


async def test_a_group_whose_receiver_was_away_is_one_message(database: Database, receivers: Receivers) -> None:
    """`resolved` never comes before `opened`: the message reports both."""
    async with DeliveryHarness(database, receivers, make_dead_host(5), ("pager/webhook",)) as harness:
        harness.record(harness.store.database_ids, "fail", **REFUSED)
        harness.now += INTERVAL_MS
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert (list_events(harness), [len(members) for members in list_members(harness)]) == (["resolved"], [5])
        assert harness.pager.received[0].json["merged"]


async def test_a_later_message_that_is_confirmed_ends_the_copies_of_the_first(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(2), ("pager/webhook",)) as harness:
        first, second = harness.store.database_ids
        login_page = CannedResponse(200, b"<html>please log in</html>")
        harness.pager.canned_responses.extend([login_page] * MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED)
        harness.record([first], "fail", **REFUSED)
        await harness.advance(10_000)
        assert list_events(harness) == ["opened"] * MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED
        harness.record([second], "fail", **REFUSED)
        await harness.advance(2 * INTERVAL_MS)
        await harness.advance(3 * HOUR_MS, 600_000)
        assert list_events(harness) == ["opened"] * MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED + ["changed"]


async def test_a_group_that_waits_makes_no_destination_look_stuck(database: Database, receivers: Receivers) -> None:
    async with DeliveryHarness(database, receivers, make_dead_host(2), ELSEWHERE) as harness:
        harness.record(harness.store.database_ids, "fail", **REFUSED)
        await harness.advance(2 * INTERVAL_MS)
        harness.record(harness.store.database_ids[:1], "pass")
        await harness.advance(20 * INTERVAL_MS, INTERVAL_MS)
        with harness.store.database.open_read_transaction() as connection:
            assert load_stuck_destinations(connection, harness.now) == set()
