"""Pauses: what does not run and is not judged meanwhile, and how a probe continues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.acts import ANA, BEN, list_outbox
from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    end_all_members,
    make_recorded_result,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import HealthState
from watchdog.domain.pausing import Pause
from watchdog.domain.probe_state import SavedScheduledJobState, ScheduledJobStateRecord, build_scheduled_job_state_key
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.schedule import CronSchedule
from watchdog.service.acts import pause_probe, resume_probe
from watchdog.store.act_tables import acts, pauses
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.status import ProbeStatus, list_probe_statuses
from watchdog.store.tables import END_OF_TIME_MS, evaluation_cursors, incidents, probe_state, results, schedule
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.pauses import end_expired_pauses
from watchdog.store.write.retention import delete_expired_rows

SLOT = START_AT + INTERVAL_MS
PAUSED_AT = SLOT + 10_000


def make_harness(
    database: Database, *, create_schema: bool = True, probe: RegisteredProbe | None = None
) -> StoreHarness:
    probe = probe or make_registered_probe("api", failure_threshold=1, success_threshold=1)
    return StoreHarness(database, [probe], create_schema=create_schema).without_downtime()


def load_status(harness: StoreHarness) -> ProbeStatus:
    with harness.database.open_read_transaction() as connection:
        return list_probe_statuses(connection, "api")[0]


def pause(harness: StoreHarness, now: int = PAUSED_AT, for_ms: int | None = None) -> Pause:
    ends_at = None if for_ms is None else now + for_ms
    return pause_probe(harness.database, "api", ends_at, ANA, "moved", now=now).pause


def resume(harness: StoreHarness, now: int) -> None:
    resume_probe(harness.database, "api", BEN, "", now)


def test_a_paused_probe_runs_no_more_until_it_is_resumed(database: Database) -> None:
    harness = make_harness(database)
    (claimed,) = harness.claim_slots(SLOT)
    harness.record_results(make_result(claimed.probe, claimed.slot))
    pause(harness)
    for minute in range(1, 30):
        assert harness.claim_slots(PAUSED_AT + minute * MINUTE_MS) == []
        assert harness.evaluate_deadlines(PAUSED_AT + minute * MINUTE_MS) == []
    status = load_status(harness)
    assert (status.state, status.next_due, status.pause) == (
        HealthState.PAUSED,
        None,
        Pause(PAUSED_AT, None, ANA, "moved"),
    )
    resumed_at = PAUSED_AT + 30 * MINUTE_MS
    resume(harness, resumed_at)
    assert (load_status(harness).state, load_status(harness).pause) == (HealthState.UP, None)
    assert harness.claim_slots(resumed_at) == [], "its next slot is in 50 s"
    (claimed,) = harness.claim_slots(SLOT + 31 * MINUTE_MS)
    assert (claimed.slot, claimed.late_ms) == (SLOT + 31 * MINUTE_MS, 0)
    assert [row["outcome"] for row in harness.select_rows(results)] == ["pass"], "no slot counts as missed"
    assert [(row["kind"], row["probe"], row["author"]) for row in harness.select_rows(acts)] == [
        ("pause", "api", "Ana"),
        ("resume", "api", "Ben"),
    ]


def test_a_cron_schedule_catches_nothing_up(database: Database) -> None:
    probe = replace(make_registered_probe("api", schedule=CronSchedule("0 * * * *")), catch_up_ms=HOUR_MS)
    harness = make_harness(database, probe=probe)
    pause(harness)
    resumed_at = START_AT + 3 * HOUR_MS
    harness.claim_slots(resumed_at)
    assert harness.slot_claimer.record_lost_runs_and_get_settled_until(resumed_at) > START_AT + 2 * HOUR_MS, (
        "hours can be rolled up"
    )
    resume(harness, resumed_at)
    assert harness.claim_slots(resumed_at) == []
    next_slot = CronSchedule("0 * * * *").find_next_slot_after(resumed_at)
    assert [each.slot for each in harness.claim_slots(next_slot)] == [next_slot]
    assert harness.select_rows(results) == []


def test_deadlines_count_from_the_resumption(database: Database) -> None:
    harness = make_harness(database)
    (claimed,) = harness.claim_slots(SLOT)
    harness.record_results(make_result(claimed.probe, claimed.slot))
    pause(harness)
    resumed_at = PAUSED_AT + HOUR_MS
    assert harness.evaluate_deadlines(resumed_at) == []
    resume(harness, resumed_at)
    assert harness.evaluate_deadlines(resumed_at + 299_999) == [], "the probe is stale after 300 s"
    (opened,) = harness.evaluate_deadlines(resumed_at + 300_000)
    assert (opened.rule, opened.event) == ("stale", "opened")
    states, transitions = harness.replay_probe(claimed.probe, resumed_at + 300_000)
    assert (states, transitions) == (harness.load_alert_states(claimed.probe), [opened])


def test_a_run_that_was_in_progress_is_stored_and_not_judged(database: Database) -> None:
    harness = make_harness(database)
    (claimed,) = harness.claim_slots(SLOT)
    pause(harness)
    result = make_result(claimed.probe, claimed.slot, "fail")
    assert harness.record_results(result, now=PAUSED_AT + 1) == []
    assert harness.select_row(results)["late"]
    assert harness.select_rows(incidents) == []


def test_an_open_incident_stays_open_and_resolves_after_the_pause(database: Database) -> None:
    harness = make_harness(database)
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"))
    before = list_outbox(harness)
    pause(harness)
    resumed_at = PAUSED_AT + HOUR_MS
    harness.evaluate_deadlines(resumed_at)
    assert list_outbox(harness) == before, "nothing is sent about it"
    status = load_status(harness)
    assert (status.state, len(status.open_incidents)) == (HealthState.PAUSED, 1)
    resume(harness, resumed_at)
    assert load_status(harness).state is HealthState.DOWN
    (resolved,) = harness.record_results(make_result(harness.database_ids[0], resumed_at + INTERVAL_MS))
    assert resolved.event == "resolved"


def test_alert_streaks_continue(database: Database) -> None:
    harness = make_harness(database, probe=make_registered_probe("api", failure_threshold=2))
    probe = harness.database_ids[0]
    harness.record_results(make_result(probe, SLOT, "fail"))
    pause(harness)
    resume(harness, PAUSED_AT + HOUR_MS)
    (opened,) = harness.record_results(make_result(probe, SLOT + 2 * HOUR_MS, "fail"))
    assert (opened.event, opened.first_bad_slot) == ("opened", SLOT)


def test_results_that_wait_for_others_are_judged_when_the_pause_begins(database: Database) -> None:
    harness = make_harness(database, probe=make_registered_probe("api", failure_threshold=1, lateness_ms=100_000))
    (first,) = harness.claim_slots(SLOT)
    (second,) = harness.claim_slots(SLOT + INTERVAL_MS)
    result = make_result(second.probe, second.slot, "fail", previous_slot=first.slot)
    assert harness.record_results(result) == [], "the first may still arrive"
    at = SLOT + INTERVAL_MS + 1_000
    pause(harness, at)
    assert harness.select_row(incidents)["since"] == second.slot
    harness.record_results(make_result(first.probe, first.slot), now=at + 1)
    assert harness.select_row(incidents)["resolved_at"] is None


def test_a_pause_ends_by_itself(databases: DatabasePair) -> None:
    """By either of two processes, once."""
    harness = make_harness(databases.first)
    other = StoreHarness(
        databases.second, [make_registered_probe("api", failure_threshold=1, success_threshold=1)], create_schema=False
    ).without_downtime()
    pause(harness, for_ms=HOUR_MS)
    end = PAUSED_AT + HOUR_MS
    assert end_expired_pauses(databases.second, LOCATION, end - 1) == []
    assert other.claim_slots(end - 1) == [], "the act through one process works in the other"
    assert end_expired_pauses(databases.second, LOCATION, end) == ["api"]
    assert end_expired_pauses(databases.first, LOCATION, end) == []
    assert len(harness.claim_slots(end + INTERVAL_MS)) == 1
    assert harness.select_row(pauses)["ended_by"] == ""


def test_to_pause_a_paused_probe_changes_the_end(database: Database) -> None:
    harness = make_harness(database)
    pause(harness, for_ms=HOUR_MS)
    changed = pause_probe(database, "Api", None, BEN, "longer", now=PAUSED_AT + 5)
    assert changed == ("api", "Api", Pause(PAUSED_AT, None, BEN, "longer"), True)
    assert end_expired_pauses(database, LOCATION, PAUSED_AT + DAY_MS) == []
    with database.open_read_transaction() as connection:
        assert load_pauses_in_effect(connection) == {harness.database_ids[0]: changed.pause}


@pytest.mark.parametrize(
    ("act", "refusal", "message"),
    [
        (
            lambda d: pause_probe(d, "web", None, ANA, "", now=SLOT),
            OperatorActRefusalReason.NOT_FOUND,
            "no probe has the id or name web",
        ),
        (
            lambda d: pause_probe(d, "a\0b", None, ANA, "", now=SLOT),
            OperatorActRefusalReason.NOT_FOUND,
            "no probe has the id or name",
        ),
        (
            lambda d: resume_probe(d, "web", ANA, "", SLOT),
            OperatorActRefusalReason.NOT_FOUND,
            "no probe has the id or name web",
        ),
        (lambda d: resume_probe(d, "api", ANA, "", SLOT), OperatorActRefusalReason.CONFLICT, "Api is not paused"),
        (
            lambda d: pause_probe(d, "api", SLOT, ANA, "", now=SLOT),
            OperatorActRefusalReason.INVALID,
            "would end in the past",
        ),
        (
            lambda d: pause_probe(d, "api", SLOT + 365 * DAY_MS + 1, ANA, "", now=SLOT),
            OperatorActRefusalReason.INVALID,
            "a pause may last for 365 days at most",
        ),
        (
            lambda d: pause_probe(d, "api", None, ANA, "x" * 501, now=SLOT),
            OperatorActRefusalReason.INVALID,
            "501 characters",
        ),
    ],
)
def test_refusals_store_nothing(database: Database, act, refusal: OperatorActRefusalReason, message: str) -> None:  # type: ignore[no-untyped-def]
    harness = make_harness(database)
    with pytest.raises(OperatorActRefusedError, match=message) as refused:
        act(database)
    assert refused.value.refusal is refusal
    assert harness.select_rows(pauses) == harness.select_rows(acts) == []


def test_watchdog_itself_cannot_be_paused(database: Database) -> None:
    probe = make_registered_probe("watchdog")
    own = replace(probe, policy=replace(probe.policy, probe=replace(probe.info, kind="service")))
    make_harness(database, probe=own)
    with pytest.raises(OperatorActRefusedError, match="reports the faults of Watchdog itself and cannot be paused"):
        pause_probe(database, "watchdog", None, ANA, "", now=SLOT)


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, 2 * HOUR_MS])
def test_the_end_keeps_its_distance_when_the_clock_is_set(database: Database, distance: int) -> None:
    harness = make_harness(database)
    harness.claim_slots(PAUSED_AT)
    pause(harness, for_ms=HOUR_MS)
    to = PAUSED_AT + distance
    adopt_clock_step(database, LOCATION, generation=0, to=to, now=PAUSED_AT)
    row = harness.select_row(pauses)
    assert (row["started_at"], row["ends_at"]) == (to, to + HOUR_MS)
    cursor = harness.select_row(evaluation_cursors)
    assert (cursor["evaluated_until"], cursor["wake_at"]) == (END_OF_TIME_MS, None)
    assert harness.select_rows(results, results.c.outcome == "missed") == [], "no slots of a paused probe were skipped"
    harness.watermark.generation = 1
    assert end_expired_pauses(database, LOCATION, to + HOUR_MS) == ["api"]


def test_a_past_pause_does_not_postpone_deadlines_after_the_clock_is_set_back(database: Database) -> None:
    harness = make_harness(database)
    harness.claim_slots(PAUSED_AT)
    pause(harness)
    resume(harness, PAUSED_AT + MINUTE_MS)
    to = PAUSED_AT - HOUR_MS
    adopt_clock_step(database, LOCATION, generation=0, to=to, now=PAUSED_AT + 2 * MINUTE_MS)
    row = harness.select_row(pauses)
    assert (row["started_at"], row["ended_at"]) == (to, to)


def test_a_restart_and_a_reload_keep_a_pause(database: Database) -> None:
    make_harness(database)
    pause_probe(database, "api", None, ANA, "", now=PAUSED_AT)
    end_all_members(database, PAUSED_AT)
    changed = make_registered_probe("api", schedule=CronSchedule("* * * * *"), failure_threshold=1)
    again = StoreHarness(database, [changed], now=PAUSED_AT, create_schema=False).without_downtime()
    assert again.claim_slots(PAUSED_AT + HOUR_MS) == []
    assert again.evaluate_deadlines(PAUSED_AT + HOUR_MS) == []
    assert load_status(again).state is HealthState.PAUSED
    resume(again, PAUSED_AT + HOUR_MS)
    assert len(again.claim_slots(PAUSED_AT + HOUR_MS + MINUTE_MS)) == 1


def test_a_paused_probe_of_another_kind_stays_paused(database: Database) -> None:
    make_harness(database)
    pause_probe(database, "api", None, ANA, "", now=PAUSED_AT)
    end_all_members(database, PAUSED_AT)
    probe = make_registered_probe("api")
    changed = replace(probe, policy=replace(probe.policy, probe=replace(probe.info, kind="mcp")))
    again = StoreHarness(database, [changed], now=PAUSED_AT, create_schema=False).without_downtime()
    assert again.claim_slots(PAUSED_AT + HOUR_MS) == []
    assert again.evaluate_deadlines(PAUSED_AT + HOUR_MS) == []
    resume(again, PAUSED_AT + HOUR_MS)
    assert len(again.claim_slots(PAUSED_AT + HOUR_MS + MINUTE_MS)) == 1


def test_the_pause_of_a_probe_that_is_removed_ends(database: Database) -> None:
    harness = make_harness(database)
    pause_probe(database, "api", None, ANA, "", now=PAUSED_AT)
    end_all_members(database, PAUSED_AT)
    removed_at = PAUSED_AT + LEASE_MS
    StoreHarness(database, [make_registered_probe("web")], now=removed_at, create_schema=False)
    row = harness.select_row(pauses)
    assert (row["ended_at"], row["ended_by"]) == (removed_at, "")
    end_all_members(database, removed_at)
    back = make_registered_probe("api")
    again = StoreHarness(database, [back], now=removed_at + 1, create_schema=False).without_downtime()
    assert [again.registry[each.probe].info.id for each in again.claim_slots(removed_at + HOUR_MS)] == ["api"]


def test_the_runs_of_a_job_that_checks_in_are_expected_from_the_resumption(database: Database) -> None:
    probe = make_registered_probe("api")
    heartbeat = replace(probe, policy=replace(probe.policy, probe=replace(probe.info, kind="heartbeat")))
    harness = make_harness(database, probe=heartbeat)
    id, key = harness.database_ids[0], build_scheduled_job_state_key("Api")
    remembered = ScheduledJobStateRecord("Api", SavedScheduledJobState("every 1 min", START_AT, last_ok=START_AT))
    recorded = make_recorded_result(make_result(id, SLOT), **{key: remembered.to_json(), "queue": {"waiting": {}}})
    harness.recorder.record_results([recorded], SLOT)
    pause(harness)
    resume(harness, PAUSED_AT + HOUR_MS)
    row = harness.select_row(probe_state)
    record = ScheduledJobStateRecord.from_json(decode_nullable_json(row["value"]))
    assert (row["key"], record.state.expected_from, record.state.last_ok) == (key, PAUSED_AT + HOUR_MS, START_AT)


def test_pauses_that_ended_expire(database: Database) -> None:
    harness = make_harness(database)
    pause(harness)
    resume(harness, PAUSED_AT + 1)
    while delete_expired_rows(database, PAUSED_AT + 10 * DAY_MS, DAY_MS, DAY_MS):
        pass
    assert harness.select_rows(pauses) == []
    pause(harness, PAUSED_AT + 10 * DAY_MS)
    while delete_expired_rows(database, PAUSED_AT + 30 * DAY_MS, DAY_MS, DAY_MS):
        pass
    assert len(harness.select_rows(pauses)) == 1
    assert harness.select_row(schedule)["paused"]
