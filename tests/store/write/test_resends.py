"""Undelivered notifications that a person sends again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.acts import ANA, list_outbox
from tests.support.store import INTERVAL_MS, START_AT, DatabasePair, StoreHarness, make_registered_probe, make_result
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.model import IncidentEvent
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.service.acts import resend_undelivered_notifications
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.outbox_lease import LeasedNotification

SLOT = START_AT + INTERVAL_MS
LATER = SLOT + 40 * INTERVAL_MS
EMAIL, SLACK = "oncall/email", "oncall/slack"


def open_undelivered_incident(database: Database) -> tuple[StoreHarness, str]:
    """An incident of which both destinations could not be notified, and its id."""
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    routes = NotificationRoutingTable({"oncall": (EMAIL, SLACK)})
    harness = StoreHarness(database, [probe], routes=routes).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    fail_all(harness, SLOT)
    return harness, harness.select_row(incidents)["id"]


def fail_all(harness: StoreHarness, now: int) -> None:
    for leased in harness.lease_notifications(now):
        harness.outbox.mark_undelivered(leased, "550 no such mailbox", now)


def resend(harness: StoreHarness, incident: str, destination: str = "", now: int = LATER) -> list[str]:
    return resend_undelivered_notifications(harness.database, incident, destination, ANA, "new address", now=now)


def lease_one(harness: StoreHarness, now: int) -> LeasedNotification:
    (leased,) = harness.lease_notifications(now)
    return leased


def test_what_was_given_up_is_sent_as_if_it_were_new(database: Database) -> None:
    harness, incident = open_undelivered_incident(database)
    assert harness.lease_notifications(LATER) == []
    assert resend(harness, incident) == [EMAIL, SLACK]
    leased = harness.lease_notifications(LATER)
    assert [(each.notification.destination, each.attempts, each.created_at) for each in leased] == [
        (EMAIL, 0, LATER),
        (SLACK, 0, LATER),
    ]
    for each in leased:
        harness.outbox.mark_sent(each, {}, LATER + 1)
    assert list_outbox(harness) == [(EMAIL, "opened", "sent"), (SLACK, "opened", "sent")]
    assert {row["detail"] for row in harness.select_rows(outbox)} == {""}


def test_one_destination(database: Database) -> None:
    harness, incident = open_undelivered_incident(database)
    assert resend(harness, incident, SLACK) == [SLACK]
    assert list_outbox(harness) == [(EMAIL, "opened", "undelivered"), (SLACK, "opened", "waiting")]
    act = harness.select_row(acts)
    assert (act["kind"], act["author"], act["incident"], act["comment"]) == (
        "resend",
        "Ana",
        incident,
        "oncall/slack: new address",
    )


def test_an_incident_that_is_over_is_reported_with_its_opening(database: Database) -> None:
    harness, incident = open_undelivered_incident(database)
    over_at = SLOT + INTERVAL_MS
    harness.record_results(make_result(harness.database_ids[0], over_at), now=over_at)
    fail_all(harness, over_at)
    resend(harness, incident, SLACK)
    leased = lease_one(harness, LATER)
    assert (leased.notification.event, leased.merged) == (IncidentEvent.RESOLVED, True)


def test_what_the_destination_has_confirmed_since_then_is_not_sent_again(database: Database) -> None:
    harness, incident = open_undelivered_incident(database)
    over_at = SLOT + INTERVAL_MS
    harness.record_results(make_result(harness.database_ids[0], over_at), now=over_at)
    for leased in harness.lease_notifications(over_at):
        harness.outbox.mark_sent(leased, {}, over_at)
    with pytest.raises(OperatorActRefusedError, match="no notification of the incident is undelivered") as refused:
        resend(harness, incident)
    assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert harness.select_rows(acts) == []


def test_a_second_request_has_nothing_to_send(databases: DatabasePair) -> None:
    harness, incident = open_undelivered_incident(databases.first)

    def resend_through(database: Database) -> bool:
        try:
            return bool(resend_undelivered_notifications(database, incident, "", ANA, "", now=LATER))
        except OperatorActRefusedError:
            return False

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(resend_through, (databases.first, databases.second)))
    assert sorted(both) == [False, True]
    assert len(harness.select_rows(acts)) == 1


@pytest.mark.parametrize(
    ("incident", "destination", "message", "refusal"),
    [
        ("nothing", "", "no incident has the id nothing", OperatorActRefusalReason.NOT_FOUND),
        ("", "other/slack", "no notification of the incident to other/slack is undelivered",
         OperatorActRefusalReason.CONFLICT),
        ("", "%", "no notification of the incident to % is undelivered", OperatorActRefusalReason.CONFLICT),
        ("", "x" * 501, "the destination has 501 characters", OperatorActRefusalReason.INVALID),
    ],
)  # fmt: skip
def test_a_refused_request_changes_nothing(
    database: Database, incident: str, destination: str, message: str, refusal: OperatorActRefusalReason
) -> None:
    harness, id = open_undelivered_incident(database)
    with pytest.raises(OperatorActRefusedError, match=message) as refused:
        resend(harness, incident or id, destination)
    assert refused.value.refusal is refusal
    assert [state for *_, state in list_outbox(harness)] == ["undelivered"] * 2
    assert harness.select_rows(acts) == []


def test_a_destination_that_is_no_longer_configured(database: Database) -> None:
    harness, incident = open_undelivered_incident(database)
    with database.open_write_transaction() as connection:
        connection.exec_driver_sql(f"DELETE FROM revision_destinations WHERE destination = '{SLACK}'")
    with pytest.raises(OperatorActRefusedError, match="oncall/slack is no longer configured"):
        resend(harness, incident)
    assert resend(harness, incident, EMAIL) == [EMAIL]
