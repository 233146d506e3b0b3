"""The clock of a process: which changes of the reference clock it follows, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from watchdog.domain.formatting import HOUR_MS, NBSP
from watchdog.service.clock import CLOCK_STEP_ADOPTION_DELAY_MS, WatchdogClock
from watchdog.store.errors import StoreUnavailableError

START = 1_700_000_000_000
BOOT = 5_000_000


class Machine:
    """The clocks of a machine, and those of a database server if `has_server`. All advance together."""

    def __init__(self, *, has_server: bool = False):
        self.has_server = has_server
        self.elapsed = self.wall_step = self.server_step = 0
        self.query_ms = 0
        self.is_away = False
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.clock = WatchdogClock(lambda: START + self.elapsed + self.wall_step, lambda: BOOT + self.elapsed)
        self.clock.measure_database_clock_offset(self.read_server_clock)

    def read_server_clock(self) -> int | None:
        if not self.has_server:
            return None
        if self.is_away:
            raise StoreUnavailableError("away")
        self.elapsed += self.query_ms // 2
        now = START + self.elapsed + self.server_step
        self.elapsed += self.query_ms - self.query_ms // 2
        return now

    def run(self, seconds: float, tick_ms: int = 500) -> list[int]:
        """Advance, and measure at each tick; how far the clock is from the time that has passed, at each tick."""
        distances = []
        until = self.elapsed + round(seconds * 1000)
        while self.elapsed < until:
            self.elapsed += tick_ms
            try:
                self.clock.measure_database_clock_offset(self.read_server_clock)
            except StoreUnavailableError:
                assert self.is_away
            if self.clock.has_lasting_clock_step:
                self.clock.step_to_measured_database_clock_time(
                    self.clock.estimate_database_clock_time() - self.clock()
                )
            distances.append(self.clock() - START - self.elapsed)
        return distances

    @property
    def problem(self) -> str:
        return self.clock.describe_problem().replace(NBSP, " ")


def differ(distances: Iterable[int]) -> set[int]:
    return set(distances)


@pytest.mark.parametrize("step", [HOUR_MS, -2 * HOUR_MS, 2_001, -2_001, 87_600 * HOUR_MS])
def test_a_step_that_does_not_last_is_not_followed(step: int) -> None:
    machine = Machine()
    machine.wall_step = step
    assert differ(machine.run(CLOCK_STEP_ADOPTION_DELAY_MS / 1000 - 1)) == {0}
    assert machine.problem.startswith("the clock of this machine is ")
    machine.wall_step = 0
    assert differ(machine.run(300)) == {0}
    assert machine.problem == ""


@pytest.mark.parametrize(("step", "words"), [(HOUR_MS, "forward by 1 h"), (-2 * HOUR_MS, "back by 2 h")])
def test_a_step_that_lasts_is_followed_after_a_minute(step: int, words: str) -> None:
    """And reported for one more."""
    machine = Machine()
    machine.wall_step = step
    distances = machine.run(90)
    adopted = distances.index(step)
    assert adopted * 500 == CLOCK_STEP_ADOPTION_DELAY_MS
    assert differ(distances[adopted:]) == {step}
    assert machine.problem == f"the clock of this machine was set {words}"
    assert differ(machine.run(60)) == {step}
    assert machine.problem == ""


def test_a_step_that_changes_starts_to_last_again() -> None:
    machine = Machine()
    for step in (HOUR_MS, 2 * HOUR_MS, HOUR_MS, 2 * HOUR_MS):
        machine.wall_step = step
        assert differ(machine.run(50)) == {0}
    assert differ(machine.run(11)) == {0, 2 * HOUR_MS}


@pytest.mark.parametrize("correction", [1_900, -1_900])
def test_small_corrections_are_followed_at_once(correction: int) -> None:
    """However many there are, and without the time going back."""
    machine = Machine()
    newest = machine.clock()
    for _ in range(20):
        machine.wall_step += correction
        for _ in range(8):
            machine.run(0.5)
            assert machine.clock() >= newest
            newest = machine.clock()
            assert machine.problem == ""
        assert abs(machine.clock() - START - machine.elapsed - machine.wall_step) <= 1


def test_suspension_is_no_step() -> None:
    """The boot clock counts it, as the wall clock does."""
    machine = Machine()
    machine.run(5)
    machine.elapsed += 10 * HOUR_MS
    assert differ(machine.run(5)) == {0}
    assert machine.problem == ""


def test_where_suspension_is_not_counted_it_is_a_step_that_lasts() -> None:
    machine = Machine()
    machine.run(5)
    machine.wall_step += 10 * HOUR_MS
    assert machine.run(70)[-1] == 10 * HOUR_MS


@pytest.mark.parametrize("wall_step", [HOUR_MS, -2 * HOUR_MS, 3_000])
def test_with_a_server_its_clock_counts(wall_step: int) -> None:
    """A machine whose clock is wrong uses the clock of the database, and reports that."""
    machine = Machine(has_server=True)
    machine.wall_step = wall_step
    assert differ(machine.run(300)) == {0}
    direction = "ahead of" if wall_step > 0 else "behind"
    assert f" {direction} the database's clock" in machine.problem


def test_a_process_that_starts_with_a_wrong_clock_works_by_the_database() -> None:
    machine = Machine(has_server=True)
    machine.wall_step = HOUR_MS
    machine.start()
    assert machine.clock() == START + machine.elapsed
    assert machine.problem == "the clock of this machine is 1 h ahead of the database's clock"


def test_a_step_of_the_server_is_followed_after_a_minute() -> None:
    machine = Machine(has_server=True)
    machine.server_step = HOUR_MS
    assert differ(machine.run(59)) == {0}
    assert machine.problem == "the database's clock was set forward by 1 h"
    assert machine.run(5)[-1] == HOUR_MS


def test_while_the_server_is_away_the_last_offset_stays() -> None:
    machine = Machine(has_server=True)
    machine.is_away = True
    machine.wall_step = HOUR_MS
    assert differ(machine.run(300)) == {0}


def test_what_the_duration_of_the_query_explains_is_no_difference() -> None:
    machine = Machine(has_server=True)
    machine.query_ms, machine.server_step = 4_000, 3_000
    assert differ(machine.run(300)) == {0}
    assert machine.problem == ""


def test_a_thread_that_reads_the_time_during_a_step_gets_either_time() -> None:
    """And the time goes on afterwards: a reader that was interrupted does not bring the old time back."""
    machine = Machine()
    machine.wall_step = -2 * HOUR_MS
    machine.clock.measure_database_clock_offset(machine.read_server_clock)
    assert machine.clock() == START
    in_reader, is_stepped = threading.Event(), threading.Event()
    read_boot_clock = machine.clock._monotonic_clock

    def interrupt_reader() -> int:
        if threading.current_thread() is reader:
            in_reader.set()
            is_stepped.wait(0.2)
        return read_boot_clock()

    machine.clock._monotonic_clock = interrupt_reader
    reader = threading.Thread(target=machine.clock)
    reader.start()
    in_reader.wait()
    machine.clock.step_to_measured_database_clock_time(-2 * HOUR_MS)
    is_stepped.set()
    reader.join()
    assert machine.clock() == START + machine.elapsed - 2 * HOUR_MS
