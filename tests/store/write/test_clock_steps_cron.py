"""A step of the clock and cron schedules: no run is started twice, and nothing is missing because of that."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, make_registered_probe
from watchdog.domain.formatting import DAY_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Outcome
from watchdog.domain.rules import missed_run, stale
from watchdog.domain.schedule import CronSchedule
from watchdog.store.database import Database
from watchdog.store.tables import incidents, results, schedule
from watchdog.store.write.clock_steps import MISSED_BECAUSE_OF_CLOCK_STEP_REASON

PERIOD_MS = 2 * MINUTE_MS
TENTH_MS = PERIOD_MS // 10
STALENESS_THRESHOLD_MS = 25 * TENTH_MS
CRON = CronSchedule("*/2 * * * *")
FIRST = CRON.find_next_slot_after(START_AT)


def start(database: Database) -> SteppingProcess:
    return SteppingProcess(
        database,
        make_registered_probe("cron", schedule=CRON, staleness_threshold=STALENESS_THRESHOLD_MS, lateness_ms=8_000),
    )


def slots_of(process: SteppingProcess, *conditions: sa.ColumnElement[bool]) -> list[int]:
    """The slots of all rows that fulfil the conditions, ascending."""
    return [row["slot"] for row in process.harness.select_rows(results, *conditions)]


def test_a_probe_whose_slots_have_run_is_not_stale(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 6 * PERIOD_MS)
    newest = process.slots(process.first)[-1][1]
    to = process.step(-50 * TENTH_MS)
    process.run(newest + 2 * PERIOD_MS)
    assert process.incidents == []
    started = slots_of(process, results.c.reason == missed_run.CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON)
    assert started == list(range(CRON.find_next_slot_after(to), newest + 1, PERIOD_MS))
    ran = [slot for generation, slot in process.slots(process.first) if generation == 1]
    assert ran[0] == newest + PERIOD_MS
    assert replays(process)


def test_a_probe_is_stale_once_no_slot_has_run_any_more(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 6 * PERIOD_MS)
    newest = process.slots(process.first)[-1][1]
    process.step(-50 * TENTH_MS)
    process.probes_without_results = {process.first}
    process.run(newest + STALENESS_THRESHOLD_MS)
    assert (process.first, stale.ALERT_RULE_NAME) not in process.incidents
    process.run(newest + STALENESS_THRESHOLD_MS + INTERVAL_MS)
    assert (process.first, stale.ALERT_RULE_NAME) in process.incidents
    assert replays(process)


def test_a_run_in_flight_is_not_started_again(database: Database) -> None:
    process = start(database)
    process.run(FIRST + TENTH_MS)
    process.run_duration_ms = 20 * SECOND_MS
    while not process.in_flight:
        process.run(process.now + 1)
    slot = process.in_flight[0][1].slot
    process.step(-6 * SECOND_MS)
    process.run(slot + PERIOD_MS + TENTH_MS)
    assert process.slots(process.first).count((1, slot)) == 0
    assert slots_of(process, results.c.reason == missed_run.CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON) == [slot]
    assert process.incidents == []


@pytest.mark.parametrize("back_ms", [6 * SECOND_MS, 15 * TENTH_MS])
def test_a_run_that_was_lost_is_not_started_again(database: Database, back_ms: int) -> None:
    """Whether it is known to be lost before the step, or when its slot comes again."""
    process = start(database)
    process.run(FIRST + 2 * SECOND_MS)
    process.probes_without_results = {process.first}
    process.run(FIRST + PERIOD_MS + (2 * SECOND_MS if back_ms < TENTH_MS else 2 * TENTH_MS))
    process.harness.slot_claimer.record_lost_runs_and_get_settled_until(process.now)
    process.probes_without_results = ()
    process.step(-back_ms)
    process.run(FIRST + 3 * PERIOD_MS)
    assert (1, FIRST + PERIOD_MS) not in process.slots(process.first)
    lost = slots_of(process, results.c.reason == missed_run.MAY_HAVE_RUN_REASON, results.c.location == LOCATION)
    assert lost == [FIRST + PERIOD_MS]


def test_a_run_that_is_found_to_be_lost_when_its_slot_comes_again(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 2 * SECOND_MS)
    process.probes_without_results = {process.first}
    process.run(FIRST + PERIOD_MS + 2 * SECOND_MS)
    process.probes_without_results = ()
    process.step(-5 * TENTH_MS)
    process.run(FIRST + 3 * PERIOD_MS)
    assert (1, FIRST + PERIOD_MS) not in process.slots(process.first)
    lost = slots_of(process, results.c.reason == missed_run.MAY_HAVE_RUN_REASON, results.c.location == LOCATION)
    assert lost == [FIRST + PERIOD_MS]


@pytest.mark.parametrize("distance", [6 * PERIOD_MS, -20 * TENTH_MS])
def test_a_run_that_was_lost_in_a_step_is_reported(database: Database, distance: int) -> None:
    process = start(database)
    process.run(FIRST + 2 * SECOND_MS)
    process.probes_without_results = {process.first}
    process.run(FIRST + PERIOD_MS + 2 * SECOND_MS)
    process.probes_without_results = ()
    to = process.step(distance)
    process.run(to + 5 * TENTH_MS)
    process.harness.slot_claimer.record_lost_runs_and_get_settled_until(process.now)
    process.run(to + 31 * TENTH_MS)
    (incident,) = process.harness.select_rows(incidents)
    assert (incident["rule"], incident["reason"]) == (missed_run.ALERT_RULE_NAME, missed_run.MAY_HAVE_RUN_REASON)
    assert "run was started, and may have taken place" in incident["message"]
    assert incident["resolved_at"] is not None, "by the next run on time"
    assert replays(process)


def test_a_run_that_was_never_started_is_started(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 2 * PERIOD_MS + TENTH_MS)
    with database.open_write_transaction() as connection:
        not_run = {"outcome": Outcome.MISSED, "reason": missed_run.NOT_RUN_REASON}
        connection.execute(sa.update(results).where(results.c.slot == FIRST + PERIOD_MS).values(**not_run))
    process.step(-15 * TENTH_MS)
    process.run(FIRST + 2 * PERIOD_MS + TENTH_MS)
    assert [slot for generation, slot in process.slots(process.first) if generation == 1] == [FIRST + PERIOD_MS]


def test_slots_that_ran_before_the_step_are_not_reported_as_not_run(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 6 * PERIOD_MS + TENTH_MS)
    to = process.step(-6 * PERIOD_MS)
    process.run(to + TENTH_MS)
    process.pause(40 * TENTH_MS)
    process.run(process.now + 20 * TENTH_MS)
    assert process.incidents == []
    assert slots_of(process, results.c.reason == missed_run.NOT_RUN_REASON) == []
    rows = process.harness.select_rows(results, results.c.reason == missed_run.CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON)
    assert sum(row["slot_count"] for row in rows) == 6
    assert replays(process)


def test_only_slots_that_did_not_run_are_reported(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 3 * PERIOD_MS + TENTH_MS)
    to = process.step(-25 * TENTH_MS)
    process.run(to + TENTH_MS)
    process.pause(36 * TENTH_MS)
    process.run(process.now + TENTH_MS)
    (row,) = process.harness.select_rows(results, results.c.reason == missed_run.NOT_RUN_REASON)
    assert (row["slot"], row["slot_count"]) == (FIRST + 4 * PERIOD_MS, 1)
    assert row["message"].startswith("1\N{NO-BREAK SPACE}run did not take place: ")


def test_a_step_of_ten_years_counts_some_of_the_skipped_slots(database: Database) -> None:
    """Counting all would take seconds for each probe, in the transaction that adopts the step."""
    process = start(database)
    process.run(START_AT + TENTH_MS)
    process.step(10 * 365 * DAY_MS)
    (row,) = process.harness.select_rows(results, results.c.reason == MISSED_BECAUSE_OF_CLOCK_STEP_REASON)
    assert row["slot_count"] == 1_000


def test_a_rerun_time_of_the_ended_generation_is_ignored(database: Database) -> None:
    process = start(database)
    process.run(FIRST + 3 * PERIOD_MS)
    ended = process.harness.watermark.clock_timeline_id
    to = process.step(36 * PERIOD_MS)
    claimer = process.harness.slot_claimer
    claimer.reschedule_sooner({process.first: to - 30 * PERIOD_MS}, timeline=ended)
    assert process.harness.select_row(schedule)["next_due"] == CRON.find_next_slot_after(to)
    claimer.reschedule_sooner({process.first: to + SECOND_MS}, timeline=process.harness.watermark.clock_timeline_id)
    assert process.harness.select_row(schedule)["next_due"] == to + SECOND_MS
