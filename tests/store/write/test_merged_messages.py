"""Storms: messages that are merged because too many wait, and critical incidents that come first."""

from __future__ import annotations

from dataclasses import replace

from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    START_AT,
    StoreHarness,
    make_registered_probe,
    make_registered_probes,
    make_result,
)
from watchdog.domain.delivery_pace import MAX_UNMERGED_DUE_MESSAGES, NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS
from watchdog.domain.model import IncidentEvent, Severity
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.store.database import Database
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.tables import destination_backoff, incidents, messages, outbox
from watchdog.store.write.outbox_lease import LeasedNotification

SLOT = START_AT + INTERVAL_MS
SLACK_ONLY = NotificationRoutingTable({"oncall": ("oncall/slack",)})
STORM = MAX_UNMERGED_DUE_MESSAGES + 5


def make_storm(database: Database, count: int = STORM) -> StoreHarness:
    """The probes; the last one is critical."""
    probes = make_registered_probes(count, failure_threshold=1, success_threshold=1)
    critical = make_registered_probe("z", failure_threshold=1, success_threshold=1, severity=Severity.CRITICAL)
    return StoreHarness(database, [*probes, critical], routes=SLACK_ONLY).without_downtime()


def record_outcome(harness: StoreHarness, probes: list[int], outcome: str, at: int) -> None:
    harness.record_results(*[make_result(probe, at, outcome) for probe in probes], now=at)


def lease(harness: StoreHarness, now: int, *, editing: bool = False) -> list[LeasedNotification]:
    names = ["oncall/slack"]
    return harness.outbox.lease_due_notifications(now, LEASE_MS, names, names if editing else [])


def send_all(harness: StoreHarness, now: int, *, editing: bool = False) -> list[LeasedNotification]:
    """Send what is due now, one after the other."""
    sent = []
    while leased := lease(harness, now, editing=editing):
        for each in leased:
            harness.outbox.mark_sent(
                each, {"ts": "1"} if not each.is_merge_of_separate_messages else {}, now, "headline", "cause"
            )
            sent.append(each)
    return sent


def count_named(leased: LeasedNotification) -> int:
    return len(leased.named_incidents) or 1


def test_the_critical_incident_is_sent_first_and_then_the_oldest(database: Database) -> None:
    harness = make_storm(database, 4)
    for i, probe in enumerate(harness.database_ids):
        record_outcome(harness, [probe], "fail", SLOT + i)
    names = {row["id"]: row["probe"] for row in harness.select_rows(incidents)}
    order = [names[each.notification.incident] for each in send_all(harness, SLOT + 1_000)]
    assert order == [harness.database_ids[-1], *harness.database_ids[:-1]]


def test_more_than_ten_waiting_messages_become_one_that_names_all(database: Database) -> None:
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    (leased,) = send_all(harness, SLOT)
    assert (leased.notification.event, count_named(leased)) == (IncidentEvent.OPENED, STORM + 1)
    with harness.database.open_read_transaction() as connection:
        context = load_alert_message_context(
            connection, leased.notification, SLOT, named_incidents=leased.named_incidents
        )  # fmt: skip
    assert {member.incident.id for member in context.members} == {row["id"] for row in harness.select_rows(incidents)}
    assert context.members[0].incident.severity is Severity.CRITICAL
    assert context.shared_cause == ""
    assert {row["state"] for row in harness.select_rows(outbox)} == {"sent"}
    assert len(harness.select_rows(messages)) == STORM + 1, "each incident has its message"


def test_after_a_merged_message_only_critical_ones_are_sent_for_a_minute(database: Database) -> None:
    harness = make_storm(database, STORM + 3)
    *first, a, b, c, critical = harness.database_ids
    record_outcome(harness, first, "fail", SLOT)
    assert [count_named(each) for each in send_all(harness, SLOT)] == [STORM]
    assert harness.select_row(destination_backoff)["merged_at"] == SLOT
    record_outcome(harness, [a, b, c], "fail", SLOT + 1_000)
    assert send_all(harness, SLOT + 1_000) == []
    record_outcome(harness, [critical], "fail", SLOT + 2_000)
    assert [count_named(each) for each in send_all(harness, SLOT + 2_000)] == [1]
    assert send_all(harness, SLOT + NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS - 1) == []
    assert [count_named(each) for each in send_all(harness, SLOT + NONCRITICAL_PAUSE_AFTER_MERGED_MESSAGE_MS)] == [3]


def test_incidents_of_a_merged_message_end_in_messages_of_their_own(database: Database) -> None:
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    send_all(harness, SLOT)
    later = SLOT + 10 * INTERVAL_MS
    record_outcome(harness, harness.database_ids[:2], "pass", later)
    sent = send_all(harness, later)
    assert [(each.notification.event, count_named(each), each.merged) for each in sent] == [
        (IncidentEvent.RESOLVED, 1, False)
    ] * 2


def test_many_recoveries_become_one_message(database: Database) -> None:
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    send_all(harness, SLOT)
    later = SLOT + 10 * INTERVAL_MS
    record_outcome(harness, harness.database_ids, "pass", later)
    (sent,) = send_all(harness, later)
    assert (sent.notification.event, count_named(sent)) == (IncidentEvent.RESOLVED, STORM + 1)
    assert {row["state"] for row in harness.select_rows(outbox)} == {"sent"}


def test_a_merged_message_also_reports_incidents_that_ended_before_it(database: Database) -> None:
    """`resolved` never comes before `opened`: both are in the same message."""
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    record_outcome(harness, harness.database_ids[:3], "pass", SLOT + 1_000)
    (leased,) = lease(harness, SLOT + 1_000)
    assert (leased.notification.event, count_named(leased)) == (IncidentEvent.OPENED, STORM + 1)
    harness.outbox.mark_sent(leased, {}, SLOT + 1_000)
    states = [row["state"] for row in harness.select_rows(outbox)]
    assert (states.count("sent"), states.count("merged"), len(states)) == (STORM + 1, 3, STORM + 4)
    assert lease(harness, SLOT + 10 * INTERVAL_MS) == []


def test_a_message_that_is_edited_is_not_merged(database: Database) -> None:
    harness = make_storm(database)
    first, *others = harness.database_ids
    record_outcome(harness, [first], "fail", SLOT)
    send_all(harness, SLOT, editing=True)
    later = SLOT + 10 * INTERVAL_MS
    record_outcome(harness, others, "fail", later)
    record_outcome(harness, [first], "pass", later + 1)
    sent = send_all(harness, later + 1, editing=True)
    assert sorted((str(each.notification.event), count_named(each)) for each in sent) == [
        ("opened", STORM),
        ("resolved", 1),
    ]
    (edit,) = [each for each in sent if each.notification.event is IncidentEvent.RESOLVED]
    assert edit.previous_receipt == {"ts": "1"}


def test_a_destination_that_accepts_no_merged_messages_is_sent_each(database: Database) -> None:
    """A receiver that tracks each incident by a key could not close what a merged message opened."""
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    names, sent = ["oncall/slack"], []
    while leased := harness.outbox.lease_due_notifications(SLOT, LEASE_MS, names, unmerged_destinations=names):
        for each in leased:
            harness.outbox.mark_sent(each, {}, SLOT, "headline", "cause")
            sent.append(each)
    assert [count_named(each) for each in sent] == [1] * (STORM + 1)
    assert {each.notification.incident for each in sent} == {row["id"] for row in harness.select_rows(incidents)}
    critical = next(row["id"] for row in harness.select_rows(incidents) if row["severity"] == Severity.CRITICAL)
    assert sent[0].notification.incident == critical


def test_a_crash_costs_one_copy_of_a_merged_message(database: Database) -> None:
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids[:-1], "fail", SLOT)
    (first,) = lease(harness, SLOT)
    assert lease(harness, SLOT + LEASE_MS - 1) == []
    (same,) = lease(harness, SLOT + LEASE_MS)
    assert same.notification.idempotency_key == first.notification.idempotency_key
    record_outcome(harness, harness.database_ids[-1:], "fail", SLOT + LEASE_MS + 1)
    (grown,) = lease(harness, SLOT + 2 * LEASE_MS)
    assert grown.notification.idempotency_key != first.notification.idempotency_key, "it names more incidents"
    harness.outbox.mark_sent(first, {}, SLOT + 2 * LEASE_MS)
    assert {row["state"] for row in harness.select_rows(outbox)} == {"waiting"}, "the lease was lost"
    harness.outbox.mark_sent(grown, {}, SLOT + 2 * LEASE_MS)
    assert {row["state"] for row in harness.select_rows(outbox)} == {"sent"}


def test_a_merged_message_that_fails_is_retried_and_given_up_as_a_whole(database: Database) -> None:
    harness = make_storm(database)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    (leased,) = lease(harness, SLOT)
    harness.outbox.schedule_notification_retry(leased, SLOT + 5_000, "HTTP 500", failed_at=SLOT)
    assert lease(harness, SLOT + 4_999) == []
    (again,) = lease(harness, SLOT + 5_000)
    assert again == replace(leased, lease_token=again.lease_token, attempts=1)
    harness.outbox.mark_undelivered(again, "gone", SLOT + 6_000)
    assert {row["state"] for row in harness.select_rows(outbox)} == {"undelivered"}


def test_a_destination_that_gets_too_many_is_sent_nothing_until_its_pause_is_over(database: Database) -> None:
    harness = make_storm(database, 3)
    record_outcome(harness, harness.database_ids, "fail", SLOT)
    (leased,) = lease(harness, SLOT)
    again_at = harness.outbox.slow_destination_down("oncall/slack", SLOT, 7_000)
    assert again_at == SLOT + 7_000
    harness.outbox.schedule_notification_retry(leased, again_at, "ratelimited", failed_at=SLOT)
    assert lease(harness, again_at - 1) == []
    (first,) = lease(harness, again_at)
    harness.outbox.mark_sent(first, {}, again_at)
    assert lease(harness, again_at + 899) == [], "the bucket is empty"
    assert len(lease(harness, again_at + 900)) == 1
