"""What one transaction makes of a step of the clock: of gaps, of results that are held, and of stored instants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, make_registered_probe, make_result
from watchdog.domain.clock_steps import build_clock_timeline_id
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.domain.rules import missed_run
from watchdog.domain.schedule import CronSchedule
from watchdog.store.database import Database
from watchdog.store.tables import clock_steps, downtime, remediations, results, schedule
from watchdog.store.write.claims import MAX_COUNTED_MISSED_SLOTS
from watchdog.store.write.remediations import ProbeRemediationPolicy, RemediationStore

MINUTE_MS = 60_000
LIMIT_PERIOD_MS = 30 * MINUTE_MS
"""Longer than two incidents of the test, and short enough to be lived through tick by tick."""


def make_process_with_cron_probe(database: Database) -> SteppingProcess:
    cron = make_registered_probe("cron", schedule=CronSchedule("*/10 * * * *"), staleness_threshold=HOUR_MS)
    return SteppingProcess(database, make_registered_probe("every"), replace(cron, catch_up_ms=HOUR_MS))


def test_a_step_back_is_one_also_after_a_longer_absence_of_the_database(database: Database) -> None:
    process = make_process_with_cron_probe(database)
    cron = process.harness.database_id("cron")
    process.run(START_AT + 31 * INTERVAL_MS)
    process.in_flight, absent_since = [], process.now
    process.pause(30 * MINUTE_MS)
    to = process.step(-10 * MINUTE_MS)
    (step,) = process.harness.select_rows(clock_steps)
    assert step["stepped_to"] - step["stepped_from"] == -10 * MINUTE_MS
    (gap,) = process.harness.select_rows(downtime)
    assert gap["location"] == LOCATION
    assert gap["ended_at"] == step["stepped_from"]
    assert absent_since - 5_000 <= gap["started_at"] <= absent_since
    process.run(to + 12 * INTERVAL_MS)
    missed = process.harness.select_rows(results, results.c.outcome == Outcome.MISSED, results.c.probe == cron)
    assert "missed.clock_step" not in {row["reason"] for row in missed}
    assert [row["slot_count"] for row in missed if row["reason"] == missed_run.NOT_RUN_REASON] == [1]
    ran = [slot for generation, slot in process.slots(cron) if generation == 1]
    assert ran[0] <= to, "the newest slot of the absence is caught up"
    assert replays(process)


def test_a_step_forward_skips_what_was_due_and_not_claimed(database: Database) -> None:
    process = make_process_with_cron_probe(database)
    cron = process.harness.database_id("cron")
    process.run(START_AT + 31 * INTERVAL_MS)
    process.pause(30 * MINUTE_MS)
    start, to = process.now, process.step(HOUR_MS)
    process.run(to + 5 * INTERVAL_MS)
    gaps = {(row["location"], row["ended_at"]) for row in process.harness.select_rows(downtime)}
    assert gaps == {(LOCATION, start), (build_clock_timeline_id(LOCATION, 1), to)}
    (skipped,) = process.harness.select_rows(results, results.c.outcome == Outcome.MISSED, results.c.probe == cron)
    assert (skipped["reason"], skipped["slot_count"]) == ("missed.clock_step", 9)
    assert replays(process)


def test_a_result_that_is_held_at_a_step_is_late_and_opens_nothing(database: Database) -> None:
    """As one that was in flight. One whose hold has ended counts as observed."""
    for hold_ms, rules in ((15_000, []), (500, ["availability"])):
        process = SteppingProcess(database, make_registered_probe(failure_threshold=1))
        process.run(START_AT + 250_000)
        process.in_flight = []
        (row,) = process.harness.select_rows(schedule)
        slot, previous = row["next_due"], row["last_slot"]
        process.run(slot)
        process.in_flight = []
        failure = make_result(process.first, slot, Outcome.FAIL, previous_slot=previous)
        process.harness.record_results(failure._replace(held_until=slot + hold_ms), now=slot + 100)
        assert process.incidents == []
        process.now = slot + 1_000
        process.step(-2 * HOUR_MS)
        assert [rule for _, rule in process.incidents] == rules
        (row,) = process.harness.select_rows(results, results.c.slot == slot)
        assert (row["late"], row["held_until"]) == (not rules, None)
        process.run(process.now + 3 * INTERVAL_MS)
        assert replays(process)


@pytest.mark.parametrize(("distance", "is_open"), [(DAY_MS, False), (-DAY_MS, True)])
def test_the_limit_of_a_remediation_counts_the_time_that_passed(
    database: Database, distance: int, is_open: bool
) -> None:
    process = SteppingProcess(database, make_registered_probe(failure_threshold=1))
    store = RemediationStore(database, process.harness.registry)
    spec = ProbeRemediationPolicy("restart", frozenset({"http.503"}), 1, LIMIT_PERIOD_MS)

    def start_next_in_new_incident() -> bool:
        process.failing_probes = ()
        process.run(process.now + 5 * INTERVAL_MS)
        process.failing_probes = {process.first}
        process.run(process.now + 3 * INTERVAL_MS)
        return store.mark_next_remediation_started(process.first, spec, process.now) is not None

    assert start_next_in_new_incident()
    if not is_open:
        process.failing_probes = ()
        process.run(process.now + 5 * INTERVAL_MS)
    (before,) = process.harness.select_rows(remediations)
    to = process.step(distance)
    (after,) = process.harness.select_rows(remediations)
    assert after["started_at"] - before["started_at"] == (distance if is_open else 0), "pages show it with its incident"
    assert not start_next_in_new_incident()
    process.run(to + LIMIT_PERIOD_MS)
    assert start_next_in_new_incident()


def test_the_skipped_slots_of_a_cron_probe_are_counted_up_to_a_limit(database: Database) -> None:
    """Each has to be found, while everything else waits."""
    process = SteppingProcess(database, make_registered_probe(schedule=CronSchedule("* * * * *")))
    process.run(START_AT + 250_000)
    process.step(10 * 365 * DAY_MS)
    (row,) = process.harness.select_rows(results, results.c.reason == "missed.clock_step")
    assert row["slot_count"] == MAX_COUNTED_MISSED_SLOTS
