"""The wall clock is put back: what ran is not run again, and nobody is blamed for the wait."""

from __future__ import annotations

from tests.store.lab import EVERY, T0, Lab, fleet_of, member
from tests.store.test_standing_still import SILENCE, TEN_MINUTES, TICK, Process, replays_as_it_lived
from watchdog.model import Outcome
from watchdog.store.database import Database
from watchdog.store.tables import cursors, gaps, probes, results, schedule

BACK = 2 * TEN_MINUTES


def test_it_goes_on_where_it_was_once_the_clock_has_caught_up(database: Database) -> None:
    lab = Lab(database, fleet_of(20, silence=SILENCE))
    process = Process(lab, T0)
    process.run(T0 + 130_000)
    ahead = process.now
    in_the_air = [made for _, made in process.flying]
    assert in_the_air
    process.flying = []
    process.now -= BACK
    process.record(in_the_air)
    before = lab.rows(results)
    assert {row["outcome"] for row in before} == {Outcome.PASS}
    assert not any(row["late"] for row in before)

    process.run(ahead - 6_000)
    assert lab.rows(results) == before, "no slot runs twice"
    assert 5_000 < lab.timekeeper.behind <= 6_000 + 2 * TICK
    process.run(ahead + 130_000)
    assert lab.timekeeper.behind == 0
    assert process.changes == []
    assert lab.rows(gaps) == []
    rows = lab.rows(results)
    assert {row["outcome"] for row in rows} == {Outcome.PASS}
    for id in lab.ids:
        slots = [row["slot"] for row in rows if row["probe"] == id]
        assert slots == list(range(slots[0], slots[-1] + 1, EVERY)), "none is lost, none comes in a burst"
    assert replays_as_it_lived(process)


def test_clocks_that_differ_a_little_are_not_put_back(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.claim(T0 + 3_000)
    lab.claim(T0)
    assert lab.timekeeper.behind == 0
    lab.claim(T0 - 3_000)
    assert lab.timekeeper.behind == 6_000


def test_what_begins_meanwhile_begins_where_the_others_are(database: Database) -> None:
    """Its silence is judged by the watermark: begun at an instant long before it, it would be stale at once."""
    Lab(database, [member("old")])
    lab = Lab(database, [member("old"), member("new", silence=SILENCE)], now=T0 - BACK, new=False)
    new = lab.id("new")
    assert lab.row(probes, probes.c.id == new)["created_at"] == T0
    assert lab.row(cursors, cursors.c.probe == new)["folded"] == T0
    assert lab.row(schedule, schedule.c.probe == new)["next_due"] == T0 + EVERY
    process = Process(lab, T0 - BACK)
    process.run(T0 + 130_000)
    assert process.changes == []
    assert lab.rows(gaps) == []
    assert replays_as_it_lived(process)
