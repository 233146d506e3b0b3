"""The wall clock is put back: what ran is not run again, and nobody is blamed for the wait."""

from __future__ import annotations

from tests.store.write.test_watermark_downtime import SILENCE, TEN_MINUTES, TICK, Process, replays_as_it_lived
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_registered_probes
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.store.tables import downtime, evaluation_cursors, probes, results, schedule

BACK = 2 * TEN_MINUTES


def test_it_goes_on_where_it_was_once_the_clock_has_caught_up(database: Database) -> None:
    lab = StoreHarness(database, make_registered_probes(20, staleness_threshold=SILENCE))
    process = Process(lab, START_AT)
    process.run(START_AT + 130_000)
    ahead = process.now
    in_the_air = [made for _, made in process.flying]
    assert in_the_air
    process.flying = []
    process.now -= BACK
    process.record(in_the_air)
    before = lab.select_rows(results)
    assert {row["outcome"] for row in before} == {Outcome.PASS}
    assert not any(row["late"] for row in before)

    process.run(ahead - 6_000)
    assert lab.select_rows(results) == before, "no slot runs twice"
    assert 5_000 < lab.watermark.clock_behind_ms <= 6_000 + 2 * TICK
    process.run(ahead + 130_000)
    assert lab.watermark.clock_behind_ms == 0
    assert process.changes == []
    assert lab.select_rows(downtime) == []
    rows = lab.select_rows(results)
    assert {row["outcome"] for row in rows} == {Outcome.PASS}
    for id in lab.database_ids:
        slots = [row["slot"] for row in rows if row["probe"] == id]
        assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL_MS)), "none is lost, none comes in a burst"
    assert replays_as_it_lived(process)


def test_clocks_that_differ_a_little_are_not_put_back(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.claim_slots(START_AT + 3_000)
    lab.claim_slots(START_AT)
    assert lab.watermark.clock_behind_ms == 0
    lab.claim_slots(START_AT - 3_000)
    assert lab.watermark.clock_behind_ms == 6_000


def test_what_begins_meanwhile_begins_where_the_others_are(database: Database) -> None:
    """Its silence is judged by the watermark: begun at an instant long before it, it would be stale at once."""
    StoreHarness(database, [make_registered_probe("old")])
    lab = StoreHarness(
        database,
        [make_registered_probe("old"), make_registered_probe("new", staleness_threshold=SILENCE)],
        now=START_AT - BACK,
        create_schema=False,
    )
    new = lab.database_id("new")
    assert lab.select_row(probes, probes.c.id == new)["created_at"] == START_AT
    assert lab.select_row(evaluation_cursors, evaluation_cursors.c.probe == new)["evaluated_until"] == START_AT
    assert lab.select_row(schedule, schedule.c.probe == new)["next_due"] == START_AT + INTERVAL_MS
    process = Process(lab, START_AT - BACK)
    process.run(START_AT + 130_000)
    assert process.changes == []
    assert lab.select_rows(downtime) == []
    assert replays_as_it_lived(process)
