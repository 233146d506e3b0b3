"""What one transaction makes of a step of the clock: of gaps, of results that are held, and of stored instants."""

from __future__ import annotations

from dataclasses import replace

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, make_registered_probe
from watchdog.domain.clock_steps import format_timeline
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.domain.rules import missed_run
from watchdog.domain.schedule import CronSchedule
from watchdog.store.database import Database
from watchdog.store.tables import clock_steps, downtime, results

MINUTE_MS = 60_000


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
    assert gaps == {(LOCATION, start), (format_timeline(LOCATION, 1), to)}
    (skipped,) = process.harness.select_rows(results, results.c.outcome == Outcome.MISSED, results.c.probe == cron)
    assert (skipped["reason"], skipped["slot_count"]) == ("missed.clock_step", 9)
    assert replays(process)
