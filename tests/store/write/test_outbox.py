"""The outbox: which notification goes to which destination, in which order, by which process, and how often."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event, Thread
from time import sleep
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    end_all_members,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.delivery_pace import MAX_UNMERGED_DUE_MESSAGES
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.model import IncidentEvent
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.outbox_filters import MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS
from watchdog.store.read.destinations import load_failing_destinations, load_stuck_destinations
from watchdog.store.tables import (
    cause_changes,
    destination_backoff,
    failing_destinations,
    incidents,
    members,
    messages,
    outbox,
)
from watchdog.store.write import outbox_lease
from watchdog.store.write.outbox_lease import LeasedNotification
from watchdog.store.write.outbox_rows import OPENED_NOTIFICATION_SEQUENCE_NUMBER

SLOT = START_AT + INTERVAL_MS
RESOLVED_SEQ = 1
"""Of an incident whose cause has not changed."""
SLACK_ONLY = NotificationRoutingTable({"oncall": ("oncall/slack",)})
EMAIL_AND_SLACK = NotificationRoutingTable({"oncall": ("oncall/email", "oncall/slack")})


def open_incident(database: Database, routes: NotificationRoutingTable = SLACK_ONLY) -> StoreHarness:
    """Open one incident at SLOT."""
    harness = StoreHarness(
        database, [make_registered_probe(failure_threshold=1, success_threshold=1)], routes=routes
    ).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    return harness


def resolve_incident(harness: StoreHarness) -> int:
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS), now=SLOT + INTERVAL_MS)
    return SLOT + INTERVAL_MS


def lease_one(harness: StoreHarness, now: int) -> LeasedNotification:
    (leased,) = harness.lease_notifications(now)
    return leased


def outbox_states(harness: StoreHarness) -> list[str]:
    """The state of each row, by destination and sequence."""
    return [row["state"] for row in harness.select_rows(outbox)]


def test_each_destination_has_its_own_notification(database: Database) -> None:
    harness = open_incident(database, EMAIL_AND_SLACK)
    leased = harness.lease_notifications(SLOT)
    assert [(n.notification.destination, n.notification.seq, n.notification.event) for n in leased] == [
        ("oncall/email", OPENED_NOTIFICATION_SEQUENCE_NUMBER, IncidentEvent.OPENED),
        ("oncall/slack", OPENED_NOTIFICATION_SEQUENCE_NUMBER, IncidentEvent.OPENED),
    ]
    assert all((n.attempts, dict(n.previous_receipt), n.merged) == (0, {}, False) for n in leased)
    assert len({n.lease_token for n in leased}) == 2
    assert len({n.notification.idempotency_key for n in leased}) == 2
    harness.outbox.mark_sent(leased[0], {}, SLOT + 100)
    assert outbox_states(harness) == ["sent", "waiting"]


def test_a_sent_notification_is_not_sent_again(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.mark_sent(lease_one(harness, SLOT), {"ts": "1.2"}, SLOT + 100)
    assert harness.lease_notifications(SLOT + 10 * LEASE_MS) == []
    row = harness.select_row(outbox)
    assert (row["state"], row["attempts"], row["finished_at"], row["lease_token"]) == ("sent", 1, SLOT + 100, None)


def test_resolved_comes_with_the_receipt_of_opened(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.mark_sent(lease_one(harness, SLOT), {"channel": "C1", "ts": "1.2"}, SLOT + 100)
    now = resolve_incident(harness)
    leased = lease_one(harness, now)
    assert (leased.notification.seq, leased.notification.event) == (RESOLVED_SEQ, IncidentEvent.RESOLVED)
    assert leased.previous_receipt == {"channel": "C1", "ts": "1.2"}
    assert not leased.merged
    harness.outbox.mark_sent(leased, {}, now)
    assert outbox_states(harness) == ["sent", "sent"]


def test_destinations_without_resolved_get_opened_only(database: Database) -> None:
    harness = open_incident(
        database, NotificationRoutingTable(EMAIL_AND_SLACK.receivers, without_resolved=frozenset({"oncall/email"}))
    )
    resolve_incident(harness)
    assert [(row["destination"], row["event"]) for row in harness.select_rows(outbox)] == [
        ("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")
    ]  # fmt: skip


def test_without_receivers_there_is_no_notification(database: Database) -> None:
    harness = open_incident(database, NotificationRoutingTable({}))
    resolve_incident(harness)
    assert harness.select_rows(outbox) == []


# -------------------------------------------------------------------------------------------- the order of one incident


def test_opened_and_resolved_are_merged_if_both_are_waiting(database: Database) -> None:
    harness = open_incident(database)
    now = resolve_incident(harness)
    leased = lease_one(harness, now)
    assert leased.merged
    assert (leased.notification.seq, leased.notification.event) == (RESOLVED_SEQ, IncidentEvent.RESOLVED)
    harness.outbox.mark_sent(leased, {"ts": "1"}, now)
    assert outbox_states(harness) == ["merged", "sent"]
    assert harness.lease_notifications(now + LEASE_MS) == []


def test_resolved_waits_while_opened_is_being_sent(database: Database) -> None:
    harness = open_incident(database)
    leased = lease_one(harness, SLOT + INTERVAL_MS - 1_000)
    now = resolve_incident(harness)
    assert harness.lease_notifications(now) == []
    harness.outbox.mark_sent(leased, {"ts": "1"}, now + 100)
    resolved = lease_one(harness, now + 100)
    assert (resolved.notification.seq, resolved.merged, resolved.previous_receipt) == (RESOLVED_SEQ, False, {"ts": "1"})


def test_resolved_waits_for_the_retry_of_opened(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.schedule_notification_retry(lease_one(harness, SLOT), SLOT + 10 * INTERVAL_MS, "HTTP 500")
    now = resolve_incident(harness)
    assert harness.lease_notifications(now) == []
    leased = lease_one(harness, SLOT + 10 * INTERVAL_MS)
    assert leased.merged
    assert leased.attempts == 1
    harness.outbox.schedule_notification_retry(leased, SLOT + 11 * INTERVAL_MS, "HTTP 500")
    assert [row["attempts"] for row in harness.select_rows(outbox)] == [2, 2]
    assert [row["due_at"] for row in harness.select_rows(outbox)] == [SLOT + 11 * INTERVAL_MS] * 2
    assert lease_one(harness, SLOT + 11 * INTERVAL_MS).merged


def test_resolved_reports_the_opening_if_opened_is_undelivered(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.mark_undelivered(lease_one(harness, SLOT), "channel_not_found", SLOT + 100)
    row = harness.select_row(outbox)
    assert (row["state"], row["detail"], row["finished_at"], row["attempts"]) == (
        "undelivered",
        "channel_not_found",
        SLOT + 100,
        1,
    )
    now = resolve_incident(harness)
    leased = lease_one(harness, now)
    assert leased.merged
    harness.outbox.mark_sent(leased, {}, now)
    assert outbox_states(harness) == ["undelivered", "sent"], "what was given up stays visible"


def test_merged_notifications_are_given_up_together(database: Database) -> None:
    harness = open_incident(database)
    now = resolve_incident(harness)
    harness.outbox.mark_undelivered(lease_one(harness, now), "gone", now)
    assert outbox_states(harness) == ["undelivered", "undelivered"]
    assert harness.lease_notifications(now + LEASE_MS) == []


# ---------------------------------------------------------------------------------------------------- leases and tokens


def test_an_expired_lease_can_be_taken_by_any_process(database: Database) -> None:
    harness = open_incident(database)
    first = lease_one(harness, SLOT)
    assert harness.lease_notifications(SLOT + LEASE_MS - 1) == []
    second = lease_one(harness, SLOT + LEASE_MS)
    assert second.notification == first.notification
    assert second.lease_token != first.lease_token


def marking_functions(harness: StoreHarness) -> dict[str, Callable[[LeasedNotification], None]]:
    return {
        "sent": lambda leased: harness.outbox.mark_sent(leased, {"late": 1}, SLOT + LEASE_MS + 1),
        "retry": lambda leased: harness.outbox.schedule_notification_retry(
            leased, SLOT + 99 * INTERVAL_MS, "late", failed_at=SLOT + LEASE_MS + 1
        ),
        "unconfirmed": lambda leased: harness.outbox.mark_unconfirmed(
            leased, {}, SLOT + LEASE_MS + 1, "", "", detail="late", next_copy_at=SLOT + 99 * INTERVAL_MS
        ),
        "undelivered": lambda leased: harness.outbox.mark_undelivered(leased, "late", SLOT + LEASE_MS + 1),
    }


@pytest.mark.parametrize("mark", ["sent", "retry", "unconfirmed", "undelivered"])
def test_a_sender_without_the_lease_changes_nothing(database: Database, mark: str) -> None:
    harness = open_incident(database)
    expired = lease_one(harness, SLOT)
    current = lease_one(harness, SLOT + LEASE_MS)
    with harness.database.open_read_transaction() as connection:
        assert not harness.outbox.is_still_leased(expired, connection)
        assert harness.outbox.is_still_leased(current, connection)
    before = harness.select_rows(outbox)
    marking_functions(harness)[mark](expired)
    assert harness.select_rows(outbox) == before
    harness.outbox.mark_sent(current, {}, SLOT + LEASE_MS + 2)
    assert outbox_states(harness) == ["sent"]
    marking_functions(harness)[mark](expired)
    assert outbox_states(harness) == ["sent"]
    assert failing(harness) == {}, "the destination has confirmed to the other sender"
    with harness.database.open_read_transaction() as connection:
        assert not harness.outbox.is_still_leased(current, connection), "it is sent"


def test_a_released_notification_cannot_be_marked_by_its_former_sender(database: Database) -> None:
    harness = open_incident(database)
    leased = lease_one(harness, SLOT)
    harness.outbox.schedule_notification_retry(leased, SLOT + INTERVAL_MS, "interrupted")
    harness.outbox.mark_sent(leased, {}, SLOT + 1_000)
    assert outbox_states(harness) == ["waiting"]


def test_two_processes_never_lease_the_same_notification(databases: DatabasePair) -> None:
    routes = NotificationRoutingTable({f"r{i}": (f"r{i}/slack",) for i in range(8)})
    probes = make_registered_probes(MAX_UNMERGED_DUE_MESSAGES, failure_threshold=1)
    harnesses = [StoreHarness(databases.first, probes, routes=routes)]
    harnesses.append(StoreHarness(databases.second, probes, routes=routes, create_schema=False))
    harnesses[0].record_results(*[make_result(p, SLOT, "fail") for p in harnesses[0].database_ids])
    sent_keys: list[list[str]] = [[], []]

    def send(i: int) -> None:
        while leased := harnesses[i].lease_notifications(SLOT + INTERVAL_MS):
            for n in leased:
                sent_keys[i].append(n.notification.idempotency_key)
                harnesses[i].outbox.mark_sent(n, {}, SLOT + INTERVAL_MS)

    threads = [Thread(target=send, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(2):
        send(i)  # a process may have stopped while the other had the last rows of every destination
    all_keys = sent_keys[0] + sent_keys[1]
    assert len(all_keys) == len(set(all_keys)) == 8 * MAX_UNMERGED_DUE_MESSAGES
    assert set(outbox_states(harnesses[0])) == {"sent"}


def test_two_processes_do_not_block_each_other_over_two_events_of_an_incident(
    databases: DatabasePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change and the recovery are both due: a process locks either of them, and then both."""
    first = open_incident(databases.first)
    send_due(first, SLOT)
    change_cause(first, "connection.refused", SLOT + 1_000)
    now = resolve_incident(first)
    second = StoreHarness(databases.second, [], create_schema=False, now=now)
    is_locked, describe_lease = Event(), outbox_lease._build_leased_notification

    def wait_and_describe_lease(*args: Any, **named: Any) -> LeasedNotification:
        is_locked.set()
        sleep(0.2)
        return describe_lease(*args, **named)

    monkeypatch.setattr(outbox_lease, "_build_leased_notification", wait_and_describe_lease)
    destinations = {name for names in first.routes.receivers.values() for name in names}
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(first.outbox.lease_due_notifications, now, LEASE_MS, destinations)
        assert is_locked.wait(10)
        leased = second.outbox.lease_due_notifications(now, LEASE_MS, destinations) + other.result(10)
    assert [each.notification.event for each in leased] == [IncidentEvent.RESOLVED]


def test_a_lease_waits_for_no_transaction_that_may_wait_for_it(on_postgres: DatabasePair) -> None:
    """The recorder locks the rows of an incident in order, and would wait for the row that the lease holds."""
    delete_all_rows(on_postgres.first)
    harness = open_incident(on_postgres.first)
    send_due(harness, SLOT)
    change_cause(harness, "connection.refused", SLOT + 1_000)
    now = resolve_incident(harness)
    lock = "SELECT * FROM outbox WHERE seq = %s FOR UPDATE"
    with psycopg.connect(on_postgres.url.replace("+psycopg", "")) as recorder, ThreadPoolExecutor(1) as executor:
        recorder.execute(lock, [1])
        assert executor.submit(harness.lease_notifications, now).result(30) == []
        assert recorder.execute(lock + " NOWAIT", [2]).fetchall(), "the lease holds nothing any more"
    assert lease_one(harness, now).notification.event is IncidentEvent.RESOLVED


# ------------------------------------------------------------------------------- destinations of other configurations


def test_a_process_leases_only_for_its_own_destinations(database: Database) -> None:
    """During an upgrade, an older configuration runs beside a newer one."""
    harness = open_incident(database, EMAIL_AND_SLACK)
    assert harness.outbox.lease_due_notifications(SLOT, LEASE_MS, []) == []
    (leased,) = harness.outbox.lease_due_notifications(SLOT, LEASE_MS, ["oncall/email", "former/log"])
    assert leased.notification.destination == "oncall/email"
    (other,) = harness.outbox.lease_due_notifications(SLOT, LEASE_MS, ["oncall/slack"])
    assert other.notification.destination == "oncall/slack"


def test_a_notification_for_an_unknown_destination_is_given_up(database: Database) -> None:
    """Given up a day after the last member that had it; one member's opinion does not count."""
    harness = open_incident(database, EMAIL_AND_SLACK)
    incident = harness.select_rows(outbox)[0]["incident"]
    email_only = NotificationRoutingTable({"oncall": ("oncall/email",)})
    other = StoreHarness(database, [make_registered_probe()], routes=email_only, now=SLOT, create_schema=False)
    harness.membership.renew_process_lease_and_update_probes(SLOT + HOUR_MS)
    ended_at = SLOT + HOUR_MS + LEASE_MS
    assert other.outbox.give_up_orphaned_notifications(ended_at + DAY_MS - 1) == [], "a member had it a day ago"
    other.membership.renew_process_lease_and_update_probes(ended_at + DAY_MS)
    assert other.outbox.give_up_orphaned_notifications(ended_at + DAY_MS) == [(incident, "oncall/slack")]
    assert outbox_states(harness) == ["waiting", "undelivered"]
    row = harness.select_rows(outbox)[1]
    assert (row["detail"], row["finished_at"]) == ("the destination is no longer configured", ended_at + DAY_MS)
    assert other.outbox.give_up_orphaned_notifications(ended_at + DAY_MS) == [], "once"


def test_an_unknown_destination_does_not_count_as_failing_when_it_returns(database: Database) -> None:
    harness = open_incident(database, SLACK_ONLY)
    harness.outbox.mark_undelivered(lease_one(harness, SLOT), "invalid_auth", SLOT)
    email_only = NotificationRoutingTable({"oncall": ("oncall/email",)})
    other = StoreHarness(database, [make_registered_probe()], routes=email_only, now=SLOT, create_schema=False)
    other.outbox.give_up_orphaned_notifications(SLOT + DAY_MS)
    assert [row["destination"] for row in harness.select_rows(failing_destinations)] == ["oncall/slack"]
    other.outbox.give_up_orphaned_notifications(SLOT + 2 * DAY_MS)
    assert harness.select_rows(failing_destinations) == []


def test_a_notification_outlives_a_member_that_left_for_less_than_a_day(database: Database) -> None:
    harness = open_incident(database)
    harness.membership.leave(SLOT)
    other = StoreHarness(database, [], routes=NotificationRoutingTable({}), now=SLOT + DAY_MS - 1, create_schema=False)
    assert other.outbox.give_up_orphaned_notifications(SLOT + DAY_MS - 1) == []
    assert len(other.outbox.give_up_orphaned_notifications(SLOT + DAY_MS + 1)) == 1


def test_a_new_notification_for_an_unknown_destination_waits(database: Database) -> None:
    """The history of members may be younger than the incident whose end it reports."""
    harness = open_incident(database)
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(members))
    assert harness.outbox.give_up_orphaned_notifications(SLOT + DAY_MS - 1) == []


def test_a_leased_notification_is_not_given_up(database: Database) -> None:
    harness = open_incident(database)
    leased = lease_one(harness, SLOT + 1)
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(members))
        connection.execute(sa.update(outbox).values(created_at=SLOT - DAY_MS))
    assert harness.outbox.give_up_orphaned_notifications(SLOT + LEASE_MS) == []
    harness.outbox.mark_sent(leased, {}, SLOT + LEASE_MS)
    assert outbox_states(harness) == ["sent"]


# ---------------------------------------------------------------------------------------------------- order and pauses


def open_incidents(database: Database, count: int, routes: NotificationRoutingTable = SLACK_ONLY) -> StoreHarness:
    """Open several incidents, 1 ms apart."""
    harness = StoreHarness(
        database, make_registered_probes(count, failure_threshold=1), routes=routes
    ).without_downtime()
    for i, probe in enumerate(harness.database_ids):
        harness.record_results(make_result(probe, SLOT, "fail"), now=SLOT + i)
    return harness


def test_a_destination_gets_one_notification_at_a_time_in_order(database: Database) -> None:
    harness = open_incidents(database, MAX_UNMERGED_DUE_MESSAGES)
    sent = []
    while leased := harness.lease_notifications(SLOT + INTERVAL_MS):
        (n,) = leased
        sent.append(n.notification.incident)
        harness.outbox.mark_sent(n, {}, SLOT + INTERVAL_MS)
    opened = sorted(harness.select_rows(outbox), key=lambda row: row["created_at"])
    assert sent == [row["incident"] for row in opened]


def test_a_busy_destination_does_not_delay_others(database: Database) -> None:
    harness = open_incidents(database, 2, EMAIL_AND_SLACK)
    first = harness.lease_notifications(SLOT + INTERVAL_MS, except_destinations=["oncall/slack"])
    assert [n.notification.destination for n in first] == ["oncall/email"]


def test_a_long_queue_does_not_delay_other_destinations(database: Database) -> None:
    harness = open_incidents(database, 150, NotificationRoutingTable({"slow": ("slow/slack",)}))
    other = StoreHarness(
        harness.database,
        [*make_registered_probes(150), make_registered_probe("api", failure_threshold=1)],
        routes=EMAIL_AND_SLACK,
        create_schema=False,
    )
    other.record_results(make_result(other.database_id("api"), SLOT + INTERVAL_MS, "fail"), now=SLOT + INTERVAL_MS)
    leased = harness.outbox.lease_due_notifications(
        SLOT + INTERVAL_MS, LEASE_MS, ["oncall/email", "oncall/slack", "slow/slack"]
    )
    assert [n.notification.destination for n in leased] == ["oncall/email", "oncall/slack", "slow/slack"]


def test_a_retry_is_due_at_its_time(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.schedule_notification_retry(lease_one(harness, SLOT), SLOT + 4_000, "HTTP 500")
    assert harness.lease_notifications(SLOT + 3_999) == []
    leased = lease_one(harness, SLOT + 4_000)
    assert leased.attempts == 1
    row = harness.select_row(outbox)
    assert (row["detail"], row["attempts"]) == ("HTTP 500", 1)


def test_a_partial_receipt_is_passed_to_the_next_attempt_only(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    harness.record_each(*make_results(harness.database_ids[0], "f"))
    now = START_AT + INTERVAL_MS + 1_000
    leased = next(
        leased for leased in harness.lease_notifications(now) if leased.notification.destination == "oncall/email"
    )
    harness.outbox.schedule_notification_retry(leased, now, "not taken yet", partial_receipt={"settled": ["ann"]})
    harness.outbox.schedule_notification_retry(second := harness.lease_notifications(now)[0], now, "connection refused")
    assert second.partial_receipt == {"settled": ["ann"]}
    third = harness.lease_notifications(now)[0]
    assert (third.partial_receipt, third.previous_receipt) == ({"settled": ["ann"]}, {})
    harness.outbox.mark_sent(third, {"message_id": "a"}, now)
    harness.record_each(*make_results(harness.database_ids[0], "p", START_AT + INTERVAL_MS))
    resolved = next(
        leased
        for leased in harness.lease_notifications(now + INTERVAL_MS)
        if leased.notification.destination == "oncall/email"
    )
    assert (resolved.partial_receipt, resolved.previous_receipt) == ({}, {"message_id": "a"})


def test_a_retry_does_not_delay_other_notifications(database: Database) -> None:
    harness = open_incidents(database, 2)
    harness.outbox.schedule_notification_retry(lease_one(harness, SLOT + 1_000), SLOT + INTERVAL_MS, "HTTP 500")
    assert len(harness.lease_notifications(SLOT + 2_000)) == 1


def test_nothing_is_sent_to_a_destination_during_its_pause(database: Database) -> None:
    harness = open_incidents(database, 3, EMAIL_AND_SLACK)
    leased = {n.notification.destination: n for n in harness.lease_notifications(SLOT + 1_000)}
    harness.outbox.schedule_notification_retry(
        leased["oncall/slack"], SLOT + 9_000, "ratelimited", retry_at=SLOT + 9_000
    )
    harness.outbox.mark_sent(leased["oncall/email"], {}, SLOT + 1_000)
    assert [n.notification.destination for n in harness.lease_notifications(SLOT + 8_999)] == ["oncall/email"]
    again = [n for n in harness.lease_notifications(SLOT + 9_000) if n.notification.destination == "oncall/slack"]
    assert [n.notification.destination for n in again] == ["oncall/slack"]


def test_a_pause_never_gets_shorter(database: Database) -> None:
    """Two were sent concurrently, and the destination asked for a longer pause in one response."""
    harness = open_incidents(database, 3)
    first, second = lease_one(harness, SLOT + 1_000), lease_one(harness, SLOT + 1_000)
    harness.outbox.schedule_notification_retry(first, SLOT + 60_000, "ratelimited", retry_at=SLOT + 60_000)
    harness.outbox.schedule_notification_retry(second, SLOT + 2_000, "ratelimited", retry_at=SLOT + 2_000)
    assert harness.select_row(destination_backoff)["retry_at"] == SLOT + 60_000
    assert harness.lease_notifications(SLOT + 59_999) == []


def test_responses_may_contain_unstorable_characters(database: Database) -> None:
    harness = open_incidents(database, 2)
    harness.outbox.schedule_notification_retry(lease_one(harness, SLOT + 1_000), SLOT + 1_000, "nul \0 \ud800")
    harness.outbox.mark_sent(lease_one(harness, SLOT + 1_001), {"ts": "\0\ud800"}, SLOT + 1_001)
    harness.outbox.mark_undelivered(lease_one(harness, SLOT + 1_001), "\0", SLOT + 1_001)
    rows = harness.select_rows(outbox)
    assert sorted(row["state"] for row in rows) == ["sent", "undelivered"]
    assert decode_nullable_json(harness.select_row(messages)["receipt"]) == {"ts": "��"}


def test_resolved_of_a_removed_probe_waits_for_opened(database: Database) -> None:
    harness = open_incident(database)
    leased = lease_one(harness, SLOT)
    end_all_members(harness.database, SLOT + 1_000)
    StoreHarness(harness.database, [], routes=SLACK_ONLY, now=SLOT + 1_000, create_schema=False)
    assert harness.lease_notifications(SLOT + 1_000) == []
    harness.outbox.mark_sent(leased, {}, SLOT + 2_000)
    assert lease_one(harness, SLOT + 2_000).notification.event is IncidentEvent.RESOLVED


def test_successive_incidents_are_sent_in_order(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe(failure_threshold=1, success_threshold=1)], routes=SLACK_ONLY
    ).without_downtime()
    harness.record_each(*make_results(harness.database_ids[0], "fpfp", interval_ms=1_000))
    now, sent = START_AT + 10_000, []
    while leased := harness.lease_notifications(now):
        sent.append((leased[0].notification.event, leased[0].merged))
        harness.outbox.mark_sent(leased[0], {}, now)
    assert sent == [(IncidentEvent.RESOLVED, True), (IncidentEvent.RESOLVED, True)]


# --------------------------------------------------------------------------------------------- a cause that changes


def change_cause(harness: StoreHarness, reason: str, at: int, probe: int = 0) -> None:
    """One bad result is sufficient, because `failure_threshold` is 1."""
    slot = harness.database_ids[probe]
    harness.record_results(make_result(slot, at, "fail", reason=reason, message=f"sentence of {reason}"), now=at)


def send_due(harness: StoreHarness, now: int, headline: str = "", editing: tuple[str, ...] = ()) -> list[str]:
    """Send what is due, and what becomes due by that; returns the events."""
    destinations = {name for names in harness.routes.receivers.values() for name in names}
    events: list[str] = []
    while leased := harness.outbox.lease_due_notifications(now, LEASE_MS, destinations, editing):
        for each in leased:
            harness.outbox.mark_sent(each, {"sent": len(events)}, now, headline, "cause")
            events.append(str(each.notification.event))
    return events


def test_a_changed_cause_is_stored_beside_the_first_and_sent(database: Database) -> None:
    harness = open_incident(database, EMAIL_AND_SLACK)
    assert send_due(harness, SLOT) == ["opened", "opened"]
    first = harness.select_row(incidents)
    change_cause(harness, "connection.refused", SLOT + INTERVAL_MS)
    change_cause(harness, "tls.expired", SLOT + 2 * INTERVAL_MS)
    now = harness.select_row(incidents)
    assert (now["reason"], now["message"]) == ("tls.expired", "sentence of tls.expired")
    assert (now["first_reason"], now["first_message"]) == (first["reason"], first["message"])
    assert [(row["reason"], row["slot"]) for row in harness.select_rows(cause_changes)] == [
        ("connection.refused", SLOT + INTERVAL_MS), ("tls.expired", SLOT + 2 * INTERVAL_MS)
    ]  # fmt: skip
    assert send_due(harness, SLOT + 2 * INTERVAL_MS) == ["changed", "changed"], "two changes are one message"


def test_a_change_before_opened_is_sent_becomes_part_of_it(database: Database) -> None:
    harness = open_incident(database)
    change_cause(harness, "connection.refused", SLOT + INTERVAL_MS)
    assert send_due(harness, SLOT + INTERVAL_MS) == ["opened"]
    assert outbox_states(harness) == ["sent"]


def test_a_change_while_opened_is_being_sent_follows_it(database: Database) -> None:
    harness = open_incident(database)
    opened = lease_one(harness, SLOT + INTERVAL_MS - 1_000)
    change_cause(harness, "connection.refused", SLOT + INTERVAL_MS)
    change_cause(harness, "tls.expired", SLOT + INTERVAL_MS + 1_000)
    assert harness.lease_notifications(SLOT + INTERVAL_MS) == []
    harness.outbox.mark_sent(opened, {"ts": "1"}, SLOT + INTERVAL_MS, "Down: API: HTTP 503", "HTTP 503")
    changed = lease_one(harness, SLOT + INTERVAL_MS + 1_000)
    assert changed.notification.event is IncidentEvent.CHANGED
    assert (changed.previous_receipt, changed.previous_headline) == ({"ts": "1"}, "Down: API: HTTP 503")
    assert changed.previous_cause == "HTTP 503"


def test_a_change_of_an_incident_that_was_never_delivered_is_its_opening(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.mark_undelivered(lease_one(harness, SLOT), "refused", SLOT)
    change_cause(harness, "connection.refused", SLOT + INTERVAL_MS)
    assert send_due(harness, SLOT + INTERVAL_MS) == ["opened"]
    resolve_incident(harness)
    harness.record_results(make_result(harness.database_ids[0], SLOT + 2 * INTERVAL_MS), now=SLOT + 2 * INTERVAL_MS)
    assert not lease_one(harness, SLOT + 2 * INTERVAL_MS).merged


def test_a_destination_gets_at_most_one_change_in_five_minutes(database: Database) -> None:
    probes = make_registered_probes(2, failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, probes, routes=SLACK_ONLY).without_downtime()
    for probe in harness.database_ids:
        harness.record_results(make_result(probe, SLOT, "fail"), now=SLOT)
    assert send_due(harness, SLOT) == ["opened", "opened"]
    changed_at = SLOT + INTERVAL_MS
    change_cause(harness, "connection.refused", changed_at, probe=0)
    assert send_due(harness, changed_at) == ["changed"]
    change_cause(harness, "tls.expired", changed_at + 1_000, probe=0)
    change_cause(harness, "timeout.connect", changed_at + 2_000, probe=0)
    change_cause(harness, "dns.failed", changed_at + 2_000, probe=1)
    assert send_due(harness, changed_at + MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS - 1) == []
    assert send_due(harness, changed_at + MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS) == ["changed"]
    assert send_due(harness, changed_at + 2 * MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS - 1) == []
    with harness.database.open_read_transaction() as connection:
        stuck = load_stuck_destinations(connection, changed_at + 2 * MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS - 1)
    assert stuck == set(), "a change that waits for its time is no sign of a destination that takes nothing"
    assert send_due(harness, changed_at + 2 * MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS) == ["changed"]
    assert outbox_states(harness).count("waiting") == 0


def test_a_change_does_not_wait_for_one_that_was_sent_before_the_clock_was_set_back(database: Database) -> None:
    harness = open_incident(database)
    send_due(harness, SLOT)
    change_cause(harness, "connection.refused", SLOT + 1_000)
    assert send_due(harness, SLOT + 2 * HOUR_MS) == ["changed"]
    change_cause(harness, "tls.expired", SLOT + 2_000)
    assert send_due(harness, SLOT + 2_000) == ["changed"]


def test_a_destination_that_edits_its_message_gets_every_change_at_once(database: Database) -> None:
    harness = open_incident(database, EMAIL_AND_SLACK)
    send_due(harness, SLOT)
    events = []
    for number, reason in enumerate(("connection.refused", "tls.expired", "dns.failed"), 1):
        change_cause(harness, reason, SLOT + number * 1_000)
        events.append(send_due(harness, SLOT + number * 1_000, editing=("oncall/slack",)))
    assert events == [["changed", "changed"], ["changed"], ["changed"]], "email waits"


def test_a_recovery_does_not_wait_for_a_change_that_is_too_soon(database: Database) -> None:
    harness = open_incident(database)
    send_due(harness, SLOT)
    change_cause(harness, "connection.refused", SLOT + 1_000)
    assert send_due(harness, SLOT + 1_000) == ["changed"]
    change_cause(harness, "tls.expired", SLOT + 2_000)
    assert send_due(harness, SLOT + 2_000) == []
    now = resolve_incident(harness)
    assert send_due(harness, now) == ["resolved"]
    assert outbox_states(harness) == ["sent", "sent", "merged", "sent"]


def test_a_change_at_a_destination_without_resolved_is_still_sent(database: Database) -> None:
    routes = NotificationRoutingTable(SLACK_ONLY.receivers, without_resolved=frozenset({"oncall/slack"}))
    harness = open_incident(database, routes)
    send_due(harness, SLOT)
    change_cause(harness, "connection.refused", SLOT + 1_000)
    resolve_incident(harness)
    assert send_due(harness, SLOT + INTERVAL_MS) == ["changed"]


BY_REASON = NotificationRoutingTable(
    {"oncall": ("oncall/slack",), "security": ("security/email",), "network": ("network/email", "oncall/slack")},
    (
        NotificationRoute(("security",), reason_patterns=("tls",)),
        NotificationRoute(("network",), reason_patterns=("dns", "timeout.connect")),
        NotificationRoute(("oncall",), reason_patterns=("http.503", "connection")),
    ),
    frozenset({"network/email"}),
)


def event_log(harness: StoreHarness, now: int) -> list[tuple[str, str]]:
    """Send everything that is due at every receiver; returns (destination, event) in alphabetical order."""
    destinations = [name for names in BY_REASON.receivers.values() for name in names]
    sent = []
    while leased := harness.outbox.lease_due_notifications(now, LEASE_MS, destinations):
        for each in leased:
            harness.outbox.mark_sent(each, {}, now, f"headline {now}", "cause")
            sent.append((each.notification.destination, str(each.notification.event)))
    return sorted(sent)


def test_the_receivers_of_the_new_cause_get_the_incident_and_the_first_ones_keep_it(database: Database) -> None:
    harness = open_incident(database, BY_REASON)
    steps = [event_log(harness, SLOT)]
    for number, reason in enumerate(("tls.expired", "dns.failed", "http.503", "tls.untrusted", "json.truncated"), 1):
        at = SLOT + number * MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS
        change_cause(harness, reason, at)
        steps.append(event_log(harness, at))
    assert steps == [
        [("oncall/slack", "opened")],
        [("oncall/slack", "changed"), ("security/email", "opened")],
        [("network/email", "opened"), ("oncall/slack", "changed"), ("security/email", "changed")],
        *[[("network/email", "changed"), ("oncall/slack", "changed"), ("security/email", "changed")]] * 3,
    ]
    resolved_at = SLOT + 6 * MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS
    harness.record_results(make_result(harness.database_ids[0], resolved_at), now=resolved_at)
    assert event_log(harness, resolved_at) == [("oncall/slack", "resolved"), ("security/email", "resolved")]
    log = decode_nullable_json(harness.select_row(incidents)["routing_log"])
    assert log[0] == "route 1 does not match: reason is http.503, not tls"
    assert "since the cause is tls.expired: route 1 matches: notifies security" in log
    assert "since the cause is dns.failed: route 2 matches: notifies network" in log
    assert not [step for step in log if "untrusted" in step], "it added no one"


def test_an_incident_that_notified_no_one_notifies_the_receivers_of_its_new_cause(database: Database) -> None:
    routes = replace(BY_REASON, routes=BY_REASON.routes[:2])
    harness = open_incident(database, routes)
    assert event_log(harness, SLOT) == []
    change_cause(harness, "tls.expired", SLOT + INTERVAL_MS)
    assert event_log(harness, SLOT + INTERVAL_MS) == [("security/email", "opened")]


def test_a_change_within_a_family_is_no_other_cause_and_is_not_routed_again(database: Database) -> None:
    harness = open_incident(database, BY_REASON)
    change_cause(harness, "http.500", SLOT + INTERVAL_MS)
    assert event_log(harness, SLOT + INTERVAL_MS) == [("oncall/slack", "opened")]


def test_a_change_before_the_first_message_is_sent_is_routed_as_well(database: Database) -> None:
    harness = open_incident(database, BY_REASON)
    change_cause(harness, "tls.expired", SLOT + INTERVAL_MS)
    assert event_log(harness, SLOT + INTERVAL_MS) == [("oncall/slack", "opened"), ("security/email", "opened")]


def test_a_replay_notifies_the_same_destinations_as_the_live_run(database: Database) -> None:
    harness = open_incident(database, BY_REASON)
    probe = harness.database_ids[0]
    for number, reason in enumerate(("tls.expired", "dns.failed"), 1):
        change_cause(harness, reason, SLOT + number * INTERVAL_MS)
    _, transitions = harness.replay_probe(probe, SLOT + 2 * INTERVAL_MS)
    replayed = {
        destination
        for transition in transitions
        for destination in BY_REASON.decide_routing(harness.registry[probe].info, transition.reason).destinations
    }
    live = {row["destination"] for row in harness.select_rows(outbox)}
    assert [transition.event for transition in transitions] == ["opened", "changed", "changed"]
    assert replayed == live == {"oncall/slack", "security/email", "network/email"}


# --------------------------------------------------------------------------------------------- destinations that fail


def failing(harness: StoreHarness) -> dict[str, WatchdogFaultFacts]:
    with harness.database.open_read_transaction() as connection:
        return load_failing_destinations(connection)


def test_a_destination_fails_from_its_first_error_until_it_confirms(database: Database) -> None:
    harness = open_incident(database, EMAIL_AND_SLACK)
    email, slack = harness.lease_notifications(SLOT)
    harness.outbox.mark_sent(email, {}, SLOT)
    harness.outbox.schedule_notification_retry(slack, SLOT + 1_000, "refused", failed_at=SLOT + 5)
    assert failing(harness) == {"oncall/slack": WatchdogFaultFacts(SLOT + 5, False, "refused")}
    harness.outbox.schedule_notification_retry(
        lease_one(harness, SLOT + 1_000), SLOT + 2_000, "timeout", failed_at=SLOT + 1_005
    )
    assert failing(harness) == {"oncall/slack": WatchdogFaultFacts(SLOT + 5, False, "timeout")}
    harness.outbox.mark_undelivered(lease_one(harness, SLOT + 2_000), "rejected", SLOT + 2_005)
    assert failing(harness) == {"oncall/slack": WatchdogFaultFacts(SLOT + 5, True, "rejected")}
    change_cause(harness, "tls.expired", SLOT + 3_000)
    assert send_due(harness, SLOT + 3_000)
    assert failing(harness) == {}


def test_an_interrupted_attempt_is_no_failure_of_the_destination(database: Database) -> None:
    harness = open_incident(database)
    harness.outbox.schedule_notification_retry(lease_one(harness, SLOT), SLOT + 1_000, "stopped while sending")
    assert failing(harness) == {}


def test_a_failure_stays_given_up_until_the_destination_confirms(database: Database) -> None:
    harness = open_incidents(database, 2)
    harness.outbox.mark_undelivered(lease_one(harness, SLOT + 1_000), "rejected", SLOT)
    harness.outbox.schedule_notification_retry(
        lease_one(harness, SLOT + 1_000), SLOT + 2_000, "busy", failed_at=SLOT + 1
    )
    assert failing(harness) == {"oncall/slack": WatchdogFaultFacts(SLOT, True, "busy")}
