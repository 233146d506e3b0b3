"""A paused process, a probe without results, a killed process: downtime of Watchdog is no failure of a target.

On simulated time and a real database.
"""

from __future__ import annotations

from collections.abc import Collection
from time import perf_counter

from tests.support.store import INTERVAL_MS, START_AT, DatabasePair, StoreHarness, make_registered_probes, make_result
from watchdog.domain.model import ClaimedSlot, IncidentEvent, IncidentTransition, Outcome, ProbeResult
from watchdog.domain.rules import stale
from watchdog.store.database import Database
from watchdog.store.tables import downtime, incidents, results
from watchdog.store.write.watermark import MIN_DOWNTIME_GAP_MS

TEN_MINUTES_MS = 600_000
STALENESS_THRESHOLD_MS = 5 * INTERVAL_MS
TICK_MS = MIN_DOWNTIME_GAP_MS
"""As far apart as two claims can be without a gap between them: a tick is four transactions."""
PROBE_COUNT = 500


class SimulatedProcess:
    """Calls the store as the service does; a result arrives `run_duration_ms` after its slot was claimed.

    Probes in `probes_without_results` are claimed, but never return a result.
    """

    def __init__(self, harness: StoreHarness, now: int, *, run_duration_ms: int = 1_500):
        self.harness, self.now, self.run_duration_ms = harness, now, run_duration_ms
        self.in_flight: list[tuple[int, ProbeResult]] = []
        self.transitions: list[IncidentTransition] = []
        self.probes_without_results: Collection[int] = ()
        self.failing_probes: Collection[int] = ()

    def run(self, until: int) -> None:
        while self.now < until:
            self.record([result for at, result in self.in_flight if at <= self.now])
            self.in_flight = [(at, result) for at, result in self.in_flight if at > self.now]
            while slots := self.harness.claim_slots(self.now):
                self.in_flight += [
                    (self.now + self.run_duration_ms, self.make_result_of(slot))
                    for slot in slots
                    if slot.probe not in self.probes_without_results
                ]
            self.transitions += self.harness.recorder.evaluate_deadlines(self.now)[1]
            self.now += TICK_MS

    def make_result_of(self, slot: ClaimedSlot) -> ProbeResult:
        outcome = Outcome.FAIL if slot.probe in self.failing_probes else Outcome.PASS
        result = make_result(slot.probe, slot.slot, outcome, previous_slot=slot.previous_slot)
        return result._replace(location=slot.location)

    def record(self, arrived: list[ProbeResult]) -> None:
        if arrived:
            self.transitions += self.harness.record_results(*arrived, now=self.now)

    def pause(self, ms: int) -> None:
        """As SIGSTOP and SIGCONT do."""
        self.now += ms


def count_missed(harness: StoreHarness) -> tuple[int, int]:
    """How many rows are `missed`, and how many slots they stand for."""
    rows = harness.select_rows(results, results.c.outcome == Outcome.MISSED)
    return len(rows), sum(row["slot_count"] for row in rows)


def replay_equals_live(process: SimulatedProcess) -> bool:
    """Whether a replay of every tenth probe, and of those with transitions, gives the same."""
    harness = process.harness
    sample = sorted({*harness.database_ids[::10], *(transition.probe for transition in process.transitions)})
    replayed = {id: harness.replay_probe(id, process.now) for id in sample}
    same_states = all(harness.load_alert_states(id) == states for id, (states, _) in replayed.items())
    transitions = sorted(process.transitions, key=lambda c: (c.probe, c.slot))
    return same_states and transitions == [t for id in sample for t in replayed[id][1]]


def test_a_pause_of_ten_minutes_is_one_gap_and_no_incident(database: Database) -> None:
    harness = StoreHarness(database, make_registered_probes(PROBE_COUNT, staleness_threshold=STALENESS_THRESHOLD_MS))
    process = SimulatedProcess(harness, START_AT)
    process.run(START_AT + 130_000)
    in_flight = [result for _, result in process.in_flight]
    assert in_flight
    process.in_flight = []
    process.pause(TEN_MINUTES_MS)
    process.transitions += harness.recorder.evaluate_deadlines(process.now)[1]  # the worst order: deadlines first
    process.record(in_flight)  # then the results that were in flight
    process.run(process.now + 130_000)
    assert process.transitions == []
    assert harness.select_rows(incidents) == []
    gap = harness.select_row(downtime)
    assert TEN_MINUTES_MS <= gap["ended_at"] - gap["started_at"] <= TEN_MINUTES_MS + 2 * TICK_MS
    assert count_missed(harness) == (0, 0), "the gap accounts for every slot"
    assert harness.select_rows(results, results.c.late) == [], "downtime makes no result late"
    assert replay_equals_live(process)


def test_runs_that_the_pause_killed_are_missed(database: Database) -> None:
    """Each slot in flight is recorded as missed once its max_lateness has passed."""
    harness = StoreHarness(database, make_registered_probes(PROBE_COUNT, staleness_threshold=STALENESS_THRESHOLD_MS))
    process = SimulatedProcess(harness, START_AT)
    process.run(START_AT + 130_000)
    in_flight = len(process.in_flight)
    assert in_flight
    process.in_flight = []
    process.pause(TEN_MINUTES_MS)
    process.run(process.now + 130_000)
    assert process.transitions == []
    assert count_missed(harness) == (in_flight, in_flight)
    assert {r["reason"] for r in harness.select_rows(results, results.c.outcome == Outcome.MISSED)} == {
        "missed.result_lost"
    }


def test_a_probe_without_results_is_stale_once(database: Database) -> None:
    """A pause in between does not count; a new result resolves the incident."""
    harness = StoreHarness(database, make_registered_probes(20, staleness_threshold=STALENESS_THRESHOLD_MS))
    process = SimulatedProcess(harness, START_AT)
    silent_probe = harness.database_ids[7]
    process.run(START_AT + 130_000)
    process.probes_without_results = {silent_probe}
    process.run(process.now + 120_000)
    process.pause(TEN_MINUTES_MS)
    process.run(process.now + 120_000)
    assert process.transitions == [], "four minutes of uptime"
    process.run(process.now + 600_000)
    (opened,) = process.transitions
    assert (opened.probe, opened.rule) == (silent_probe, stale.ALERT_RULE_NAME)
    process.probes_without_results = ()
    process.run(process.now + 180_000)
    assert [(c.event, c.incident) for c in process.transitions] == [
        (IncidentEvent.OPENED, opened.incident), (IncidentEvent.RESOLVED, opened.incident)
    ]  # fmt: skip
    assert replay_equals_live(process)


def test_a_probe_is_stale_as_soon_as_its_threshold_has_passed(database: Database) -> None:
    """Without a pause; no other probe is affected."""
    harness = StoreHarness(database, make_registered_probes(50, staleness_threshold=STALENESS_THRESHOLD_MS))
    process = SimulatedProcess(harness, START_AT)
    process.run(START_AT + 70_000)
    process.probes_without_results = {harness.database_ids[9]}
    process.run(START_AT + 600_000)
    (transition,) = process.transitions
    (row,) = harness.select_rows(incidents)
    assert (transition.probe, transition.rule) == (harness.database_ids[9], stale.ALERT_RULE_NAME)
    assert 0 <= row["opened_at"] - transition.slot - STALENESS_THRESHOLD_MS <= 2 * TICK_MS


def test_a_kill_and_an_hour_of_downtime(databases: DatabasePair) -> None:
    """Creates one gap, and results for the slots in flight, regardless of the number of probes."""
    probes = make_registered_probes(PROBE_COUNT, staleness_threshold=STALENESS_THRESHOLD_MS)
    process = SimulatedProcess(StoreHarness(databases.first, probes), START_AT)
    process.run(START_AT + 130_000)
    in_flight = len(process.in_flight)
    assert in_flight
    before = len(process.harness.select_rows(results))
    restart_at = process.now + 3_600_000
    started = perf_counter()
    restarted = SimulatedProcess(
        StoreHarness(databases.second, probes, create_schema=False, now=restart_at), restart_at
    )
    restarted.run(restart_at + 5 * TICK_MS)
    elapsed_s = perf_counter() - started
    print(f"{databases.url.split(':')[0]}: {PROBE_COUNT} probes, an hour of downtime: five ticks in {elapsed_s:.2f} s")
    restarted.run(restart_at + 100_000)
    harness = restarted.harness
    assert restarted.transitions == []
    assert harness.select_rows(incidents) == []
    assert len(harness.select_rows(downtime)) == 1
    assert count_missed(harness) == (in_flight, in_flight)
    passed = len(harness.select_rows(results, results.c.outcome == Outcome.PASS)) - before
    assert PROBE_COUNT <= passed <= 3 * PROBE_COUNT, "each probe continues with its newest slot, without a burst"
    assert replay_equals_live(restarted)


def test_a_time_whose_results_are_recorded_is_no_gap(database: Database) -> None:
    harness = StoreHarness(database, make_registered_probes(1))
    harness.watermark.advance_without_gap(START_AT + TEN_MINUTES_MS)
    harness.watermark.record_downtime_gap(START_AT + TEN_MINUTES_MS + 1_000)
    assert harness.select_rows(downtime) == []
    assert harness.watermark.claimed_until == START_AT + TEN_MINUTES_MS
    harness.watermark.record_downtime_gap(START_AT + 2 * TEN_MINUTES_MS)
    assert [(row["started_at"], row["ended_at"]) for row in harness.select_rows(downtime)] == [
        (START_AT + TEN_MINUTES_MS, START_AT + 2 * TEN_MINUTES_MS)
    ]
