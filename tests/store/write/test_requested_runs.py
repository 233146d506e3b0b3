"""Runs that people request: claimed once and at once, judged like any run, without a change to the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.acts import ANA, BEN
from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import ClaimedSlot
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.service.acts import pause_probe, request_run, resume_probe
from watchdog.store.act_tables import acts, requested_runs
from watchdog.store.database import Database
from watchdog.store.read.requested_runs import filter_slots_of_requested_runs, load_requested_run_result
from watchdog.store.tables import incidents, results, schedule
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.probe_rows import mark_probes_retired

SLOT = START_AT + INTERVAL_MS
REQUESTED_AT = SLOT + 20_000
MANUAL = {"manual": True}


def make_harness(
    database: Database, *, create_schema: bool = True, probe: RegisteredProbe | None = None
) -> StoreHarness:
    """A process that has scheduled runs until SLOT."""
    probe = probe or make_registered_probe("api", failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, [probe], create_schema=create_schema).without_downtime()
    harness.advance_watermark(SLOT)
    return harness


def next_due(harness: StoreHarness) -> int:
    due: int = harness.select_row(schedule)["next_due"]
    return due


def test_a_requested_run_takes_place_once_and_the_schedule_does_not_move(databases: DatabasePair) -> None:
    first, other = make_harness(databases.first), make_harness(databases.second, create_schema=False)
    (scheduled,) = first.claim_slots(SLOT)
    due = next_due(first)
    requested = request_run(databases.second, "Api", ANA, "after the fix", REQUESTED_AT)
    again = request_run(databases.first, "api", BEN, "", REQUESTED_AT + 300)
    assert (requested.is_new, again.is_new, again.slot) == (True, False, requested.slot), "two requests are one run"
    (run,) = other.claim_slots(REQUESTED_AT + 500)
    assert run == ClaimedSlot(scheduled.probe, REQUESTED_AT + 1, LOCATION, SLOT, is_requested=True)
    assert first.claim_slots(REQUESTED_AT + 500) == []
    assert next_due(first) == due
    (following,) = first.claim_slots(due)
    assert (following.slot, following.previous_slot, following.is_requested) == (due, run.slot, False)
    recorded = [(row["kind"], row["author"], row["comment"]) for row in first.select_rows(acts)]
    assert recorded == [("run_now", "Ana", "after the fix")]


def test_a_requested_run_is_judged_like_any_run(database: Database) -> None:
    harness = make_harness(database)
    requested = request_run(database, "api", ANA, "", REQUESTED_AT)
    run = next(each for each in harness.claim_slots(REQUESTED_AT + 500) if each.is_requested)
    result = make_result(run.probe, run.slot, "fail", previous_slot=None, measurements=MANUAL)
    (opened,) = harness.record_results(result)
    assert opened.event == "opened"
    with database.open_read_transaction() as connection:
        stored = load_requested_run_result(connection, run.probe, requested.slot)
    assert stored is not None
    assert (stored.result.slot, stored.result.measurements) == (run.slot, MANUAL)


def test_a_slot_that_is_due_as_well_runs_too(database: Database) -> None:
    harness = make_harness(database)
    request_run(database, "api", ANA, "", SLOT - 200)
    runs = harness.claim_slots(SLOT)
    assert [(run.slot, run.previous_slot, run.is_requested) for run in runs] == [
        (SLOT - 199, None, True),
        (SLOT, SLOT - 199, False),
    ]


def test_a_run_that_is_requested_after_a_slot_was_claimed_ahead_comes_after_it(database: Database) -> None:
    """Otherwise its result would be older than what is evaluated already."""
    harness = make_harness(database)
    assert [run.slot for run in harness.claim_slots(SLOT - 900)] == [SLOT]
    request_run(database, "api", ANA, "", SLOT - 800)
    (run,) = harness.claim_slots(SLOT - 400)
    assert (run.slot, run.previous_slot) == (SLOT + 1, SLOT)


def test_a_paused_probe_runs_on_request_and_opens_nothing(database: Database) -> None:
    harness = make_harness(database)
    harness.claim_slots(SLOT)
    pause_probe(database, "api", None, ANA, "", now=SLOT + 1)
    request_run(database, "api", ANA, "", REQUESTED_AT)
    (run,) = harness.claim_slots(REQUESTED_AT + 500)
    assert run.is_requested
    assert harness.record_results(make_result(run.probe, run.slot, "fail", measurements=MANUAL)) == []
    assert harness.select_rows(incidents) == []
    assert harness.select_row(results)["late"]
    with database.open_read_transaction() as connection:
        assert load_requested_run_result(connection, run.probe, run.slot) is not None, "the person sees it"
    assert harness.claim_slots(REQUESTED_AT + 5 * INTERVAL_MS) == [], "it is still paused"
    resume_probe(database, "api", ANA, "", REQUESTED_AT + HOUR_MS)
    assert len(harness.claim_slots(REQUESTED_AT + HOUR_MS + INTERVAL_MS)) == 1


def test_a_request_that_no_process_takes_is_dropped(database: Database) -> None:
    harness = make_harness(database)
    harness.claim_slots(SLOT)
    request_run(database, "api", ANA, "", REQUESTED_AT)
    assert [run.is_requested for run in harness.claim_slots(REQUESTED_AT + 10_002)] == []
    assert harness.select_rows(requested_runs) == []
    request_run(database, "api", ANA, "", REQUESTED_AT + 20_000)
    later = request_run(database, "api", ANA, "", REQUESTED_AT + 32_000)
    assert later.is_new, "the one before is too old"


def test_a_process_that_may_not_run_the_probe_leaves_the_request(databases: DatabasePair) -> None:
    first = make_harness(databases.first)
    StoreHarness(databases.second, [make_registered_probe("api", failure_threshold=2)], create_schema=False)
    first.membership.renew_process_lease_and_update_probes(START_AT + 1)
    request_run(databases.first, "api", ANA, "", REQUESTED_AT)
    assert first.claim_slots(REQUESTED_AT + 500) == []
    assert len(first.select_rows(requested_runs)) == 1


def test_a_requested_run_of_a_cron_schedule_is_no_scheduled_run(database: Database) -> None:
    """If it is lost, no run of the schedule is missing; and it does not stand for one that was missed."""
    probe = make_registered_probe("api", schedule=CronSchedule("0 * * * *"), failure_threshold=1)
    harness = make_harness(database, probe=probe)
    request_run(database, "api", ANA, "", REQUESTED_AT)
    (run,) = harness.claim_slots(REQUESTED_AT + 500)
    harness.slot_claimer.record_lost_runs_and_get_settled_until(REQUESTED_AT + 60_000)
    assert harness.select_row(results)["reason"] == "missed.result_lost"
    assert harness.select_rows(incidents) == []
    assert run.slot % 2 == 1


def test_a_request_that_no_process_may_take_is_dropped(databases: DatabasePair) -> None:
    """By a process that may not run the probe either, so that the request is not found again and again."""
    first = make_harness(databases.first)
    StoreHarness(databases.second, [make_registered_probe("api", failure_threshold=2)], create_schema=False)
    first.membership.renew_process_lease_and_update_probes(START_AT + 1)
    request_run(databases.first, "api", ANA, "", REQUESTED_AT)
    assert first.claim_slots(REQUESTED_AT + 10_002) == []
    assert first.select_rows(requested_runs) == []


def test_a_scheduled_run_at_an_odd_instant_is_not_a_requested_one(database: Database) -> None:
    """An interval such as 1001ms has odd slots."""
    probe = make_registered_probe("api", schedule=IntervalSchedule(1_001), failure_threshold=1)
    harness = make_harness(database, probe=probe)
    requested = request_run(database, "api", ANA, "", REQUESTED_AT)
    runs = harness.claim_slots(REQUESTED_AT + 500)
    (manual,) = (run for run in runs if run.is_requested)
    scheduled = manual.slot + 2
    harness.record_results(make_result(manual.probe, scheduled))
    with database.open_read_transaction() as connection:
        assert load_requested_run_result(connection, manual.probe, requested.slot) is None
    harness.record_results(make_result(manual.probe, manual.slot, measurements=MANUAL))
    with database.open_read_transaction() as connection:
        stored = load_requested_run_result(connection, manual.probe, requested.slot)
        assert stored is not None
        assert stored.result.slot == manual.slot
        slots = [manual.slot, scheduled, SLOT]
        assert filter_slots_of_requested_runs(connection, manual.probe, slots) == {manual.slot}


def test_without_a_process_that_schedules_runs_there_is_no_request(database: Database) -> None:
    harness = make_harness(database)
    with pytest.raises(OperatorActRefusedError, match="no process can run Api: no probe has run for") as refused:
        request_run(database, "api", ANA, "", SLOT + HOUR_MS)
    assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert harness.select_rows(requested_runs) == harness.select_rows(acts) == []


def test_a_step_of_the_clock_drops_requests(database: Database) -> None:
    harness = make_harness(database)
    request_run(database, "api", ANA, "", REQUESTED_AT)
    adopt_clock_step(database, LOCATION, generation=0, to=REQUESTED_AT + HOUR_MS, now=REQUESTED_AT)
    assert harness.select_rows(requested_runs) == []


@pytest.mark.parametrize(
    ("kind", "name", "refusal", "message"),
    [
        ("http", "nothing", OperatorActRefusalReason.NOT_FOUND, "no probe has the id or name nothing"),
        ("heartbeat", "api", OperatorActRefusalReason.INVALID, "Api cannot be run on request: its job checks in"),
        ("service", "api", OperatorActRefusalReason.INVALID, "Api cannot be run on request: it reports"),
    ],
)
def test_refusals(database: Database, kind: str, name: str, refusal: OperatorActRefusalReason, message: str) -> None:
    probe = make_registered_probe("api")
    harness = make_harness(
        database, probe=replace(probe, policy=replace(probe.policy, probe=replace(probe.info, kind=kind)))
    )
    with pytest.raises(OperatorActRefusedError, match=message) as refused:
        request_run(database, name, ANA, "", REQUESTED_AT)
    assert refused.value.refusal is refusal
    assert harness.select_rows(requested_runs) == harness.select_rows(acts) == []


def test_a_request_ends_with_its_probe(database: Database) -> None:
    harness = make_harness(database)
    request_run(database, "api", ANA, "", REQUESTED_AT)
    with database.open_write_transaction() as connection:
        mark_probes_retired(connection, harness.database_ids, REQUESTED_AT + 1)
    assert harness.select_rows(requested_runs) == []
