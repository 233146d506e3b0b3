"""Incidents that people close: what is stored, who is notified, and how the finding counts afresh."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.acts import ANA, BEN, end_expired, list_outbox, send_due, silence
from tests.support.builders import failed_job
from tests.support.muting import decide, list_states, make_probe
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_recorded_result,
    make_registered_probe,
    make_result,
    make_results,
)
from watchdog.domain.acts import Closure, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import HealthState, Outcome
from watchdog.domain.probe_state import (
    JobClosureRecord,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_job_closure_state_key,
    build_scheduled_job_state_key,
)
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable, ProbeMatcher
from watchdog.domain.rules import service
from watchdog.domain.schedule import CronSchedule
from watchdog.service.acts import (
    MaintenanceRequest,
    acknowledge_incident,
    begin_maintenance,
    close_incident,
    pause_probe,
    resume_probe,
    silence_until_resolved,
)
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.read.reopening import load_reopening_outlook_text
from watchdog.store.read.status import IncidentRecord, list_incidents, list_probe_statuses
from watchdog.store.tables import alert_states, incidents, probe_state
from watchdog.store.transition_tables import transitions

SLOTS = [START_AT + number * INTERVAL_MS for number in range(30)]
SLACK = "oncall/slack"


def make_harness(database: Database, *probes: RegisteredProbe, failure_threshold: int = 1) -> StoreHarness:
    probe = make_registered_probe(failure_threshold=failure_threshold, success_threshold=1)
    routes = NotificationRoutingTable({"oncall": (SLACK,)})
    return StoreHarness(database, probes or [probe], routes=routes).without_downtime()


def record(harness: StoreHarness, outcomes: str, first: int = 1, probe: str = "api") -> None:
    """One result a minute, from this slot on."""
    harness.record_each(*make_results(harness.database_id(probe), outcomes, SLOTS[first - 1]))


def find_open_incident(harness: StoreHarness) -> str:
    id: str = harness.select_row(incidents, incidents.c.resolved_at.is_(None))["id"]
    return id


def close(harness: StoreHarness, now: int, comment: str = "") -> str:
    """The only open incident; returns its id."""
    incident = find_open_incident(harness)
    assert close_incident(harness.database, incident, ANA, comment, now)[1]
    return incident


def count_open(harness: StoreHarness) -> int:
    return len(harness.select_rows(incidents, incidents.c.resolved_at.is_(None)))


def load_incident(harness: StoreHarness, incident: str) -> IncidentRecord:
    with harness.database.open_read_transaction() as connection:
        return list_incidents(connection, incident=incident)[0]


def check_replay(harness: StoreHarness, now: int) -> None:
    """Replay equals live."""
    for probe in harness.database_ids:
        states, replayed = harness.replay_probe(probe, now)
        assert states == harness.load_alert_states(probe)
        ended = {each.incident: each.slot for each in replayed if each.event == "resolved"}
        rows = harness.select_rows(incidents, incidents.c.probe == probe)
        assert {each.incident for each in replayed} == {row["id"] for row in rows}
        assert ended == {row["id"]: row["resolved_slot"] for row in rows if row["resolved_at"]}


# --- the act


def test_a_close_is_stored_with_the_incident_and_in_the_log(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "f")
    now = SLOTS[1] + 10_000
    incident = close(harness, now, "host removed")
    stored = load_incident(harness, incident).incident
    assert (stored.state, stored.resolution) == ("resolved", "incident.closed")
    assert stored.closure == Closure(now, ANA, "host removed")
    log = harness.select_row(acts)
    assert (log["kind"], log["incident"], log["author"], log["comment"]) == ("close", incident, "Ana", "host removed")
    kinds = [row["kind"] for row in harness.select_rows(transitions)]
    assert kinds == ["opened", "resolved", "closed"]
    assert harness.select_rows(alert_states) == []
    with database.open_read_transaction() as connection:
        assert list_probe_statuses(connection, "api")[0].state is HealthState.UP
    check_replay(harness, now)


def test_the_first_close_stays(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "f")
    incident = close(harness, SLOTS[2], "host removed")
    again = close_incident(database, incident, BEN, "me, too", SLOTS[3])
    assert again == (Closure(SLOTS[2], ANA, "host removed"), False, "")
    assert len(harness.select_rows(acts)) == 1


@pytest.mark.parametrize(
    ("outcomes", "act", "is_stated"),
    [("ff", "", True), ("ffp", "", False), ("ff", "pause", False), ("ff", "maintenance", False), ("p", "", False)],
    ids=["it still fails", "the last result was good", "it is paused", "it is in maintenance", "nothing is open"],
)
def test_the_response_states_when_another_incident_opens(
    database: Database, outcomes: str, act: str, is_stated: bool
) -> None:
    probe = make_registered_probe(failure_threshold=2, success_threshold=2)
    harness = make_harness(database, probe)
    record(harness, outcomes)
    rows = harness.select_rows(incidents)
    now = SLOTS[len(outcomes)] + 10_000
    if act == "pause":
        pause_probe(database, "api", None, ANA, "", now=now)
    elif act == "maintenance":
        begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe="api"), now + HOUR_MS), ANA, now)
    outlook = (
        "the probe still fails: another incident opens after 2\xa0more bad results in a row (within about 1\xa0min)"
    )
    expected = outlook if is_stated else ""
    with database.open_read_transaction() as connection:
        incident = rows[0]["id"] if rows else "none"
        assert load_reopening_outlook_text(connection, incident, now + 1) == expected
    if rows:
        assert close_incident(database, incident, ANA, "", now + 1).outlook == expected


def test_an_incident_is_closed_also_if_its_outlook_cannot_be_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchdog.service.acts.load_reopening_outlook_text", Mock(side_effect=KeyError("tags")))
    harness = make_harness(database)
    record(harness, "f")
    assert close_incident(database, find_open_incident(harness), ANA, "", SLOTS[2])[1:] == (True, "")


def test_two_processes_that_close_at_once_agree_on_the_first(databases: DatabasePair) -> None:
    harness = make_harness(databases.first)
    record(harness, "f")
    incident = find_open_incident(harness)
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(close_incident, database, incident, actor, "", SLOTS[2])
            for database, actor in ((databases.first, ANA), (databases.second, BEN))
        ]
        closures = [each.result(60) for each in both]
    assert sorted(closed.is_new for closed in closures) == [False, True]
    assert len({closed.closure for closed in closures}) == 1
    assert len(harness.select_rows(acts)) == 1


def test_what_ended_by_itself_is_refused(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fp")
    incident = harness.select_row(incidents)["id"]
    with pytest.raises(
        OperatorActRefusedError, match=r"was resolved at .* UTC: only an open incident can be"
    ) as refused:
        close_incident(database, incident, ANA, "", SLOTS[5])
    assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert harness.select_rows(acts) == []


def test_a_fault_of_watchdog_itself_is_refused(database: Database) -> None:
    probe = make_registered_probe(failure_threshold=1)
    info = replace(probe.info, kind=service.WATCHDOG_SELF_PROBE_KIND)
    harness = make_harness(database, replace(probe, policy=replace(probe.policy, probe=info)))
    record(harness, "f")
    with pytest.raises(
        OperatorActRefusedError, match=r"a fault of Watchdog itself .* acknowledge or silence"
    ) as refused:
        close_incident(database, find_open_incident(harness), ANA, "", SLOTS[2])
    assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert count_open(harness) == 1


@pytest.mark.parametrize("incident", ["", "nothing", "a\0b", "\ud800", "' OR 1=1 --", "x" * 100_000])
def test_an_unknown_incident_is_refused(database: Database, incident: str) -> None:
    make_harness(database)
    with pytest.raises(OperatorActRefusedError, match="no incident has the id") as refused:
        close_incident(database, incident, ANA, "", SLOTS[1])
    assert refused.value.refusal is OperatorActRefusalReason.NOT_FOUND


# --- who is notified


def test_those_who_were_sent_the_opening_are_sent_the_end(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "f")
    assert send_due(harness, SLOTS[1] + 300) == [("api", SLACK, "opened")]
    close(harness, SLOTS[2])
    assert send_due(harness, SLOTS[2]) == [("api", SLACK, "resolved")]
    assert list_outbox(harness) == [(SLACK, "opened", "sent"), (SLACK, "resolved", "sent")]


def test_no_one_is_sent_anything_of_an_incident_that_was_silenced(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, START_AT)
    record(harness, "f")
    assert send_due(harness, SLOTS[1] + 300) == []
    close(harness, SLOTS[2])
    end_expired(harness, SLOTS[2] + 2 * HOUR_MS)
    assert send_due(harness, SLOTS[2] + 2 * HOUR_MS) == []


def test_a_silence_until_the_incident_is_resolved_ends(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "f")
    stored = silence_until_resolved(database, find_open_incident(harness), ANA, "", SLOTS[1])
    close(harness, SLOTS[2])
    assert end_expired(harness, SLOTS[2]) == [stored.id]


def test_an_acknowledged_incident_keeps_its_acknowledgement(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "f")
    acknowledge_incident(database, find_open_incident(harness), BEN, "on it", SLOTS[1])
    stored = load_incident(harness, close(harness, SLOTS[2])).incident
    assert stored.acknowledgement is not None
    assert stored.acknowledgement.actor == BEN


def test_what_a_closed_cause_muted_is_sent(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search", "api"))
    record(harness, "f")
    cause = find_open_incident(harness)
    assert send_due(harness, SLOTS[1] + 300) == [("api", SLACK, "opened")]
    record(harness, "f", 2, "search")
    assert send_due(harness, SLOTS[2] + 300) == []
    close_incident(database, cause, ANA, "", SLOTS[3])
    decide(harness, SLOTS[3])
    assert send_due(harness, SLOTS[3]) == [("api", SLACK, "resolved"), ("search", SLACK, "opened")]


def test_a_muted_incident_that_is_closed_is_not_sent(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search", "api"))
    record(harness, "f")
    send_due(harness, SLOTS[1] + 300)
    record(harness, "f", 2, "search")
    muted = harness.select_row(incidents, incidents.c.probe == harness.database_id("search"))["id"]
    close_incident(database, muted, ANA, "", SLOTS[3])
    record(harness, "p", 4)
    decide(harness, SLOTS[5])
    assert send_due(harness, SLOTS[5]) == [("api", SLACK, "resolved")]
    assert ("opened", "muted") in list_states(harness, "search")


# --- the finding counts afresh


def test_a_failure_that_goes_on_opens_another_incident_after_enough_later_results(database: Database) -> None:
    probe = make_registered_probe(failure_threshold=3, success_threshold=1, lateness_ms=200_000)
    harness = make_harness(database, probe)
    record(harness, "ffffff")
    first = close(harness, SLOTS[6] + 10_000)
    record(harness, "ff", 7)
    assert count_open(harness) == 0
    record(harness, "f", 9)
    second = harness.select_row(incidents, incidents.c.resolved_at.is_(None))
    assert (second["since"], second["threshold"]) == (SLOTS[7], 3)
    assert second["id"] != first
    check_replay(harness, SLOTS[10])
    close(harness, SLOTS[10])
    check_replay(harness, SLOTS[11])


@pytest.mark.parametrize("rule", ["availability", "job"])
def test_a_run_in_progress_counts_unless_the_finding_is_about_earlier_times(database: Database, rule: str) -> None:
    harness = make_harness(database)
    probe = harness.database_ids[0]
    fields: dict[str, Any] = {"jobs": [failed_job("a")]}
    outcome = Outcome.FAIL if rule == "availability" else Outcome.PASS
    (claimed,) = harness.claim_slots(SLOTS[1])
    harness.record_results(make_result(probe, claimed.slot, outcome, **fields if rule == "job" else {}))
    (claimed,) = harness.claim_slots(SLOTS[2])
    close(harness, SLOTS[2] + 1_000)
    later = make_result(probe, claimed.slot, outcome, **fields if rule == "job" else {})
    harness.record_results(later._replace(previous_slot=claimed.previous_slot), now=SLOTS[2] + 5_000)
    assert count_open(harness) == (rule == "availability")
    check_replay(harness, SLOTS[2] + 10_000)


def test_a_result_that_is_awaited_still_counts_for_other_findings(database: Database) -> None:
    harness = make_harness(
        database, make_registered_probe(failure_threshold=1, success_threshold=1, lateness_ms=200_000)
    )
    probe = harness.database_ids[0]
    harness.record_results(make_result(probe, SLOTS[1], jobs=[failed_job("a")]))
    incident = find_open_incident(harness)
    harness.record_results(make_result(probe, SLOTS[3])._replace(previous_slot=SLOTS[2]), now=SLOTS[3] + 300)
    close_incident(database, incident, ANA, "", SLOTS[3] + 1_000)
    late = make_result(probe, SLOTS[2], jobs=[failed_job("a"), failed_job("b")])._replace(previous_slot=SLOTS[1])
    harness.record_results(late, now=SLOTS[3] + 2_000)
    opened = [row["subject"] for row in harness.select_rows(incidents) if row["id"] != incident]
    assert opened == ["b"], "job a is not held against what was claimed before the close"
    check_replay(harness, SLOTS[4])


def test_a_probe_that_stays_silent_is_stale_again_after_its_threshold(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "p")
    stale_at = SLOTS[1] + 300_000
    assert [each.rule for each in harness.evaluate_deadlines(stale_at)] == ["stale"]
    closed_at = stale_at + 10_000
    close(harness, closed_at)
    assert harness.evaluate_deadlines(closed_at + 299_999) == []
    (opened,) = harness.evaluate_deadlines(closed_at + 300_000)
    assert (opened.rule, opened.first_bad_slot) == ("stale", closed_at)
    check_replay(harness, closed_at + 300_000)
    close(harness, closed_at + 400_000)
    check_replay(harness, closed_at + 400_000)
    record(harness, "p", 20)
    assert count_open(harness) == 0
    check_replay(harness, SLOTS[21])


def test_runs_of_a_job_learn_what_no_longer_counts(database: Database) -> None:
    harness = make_harness(database)
    probe, key = harness.database_ids[0], build_scheduled_job_state_key("a")
    record_of_job = ScheduledJobStateRecord("a", SavedScheduledJobState(failures=4)).to_json()
    with database.open_write_transaction() as connection:
        connection.execute(
            sa.insert(probe_state).values(probe=probe, key=key, value=encode_storable_json(record_of_job))
        )
    harness.record_results(make_result(probe, SLOTS[1], jobs=[failed_job("a")]))
    close(harness, SLOTS[2])
    stored = harness.select_row(probe_state, probe_state.c.key == build_job_closure_state_key(key))
    assert JobClosureRecord.from_json(decode_nullable_json(stored["value"])) == JobClosureRecord("a", SLOTS[2], 4)


def test_a_run_in_progress_does_not_undo_a_later_close(database: Database) -> None:
    """The run has read the first close, of which it would leave out fewer failures."""
    harness = make_harness(database)
    probe, key = harness.database_ids[0], build_job_closure_state_key(build_scheduled_job_state_key("a"))
    of_close = probe_state.c.key == key

    def load() -> Any:
        return decode_nullable_json(harness.select_row(probe_state, of_close)["value"])

    def record_run(number: int, closure: Any) -> None:
        result = make_result(probe, SLOTS[number], jobs=[failed_job("a")])
        harness.recorder.record_results([make_recorded_result(result, **{key: closure})], SLOTS[number] + 300)

    harness.record_results(make_result(probe, SLOTS[1], jobs=[failed_job("a")]))
    close(harness, SLOTS[2])
    first = load()
    record_run(3, first | {"failures": 7})
    assert load() == first | {"failures": 7}, "a run changes the close that it has read"
    close(harness, SLOTS[4] + 1_000)
    second = load()
    assert second["closed_at"] > first["closed_at"]
    record_run(4, first | {"failures": 1})
    assert load() == second
    record_run(5, second | {"failures": 2})
    assert load() == second | {"failures": 2}
    record_run(6, None)
    assert harness.select_rows(probe_state, of_close) == [], "the job was removed"
    record_run(7, second)
    assert harness.select_rows(probe_state, of_close) == []


def test_a_cron_run_that_did_not_take_place_after_the_close_is_another_incident(database: Database) -> None:
    harness = make_harness(
        database, make_registered_probe(schedule=CronSchedule("* * * * *"), failure_threshold=1, success_threshold=1)
    )
    missed: dict[str, Any] = {"outcome": Outcome.MISSED, "reason": "missed.not_run", "message": "no run at 06:00"}
    probe = harness.database_ids[0]
    harness.record_results(make_result(probe, SLOTS[1])._replace(**missed))
    assert harness.select_row(incidents)["rule"] == "missed_run"
    close(harness, SLOTS[2])
    assert count_open(harness) == 0
    harness.record_results(make_result(probe, SLOTS[3])._replace(**missed))
    assert count_open(harness) == 1
    check_replay(harness, SLOTS[4])


@pytest.mark.parametrize("failure_threshold", [1, 2])
def test_an_incident_of_a_paused_probe_is_closed(database: Database, failure_threshold: int) -> None:
    harness = make_harness(database, failure_threshold=failure_threshold)
    record(harness, "fff")
    pause_probe(database, "api", None, ANA, "", now=SLOTS[3] + 10_000)
    close(harness, SLOTS[4])
    resume_probe(database, "api", BEN, "", SLOTS[5])
    check_replay(harness, SLOTS[5])
    record(harness, "f", 6)
    assert count_open(harness) == (failure_threshold == 1)
    record(harness, "f", 7)
    assert count_open(harness) == 1
    check_replay(harness, SLOTS[8])


@pytest.mark.parametrize("distance", [-9 * HOUR_MS, 2 * INTERVAL_MS])
def test_a_close_and_a_step_of_the_clock(database: Database, distance: int) -> None:
    probe = make_registered_probe("api", failure_threshold=2, success_threshold=1, staleness_threshold=9 * HOUR_MS)
    process = SteppingProcess(database, probe)
    process.failing_probes = {process.first}
    process.run(SLOTS[3] + 10_000)
    close_incident(database, find_open_incident(process.harness), ANA, "", process.now)
    to = process.step(distance)
    assert count_open(process.harness) == 0
    process.run(to + 3 * INTERVAL_MS)
    assert count_open(process.harness) == 1
    assert replays(process)
    close_incident(database, find_open_incident(process.harness), ANA, "", process.now)
    assert replays(process)


@pytest.mark.parametrize("distance", [-9 * HOUR_MS, HOUR_MS])
def test_a_probe_that_is_stale_since_before_the_clock_was_set(database: Database, distance: int) -> None:
    process = SteppingProcess(database, make_registered_probe("api", staleness_threshold=HOUR_MS))
    process.run(SLOTS[2])
    process.now += HOUR_MS + INTERVAL_MS
    process.harness.evaluate_deadlines(process.now)
    first = find_open_incident(process.harness)
    closed_at = process.step(distance) + 10_000
    close_incident(database, first, ANA, "", closed_at)
    assert process.harness.evaluate_deadlines(closed_at + HOUR_MS - 1) == []
    process.now = closed_at + HOUR_MS
    (opened,) = process.harness.evaluate_deadlines(process.now)
    assert (opened.rule, opened.first_bad_slot) == ("stale", closed_at)
    assert replays(process)
    close_incident(database, opened.incident, ANA, "", process.now)
    assert replays(process)
