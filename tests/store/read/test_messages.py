"""The messages of destinations, and the open incidents that a person read in one."""

from __future__ import annotations

from tests.support.acts import send_due, silence
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.store.database import Database
from watchdog.store.read.messages import list_messages_of_incident, list_open_incidents_of_message
from watchdog.store.tables import incidents

SLOT = START_AT + INTERVAL_MS
SLACK, CHAT = "oncall/slack", "chat/slack"


def make_harness(database: Database) -> StoreHarness:
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    routes = NotificationRoutingTable({"oncall": (SLACK,), "chat": (CHAT,)})
    return StoreHarness(database, [probe], routes=routes).without_downtime()


def list_open(database: Database, incident: str, destination: str, shown_at: int) -> list[str]:
    with database.open_read_transaction() as connection:
        return [each.probe_id for each in list_open_incidents_of_message(connection, incident, destination, shown_at)]


def test_the_messages_of_an_incident(database: Database) -> None:
    harness = make_harness(database)
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    id = harness.select_row(incidents)["id"]
    with database.open_read_transaction() as connection:
        assert list_messages_of_incident(connection, id, [SLACK]) == [], "none was sent yet"
    send_due(harness, SLOT)
    with database.open_read_transaction() as connection:
        assert list_messages_of_incident(connection, id, [SLACK, CHAT]) == [(CHAT, {"ts": "1"}), (SLACK, {"ts": "1"})]
        assert list_messages_of_incident(connection, id, [SLACK]) == [(SLACK, {"ts": "1"})]
        assert list_messages_of_incident(connection, id, []) == []
        assert list_messages_of_incident(connection, "unknown", [SLACK]) == []


def test_open_incidents_are_listed_as_of_the_message(database: Database) -> None:
    harness = make_harness(database)
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    send_due(harness, SLOT)
    id = harness.select_row(incidents)["id"]
    assert list_open(database, id, SLACK, SLOT) == ["api"]
    assert list_open(database, id, SLACK, SLOT - 1_000) == ["api"], "the clock of another process"
    assert list_open(database, id, SLACK, SLOT - 1_001) == []
    assert list_open(database, id, "other/slack", SLOT) == []
    harness.record_results(make_result(harness.database_ids[0], SLOT + INTERVAL_MS, "pass"), now=SLOT + INTERVAL_MS)
    assert list_open(database, id, SLACK, SLOT + INTERVAL_MS) == [], "it is over"


def test_an_incident_that_a_silence_holds_back_is_not_listed(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 1, id="api")
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    assert send_due(harness, SLOT) == []
    assert list_open(database, harness.select_row(incidents)["id"], SLACK, SLOT) == []
