"""Reminders of open incidents, and escalation to further receivers: what is enqueued, when, and how often."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.support.acts import ANA, BEN, end_expired, find_probe_of_incident, list_outbox, send_due, silence
from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.registered_probe import RegisteredProbe
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
from watchdog.store.codec import decode_notification_routing_table, encode_notification_routing_table
from watchdog.store.database import Database
from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.follow_ups import list_incidents_with_due_follow_ups
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.pauses import end_expired_pauses

SLOT = START_AT + INTERVAL_MS
REPEAT_MS, AFTER_MS = 4 * HOUR_MS, 15 * MINUTE_MS
SLACK, EMAIL, PAGER = "oncall/slack", "oncall/email", "pager/webhook"
RECEIVERS = {"oncall": (SLACK,), "pager": (PAGER,)}
TO_PAGER = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
ESCALATES = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("oncall",), escalation_steps=(TO_PAGER,)),))
NO_ESCALATION = NotificationRoutingTable({"oncall": (SLACK,)})
Sent = tuple[str, str, str]


def make_probe(id: str = "p0", *, target: str = "", repeat_ms: int = REPEAT_MS) -> RegisteredProbe:
    probe = make_registered_probe(id, failure_threshold=1, success_threshold=1)
    policy = replace(probe.policy, probe=replace(probe.info, target=target))
    return replace(probe, policy=policy, repeat_interval_ms=repeat_ms)


def make_harness(
    database: Database, routes: NotificationRoutingTable = ESCALATES, *probes: RegisteredProbe, **options: Any
) -> StoreHarness:
    return StoreHarness(database, probes or [make_probe()], routes=routes, **options).without_downtime()


def record(harness: StoreHarness, outcome: str, at: int, probe: str = "p0", reason: str = "") -> None:
    more: dict[str, Any] = {"reason": reason, "message": reason} if reason else {}
    harness.record_results(make_result(harness.database_id(probe), at, outcome, **more), now=at)


def find_incident(harness: StoreHarness, probe: str = "p0") -> str:
    rows = harness.select_rows(incidents, incidents.c.probe == harness.database_id(probe))
    return str(rows[-1]["id"])


def enqueue_due(harness: StoreHarness, now: int) -> list[tuple[str, str]]:
    """As the background task does. Returns destination and event of each."""
    enqueued = []
    with harness.database.open_read_transaction() as connection:
        is_due = bool(list_incidents_with_due_follow_ups(connection, now))
    if is_due:
        enqueued = [(each[1], each[2].value) for each in enqueue_due_reminders_and_escalations(harness.database, now)]
    return enqueued


def send(harness: StoreHarness, now: int) -> list[Sent]:
    enqueue_due(harness, now)
    return send_due(harness, now)


def open_and_send(harness: StoreHarness) -> str:
    """An incident of which oncall/slack was notified, and its id."""
    record(harness, "fail", SLOT)
    assert send(harness, SLOT) == [("p0", SLACK, "opened")]
    return find_incident(harness)


# ------------------------------------------------------------------------------------------------------------ reminders


def test_a_reminder_follows_the_last_message_after_the_interval(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    assert send(harness, SLOT + REPEAT_MS - 1) == []
    assert send(harness, SLOT + REPEAT_MS) == [("p0", SLACK, "reminder")]
    assert send(harness, SLOT + REPEAT_MS + 1) == []
    record(harness, "fail", SLOT + REPEAT_MS + HOUR_MS, reason="canary.lost")
    assert send(harness, SLOT + REPEAT_MS + HOUR_MS) == [("p0", SLACK, "changed")]
    assert send(harness, SLOT + 2 * REPEAT_MS) == [], "it counts from the change"
    assert send(harness, SLOT + 2 * REPEAT_MS + HOUR_MS) == [("p0", SLACK, "reminder")]
    record(harness, "pass", SLOT + 3 * REPEAT_MS)
    assert send(harness, SLOT + 3 * REPEAT_MS) == [("p0", SLACK, "resolved")]
    assert harness.select_rows(incident_follow_ups) == []
    assert send(harness, SLOT + 9 * REPEAT_MS) == []


def test_after_a_downtime_there_is_one_late_reminder(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    late = SLOT + 10 * REPEAT_MS + 1
    assert send(harness, late) == [("p0", SLACK, "reminder")]
    assert send(harness, late + REPEAT_MS - 1) == []
    assert send(harness, late + REPEAT_MS) == [("p0", SLACK, "reminder")]


def test_a_probe_without_an_interval_has_no_reminders(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION, make_probe(repeat_ms=0))
    open_and_send(harness)
    assert harness.select_rows(incident_follow_ups) == []


def test_a_destination_that_repeats_alerts_gets_none(database: Database) -> None:
    routes = NotificationRoutingTable({"oncall": (SLACK, EMAIL)}, without_reminders=frozenset({EMAIL}))
    harness = make_harness(database, routes)
    record(harness, "fail", SLOT)
    assert send(harness, SLOT) == [("p0", EMAIL, "opened"), ("p0", SLACK, "opened")]
    assert send(harness, SLOT + REPEAT_MS) == [("p0", SLACK, "reminder")]


def test_after_an_acknowledgement_there_are_none_until_it_is_taken_back(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    incident = open_and_send(harness)
    acknowledge_incident(database, incident, ANA, "", SLOT + HOUR_MS)
    assert send(harness, SLOT + 2 * REPEAT_MS) == []
    remove_acknowledgement(database, incident, BEN, "", SLOT + 3 * REPEAT_MS)
    assert send(harness, SLOT + 3 * REPEAT_MS) == [("p0", SLACK, "reminder")]
    assert send(harness, SLOT + 4 * REPEAT_MS) == [("p0", SLACK, "reminder")]


def test_during_a_silence_there_are_none(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    id = silence(harness, SLOT + 1, for_ms=3 * REPEAT_MS)
    assert send(harness, SLOT + 2 * REPEAT_MS) == []
    end_silence(database, id, BEN, SLOT + 2 * REPEAT_MS + 1)
    assert send(harness, SLOT + 2 * REPEAT_MS + 1) == [("p0", SLACK, "reminder")]


def test_while_the_probe_is_paused_there_are_none(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    pause_probe(database, "p0", None, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + 2 * REPEAT_MS) == []
    resume_probe(database, "p0", BEN, "", SLOT + 2 * REPEAT_MS + 1)
    assert send(harness, SLOT + 2 * REPEAT_MS + 1) == [("p0", SLACK, "reminder")]


@pytest.mark.parametrize("is_ended_early", [True, False])
def test_during_maintenance_there_are_none(database: Database, is_ended_early: bool) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    request, end = MaintenanceRequest(ProbeMatcher(probe="p0"), SLOT + 3 * REPEAT_MS), SLOT + 3 * REPEAT_MS
    id = begin_maintenance(database, request, ANA, SLOT + 1).window.id
    assert send(harness, SLOT + 2 * REPEAT_MS) == []
    if is_ended_early:
        end = SLOT + 2 * REPEAT_MS + 1
        end_maintenance(database, id, BEN, end)
    else:
        assert send(harness, end - 1) == []
    assert send(harness, end) == [("p0", SLACK, "reminder")]


def test_the_pause_of_another_probe_changes_nothing(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION, make_probe(), make_probe("p1"))
    open_and_send(harness)
    pause_probe(database, "p1", None, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + REPEAT_MS) == [("p0", SLACK, "reminder")]


@pytest.mark.parametrize("act", ["acknowledge", "silence", "pause", "maintenance", "resolve"])
def test_a_reminder_that_waits_is_dropped_once_no_one_needs_it(database: Database, act: str) -> None:
    routes = replace(NO_ESCALATION, without_resolved=frozenset({SLACK}))
    harness = make_harness(database, routes)
    incident, due_at = open_and_send(harness), SLOT + REPEAT_MS
    assert enqueue_due(harness, due_at) == [(SLACK, "reminder")]
    if act == "acknowledge":
        acknowledge_incident(database, incident, ANA, "", due_at + 1)
    elif act == "silence":
        silence(harness, due_at + 1)
    elif act == "pause":
        pause_probe(database, "p0", None, ANA, "", now=due_at + 1)
    elif act == "maintenance":
        begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe="p0"), due_at + HOUR_MS), ANA, due_at + 1)
    else:
        record(harness, "pass", due_at + 1)
    assert send_due(harness, due_at + 1) == []
    assert (SLACK, "reminder", "merged") in list_outbox(harness)


def test_a_reminder_that_was_dropped_is_due_again_after_the_silence(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    due_at = SLOT + REPEAT_MS
    enqueue_due(harness, due_at)
    id = silence(harness, due_at + 1)
    record(harness, "fail", due_at + 2, reason="canary.lost")
    assert send(harness, due_at + 2) == []
    end_silence(database, id, BEN, due_at + 3)
    assert send(harness, due_at + 3) == [("p0", SLACK, "reminder")], "which states the new cause as well"
    assert send(harness, due_at + 3 + REPEAT_MS) == [("p0", SLACK, "reminder")]


def test_a_reminder_that_was_dropped_is_due_again_after_maintenance(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    due_at, end = SLOT + REPEAT_MS, SLOT + REPEAT_MS + HOUR_MS
    enqueue_due(harness, due_at)
    begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe="p0"), end), ANA, due_at + 1)
    assert send(harness, due_at + 2) == send(harness, end - 1) == []
    assert send(harness, end) == [("p0", SLACK, "reminder")]


def test_a_change_of_the_cause_is_not_lost_with_a_reminder_that_is_dropped(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    incident, due_at = open_and_send(harness), SLOT + REPEAT_MS
    enqueue_due(harness, due_at)
    record(harness, "fail", due_at + 1, reason="canary.lost")
    acknowledge_incident(database, incident, ANA, "", due_at + 2)
    assert send_due(harness, due_at + 2) == [("p0", SLACK, "changed")]


def test_a_reminder_is_sent_even_if_the_cause_changes_first(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    enqueue_due(harness, SLOT + REPEAT_MS)
    record(harness, "fail", SLOT + REPEAT_MS + 1, reason="canary.lost")
    assert send_due(harness, SLOT + REPEAT_MS + 1) == [("p0", SLACK, "reminder")], "which states the new cause"


def test_a_destination_that_is_no_longer_configured_gets_none(database: Database) -> None:
    open_and_send(make_harness(database, NO_ESCALATION))
    now, routes = SLOT + 2 * REPEAT_MS, NotificationRoutingTable({"pager": (PAGER,)})
    second = StoreHarness(database, [make_probe()], routes=routes, create_schema=False, now=now).without_downtime()
    assert enqueue_due(second, now) == []


def test_who_does_not_know_of_the_incident_is_not_reminded(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    record(harness, "fail", SLOT)
    assert enqueue_due(harness, SLOT + REPEAT_MS) == [], "it waits to be sent"
    (leased,) = harness.lease_notifications(SLOT + REPEAT_MS)
    harness.outbox.mark_undelivered(leased, "HTTP 410", SLOT + REPEAT_MS)
    assert send(harness, SLOT + 9 * REPEAT_MS) == []


def test_a_reminder_that_is_given_up_is_not_repeated_at_once(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    due_at = SLOT + REPEAT_MS
    enqueue_due(harness, due_at)
    (leased,) = harness.lease_notifications(due_at)
    harness.outbox.mark_undelivered(leased, "HTTP 410", due_at + 1)
    assert send(harness, due_at + REPEAT_MS) == []
    assert send(harness, due_at + REPEAT_MS + 1) == [("p0", SLACK, "reminder")]


def test_a_group_gets_one_reminder_that_names_all(database: Database) -> None:
    probes = [make_probe(f"p{number}", target="https://api.example/") for number in range(3)]
    harness = make_harness(database, NO_ESCALATION, *probes)
    for number in range(3):
        record(harness, "fail", SLOT + number, f"p{number}")
    assert [event for _, _, event in send(harness, SLOT + 10)] == ["opened"]
    send(harness, SLOT + 10 * MINUTE_MS)
    send(harness, SLOT + 11 * MINUTE_MS)
    due_at = SLOT + 11 * MINUTE_MS + REPEAT_MS
    enqueued = enqueue_due(harness, due_at)
    assert enqueued == [(SLACK, "reminder")]
    (leased,) = harness.lease_notifications(due_at)
    assert (leased.notification.event, len(leased.named_incidents)) == ("reminder", 3)
    harness.outbox.mark_sent(leased, {}, due_at, "headline", "cause")
    assert send(harness, due_at + REPEAT_MS - 1) == []


def test_a_reminder_of_a_group_names_what_is_over_by_then(database: Database) -> None:
    probes = [make_probe(f"p{number}", target="https://api.example/") for number in range(3)]
    harness = make_harness(database, NO_ESCALATION, *probes)
    for number in range(3):
        record(harness, "fail", SLOT + number, f"p{number}")
    send(harness, SLOT + 10)
    send(harness, SLOT + 10 * MINUTE_MS)
    record(harness, "pass", SLOT + HOUR_MS, "p0")
    record(harness, "fail", SLOT + HOUR_MS, "p1", reason="canary.lost")
    assert send(harness, SLOT + HOUR_MS) == [], "the next message states both"
    assert [event for _, _, event in send(harness, SLOT + 2 * REPEAT_MS)] == ["reminder"]
    record(harness, "pass", SLOT + 3 * REPEAT_MS, "p1")
    record(harness, "pass", SLOT + 3 * REPEAT_MS, "p2")
    assert [event for _, _, event in send(harness, SLOT + 3 * REPEAT_MS)] == ["resolved"]


def test_a_group_is_reminded_of_while_one_is_not_acknowledged(database: Database) -> None:
    probes = [make_probe(f"p{number}", target="https://api.example/") for number in range(2)]
    harness = make_harness(database, NO_ESCALATION, *probes)
    for number in range(2):
        record(harness, "fail", SLOT + number, f"p{number}")
    send(harness, SLOT + 10)
    send(harness, SLOT + 10 * MINUTE_MS)
    assert len(enqueue_due(harness, SLOT + 2 * REPEAT_MS)) == 1
    acknowledge_incident(database, find_incident(harness, "p0"), ANA, "", SLOT + 2 * REPEAT_MS + 1)
    assert [event for _, _, event in send_due(harness, SLOT + 2 * REPEAT_MS + 1)] == ["reminder"]
    assert len(send(harness, SLOT + 4 * REPEAT_MS)) == 1
    acknowledge_incident(database, find_incident(harness, "p1"), ANA, "", SLOT + 4 * REPEAT_MS + 1)
    assert send(harness, SLOT + 9 * REPEAT_MS) == []


def test_many_reminders_are_merged_like_other_messages(database: Database) -> None:
    probes = [make_probe(f"p{number:02}") for number in range(12)]
    harness = make_harness(database, NO_ESCALATION, *probes)
    for number in range(12):
        record(harness, "fail", SLOT + number, f"p{number:02}")
        send_due(harness, SLOT + number)
    assert len(enqueue_due(harness, SLOT + 2 * REPEAT_MS)) == 12
    (leased,) = harness.lease_notifications(SLOT + 2 * REPEAT_MS)
    assert (leased.notification.event, len(leased.named_incidents)) == ("reminder", 12)


@pytest.mark.parametrize("step_ms", [-2 * HOUR_MS, 24 * HOUR_MS])
def test_a_step_of_the_clock_keeps_the_distance(database: Database, step_ms: int) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    now = SLOT + 1_000
    harness.advance_watermark(now)
    assert adopt_clock_step(database, "local", generation=0, to=now + step_ms, now=now) is not None
    with database.open_read_transaction() as connection:
        assert list_incidents_with_due_follow_ups(connection, SLOT + step_ms + AFTER_MS - 1) == []
        assert len(list_incidents_with_due_follow_ups(connection, SLOT + step_ms + AFTER_MS)) == 1
    row = harness.select_row(incident_follow_ups)
    assert row["decide_at"] - harness.select_row(incidents)["opened_at"] == AFTER_MS


def test_another_configuration_takes_effect_at_once(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION, make_probe(repeat_ms=0))
    open_and_send(harness)
    now = SLOT + HOUR_MS
    second = StoreHarness(
        database, [make_probe(repeat_ms=30 * MINUTE_MS)], routes=ESCALATES, create_schema=False, now=now
    ).without_downtime()
    assert send(second, now) == [("p0", SLACK, "reminder"), ("p0", PAGER, "opened")]


def test_two_processes_enqueue_a_reminder_once(databases: DatabasePair) -> None:
    harness = make_harness(databases.first)
    open_and_send(harness)
    due_at = SLOT + REPEAT_MS
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(enqueue_due_reminders_and_escalations, database, due_at)
            for database in (databases.first, databases.second)
        ]
        counts = sorted(len(each.result(60)) for each in both)
    assert counts == [0, 2], "one reminder, and one escalation"
    assert send_due(harness, due_at) == [("p0", SLACK, "reminder"), ("p0", PAGER, "opened")]


def test_two_processes_enqueue_one_reminder_for_a_group(databases: DatabasePair) -> None:
    probes = [make_probe(f"p{number}", target="https://api.example/") for number in range(2)]
    harness = make_harness(databases.first, NO_ESCALATION, *probes)
    for number in range(2):
        record(harness, "fail", SLOT + number, f"p{number}")
    send(harness, SLOT + 10)
    send(harness, SLOT + 10 * MINUTE_MS)
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(enqueue_due_reminders_and_escalations, database, SLOT + 2 * REPEAT_MS)
            for database in (databases.first, databases.second)
        ]
        assert sum(len(each.result(60)) for each in both) == 1


def test_a_kill_before_the_send_leads_to_one_reminder(database: Database) -> None:
    harness = make_harness(database, NO_ESCALATION)
    open_and_send(harness)
    due_at = SLOT + REPEAT_MS
    enqueue_due(harness, due_at)
    harness.lease_notifications(due_at, 30_000)  # and the process is killed
    assert send(harness, due_at + 29_999) == []
    assert send(harness, due_at + 30_000) == [("p0", SLACK, "reminder")]
    assert send(harness, due_at + REPEAT_MS) == [], "it counts from when it was sent"


def test_a_kill_before_the_commit_leads_to_one_reminder(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog.store.write import follow_ups

    harness = make_harness(database)
    open_and_send(harness)
    with monkeypatch.context() as patch:
        patch.setattr(follow_ups, "schedule_follow_ups", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            enqueue_due_reminders_and_escalations(database, SLOT + REPEAT_MS)
    assert send(harness, SLOT + REPEAT_MS) == [("p0", SLACK, "reminder"), ("p0", PAGER, "opened")]


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# ----------------------------------------------------------------------------------------------------------- escalation


def test_further_receivers_are_notified_once_and_then_like_the_others(database: Database) -> None:
    harness = make_harness(database, ESCALATES, make_probe(repeat_ms=0))
    incident = open_and_send(harness)
    assert send(harness, SLOT + AFTER_MS - 1) == []
    assert send(harness, SLOT + AFTER_MS) == [("p0", PAGER, "opened")]
    assert harness.select_rows(incident_follow_ups) == [], "nothing is left to decide"
    record(harness, "fail", SLOT + HOUR_MS, reason="canary.lost")
    assert send(harness, SLOT + HOUR_MS) == [("p0", SLACK, "changed"), ("p0", PAGER, "changed")]
    assert send(harness, SLOT + 2 * HOUR_MS) == []
    record(harness, "pass", SLOT + 3 * HOUR_MS)
    assert send(harness, SLOT + 3 * HOUR_MS) == [("p0", SLACK, "resolved"), ("p0", PAGER, "resolved")]
    log = harness.select_row(incidents, incidents.c.id == incident)["routing_log"]
    assert "after the opening, not acknowledged, it escalates to pager" in log


def test_the_message_states_that_it_was_escalated(database: Database) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    enqueue_due(harness, SLOT + AFTER_MS)
    (leased,) = harness.lease_notifications(SLOT + AFTER_MS)
    with database.open_read_transaction() as connection:
        context = load_alert_message_context(connection, leased.notification, SLOT + AFTER_MS)
        other = load_alert_message_context(connection, replace(leased.notification, destination=SLACK), SLOT + AFTER_MS)
    assert (context.escalated_after_ms, other.escalated_after_ms) == (AFTER_MS, None)


def test_an_incident_that_is_over_in_time_is_not_escalated(database: Database) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    record(harness, "pass", SLOT + AFTER_MS - 1)
    assert send(harness, SLOT + AFTER_MS - 1) == [("p0", SLACK, "resolved")]
    assert send(harness, SLOT + AFTER_MS) == []


def test_an_acknowledgement_cancels_it_and_taking_that_back_begins_the_time_again(database: Database) -> None:
    harness = make_harness(database)
    incident = open_and_send(harness)
    acknowledge_incident(database, incident, ANA, "", SLOT + AFTER_MS - 1)
    assert send(harness, SLOT + HOUR_MS) == []
    remove_acknowledgement(database, incident, BEN, "", SLOT + HOUR_MS)
    assert send(harness, SLOT + HOUR_MS + AFTER_MS - 1) == []
    assert send(harness, SLOT + HOUR_MS + AFTER_MS) == [("p0", PAGER, "opened")]


def test_a_step_without_a_condition_is_not_cancelled(database: Database) -> None:
    step = replace(TO_PAGER, unless_acknowledged=False)
    routes = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("oncall",), escalation_steps=(step,)),))
    harness = make_harness(database, routes)
    incident = open_and_send(harness)
    acknowledge_incident(database, incident, ANA, "", SLOT + 1)
    assert send(harness, SLOT + AFTER_MS) == [("p0", PAGER, "opened")]


def test_a_silence_postpones_it_until_it_ends(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 1, for_ms=HOUR_MS)
    record(harness, "fail", SLOT)
    assert send(harness, SLOT + AFTER_MS) == []
    end_expired(harness, SLOT - 1 + HOUR_MS)
    assert send(harness, SLOT - 1 + HOUR_MS) == [("p0", SLACK, "opened"), ("p0", PAGER, "opened")]


def test_a_pause_postpones_it_until_the_probe_is_resumed(database: Database) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    pause_probe(database, "p0", SLOT + HOUR_MS, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + AFTER_MS) == []
    end_expired_pauses(database, LOCATION, SLOT + HOUR_MS)
    assert send(harness, SLOT + HOUR_MS) == [("p0", PAGER, "opened")]


def test_an_escalation_that_maintenance_held_back_is_sent_when_it_ends(database: Database) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    end = SLOT + 2 * AFTER_MS
    begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe="p0"), end), ANA, SLOT + 1)
    assert send(harness, SLOT + AFTER_MS) == send(harness, end - 1) == []
    assert send(harness, end) == [("p0", PAGER, "opened")]


def test_an_escalation_that_a_silence_held_back_is_sent_when_it_ends(database: Database) -> None:
    harness = make_harness(database)
    open_and_send(harness)
    assert enqueue_due(harness, SLOT + AFTER_MS) == [(PAGER, "opened")]
    id = silence(harness, SLOT + AFTER_MS + 1)
    assert send(harness, SLOT + AFTER_MS + 1) == []
    end_silence(database, id, BEN, SLOT + AFTER_MS + 2)
    assert send(harness, SLOT + AFTER_MS + 2) == [("p0", PAGER, "opened")]
    assert send(harness, SLOT + HOUR_MS) == []


def test_an_escalation_that_failed_as_a_silence_began_is_sent_when_that_ends(database: Database) -> None:
    """Another process drops the edit for a destination that cannot show it, while the escalation is being sent."""
    harness = make_harness(database)
    open_and_send(harness)
    at = SLOT + AFTER_MS
    enqueue_due(harness, at)
    (escalation,) = harness.lease_notifications(at)
    id = silence(harness, at + 1)
    assert harness.outbox.lease_due_notifications(at + 2, LEASE_MS, [PAGER]) == []
    harness.outbox.schedule_notification_retry(escalation, at + 3, "HTTP 503", failed_at=at + 3)
    assert (PAGER, "silence", "merged") in list_outbox(harness)
    end_silence(database, id, BEN, at + 4)
    assert ("p0", PAGER, "opened") in send(harness, at + 4)


def test_steps_follow_one_another_and_notify_each_destination_once(database: Database) -> None:
    steps = (TO_PAGER, EscalationStep(HOUR_MS, ("boss", "pager")), EscalationStep(2 * HOUR_MS, ("oncall",)))
    receivers = {**RECEIVERS, "boss": (EMAIL,)}
    routes = NotificationRoutingTable(receivers, (NotificationRoute(("oncall",), escalation_steps=steps),))
    harness = make_harness(database, routes, make_probe(repeat_ms=0))
    open_and_send(harness)
    sent = [send(harness, SLOT + minutes * MINUTE_MS) for minutes in range(1, 180)]
    assert [each for each in sent if each] == [[("p0", PAGER, "opened")], [("p0", EMAIL, "opened")]]


def test_after_a_downtime_every_step_is_late_and_sent_once(database: Database) -> None:
    harness = make_harness(database, ESCALATES, make_probe(repeat_ms=0))
    open_and_send(harness)
    late = SLOT + 100 * HOUR_MS
    assert send(harness, late) == [("p0", PAGER, "opened")]
    assert send(harness, late + HOUR_MS) == []


def test_a_route_that_the_new_cause_selects_escalates_as_well(database: Database) -> None:
    for_lost = NotificationRoute(("oncall",), reason_patterns=("canary",), escalation_steps=(TO_PAGER,))
    routes = NotificationRoutingTable(RECEIVERS, (for_lost, NotificationRoute(("oncall",))))
    harness = make_harness(database, routes, make_probe(repeat_ms=0))
    open_and_send(harness)
    assert send(harness, SLOT + HOUR_MS) == []
    record(harness, "fail", SLOT + HOUR_MS + 1, reason="canary.lost")
    assert send(harness, SLOT + HOUR_MS + 1) == [("p0", SLACK, "changed"), ("p0", PAGER, "opened")]


def test_incidents_of_a_group_are_escalated_in_one_message(database: Database) -> None:
    probes = [make_probe(f"p{number}", target="https://api.example/", repeat_ms=0) for number in range(3)]
    harness = make_harness(database, ESCALATES, *probes)
    for number in range(3):
        record(harness, "fail", SLOT + number, f"p{number}")
    send(harness, SLOT + 10)
    assert enqueue_due(harness, SLOT + AFTER_MS + 2) == [(PAGER, "opened")] * 3
    leased = {each.notification.destination: each for each in harness.lease_notifications(SLOT + AFTER_MS + 2)}
    assert len(leased[PAGER].named_incidents) == 3


def test_more_incidents_than_one_transaction_takes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.store.read.follow_ups.MAX_FOLLOW_UPS_PER_TRANSACTION", 2)
    harness = make_harness(database, ESCALATES, *(make_probe(f"p{number}") for number in range(5)))
    for number in range(5):
        record(harness, "fail", SLOT + number, f"p{number}")
    counts = [len(enqueue_due(harness, SLOT + HOUR_MS)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]
    assert names_of(harness, "opened", PAGER) == {f"p{number}" for number in range(5)}


def names_of(harness: StoreHarness, event: str, destination: str) -> Collection[str]:
    rows = harness.select_rows(outbox, outbox.c.event == event, outbox.c.destination == destination)
    return {find_probe_of_incident(harness, row["incident"]) for row in rows}


def test_the_routing_table_is_stored_with_its_steps() -> None:
    routes = replace(ESCALATES, without_reminders=frozenset({PAGER}))
    assert decode_notification_routing_table(encode_notification_routing_table(routes)) == routes
