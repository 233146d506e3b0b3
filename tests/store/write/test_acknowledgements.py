"""Acknowledgement of incidents: stored once, in the log of acts, and shown where a message can be edited."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.acts import ANA, BEN, list_outbox, send_due, silence
from tests.support.store import INTERVAL_MS, START_AT, DatabasePair, StoreHarness, make_registered_probe, make_result
from watchdog.domain.acts import Acknowledgement, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.notification import UNEDITABLE_MESSAGE_TEXT
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident, acknowledge_open_incidents, remove_acknowledgement
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.read.acts import list_operator_acts_about_incident
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import alert_states, incidents, outbox
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.outbox_lease import LeasedNotification

SLOT = START_AT + INTERVAL_MS
SLACK = "oncall/slack"


def open_incident(database: Database) -> tuple[StoreHarness, str]:
    """An incident of which oncall/slack has been notified, and its id."""
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, [probe], routes=NotificationRoutingTable({"oncall": (SLACK,)})).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    assert send_due(harness, SLOT) == [("api", SLACK, "opened")]
    return harness, harness.select_row(incidents)["id"]


def lease_for_editing(harness: StoreHarness, now: int) -> list[LeasedNotification]:
    return harness.outbox.lease_due_notifications(now, 30_000, [SLACK], [SLACK])


def load_acknowledgement(database: Database) -> Acknowledgement | None:
    with database.open_read_transaction() as connection:
        (record,) = list_incidents(connection)
    return record.incident.acknowledgement


def test_an_acknowledgement_is_stored_with_the_incident_and_in_the_log(database: Database) -> None:
    harness, incident = open_incident(database)
    states = harness.select_rows(alert_states)
    stored, is_new = acknowledge_incident(database, incident, ANA, "on it", SLOT + 1_000)
    assert is_new
    assert load_acknowledgement(database) == stored == Acknowledgement(SLOT + 1_000, ANA, "on it")
    with database.open_read_transaction() as connection:
        (act,) = list_operator_acts_about_incident(connection, incident)
    assert (act.kind, act.occurred_at, act.actor, act.comment) == ("acknowledge", SLOT + 1_000, ANA, "on it")
    assert harness.select_rows(alert_states) == states, "the fold does not read it"
    assert harness.select_row(incidents)["resolved_at"] is None


def test_the_first_acknowledgement_stays(database: Database) -> None:
    harness, incident = open_incident(database)
    first, _ = acknowledge_incident(database, incident, ANA, "", SLOT + 1_000)
    assert acknowledge_incident(database, incident, BEN, "me, too", SLOT + 2_000) == (first, False)
    assert len(harness.select_rows(acts)) == 1
    assert [event for _, event, _ in list_outbox(harness)] == ["opened", "acknowledged"]


def test_two_processes_that_acknowledge_at_once_agree_on_the_first(databases: DatabasePair) -> None:
    harness, incident = open_incident(databases.first)
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(acknowledge_incident, database, incident, actor, "", SLOT + 1_000)
            for database, actor in ((databases.first, ANA), (databases.second, BEN))
        ]
        acknowledgements = [each.result(60) for each in both]
    assert sorted(is_new for _, is_new in acknowledgements) == [False, True]
    assert len({acknowledgement for acknowledgement, _ in acknowledgements}) == 1
    assert len(harness.select_rows(acts)) == 1


def test_it_can_be_taken_back(database: Database) -> None:
    harness, incident = open_incident(database)
    assert not remove_acknowledgement(database, incident, BEN, "", SLOT + 1)
    acknowledge_incident(database, incident, ANA, "", SLOT + 2)
    assert remove_acknowledgement(database, incident, BEN, "wrong incident", SLOT + 3)
    assert load_acknowledgement(database) is None
    assert not remove_acknowledgement(database, incident, BEN, "", SLOT + 4)
    log = [(row["kind"], row["author"]) for row in harness.select_rows(acts)]
    assert log == [("acknowledge", "Ana"), ("unacknowledge", "Ben")]


def test_a_resolved_incident_cannot_be_acknowledged(database: Database) -> None:
    harness, incident = open_incident(database)
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS), now=SLOT + INTERVAL_MS)
    for act in (acknowledge_incident, remove_acknowledgement):
        with pytest.raises(OperatorActRefusedError, match=r"was resolved at .* UTC: only an open incident") as refused:
            act(database, incident, ANA, "", SLOT + 2 * INTERVAL_MS)
        assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert harness.select_rows(acts) == []


@pytest.mark.parametrize("incident", ["", "nothing", "a\0b", "\ud800", "' OR 1=1 --", "x" * 100_000])
def test_an_unknown_incident_is_refused(database: Database, incident: str) -> None:
    open_incident(database)
    with pytest.raises(OperatorActRefusedError, match="no incident has the id") as refused:
        acknowledge_incident(database, incident, ANA, "", SLOT + 1)
    assert refused.value.refusal is OperatorActRefusalReason.NOT_FOUND


def test_a_message_that_can_be_edited_is_edited(database: Database) -> None:
    harness, incident = open_incident(database)
    acknowledge_incident(database, incident, ANA, "", SLOT + 1)
    (leased,) = lease_for_editing(harness, SLOT + 1)
    assert (leased.notification.event, leased.previous_receipt) == ("acknowledged", {"ts": "1"})
    harness.outbox.mark_sent(leased, {"ts": "1"}, SLOT + 1)
    remove_acknowledgement(database, incident, BEN, "", SLOT + 2)
    (leased,) = lease_for_editing(harness, SLOT + 20_000)
    assert leased.notification.event == "acknowledged"


def test_where_messages_cannot_be_edited_no_one_is_notified(database: Database) -> None:
    harness, incident = open_incident(database)
    acknowledge_incident(database, incident, ANA, "", SLOT + 1)
    assert harness.lease_notifications(SLOT + 1) == []
    assert list_outbox(harness) == [(SLACK, "opened", "sent"), (SLACK, "acknowledged", "merged")]
    assert [row["detail"] for row in harness.select_rows(outbox)] == ["", UNEDITABLE_MESSAGE_TEXT]
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS), now=SLOT + INTERVAL_MS)
    assert send_due(harness, SLOT + INTERVAL_MS) == [("api", SLACK, "resolved")]


def test_one_that_an_unhandled_incident_of_the_group_held_up_is_sent_once_that_is_over(database: Database) -> None:
    """At a destination that tracks acknowledgements."""
    probes = [make_registered_probe(id, failure_threshold=1, success_threshold=1) for id in ("api", "shop")]
    routes = NotificationRoutingTable({"oncall": (SLACK,)}, (NotificationRoute(("oncall",), group_by=("group",)),))
    harness = StoreHarness(database, probes, routes=routes).without_downtime()
    harness.record_results(*[make_result(id, SLOT, "fail") for id in harness.database_ids], now=SLOT)

    def send(now: int) -> list[str]:
        leases = harness.outbox.lease_due_notifications(now, 30_000, [SLACK], acknowledging_destinations=[SLACK])
        for leased in leases:
            harness.outbox.mark_sent(leased, {}, now)
        return [leased.notification.event.value for leased in leases]

    assert send(SLOT) == ["opened"]
    is_of_api = incidents.c.probe == harness.database_id("api")
    acknowledge_incident(database, harness.select_row(incidents, is_of_api)["id"], ANA, "", SLOT + 1)
    assert [send(SLOT + 1), send(SLOT + 2)] == [[], []]
    now = SLOT + INTERVAL_MS
    harness.record_results(make_result(harness.database_id("shop"), now), now=now)
    assert [send(now), send(now + 1)] == [["acknowledged"], []]


def test_the_opening_that_still_waits_shows_it(database: Database) -> None:
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, [probe], routes=NotificationRoutingTable({"oncall": (SLACK,)})).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    acknowledge_incident(database, harness.select_row(incidents)["id"], ANA, "", SLOT + 1)
    (leased,) = lease_for_editing(harness, SLOT + 1)
    assert leased.notification.event == "opened"
    harness.outbox.mark_sent(leased, {"ts": "1"}, SLOT + 1)
    assert list_outbox(harness) == [(SLACK, "opened", "merged"), (SLACK, "acknowledged", "sent")]


def test_a_change_of_the_cause_that_waits_is_not_lost(database: Database) -> None:
    harness, incident = open_incident(database)
    changed: dict[str, Any] = {"reason": "canary.lost", "message": "lost"}
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS, "fail", **changed))
    acknowledge_incident(database, incident, ANA, "", SLOT + INTERVAL_MS + 500)
    (leased,) = lease_for_editing(harness, SLOT + INTERVAL_MS + 500)
    assert leased.notification.event == "changed"


def test_it_is_shown_during_a_silence_where_the_incident_is_known(database: Database) -> None:
    harness, incident = open_incident(database)
    silence(harness, SLOT + 1)
    acknowledge_incident(database, incident, ANA, "", SLOT + 2)
    (leased,) = lease_for_editing(harness, SLOT + 2)
    assert leased.notification.event == "acknowledged"


def test_a_step_of_the_clock_moves_it_with_the_incident(database: Database) -> None:
    harness, incident = open_incident(database)
    acknowledge_incident(database, incident, ANA, "", SLOT + 1_000)
    harness.advance_watermark(SLOT + 2_000)
    assert adopt_clock_step(database, "local", generation=0, to=SLOT + 3_602_000, now=SLOT + 2_000) is not None
    row = harness.select_row(incidents)
    assert row["acknowledged_at"] - row["opened_at"] == 1_000
    assert harness.select_row(acts)["occurred_at"] == row["acknowledged_at"]


def test_the_database_has_the_row_of_the_editor_only_once(databases: DatabasePair) -> None:
    harness, incident = open_incident(databases.first)
    for at in range(1, 6):
        acknowledge_incident(databases.second, incident, ANA, "", SLOT + at)
    assert len(harness.select_rows(outbox)) == 2


def open_two_incidents(database: Database) -> tuple[StoreHarness, list[str]]:
    probes = [make_registered_probe(id, failure_threshold=1, success_threshold=1) for id in ("api", "shop")]
    harness = StoreHarness(database, probes, routes=NotificationRoutingTable({"oncall": (SLACK,)})).without_downtime()
    harness.record_results(*[make_result(id, SLOT, "fail") for id in harness.database_ids], now=SLOT)
    send_due(harness, SLOT)
    return harness, [row["id"] for row in harness.select_rows(incidents)]


def test_several_incidents_are_acknowledged_in_one_transaction(database: Database) -> None:
    harness, ids = open_two_incidents(database)
    first, _ = acknowledge_incident(database, ids[0], BEN, "", SLOT + 1)
    acknowledged = acknowledge_open_incidents(database, [*ids, "unknown", "\0"], ANA, "both", SLOT + 2)
    expected = {(first, False), (Acknowledgement(SLOT + 2, ANA, "both"), True)}
    assert set(acknowledged) == expected
    assert sorted(row["acknowledged_by"] for row in harness.select_rows(incidents)) == ["Ana", "Ben"]
    assert [row["author"] for row in harness.select_rows(acts)] == ["Ben", "Ana"]


def test_of_several_incidents_those_that_are_over_are_left_out(database: Database) -> None:
    harness, ids = open_two_incidents(database)
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS, "pass"), now=SLOT + INTERVAL_MS)
    later = SLOT + INTERVAL_MS + 1
    assert acknowledge_open_incidents(database, ids, ANA, "", later) == [(Acknowledgement(later, ANA, ""), True)]
    harness.record_results(make_result(harness.database_ids[1], SLOT + INTERVAL_MS, "pass"), now=SLOT + INTERVAL_MS)
    for of_none in (ids, []):
        with pytest.raises(OperatorActRefusedError, match="none of the incidents is open") as refused:
            acknowledge_open_incidents(database, of_none, ANA, "", later)
        assert refused.value.refusal is OperatorActRefusalReason.CONFLICT


def test_two_processes_that_acknowledge_several_incidents_at_once_agree(databases: DatabasePair) -> None:
    _, ids = open_two_incidents(databases.first)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(acknowledge_open_incidents, database, order, actor, "", SLOT + 1_000)
            for database, order, actor in ((databases.first, ids, ANA), (databases.second, ids[::-1], BEN))
        ]
        answers = [each.result(60) for each in both]
    assert sorted(is_new for answer in answers for _, is_new in answer) == [False, False, True, True]
    assert {acknowledgement for acknowledgement, _ in answers[0]} == {each for each, _ in answers[1]}
