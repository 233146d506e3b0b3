"""Incidents of which no one was notified, and which are sent once other routes lead to a destination."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.support.acts import ANA, end_expired, list_outbox, send_due, silence
from tests.support.muting import decide, find_incidents, make_probe
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_member_configuration,
    make_registered_probe,
    make_result,
)
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.service.acts import (
    MaintenanceRequest,
    acknowledge_incident,
    begin_maintenance,
    end_maintenance,
    end_silence,
    pause_probe,
    remove_acknowledgement,
    resume_probe,
)
from watchdog.store.database import Database
from watchdog.store.flapping_tables import flapping_alerts
from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.follow_ups import list_incidents_with_due_follow_ups
from watchdog.store.tables import incidents, outbox
from watchdog.store.write import follow_ups, late_openings
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations

SLOT = START_AT + INTERVAL_MS
RELOADED_AT = SLOT + 20_000
SLACK, PAGER = "oncall/slack", "pager/webhook"
RECEIVERS = {"oncall": (SLACK,), "pager": (PAGER,)}
ONLY_SEARCH = NotificationRoute(("oncall",), ProbeMatcher(group="Search"))
NO_ROUTE = NotificationRoutingTable(RECEIVERS, (ONLY_SEARCH,))
TO_ONCALL = NotificationRoutingTable(RECEIVERS, (ONLY_SEARCH, NotificationRoute(("oncall",))))
TO_PAGER = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("pager",)),))
NO_RECEIVER = NotificationRoutingTable({})
ESCALATES_TO_SAME = NotificationRoutingTable(
    RECEIVERS, (NotificationRoute(("oncall",), escalation_steps=(EscalationStep(1_000, ("oncall", "pager")),)),)
)
PROBE = make_registered_probe("p0", failure_threshold=1, success_threshold=1)
OPENED = [("p0", SLACK, "opened")]


def start(database: Database, routes: NotificationRoutingTable, now: int = START_AT, **options: Any) -> StoreHarness:
    return StoreHarness(database, [PROBE], routes=routes, now=now, **options).without_downtime()


def reload(harness: StoreHarness, routes: NotificationRoutingTable, now: int = RELOADED_AT) -> None:
    harness.routes = routes
    harness.membership.change_configuration(make_member_configuration([PROBE], routes), now)


def record(harness: StoreHarness, outcome: str, at: int) -> None:
    harness.record_results(make_result(harness.database_id("p0"), at, outcome), now=at)


def send(harness: StoreHarness, now: int) -> list[tuple[str, str, str]]:
    """As the background tasks do."""
    with harness.database.open_read_transaction() as connection:
        is_due = bool(list_incidents_with_due_follow_ups(connection, now))
    if is_due:
        enqueue_due_reminders_and_escalations(harness.database, now)
    return send_due(harness, now)


def open_incident(database: Database, routes: NotificationRoutingTable = NO_ROUTE) -> tuple[StoreHarness, str]:
    """Of which no one is notified."""
    harness = start(database, routes)
    record(harness, "fail", SLOT)
    assert send(harness, SLOT) == []
    return harness, str(harness.select_row(incidents)["id"])


def load_routing_log(harness: StoreHarness) -> list[str]:
    log: list[str] = decode_nullable_json(harness.select_row(incidents)["routing_log"])
    return log


@pytest.mark.parametrize("before", [NO_ROUTE, NO_RECEIVER], ids=["no route", "no receiver"])
def test_a_reload_sends_it_once(database: Database, before: NotificationRoutingTable) -> None:
    harness, _ = open_incident(database, before)
    reload(harness, TO_ONCALL)
    assert send(harness, RELOADED_AT) == OPENED
    assert load_routing_log(harness)[-3:] == [
        "the routes changed (22:15:20 UTC): route 1 does not match: group is empty, not Search",
        "the routes changed (22:15:20 UTC): route 2 matches: notifies oncall",
        "the routes changed (22:15:20 UTC): oncall/slack is notified (routes_changed)",
    ]
    log = load_routing_log(harness)
    for number, routes in enumerate((TO_ONCALL, NO_ROUTE, TO_PAGER, TO_ONCALL), 1):
        reload(harness, routes, RELOADED_AT + number * MINUTE_MS)
        assert send(harness, RELOADED_AT + number * MINUTE_MS) == [], "it has notified someone, and stays as it is"
    assert load_routing_log(harness) == log
    record(harness, "pass", RELOADED_AT + HOUR_MS)
    assert send(harness, RELOADED_AT + HOUR_MS) == [("p0", SLACK, "resolved")]


@pytest.mark.parametrize("before", [NO_ROUTE, NO_RECEIVER], ids=["no route", "no receiver"])
def test_a_start_sends_it_once(database: Database, before: NotificationRoutingTable) -> None:
    harness, _ = open_incident(database, before)
    harness.membership.leave(SLOT + 1)
    second = start(database, TO_ONCALL, RELOADED_AT, create_schema=False)
    assert send(second, RELOADED_AT) == OPENED
    second.membership.leave(RELOADED_AT + 1)
    third = start(database, TO_PAGER, RELOADED_AT + MINUTE_MS, create_schema=False)
    assert send(third, RELOADED_AT + MINUTE_MS) == []


def test_other_routes_that_lead_nowhere_send_nothing(database: Database) -> None:
    harness, _ = open_incident(database)
    log = load_routing_log(harness)
    reload(harness, NotificationRoutingTable(RECEIVERS, (replace(ONLY_SEARCH, receivers=("pager",)),)))
    assert send(harness, RELOADED_AT) == []
    assert load_routing_log(harness) == log


def test_a_resolved_one_stays_unsent(database: Database) -> None:
    harness, _ = open_incident(database)
    record(harness, "pass", SLOT + 1_000)
    reload(harness, TO_ONCALL)
    assert send(harness, RELOADED_AT) == []
    assert list_outbox(harness) == []


def test_one_that_resolves_between_reload_and_decision_stays_unsent(database: Database) -> None:
    harness, _ = open_incident(database)
    reload(harness, TO_ONCALL)
    record(harness, "pass", RELOADED_AT)
    assert send(harness, RELOADED_AT) == []
    assert list_outbox(harness) == []


@pytest.mark.parametrize("ends", ["by a person", "by its time"])
def test_a_silence_holds_it_back(database: Database, ends: str) -> None:
    harness, _ = open_incident(database)
    id = silence(harness, SLOT + 1, for_ms=HOUR_MS, id="p0")
    reload(harness, TO_ONCALL)
    assert send(harness, RELOADED_AT) == []
    assert list_outbox(harness) == [(SLACK, "opened", "silenced")]
    end_at = SLOT + 1 + HOUR_MS
    if ends == "by a person":
        end_silence(database, id, ANA, end_at)
    else:
        end_expired(harness, end_at)
    assert send(harness, end_at) == OPENED
    assert send(harness, end_at + MINUTE_MS) == []


def test_a_silence_that_ends_before_the_decision_leads_to_one_message(database: Database) -> None:
    harness, _ = open_incident(database)
    id = silence(harness, SLOT + 1, for_ms=HOUR_MS, id="p0")
    reload(harness, TO_ONCALL)
    end_silence(database, id, ANA, RELOADED_AT)
    assert send(harness, RELOADED_AT) == OPENED
    assert send(harness, RELOADED_AT + MINUTE_MS) == []


def test_an_acknowledgement_holds_it_back_until_it_is_taken_back(database: Database) -> None:
    harness, incident = open_incident(database)
    acknowledge_incident(database, incident, ANA, "", SLOT + 1)
    reload(harness, TO_ONCALL)
    reload(harness, TO_ONCALL, RELOADED_AT + 1)
    assert send(harness, RELOADED_AT + 1) == []
    held_back = "the routes changed (22:15:20 UTC): not sent to oncall/slack yet: the incident is acknowledged"
    assert load_routing_log(harness)[-1] == f"{held_back} (acknowledged)"
    reload(harness, TO_ONCALL, RELOADED_AT + 2 * MINUTE_MS)
    assert send(harness, RELOADED_AT + 2 * MINUTE_MS) == []
    assert "".join(load_routing_log(harness)).count("(acknowledged)") == 1
    remove_acknowledgement(database, incident, ANA, "", RELOADED_AT + HOUR_MS)
    assert send(harness, RELOADED_AT + HOUR_MS) == OPENED


def test_a_pause_holds_it_back_until_the_probe_is_resumed(database: Database) -> None:
    harness, _ = open_incident(database)
    pause_probe(database, "p0", None, ANA, "", now=SLOT + 1)
    reload(harness, TO_ONCALL)
    assert send(harness, RELOADED_AT) == []
    resume_probe(database, "p0", ANA, "", RELOADED_AT + HOUR_MS)
    assert send(harness, RELOADED_AT + HOUR_MS) == OPENED


@pytest.mark.parametrize("ends", ["by a person", "by its time"])
def test_maintenance_holds_it_back_until_it_ends(database: Database, ends: str) -> None:
    harness, _ = open_incident(database)
    request = MaintenanceRequest(ProbeMatcher(probe="p0"), SLOT + 1 + HOUR_MS)
    started = begin_maintenance(database, request, ANA, SLOT + 1)
    reload(harness, TO_ONCALL)
    assert send(harness, RELOADED_AT) == []
    assert load_routing_log(harness)[-1].endswith("the probe is in maintenance (in_maintenance)")
    end_at = SLOT + 1 + HOUR_MS
    if ends == "by a person":
        end_at -= MINUTE_MS
        end_maintenance(database, started.window.id, ANA, end_at)
    assert send(harness, end_at) == OPENED


def test_muting_holds_it_back_until_it_ends(database: Database) -> None:
    probes = make_probe("db"), make_probe("api", "db")
    harness = StoreHarness(database, probes, routes=NO_ROUTE, now=START_AT).without_downtime()
    harness.record_results(*(make_result(harness.database_id(id), SLOT, "fail") for id in ("db", "api")), now=SLOT)
    now = RELOADED_AT + HOUR_MS
    decide(harness, now)
    harness.routes = TO_ONCALL
    harness.membership.change_configuration(make_member_configuration(probes, TO_ONCALL), now)
    assert send(harness, now) == [("db", SLACK, "opened")]
    (muted,) = find_incidents(harness, "api")
    assert [row["state"] for row in harness.select_rows(outbox, outbox.c.incident == muted["id"])] == ["muted"]
    harness.record_results(make_result(harness.database_id("db"), now + MINUTE_MS, "pass"), now=now + MINUTE_MS)
    decide(harness, now + HOUR_MS)
    assert ("api", SLACK, "opened") in send(harness, now + HOUR_MS)
    assert ("api", SLACK, "opened") not in send(harness, now + 2 * HOUR_MS)


def test_a_route_that_also_escalates_there_sends_it_once(database: Database) -> None:
    harness, _ = open_incident(database)
    reload(harness, ESCALATES_TO_SAME)
    assert send(harness, RELOADED_AT) == [*OPENED, ("p0", PAGER, "opened")]
    assert send(harness, RELOADED_AT + HOUR_MS) == []
    assert list_outbox(harness) == [(SLACK, "opened", "sent"), (PAGER, "opened", "sent")]


def test_one_whose_notification_was_given_up_stays_as_it_is(database: Database) -> None:
    harness = start(database, TO_ONCALL)
    record(harness, "fail", SLOT)
    (leased,) = harness.lease_notifications(SLOT)
    harness.outbox.mark_undelivered(leased, "HTTP 400", SLOT)
    reload(harness, TO_PAGER)
    assert send(harness, RELOADED_AT) == []


def test_an_alert_that_flaps_sends_one_notice(database: Database) -> None:
    harness = start(database, NO_ROUTE)
    for number in range(3):
        record(harness, "fail", SLOT + 2 * number * INTERVAL_MS)
        if number < 2:
            record(harness, "pass", SLOT + (2 * number + 1) * INTERVAL_MS)
    assert len(harness.select_rows(flapping_alerts)) == 1
    now = SLOT + 5 * INTERVAL_MS
    reload(harness, TO_ONCALL, now)
    assert send(harness, now) == OPENED
    assert send(harness, now + MINUTE_MS) == []


def test_one_that_opens_while_its_alert_flaps_belongs_to_the_notice_that_was_sent(database: Database) -> None:
    harness = start(database, TO_ONCALL)
    for number in range(3):
        record(harness, "fail", SLOT + 2 * number * INTERVAL_MS)
        send(harness, SLOT + 2 * number * INTERVAL_MS)
        record(harness, "pass", SLOT + (2 * number + 1) * INTERVAL_MS)
        send(harness, SLOT + (2 * number + 1) * INTERVAL_MS)
    (notice,) = harness.select_rows(flapping_alerts)
    reload(harness, NO_ROUTE, SLOT + 5 * INTERVAL_MS + 1)
    record(harness, "fail", SLOT + 6 * INTERVAL_MS)
    now = SLOT + 6 * INTERVAL_MS + 1
    reload(harness, TO_ONCALL, now)
    assert send(harness, now) == []
    newest = max(harness.select_rows(incidents), key=lambda row: row["opened_at"])["id"]
    (row,) = harness.select_rows(outbox, outbox.c.incident == newest)
    assert (row["state"], row["lead_incident"]) == ("flapping", notice["id"])


def test_the_group_that_it_joins_is_not_reminded_as_well(database: Database) -> None:
    probes = [
        replace(make_registered_probe(id, failure_threshold=1, success_threshold=1), repeat_interval_ms=HOUR_MS)
        for id in ("p0", "p1")
    ]
    grouped = NotificationRoute(("oncall",), group_by=())
    not_p0 = NotificationRoutingTable(RECEIVERS, (NotificationRoute((), ProbeMatcher(probe="p0")), grouped))
    harness = StoreHarness(database, probes, routes=not_p0, now=START_AT).without_downtime()
    for number, id in enumerate(("p0", "p1")):
        harness.record_results(make_result(harness.database_id(id), SLOT + number, "fail"), now=SLOT + number)
    assert send(harness, SLOT + 1) == [("p1", SLACK, "opened")]
    now = SLOT + 1 + HOUR_MS
    harness.routes = NotificationRoutingTable(RECEIVERS, (grouped,))
    harness.membership.change_configuration(make_member_configuration(probes, harness.routes), now)
    send(harness, now)
    assert [event for _, event, _ in list_outbox(harness)] == ["opened", "opened"]
    assert len({row["lead_incident"] for row in harness.select_rows(outbox)}) == 1


def test_one_that_opens_by_routes_that_another_process_has_replaced_is_sent(databases: DatabasePair) -> None:
    """The second process has registered its routes, and the first opens an incident before it knows them."""
    first = start(databases.first, NO_ROUTE)
    second = start(databases.second, TO_ONCALL, SLOT - 1, create_schema=False)
    record(first, "fail", SLOT)
    assert send(second, SLOT) == []
    assert send(second, SLOT + WATCHDOG_PROCESS_LEASE_MS) == OPENED
    assert second.select_rows(incident_follow_ups) == []


def test_two_processes_send_it_once(databases: DatabasePair) -> None:
    first, _ = open_incident(databases.first)
    reload(first, TO_ONCALL)
    second = start(databases.second, TO_ONCALL, RELOADED_AT, create_schema=False)
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(enqueue_due_reminders_and_escalations, database, RELOADED_AT)
            for database in (databases.first, databases.second)
        ]
        assert sorted(len(each.result(60)) for each in both) == [0, 1]
    assert send(second, RELOADED_AT) + send(first, RELOADED_AT) == OPENED


@pytest.mark.parametrize(
    ("module", "function"),
    [(late_openings, "append_routing_log_entries"), (follow_ups, "schedule_follow_ups")],
    ids=["before it is enqueued", "after it is enqueued"],
)
def test_a_kill_before_the_commit_leads_to_one_message(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: Any, function: str
) -> None:
    harness, _ = open_incident(database)
    reload(harness, TO_ONCALL)
    with monkeypatch.context() as patch:
        patch.setattr(module, function, raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            enqueue_due_reminders_and_escalations(database, RELOADED_AT)
    assert list_outbox(harness) == []
    assert send(harness, RELOADED_AT) == OPENED
    assert send(harness, RELOADED_AT + HOUR_MS) == []


def test_a_kill_between_the_registration_and_the_schedule_is_made_up_for_by_the_next_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, _ = open_incident(database)
    with monkeypatch.context() as patch:
        patch.setattr("watchdog.store.write.members.schedule_immediate_deadline_evaluation", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            reload(harness, TO_ONCALL)
    now = RELOADED_AT + 2 * WATCHDOG_PROCESS_LEASE_MS
    second = start(database, TO_ONCALL, now, create_schema=False)
    assert send(second, now) == OPENED


def test_a_replay_decides_the_same(database: Database) -> None:
    harness, _ = open_incident(database)
    before = replay(harness)
    reload(harness, TO_ONCALL)
    send(harness, RELOADED_AT)
    assert replay(harness) == before


def replay(harness: StoreHarness) -> tuple[Mapping[Any, Any], Any]:
    return harness.replay_probe(harness.database_id("p0"), RELOADED_AT)


def test_a_sent_one_shares_no_row_with_an_earlier_incident(database: Database) -> None:
    """Identities of rows are those of any opening: the incident, the destination and the number 0."""
    harness, incident = open_incident(database)
    reload(harness, TO_ONCALL)
    send(harness, RELOADED_AT)
    row = harness.select_row(outbox)
    assert (row["incident"], row["destination"], row["seq"]) == (incident, SLACK, 0)
    assert row["lead_incident"] == incident


def raise_interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
