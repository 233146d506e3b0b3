"""A step of the clock that another process has adopted: nothing is written by the time before it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, DatabasePair, StoreHarness
from watchdog.domain.clock_steps import build_clock_timeline_id
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.store.errors import ClockSteppedError
from watchdog.store.tables import metadata, results, schedule, watermarks
from watchdog.store.write.absences import (
    ProbeSlotsRunWithoutStore,
    advance_schedules_past_runs_without_store,
    record_dropped_results_as_missed,
)
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.ended_members import delete_ended_watchdog_processes
from watchdog.store.write.retention import delete_expired_rows

WRITES: dict[str, Callable[[StoreHarness, int], object]] = {
    "claim": lambda other, now: other.claim_slots(now),
    "lost runs": lambda other, now: other.slot_claimer.record_lost_runs_and_get_settled_until(now),
    "run soon": lambda other, now: other.slot_claimer.reschedule_sooner(dict.fromkeys(other.database_ids, now)),
    "deadlines": lambda other, now: other.recorder.evaluate_deadlines(now),
    "dropped": lambda other, now: record_dropped_results_as_missed(
        other.slot_claimer, dict.fromkeys(other.database_ids, (now, LOCATION, 3)), now
    ),
    "lease": lambda other, now: other.membership.renew_process_lease_and_update_probes(now),
    "leave": lambda other, now: other.membership.leave(now),
    "ended members": lambda other, now: delete_ended_watchdog_processes(other.database, now + HOUR_MS),
    "notifications": lambda other, now: other.lease_notifications(now),
    "retention": lambda other, now: delete_expired_rows(other.database, now, INTERVAL_MS, INTERVAL_MS),
}


class TwoProcesses:
    """One of them adopts a step, and the other has checked for a gap just before."""

    def __init__(self, databases: DatabasePair):
        self.process = SteppingProcess(databases.first)
        registered = list(self.process.harness.registry.values())
        self.other = StoreHarness(databases.second, registered, now=START_AT, create_schema=False)

    def step(self, distance: int) -> int:
        """Returns the time of the other process, which has not noticed the step."""
        old_time = self.process.now
        self.other.watermark.record_downtime_gap(old_time)
        self.process.step(distance)
        return old_time + 1_000


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, HOUR_MS])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_no_write_by_the_time_before_the_step(
    databases: DatabasePair, write: Callable[[StoreHarness, int], object], distance: int
) -> None:
    processes = TwoProcesses(databases)
    process = processes.process
    process.failing_probes = {process.first}
    process.run(START_AT + 250_000)
    old_time = processes.step(distance)
    before = {table.name: process.harness.select_rows(table) for table in metadata.sorted_tables}
    with pytest.raises(ClockSteppedError):
        write(processes.other, old_time)
    assert {table.name: process.harness.select_rows(table) for table in metadata.sorted_tables} == before


def test_no_probe_pauses_because_another_process_claims_late(databases: DatabasePair) -> None:
    processes = TwoProcesses(databases)
    process = processes.process
    process.run(START_AT + 100_000)
    old_time = processes.step(-2 * HOUR_MS)
    with pytest.raises(ClockSteppedError):
        processes.other.claim_slots(old_time)
    to = process.now
    process.run(to + 10 * INTERVAL_MS)
    for probe in process.harness.database_ids:
        assert len([slot for generation, slot in process.slots(probe) if generation == 1]) in (9, 10)
    assert process.incidents == []


def test_results_that_another_process_has_are_late_once_it_follows(databases: DatabasePair) -> None:
    processes = TwoProcesses(databases)
    process, other = processes.process, processes.other
    process.failing_probes = process.harness.database_ids
    process.run(START_AT + 100_000)
    while not process.in_flight:
        process.run(process.now + 1)
    running, process.in_flight = [result for _, result in process.in_flight], []
    old_time = processes.step(-2 * HOUR_MS)
    with pytest.raises(ClockSteppedError):
        other.record_results(*running, now=old_time)
    other.watermark.follow_database_clock_generation()
    other.record_results(*running, now=process.now)
    ids = {(result.probe, result.slot, result.location) for result in running}
    rows = [row for row in process.harness.select_rows(results) if row["late"]]
    assert {(row["probe"], row["slot"], row["location"]) for row in rows} == ids
    assert {row["outcome"] for row in rows} == {Outcome.FAIL}
    process.run(process.now + 3 * INTERVAL_MS)
    assert replays(process)


def test_slots_that_were_claimed_before_the_step_run(databases: DatabasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process adopts the step after the claim, before the watermark moves."""
    processes = TwoProcesses(databases)
    process, other = processes.process, processes.other
    process.run(START_AT + 100_000)
    now = max(row["next_due"] for row in process.harness.select_rows(schedule))
    record_downtime_gap = other.watermark.record_downtime_gap

    def step_before_watermark_moves(at: int, *, advance: bool = False) -> None:
        if advance:
            process.now = at
            process.step(-2 * HOUR_MS)
        record_downtime_gap(at, advance=advance)

    monkeypatch.setattr(other.watermark, "record_downtime_gap", step_before_watermark_moves)
    assert {slot.probe for slot in other.claim_slots(now)} == {*process.harness.database_ids}


def test_a_stopped_clock_is_refused_after_a_step(databases: DatabasePair) -> None:
    process = SteppingProcess(databases.first)
    read_time = process.harness.watermark.make_clock_frozen_at(process.now)
    assert read_time() == process.now
    process.step(-2 * HOUR_MS)
    with pytest.raises(ClockSteppedError):
        read_time()


def test_another_thread_sees_the_new_timeline_last(databases: DatabasePair) -> None:
    """With the new timeline it reads the new time, and with the new time it knows when it began."""
    process = SteppingProcess(databases.first)
    watermark = process.harness.watermark
    process.run(START_AT + 100_000)
    to = process.now - 2 * HOUR_MS
    adopt_clock_step(databases.first, LOCATION, generation=0, to=to, now=process.now)
    seen_while_clock_steps = []
    watermark.follow_database_clock_generation(
        lambda: seen_while_clock_steps.append((watermark.restarted_at, watermark.clock_timeline_id))
    )
    assert seen_while_clock_steps == [(to, LOCATION)]
    assert watermark.clock_timeline_id == build_clock_timeline_id(LOCATION, 1)


def test_what_was_dropped_before_a_step_stays_in_its_timeline(databases: DatabasePair) -> None:
    process = SteppingProcess(databases.first)
    process.run(START_AT + 100_000)
    slot, harness = START_AT + 4 * INTERVAL_MS, process.harness
    process.step(-2 * HOUR_MS)
    record_dropped_results_as_missed(harness.slot_claimer, {process.first: (slot, LOCATION, 3)}, process.now)
    (row,) = harness.select_rows(results, results.c.slot == slot)
    assert (row["location"], row["slot_count"]) == (LOCATION, 3)


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, HOUR_MS])
def test_a_schedule_is_not_advanced_past_runs_from_before_a_step(databases: DatabasePair, distance: int) -> None:
    process = SteppingProcess(databases.first)
    process.run(START_AT + 250_000)
    runs = ProbeSlotsRunWithoutStore(START_AT + 300_000, START_AT + 840_000, LOCATION)
    process.in_flight = []
    process.pause(10 * INTERVAL_MS)
    process.step(distance)
    schedules = process.harness.select_rows(schedule)
    advance_schedules_past_runs_without_store(
        process.harness.slot_claimer, dict.fromkeys(process.harness.database_ids, runs), process.now
    )
    assert process.harness.select_rows(schedule) == schedules


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
def test_only_the_adoption_waits_for_other_writes(databases: DatabasePair) -> None:
    processes = TwoProcesses(databases)
    process, other = processes.process, processes.other
    process.run(START_AT + 100_000)
    adoption = threading.Thread(target=process.step, args=(-2 * HOUR_MS,))
    with databases.second.open_write_transaction():
        process.harness.watermark.record_downtime_gap(process.now, advance=True)
        adoption.start()
        adoption.join(0.5)
        assert adoption.is_alive(), "no write of the time before may follow it"
    adoption.join()
    assert process.harness.select_row(watermarks)["generation"] == 1
    assert other.watermark.generation == 0
