"""Processes whose clocks are set, with a real database: none is blind for long, and none blocks another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from tests.support.store import INTERVAL_MS, LOCATION, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.watermark import describe_outdated_watermark
from watchdog.service.clock import WatchdogClock
from watchdog.service.clock_synchronizer import ClockGenerationSynchronizer
from watchdog.store.database import Database
from watchdog.store.tables import clock_steps, incidents, results, watermarks
from watchdog.store.write import clock_steps as clock_steps_module
from watchdog.store.write.clock_steps import DatabaseClockAndWatermark

TICK_MS = 2_500
PROBES = [make_registered_probe(f"p{i}", staleness_threshold=3 * INTERVAL_MS) for i in range(3)]


class Machines:
    """Machines whose clocks advance together, and a database. The database's clock is that of the tests."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch):
        self.database, self.elapsed, self.server_step = database, 0, 0
        self.opened: list[Database] = []
        load = clock_steps_module.load_database_clock_and_watermark

        def load_with_test_clock(opened: Database, location: str) -> DatabaseClockAndWatermark:
            stored = load(opened, location)
            is_none = stored.database_time is None
            return stored._replace(database_time=None if is_none else START_AT + self.elapsed + self.server_step)

        monkeypatch.setattr(
            "watchdog.service.clock_synchronizer.load_database_clock_and_watermark", load_with_test_clock
        )


class Process:
    """A process on one of the machines."""

    def __init__(self, machines: Machines, *, wall_step: int = 0, is_first: bool = False):
        self.machines, self.wall_step = machines, wall_step
        self.elapsed_in_suspension = 0
        url = machines.database.writer.url.render_as_string(hide_password=False)
        machines.opened.append(Database(url))
        now = START_AT + machines.elapsed
        self.harness = StoreHarness(machines.opened[-1], PROBES, now=now, create_schema=is_first)
        self.start()

    def start(self) -> None:
        self.synchronizer = ClockGenerationSynchronizer(
            WatchdogClock(
                lambda: START_AT + self.machines.elapsed + self.wall_step, lambda: 7_000_000 + self.machines.elapsed
            ),
            self.harness.watermark,
        )

    def tick(self) -> int:
        """Claim and record; returns how many slots have run."""
        slots = self.harness.claim_slots(self.synchronizer.adopt_clock_steps_and_read_time())
        for slot in slots:
            result = make_result(slot.probe, slot.slot, previous_slot=slot.previous_slot, location=slot.location)
            self.harness.record_results(result, now=self.synchronizer.adopt_clock_steps_and_read_time())
        self.harness.membership.renew_process_lease_and_update_probes(
            self.synchronizer.adopt_clock_steps_and_read_time()
        )
        self.harness.recorder.evaluate_deadlines(self.synchronizer.adopt_clock_steps_and_read_time())
        return len(slots)


def run(machines: Machines, processes: list[Process], seconds: int) -> int:
    """Returns the longest time without a run, in ms."""
    last_run_at, max_pause_ms = machines.elapsed, 0
    for _ in range(seconds * 1000 // TICK_MS):
        machines.elapsed += TICK_MS
        if sum(process.tick() for process in processes):
            max_pause_ms, last_run_at = max(max_pause_ms, machines.elapsed - last_run_at), machines.elapsed
        for process in processes:
            watermark = process.harness.watermark.claimed_until
            assert describe_outdated_watermark(watermark, process.synchronizer.clock(), 2 * TICK_MS) == ""
    return max(max_pause_ms, machines.elapsed - last_run_at)


MAX_PAUSE_MS = INTERVAL_MS + 2 * TICK_MS


@pytest.fixture
def machines(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    machines = Machines(database, monkeypatch)
    yield machines
    harness = StoreHarness(database, PROBES, now=START_AT + machines.elapsed, create_schema=False)
    assert harness.select_rows(incidents) == []
    for opened in machines.opened:
        opened.close()


@pytest.mark.parametrize(("step", "lasts_s", "generations"), [
    (HOUR_MS, 20, 0), (HOUR_MS, 200, 1), (-2 * HOUR_MS, 200, 1), (1_900, 200, 0),
])  # fmt: skip
def test_a_clock_that_is_set(machines: Machines, step: int, lasts_s: int, generations: int) -> None:
    """On SQLite that of the machine, on PostgreSQL that of the server."""
    process = Process(machines, is_first=True)
    run(machines, [process], 120)
    process.wall_step = machines.server_step = step
    with capture_logs() as logs:
        assert run(machines, [process], lasts_s) <= MAX_PAUSE_MS
    assert process.harness.watermark.generation == generations
    assert [log["forward"] for log in logs if log["event"] == "clock_step"] == [step > 0] * generations
    process.wall_step = machines.server_step = 0
    assert run(machines, [process], 200) <= MAX_PAUSE_MS
    assert process.harness.watermark.generation == 2 * generations
    assert process.synchronizer.clock() == START_AT + machines.elapsed


def test_a_start_behind_the_watermark_is_a_step_at_once(machines: Machines) -> None:
    """And a start ahead of it is downtime."""
    process = Process(machines, is_first=True)
    run(machines, [process], 120)
    process.wall_step = machines.server_step = -2 * HOUR_MS
    process.start()
    assert run(machines, [process], 120) <= MAX_PAUSE_MS
    (step,) = process.harness.select_rows(clock_steps)
    assert step["stepped_to"] - step["stepped_from"] == pytest.approx(-2 * HOUR_MS, abs=2 * TICK_MS)
    process.wall_step = machines.server_step = HOUR_MS
    process.start()
    assert run(machines, [process], 120) <= MAX_PAUSE_MS
    assert process.harness.watermark.generation == 1


def test_a_step_that_began_before_an_absence_of_the_database_has_to_last_again(machines: Machines) -> None:
    """What is due on return is claimed before the step, and the absence is no part of it."""
    process = Process(machines, is_first=True)
    run(machines, [process], 120)
    process.wall_step = machines.server_step = -10 * 60_000
    run(machines, [process], 20)
    machines.elapsed += 30 * 60_000
    assert process.tick()
    assert process.harness.watermark.generation == 0
    run(machines, [process], 120)
    (step,) = process.harness.select_rows(clock_steps)
    assert step["stepped_to"] - step["stepped_from"] == -10 * 60_000


def test_two_processes_on_one_clock_adopt_a_step_once(machines: Machines) -> None:
    first, second = Process(machines, is_first=True), Process(machines)
    run(machines, [first, second], 60)
    for step in (HOUR_MS, -2 * HOUR_MS):
        first.wall_step = second.wall_step = machines.server_step = step
        assert run(machines, [first, second], 180) <= MAX_PAUSE_MS
    assert len(first.harness.select_rows(clock_steps)) == 2
    assert first.harness.watermark.generation == second.harness.watermark.generation == 2


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
@pytest.mark.parametrize("wall_step", [HOUR_MS, -2 * HOUR_MS, 5_000])
def test_one_wrong_replica_on_postgresql_blocks_no_other(machines: Machines, wall_step: int) -> None:
    """Processes on SQLite share the clock of their machine."""
    deviating, right = Process(machines, wall_step=wall_step, is_first=True), Process(machines)
    assert run(machines, [deviating, right], 120) <= MAX_PAUSE_MS
    assert deviating.synchronizer.clock.describe_problem().endswith("the database's clock")
    assert right.synchronizer.clock.describe_problem() == ""
    assert run(machines, [right], 60) <= MAX_PAUSE_MS, "after the wrong one was killed"
    assert run(machines, [deviating], 60) <= MAX_PAUSE_MS, "it does its share"
    assert right.harness.select_rows(clock_steps) == []
    assert right.harness.select_row(watermarks)["generation"] == 0


def test_results_of_each_generation_are_stored(machines: Machines) -> None:
    process = Process(machines, is_first=True)
    run(machines, [process], 60)
    for step in (-2 * HOUR_MS, -HOUR_MS, 0):
        process.wall_step = machines.server_step = step
        run(machines, [process], 180)
    locations = {row["location"] for row in process.harness.select_rows(results)}
    assert {parse_clock_generation_of_timeline_id(location) for location in locations} == {0, 1, 2, 3}
    assert all(location.startswith(LOCATION) for location in locations)
