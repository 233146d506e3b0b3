"""A paused process, a silent probe, a killed process: what our own time does to what we say of others.

Simulated time, a real database.
"""

from __future__ import annotations

from collections.abc import Collection
from time import perf_counter

from tests.support.store import INTERVAL_MS, START_AT, DatabasePair, StoreHarness, make_registered_probes, make_result
from watchdog.domain.model import IncidentEvent, IncidentTransition, Outcome, Result
from watchdog.domain.rules import stale
from watchdog.store.database import Database
from watchdog.store.tables import downtime, incidents, results

TEN_MINUTES = 600_000
SILENCE = 5 * INTERVAL_MS
TICK = 3_000
MANY = 500


class Process:
    """Ticks as the service's do; a run's result arrives a while after its slot was claimed."""

    def __init__(self, lab: StoreHarness, now: int, *, takes: int = 1_500):
        self.lab, self.now, self.takes = lab, now, takes
        self.flying: list[tuple[int, Result]] = []
        self.changes: list[IncidentTransition] = []
        self.silent: Collection[int] = ()

    def run(self, until: int) -> None:
        while self.now < until:
            self.record([made for at, made in self.flying if at <= self.now])
            self.flying = [(at, made) for at, made in self.flying if at > self.now]
            while slots := self.lab.claim_slots(self.now):
                self.flying += [
                    (self.now + self.takes, make_result(s.probe, s.slot, previous_slot=s.previous_slot))
                    for s in slots if s.probe not in self.silent
                ]  # fmt: skip
            self.changes += self.lab.recorder.evaluate_deadlines(self.now)[1]
            self.now += TICK

    def record(self, made: list[Result]) -> None:
        if made:
            self.changes += self.lab.record_results(*made, now=self.now)

    def sleep(self, ms: int) -> None:
        """SIGSTOP, SIGCONT."""
        self.now += ms


def missed(lab: StoreHarness) -> tuple[int, int]:
    """Rows, and the slots that they stand for."""
    rows = lab.select_rows(results, results.c.outcome == Outcome.MISSED)
    return len(rows), sum(row["slot_count"] for row in rows)


def replays_as_it_lived(process: Process) -> bool:
    """Of every tenth probe, and of those that were told of."""
    lab = process.lab
    some = sorted({*lab.database_ids[::10], *(change.probe for change in process.changes)})
    replayed = {id: lab.recorder.replay_probe(id, process.now) for id in some}
    same = all(lab.load_alert_states(id) == machines for id, (machines, _) in replayed.items())
    told = sorted(process.changes, key=lambda c: (c.probe, c.slot))
    return same and told == [change for id in some for change in replayed[id][1]]


def test_a_pause_of_ten_minutes_is_one_gap_and_no_incident(database: Database) -> None:
    lab = StoreHarness(database, make_registered_probes(MANY, staleness_threshold=SILENCE))
    process = Process(lab, START_AT)
    process.run(START_AT + 130_000)
    in_the_air = [made for _, made in process.flying]
    assert in_the_air
    process.flying = []
    process.sleep(TEN_MINUTES)
    process.changes += lab.recorder.evaluate_deadlines(process.now)[1]  # the worst order: the deadlines come first
    process.record(in_the_air)  # then what was in the air
    process.run(process.now + 130_000)
    assert process.changes == []
    assert lab.select_rows(incidents) == []
    gap = lab.select_row(downtime)
    assert TEN_MINUTES <= gap["ended_at"] - gap["started_at"] <= TEN_MINUTES + 2 * TICK
    assert missed(lab) == (0, 0), "the gap says it for all of them"
    assert lab.select_rows(results, results.c.late) == [], "ten minutes of ours made nothing late"
    assert replays_as_it_lived(process)


def test_what_the_pause_killed_is_missed(database: Database) -> None:
    """Its runs never come back: each slot in the air is accounted for once its lateness has passed."""
    lab = StoreHarness(database, make_registered_probes(MANY, staleness_threshold=SILENCE))
    process = Process(lab, START_AT)
    process.run(START_AT + 130_000)
    in_the_air = len(process.flying)
    assert in_the_air
    process.flying = []
    process.sleep(TEN_MINUTES)
    process.run(process.now + 130_000)
    assert process.changes == []
    assert missed(lab) == (in_the_air, in_the_air)
    assert {r["reason"] for r in lab.select_rows(results, results.c.outcome == Outcome.MISSED)} == {
        "missed.result_lost"
    }


def test_one_probe_that_falls_silent_is_stale_once(database: Database) -> None:
    """Also across a pause of ours, which counts for nothing; and once more after it has spoken."""
    lab = StoreHarness(database, make_registered_probes(20, staleness_threshold=SILENCE))
    process = Process(lab, START_AT)
    silent = lab.database_ids[7]
    process.run(START_AT + 130_000)
    process.silent = {silent}
    process.run(process.now + 120_000)
    process.sleep(TEN_MINUTES)
    process.run(process.now + 120_000)
    assert process.changes == [], "two and two minutes that we lived"
    process.run(process.now + 600_000)
    (opened,) = process.changes
    assert (opened.probe, opened.rule) == (silent, stale.RULE_NAME)
    process.silent = ()
    process.run(process.now + 180_000)
    assert [(c.event, c.incident) for c in process.changes] == [
        (IncidentEvent.OPENED, opened.incident), (IncidentEvent.RESOLVED, opened.incident)
    ]  # fmt: skip
    assert replays_as_it_lived(process)


def test_a_probe_that_falls_silent_is_found_when_its_silence_is_over(database: Database) -> None:
    """With no pause: nobody else is disturbed, and it takes no longer than it has to."""
    lab = StoreHarness(database, make_registered_probes(50, staleness_threshold=SILENCE))
    process = Process(lab, START_AT)
    process.run(START_AT + 70_000)
    process.silent = {lab.database_ids[9]}
    process.run(START_AT + 600_000)
    (change,) = process.changes
    (row,) = lab.select_rows(incidents)
    assert (change.probe, change.rule) == (lab.database_ids[9], stale.RULE_NAME)
    assert change.slot + SILENCE <= row["opened_at"] <= change.slot + SILENCE + 2 * TICK


def test_killed_and_an_hour_away(databases: DatabasePair) -> None:
    """One gap and the slots that were in the air, whatever the number of probes; found and folded in bounded time."""
    probes = make_registered_probes(MANY, staleness_threshold=SILENCE)
    process = Process(StoreHarness(databases.first, probes), START_AT)
    process.run(START_AT + 130_000)
    in_the_air = len(process.flying)
    assert in_the_air
    before = len(process.lab.select_rows(results))
    back = process.now + 3_600_000
    started = perf_counter()
    after = Process(StoreHarness(databases.second, probes, create_schema=False, now=back), back)
    after.run(back + 5 * TICK)
    took = perf_counter() - started
    print(f"{databases.url.split(':')[0]}: {MANY} probes, an hour away: five ticks in {took:.2f} s")
    after.run(back + 100_000)
    lab = after.lab
    assert after.changes == []
    assert lab.select_rows(incidents) == []
    assert len(lab.select_rows(downtime)) == 1
    assert missed(lab) == (in_the_air, in_the_air)
    ran = len(lab.select_rows(results, results.c.outcome == Outcome.PASS)) - before
    assert MANY <= ran <= 3 * MANY, "each went on from its newest slot: no burst"
    assert replays_as_it_lived(after)
