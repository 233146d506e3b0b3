"""The clock is set back: no slot runs twice, and the wait causes no incident."""

from __future__ import annotations

from tests.store.write.test_watermark_downtime import (
    STALENESS_THRESHOLD_MS,
    TEN_MINUTES_MS,
    SimulatedProcess,
    replay_equals_live,
)
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_registered_probes
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.store.tables import downtime, evaluation_cursors, probes, results, schedule

STEP_MS = 2 * TEN_MINUTES_MS


def test_claims_continue_once_the_clock_has_caught_up(database: Database) -> None:
    harness = StoreHarness(database, make_registered_probes(20, staleness_threshold=STALENESS_THRESHOLD_MS))
    process = SimulatedProcess(harness, START_AT)
    process.run(START_AT + 130_000)
    stepped_at = process.now
    in_flight = [result for _, result in process.in_flight]
    assert in_flight
    process.in_flight = []
    process.now -= STEP_MS
    process.record(in_flight)
    before = harness.select_rows(results)
    assert {row["outcome"] for row in before} == {Outcome.PASS}
    assert not any(row["late"] for row in before)

    process.run(stepped_at - 6_000)
    assert harness.select_rows(results) == before, "no slot runs twice"
    process.run(stepped_at + 130_000)
    assert process.transitions == []
    assert harness.select_rows(downtime) == []
    rows = harness.select_rows(results)
    assert {row["outcome"] for row in rows} == {Outcome.PASS}
    for id in harness.database_ids:
        slots = [row["slot"] for row in rows if row["probe"] == id]
        assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL_MS)), "no slot is lost, and there is no burst"
    assert replay_equals_live(process)


def test_a_probe_added_meanwhile_starts_at_the_watermark(database: Database) -> None:
    """Staleness is judged by the watermark: a probe that starts long before it would be stale at once."""
    StoreHarness(database, [make_registered_probe("old")])
    harness = StoreHarness(
        database,
        [make_registered_probe("old"), make_registered_probe("new", staleness_threshold=STALENESS_THRESHOLD_MS)],
        now=START_AT - STEP_MS,
        create_schema=False,
    )
    new = harness.database_id("new")
    assert harness.select_row(probes, probes.c.id == new)["created_at"] == START_AT
    assert harness.select_row(evaluation_cursors, evaluation_cursors.c.probe == new)["evaluated_until"] == START_AT
    assert harness.select_row(schedule, schedule.c.probe == new)["next_due"] == START_AT + INTERVAL_MS
    process = SimulatedProcess(harness, START_AT - STEP_MS)
    process.run(START_AT + 130_000)
    assert process.transitions == []
    assert harness.select_rows(downtime) == []
    assert replay_equals_live(process)
