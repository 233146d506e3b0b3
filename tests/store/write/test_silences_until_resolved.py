"""Silences of one incident: what they hold back, and that they end with the incident."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, end_expired, send_due
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import DAY_MS
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.service.acts import end_silence, silence_until_resolved
from watchdog.store.act_tables import silences
from watchdog.store.database import Database
from watchdog.store.read.acts import list_silences_in_effect
from watchdog.store.tables import incidents

SLACK = "oncall/slack"
SLOTS = [START_AT + number * INTERVAL_MS for number in range(1, 10)]


@pytest.fixture
def harness(database: Database) -> StoreHarness:
    probes = [make_registered_probe(id, failure_threshold=1, success_threshold=1) for id in ("api", "web")]
    routes = NotificationRoutingTable({"oncall": (SLACK,)})
    return StoreHarness(database, probes, routes=routes).without_downtime()


def record(harness: StoreHarness, outcome: str, at: int, probe_id: str = "api", reason: str = "http.503") -> None:
    more: dict[str, Any] = {} if outcome == "pass" else {"reason": reason, "message": reason}
    harness.record_results(make_result(harness.database_id(probe_id), at, outcome, **more), now=at)


def find_open_incident(harness: StoreHarness) -> str:
    id: str = harness.select_row(incidents, incidents.c.resolved_at.is_(None))["id"]
    return id


def test_it_holds_back_one_incident_and_ends_with_it(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    incident = find_open_incident(harness)
    silence = silence_until_resolved(harness.database, incident, ANA, "known", SLOTS[0])
    assert (silence.incident, silence.matcher.probe.probe, silence.comment) == (incident, "api", "known")
    assert send_due(harness, SLOTS[0]) == []
    record(harness, "fail", SLOTS[1], "web")
    assert send_due(harness, SLOTS[1]) == [("web", SLACK, "opened")], "it selects no other incident"
    record(harness, "pass", SLOTS[2], "web")
    record(harness, "pass", SLOTS[2])
    assert end_expired(harness, SLOTS[2]) == [silence.id]
    assert send_due(harness, SLOTS[2]) == [("web", SLACK, "resolved")], "the destination never knew of the other one"
    record(harness, "fail", SLOTS[3])
    assert send_due(harness, SLOTS[3]) == [("api", SLACK, "opened")], "a later incident is not silenced"


def test_a_later_incident_of_the_same_probe_is_sent_before_the_end_is_carried_out(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    silence_until_resolved(harness.database, find_open_incident(harness), ANA, "", SLOTS[0])
    record(harness, "pass", SLOTS[1])
    record(harness, "fail", SLOTS[2])
    assert send_due(harness, SLOTS[2]) == [("api", SLACK, "opened")]


def test_the_end_of_an_incident_that_was_sent_before_is_sent(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    assert send_due(harness, SLOTS[0]) == [("api", SLACK, "opened")]
    silence_until_resolved(harness.database, find_open_incident(harness), ANA, "", SLOTS[0])
    record(harness, "fail", SLOTS[1], reason="dns.not_found")
    assert send_due(harness, SLOTS[1]) == [], "the cause changed"
    record(harness, "pass", SLOTS[2])
    end_expired(harness, SLOTS[2])
    assert send_due(harness, SLOTS[2]) == [("api", SLACK, "resolved")]


def test_a_person_may_end_it_before_and_what_is_open_is_sent(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    silence = silence_until_resolved(harness.database, find_open_incident(harness), ANA, "", SLOTS[0])
    assert end_expired(harness, SLOTS[1]) == []
    assert end_silence(harness.database, silence.id, BEN, SLOTS[1]).ended_by == "Ben"
    assert send_due(harness, SLOTS[1]) == [("api", SLACK, "opened")]
    assert silence_until_resolved(harness.database, silence.incident, BEN, "", SLOTS[2]).id != silence.id


def test_it_is_one_silence_however_often_it_is_requested(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    incident = find_open_incident(harness)
    first = silence_until_resolved(harness.database, incident, ANA, "known", SLOTS[0])
    assert silence_until_resolved(harness.database, incident, BEN, "me, too", SLOTS[1]) == first
    with harness.database.open_read_transaction() as connection:
        assert list_silences_in_effect(connection) == [first]


def test_only_an_open_incident_can_be_silenced(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    incident = find_open_incident(harness)
    record(harness, "pass", SLOTS[1])
    for id, reason in (
        (incident, OperatorActRefusalReason.CONFLICT),
        ("none", OperatorActRefusalReason.NOT_FOUND),
        ("\ud800", OperatorActRefusalReason.NOT_FOUND),
    ):
        with pytest.raises(OperatorActRefusedError) as refused:
            silence_until_resolved(harness.database, id, ANA, "", SLOTS[1])
        assert refused.value.refusal is reason
    assert harness.select_rows(silences) == []


def test_it_lasts_for_a_year_at_most_and_ends_with_an_incident_that_is_deleted(harness: StoreHarness) -> None:
    record(harness, "fail", SLOTS[0])
    incident = find_open_incident(harness)
    silence = silence_until_resolved(harness.database, incident, ANA, "", SLOTS[0])
    assert silence.ends_at == SLOTS[0] + 365 * DAY_MS
    assert end_expired(harness, silence.ends_at - 1) == []
    assert end_expired(harness, silence.ends_at) == [silence.id]
    again = silence_until_resolved(harness.database, incident, ANA, "", SLOTS[1])
    with harness.database.open_write_transaction() as connection:
        connection.execute(sa.delete(incidents))
    assert end_expired(harness, SLOTS[2]) == [again.id]
