"""Muting, and what people do with either probe meanwhile: pauses, maintenance, silences, acknowledgements."""

from __future__ import annotations

import pytest

from tests.support.acts import ANA, BEN, end_expired, send_due, silence
from tests.support.muting import decide, find_incidents, find_muting_steps, list_states, make_probe, record, send
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.muting import MAX_WAIT_FOR_MUTING_PROBE_MS
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable, ProbeMatcher
from watchdog.service.acts import (
    MaintenanceRequest,
    acknowledge_incident,
    begin_maintenance,
    pause_probe,
    resume_probe,
    silence_until_resolved,
)
from watchdog.store.database import Database
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.alert_context import load_alert_message_context

SLOT = START_AT + INTERVAL_MS
SLACK_ONLY = NotificationRoutingTable({"oncall": ("oncall/slack",)})
WAIT_MS = MAX_WAIT_FOR_MUTING_PROBE_MS


def make_harness(database: Database, *probes: RegisteredProbe) -> StoreHarness:
    """By default, search needs api. All have passed once."""
    probes = probes or (make_probe("api"), make_probe("search", "api"))
    harness = StoreHarness(database, probes, routes=SLACK_ONLY).without_downtime()
    record(harness, "pass", SLOT - 30_000, *(probe.info.id for probe in probes))
    return harness


# --- the probe that mutes is paused


def test_a_paused_probe_mutes_nothing_although_its_incident_is_open(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api")
    assert send(harness, SLOT) == [("api", "opened")]
    pause_probe(database, "api", None, ANA, "", now=SLOT + 1)
    record(harness, "fail", SLOT + 2, "search")
    assert send_due(harness, SLOT + 2) == [("search", "oncall/slack", "opened")], "without another decision"
    assert find_muting_steps(harness, "search") == ["not held back: Api is paused (muting_probe_is_paused: needs)"]
    assert decide(harness, SLOT + HOUR_MS) == []


def test_what_a_probe_has_muted_is_sent_once_it_is_paused(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    assert send(harness, SLOT) == [("api", "opened")]
    pause_probe(database, "api", None, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + 1) == [("search", "opened")]
    assert find_muting_steps(harness, "search")[-1] == "not held back: Api is paused (muting_probe_is_paused: needs)"
    resume_probe(database, "api", BEN, "", SLOT + 2)
    record(harness, "fail", SLOT + 3, "search", reason="canary.lost")
    assert send(harness, SLOT + 3) == [], "its incident is still open, and mutes again"
    record(harness, "pass", SLOT + 4, "api")
    assert send(harness, SLOT + 4) == [("api", "resolved"), ("search", "changed")]


def test_an_alert_does_not_wait_for_a_probe_that_is_paused(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    assert send(harness, SLOT) == []
    pause_probe(database, "api", None, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + 1) == [("search", "opened")]


def test_in_a_chain_a_paused_probe_mutes_nothing(database: Database) -> None:
    harness = make_harness(database, make_probe("db"), make_probe("api", "db"), make_probe("search", "api"))
    record(harness, "fail", SLOT, "db", "api", "search")
    assert send(harness, SLOT) == [("db", "opened")]
    pause_probe(database, "api", None, ANA, "", now=SLOT + 1)
    assert send(harness, SLOT + 1) == [("search", "opened")]
    record(harness, "pass", SLOT + 2, "db")
    assert send(harness, SLOT + 2) == [("db", "resolved")], "nothing of a paused probe is sent"


# --- the probe whose alert is muted is paused


@pytest.mark.parametrize("first_bad", ["api", "search"])
def test_an_alert_of_a_paused_probe_is_sent_once_it_is_resumed(database: Database, first_bad: str) -> None:
    """Whether it was muted or waited."""
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search", *(["api"] if first_bad == "api" else []))
    send(harness, SLOT)
    pause_probe(database, "search", None, ANA, "", now=SLOT + 1)
    record(harness, "pass", SLOT + 2, "api")
    assert ("search", "opened") not in send(harness, SLOT + WAIT_MS)
    assert list_states(harness, "search") == [("opened", "muted")]
    resume_probe(database, "search", BEN, "", SLOT + HOUR_MS)
    assert send(harness, SLOT + HOUR_MS) == [("search", "opened")]
    assert harness.select_rows(muted_incidents) == []


def test_nothing_is_sent_of_a_paused_probe_that_has_recovered_when_it_is_resumed(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    send(harness, SLOT)
    pause_probe(database, "search", None, ANA, "", now=SLOT + 1)
    resume_probe(database, "search", BEN, "", SLOT + 2)
    record(harness, "pass", SLOT + 3, "search")
    record(harness, "pass", SLOT + 4, "api")
    assert send(harness, SLOT + 4) == [("api", "resolved")]


# --- maintenance of either probe


def begin(database: Database, probe: str, now: int) -> None:
    """For an hour."""
    begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe=probe), now + HOUR_MS), ANA, now)


def test_a_failure_during_maintenance_opens_no_incident_and_mutes_nothing(database: Database) -> None:
    harness = make_harness(database)
    begin(database, "api", SLOT)
    record(harness, "fail", SLOT + 1, "api", "search")
    assert find_incidents(harness, "api") == []
    assert send(harness, SLOT + WAIT_MS) == []
    assert send(harness, SLOT + 1 + WAIT_MS) == [("search", "opened")]


def test_an_incident_that_opened_before_maintenance_mutes_during_it(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api")
    begin(database, "api", SLOT + 1)
    record(harness, "fail", SLOT + 2, "search")
    assert send(harness, SLOT + WAIT_MS) == [("api", "opened")]
    record(harness, "pass", SLOT + WAIT_MS + 1, "api")
    assert send(harness, SLOT + WAIT_MS + 1) == [("api", "resolved"), ("search", "opened")]


def test_an_alert_of_a_probe_in_maintenance_is_sent_afterwards(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    send(harness, SLOT)
    begin(database, "search", SLOT + 1)
    record(harness, "pass", SLOT + 2, "api")
    assert send(harness, SLOT + HOUR_MS) == [("api", "resolved")]
    assert send(harness, SLOT + 1 + HOUR_MS) == [("search", "opened")]


# --- silences and acknowledgements of the probe that mutes


def test_a_silenced_probe_mutes_and_its_message_states_it_when_the_silence_ends(database: Database) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT - 1, id="api")
    record(harness, "fail", SLOT, "api", "search")
    assert send(harness, SLOT) == []
    assert list_states(harness, "search") == [("opened", "muted")]
    assert end_expired(harness, SLOT + HOUR_MS) == [id]
    (leased,) = harness.lease_notifications(SLOT + HOUR_MS)
    with database.open_read_transaction() as connection:
        context = load_alert_message_context(connection, leased.notification, SLOT + HOUR_MS)
    assert (context.probe.id, context.muted_probe_names) == ("api", ("Search",))


def test_what_a_silenced_probe_has_muted_is_sent_when_it_recovers(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 1, id="api")
    record(harness, "fail", SLOT, "api", "search")
    assert send(harness, SLOT) == []
    record(harness, "pass", SLOT + 1, "api")
    assert send(harness, SLOT + 1) == [("search", "opened")]


def test_an_acknowledged_incident_mutes_like_any_other(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api")
    send(harness, SLOT)
    acknowledge_incident(database, find_incidents(harness, "api")[0]["id"], ANA, "", SLOT + 1)
    record(harness, "fail", SLOT + 2, "search")
    assert send(harness, SLOT + HOUR_MS) == []


def test_nothing_is_sent_of_an_alert_that_was_silenced_and_is_over_while_it_waits(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    (of_search,) = find_incidents(harness, "search")
    silence_until_resolved(database, of_search["id"], ANA, "", SLOT + 1)
    record(harness, "pass", SLOT + 2, "search")
    end_expired(harness, SLOT + 3)
    assert send(harness, SLOT + WAIT_MS) == []
    assert harness.select_rows(muted_incidents) == []
