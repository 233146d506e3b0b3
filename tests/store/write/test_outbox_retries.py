"""What failed at a destination is due at once when the destination works again, except for what is at fault itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import sqlalchemy as sa

from tests.support.polling import wait_until
from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probes,
    make_result,
)
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.store.database import Database
from watchdog.store.group_tables import incident_groups
from watchdog.store.tables import failing_destinations, incidents, outbox
from watchdog.store.write.outbox_lease import LeasedNotification
from watchdog.store.write.outbox_retries import MAX_WAIT_BEFORE_FAILURE_TO_RETRY_ON_RECOVERY_MS, make_retries_due

SLOT = START_AT + INTERVAL_MS
SLACK, EMAIL = "oncall/slack", "oncall/email"
FAILING_SINCE = SLOT + HOUR_MS
NOW = FAILING_SINCE + HOUR_MS
LATER = NOW + 600_000
EARLIEST = FAILING_SINCE - MAX_WAIT_BEFORE_FAILURE_TO_RETRY_ON_RECOVERY_MS
A_RETRY: dict[str, Any] = {"created_at": FAILING_SINCE + 1, "due_at": LATER, "attempts": 8}
CASES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    # what: (values of the row, due after a confirmed notification, due after a test)
    "it began to wait during the failure": ({}, True, True),
    "it waited for a minute before": ({"created_at": EARLIEST}, True, True),
    "it waited for longer before, and may be at fault itself": ({"created_at": EARLIEST - 1}, False, True),
    "it waited for its group until then": ({"created_at": SLOT, "lead_incident": "group"}, True, True),
    "its group was sent before": ({"created_at": SLOT, "lead_incident": "older group"}, False, True),
    "it has not failed": ({"attempts": 0}, False, False),
    "it is being sent": ({"lease_token": "other", "leased_until": NOW + 1}, False, False),
    "its sender has died": ({"lease_token": "other", "leased_until": NOW}, True, True),
    "it is unconfirmed": ({"state": "unconfirmed"}, False, False),
    "another destination fails as well": ({"destination": EMAIL}, False, False),
}
LOCK_ROWS_OF_INCIDENT = "SELECT * FROM outbox WHERE incident = %s FOR UPDATE"
WAITING_FOR_LOCKS = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
GROUPS = {"group": EARLIEST, "older group": EARLIEST - 1}


def make_harness(database: Database, count: int) -> StoreHarness:
    """As many open incidents, whose notifications wait."""
    probes = make_registered_probes(count, failure_threshold=1)
    routes = NotificationRoutingTable({"oncall": (SLACK,)})
    harness = StoreHarness(database, probes, routes=routes).without_downtime()
    for number, probe in enumerate(harness.database_ids):
        harness.record_results(make_result(probe, SLOT, "fail"), now=SLOT + number)
    return harness


def list_incidents(harness: StoreHarness) -> list[str]:
    """In the order in which they opened."""
    rows = harness.select_rows(incidents)
    return [row["id"] for row in sorted(rows, key=lambda row: row["opened_at"])]


def update_row(database: Database, incident: str, **values: Any) -> None:
    with database.open_write_transaction() as connection:
        connection.execute(sa.update(outbox).where(outbox.c.incident == incident).values(**values))


def fail_since(database: Database, since: int) -> None:
    values = {"destination": SLACK, "failing_since": since, "given_up": False, "error": "connection refused"}
    with database.open_write_transaction() as connection:
        connection.execute(sa.insert(failing_destinations).values(**values))


def make_cases(database: Database) -> tuple[StoreHarness, dict[str, str]]:
    """The first incident is due, and each other one is a case. Returns the case by incident."""
    harness = make_harness(database, len(CASES) + 1)
    case_by_incident = dict(zip(list_incidents(harness)[1:], CASES, strict=True))
    for incident, what in case_by_incident.items():
        update_row(database, incident, **A_RETRY | CASES[what][0])
    common = {"destination": SLACK, "cause": "", "family": "", "opened_at": SLOT, "accepts_until": SLOT}
    groups = [{"lead_incident": lead, "first_message_at": at, **common} for lead, at in GROUPS.items()]
    with database.open_write_transaction() as connection:
        connection.execute(sa.insert(incident_groups), groups)
    fail_since(database, FAILING_SINCE)
    return harness, case_by_incident


def list_due(harness: StoreHarness, case_by_incident: dict[str, str], now: int) -> set[str]:
    rows = [row for row in harness.select_rows(outbox) if row["incident"] in case_by_incident]
    assert {row["due_at"] for row in rows} <= {now, LATER}
    return {case_by_incident[row["incident"]] for row in rows if row["due_at"] == now}


def lease_one(harness: StoreHarness, now: int) -> LeasedNotification:
    (leased,) = harness.lease_notifications(now)
    return leased


def test_what_is_due_after_the_destination_has_confirmed_another(database: Database) -> None:
    harness, case_by_incident = make_cases(database)
    harness.outbox.mark_sent(lease_one(harness, NOW), {}, NOW)
    due = list_due(harness, case_by_incident, NOW)
    assert due == {what for what, (_, is_due, _) in CASES.items() if is_due}


def test_a_destination_that_has_not_failed_changes_nothing(database: Database) -> None:
    harness, case_by_incident = make_cases(database)
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(failing_destinations))
    harness.outbox.mark_sent(lease_one(harness, NOW), {}, NOW)
    assert list_due(harness, case_by_incident, NOW) == set()


def test_what_is_due_after_a_test(database: Database) -> None:
    """A person waits for it: also what may be at fault itself."""
    harness, case_by_incident = make_cases(database)
    make_retries_due(database, [SLACK, "chat/slack"], NOW)
    due = list_due(harness, case_by_incident, NOW)
    assert due == {what for what, (*_, is_due) in CASES.items() if is_due}
    assert harness.select_rows(failing_destinations), "only a notification that is confirmed ends the failure"


def test_the_oldest_is_sent_first_and_at_the_pace_of_the_destination(database: Database) -> None:
    harness = make_harness(database, 4)
    ids, sent = list_incidents(harness), []
    for _ in ids:
        leased = lease_one(harness, SLOT + 10)
        harness.outbox.schedule_notification_retry(leased, LATER, "connection refused", failed_at=SLOT + 10)
    update_row(database, ids[-1], due_at=NOW)
    leased = lease_one(harness, NOW)
    pause_ends_at = harness.outbox.slow_destination_down(SLACK, NOW, 30_000)
    harness.outbox.mark_sent(leased, {}, NOW)
    assert harness.lease_notifications(pause_ends_at - 10_000) == [], "the destination asked for a pause"
    while leases := harness.lease_notifications(pause_ends_at):
        (leased,) = leases
        sent.append(leased.notification.incident)
        harness.outbox.mark_sent(leased, {}, pause_ends_at)
    assert sent == ids[:-1]


def lease_beside_retries(database: Database, retry_count: int) -> tuple[StoreHarness, LeasedNotification]:
    """The notification of the first incident is leased; those of the others failed and are due later."""
    delete_all_rows(database)
    harness = make_harness(database, 1 + retry_count)
    for incident in list_incidents(harness)[1:]:
        update_row(database, incident, **A_RETRY)
    fail_since(database, FAILING_SINCE)
    return harness, lease_one(harness, NOW)


def test_a_confirmation_waits_for_no_transaction_that_may_wait_for_it(on_postgres: DatabasePair) -> None:
    """The recorder has locked the row of another incident that would be due, and may wait for this one."""
    harness, leased = lease_beside_retries(on_postgres.first, retry_count=2)
    first, locked, free = list_incidents(harness)
    with psycopg.connect(on_postgres.url.replace("+psycopg", "")) as recorder, ThreadPoolExecutor(1) as executor:
        recorder.execute(LOCK_ROWS_OF_INCIDENT, [locked])
        executor.submit(harness.outbox.mark_sent, leased, {}, NOW).result(30)
        recorder.rollback()
    due_at = {row["incident"]: row["due_at"] for row in harness.select_rows(outbox)}
    assert (leased.notification.incident, due_at[locked], due_at[free]) == (first, LATER, NOW)


def test_the_recorder_may_wait_for_a_row_that_is_being_confirmed(on_postgres: DatabasePair) -> None:
    """It has locked the row that is being sent, and goes on to one that would be due."""
    harness, leased = lease_beside_retries(on_postgres.first, retry_count=1)
    first, failed = list_incidents(harness)
    with psycopg.connect(on_postgres.url.replace("+psycopg", "")) as recorder, ThreadPoolExecutor(1) as executor:
        recorder.execute(LOCK_ROWS_OF_INCIDENT, [first])
        confirmation = executor.submit(harness.outbox.mark_sent, leased, {}, NOW)
        wait_until(lambda: recorder.execute(WAITING_FOR_LOCKS, [recorder.info.backend_pid]).fetchall())
        recorder.execute(LOCK_ROWS_OF_INCIDENT, [failed])
        recorder.commit()
        confirmation.result(30)
    rows = {row["incident"]: (row["state"], row["due_at"]) for row in harness.select_rows(outbox)}
    assert rows[first][0] == "sent"
    assert rows[failed] == ("waiting", NOW)


def test_a_notification_that_is_at_fault_itself_is_not_sent_after_each_confirmation(database: Database) -> None:
    """All of them are due at once, and the destination refuses one."""
    harness, attempts, now = make_harness(database, 12), 0, SLOT + 100
    at_fault = list_incidents(harness)[4]
    while leases := harness.outbox.lease_due_notifications(now, LEASE_MS, [SLACK], unmerged_destinations=[SLACK]):
        for leased in leases:
            if leased.notification.incident == at_fault:
                attempts += 1
                harness.outbox.schedule_notification_retry(leased, now + 1_000, "HTTP 400", failed_at=now)
            else:
                harness.outbox.mark_sent(leased, {}, now)
    assert attempts == 1


def test_two_processes_may_have_something_confirmed_at_once(databases: DatabasePair) -> None:
    """Each has sent a notification, and the lease of one of them has ended."""
    harness = make_harness(databases.first, 3)
    second = StoreHarness(databases.second, [], create_schema=False, now=SLOT)
    leases = [lease_one(harness, NOW - 1), lease_one(harness, NOW - 1)]
    ids = list_incidents(harness)
    update_row(databases.first, ids[1], **A_RETRY, leased_until=NOW)
    update_row(databases.first, ids[2], **A_RETRY)
    fail_since(databases.first, FAILING_SINCE)
    with ThreadPoolExecutor() as pool:
        confirmed = [
            pool.submit(each.outbox.mark_sent, leased, {}, NOW)
            for each, leased in zip((harness, second), leases, strict=True)
        ]
        for each in confirmed:
            each.result(60)
    rows = {row["incident"]: row for row in harness.select_rows(outbox)}
    assert [rows[id]["state"] for id in ids] == ["sent", "sent", "waiting"]
    assert rows[ids[2]]["due_at"] == NOW
