"""Maintenance at a step of the clock: ends that people chose keep their distance, windows keep to the calendar."""

from __future__ import annotations

import pytest

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.acts import ANA
from tests.support.store import INTERVAL_MS, START_AT, make_registered_probe
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.routing import ProbeMatcher
from watchdog.service.acts import MaintenanceRequest, begin_maintenance, end_maintenance
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.tables import incidents

STEPS = [HOUR_MS, -2 * HOUR_MS, -90_000, 10 * 365 * DAY_MS, -10 * 365 * DAY_MS]
EVERYTHING = ProbeMatcher()


def minute(number: float) -> int:
    return int(START_AT + number * INTERVAL_MS)


def make_process(database: Database) -> SteppingProcess:
    """One probe, which has run for a minute. It counts as stale after hours only."""
    probe = make_registered_probe("api", failure_threshold=1, success_threshold=1, staleness_threshold=9 * HOUR_MS)
    process = SteppingProcess(database, probe)
    process.run(minute(1) + 10_000)
    return process


def begin(process: SteppingProcess, *, for_ms: int) -> str:
    request = MaintenanceRequest(EVERYTHING, process.now + for_ms, selects_everything=True)
    return begin_maintenance(process.harness.database, request, ANA, process.now).window.id


def is_in_maintenance(process: SteppingProcess) -> bool:
    with process.harness.database.open_read_transaction() as connection:
        return process.first in load_maintenance_ends_by_probe(connection, process.now)


@pytest.mark.parametrize("distance", STEPS)
def test_maintenance_that_a_person_began_ends_as_long_after_the_step(database: Database, distance: int) -> None:
    process = make_process(database)
    id = begin(process, for_ms=6 * INTERVAL_MS)
    process.failing_probes = {process.first}
    process.run(minute(3) + 10_000)
    left_ms = process.harness.select_row(maintenance_windows)["ends_at"] - process.now
    to = process.step(distance)
    window = process.harness.select_row(maintenance_windows)
    assert (window["id"], window["ends_at"] - to) == (id, left_ms)
    assert is_in_maintenance(process)
    process.run(to + left_ms)
    assert (process.incidents, is_in_maintenance(process)) == ([], False)
    process.run(to + left_ms + 2 * INTERVAL_MS)
    assert process.incidents == [(process.first, "availability")]
    assert process.harness.select_row(incidents)["since"] == minute(2)
    assert replays(process)


def test_maintenance_that_a_person_ended_stays_ended(database: Database) -> None:
    process = make_process(database)
    id = begin(process, for_ms=HOUR_MS)
    process.run(minute(3))
    end_maintenance(database, id, ANA, process.now)
    process.run(minute(4))
    process.failing_probes = {process.first}
    to = process.step(-2 * INTERVAL_MS)
    process.run(to + 10)
    assert not is_in_maintenance(process)
    process.run(to + 2 * INTERVAL_MS)
    assert process.incidents == [(process.first, "availability")]
    assert replays(process)


@pytest.mark.parametrize(
    ("distance", "is_in_window"), [(-4 * INTERVAL_MS, False), (INTERVAL_MS, True), (HOUR_MS, False)]
)
def test_a_configured_window_keeps_to_the_calendar(database: Database, distance: int, is_in_window: bool) -> None:
    process = make_process(database)
    window = ConfiguredMaintenanceWindow("Move", EVERYTHING, 8 * INTERVAL_MS, starts_at=minute(3) - 1)
    process.harness.plan_maintenance(process.now, window)
    process.run(minute(2) + 10_000)
    process.failing_probes = {process.first}
    process.run(minute(5) + 10_000)
    assert process.incidents == []
    to = process.step(distance)
    process.harness.plan_maintenance(to, window)
    assert process.harness.select_row(maintenance_windows)["starts_at"] == minute(3) - 1
    process.run(to + 10)
    assert is_in_maintenance(process) == is_in_window
    process.run(to + 2 * INTERVAL_MS)
    assert process.incidents == ([] if is_in_window else [(process.first, "availability")])
    assert replays(process)


@pytest.mark.parametrize(
    ("distance", "is_in_window"), [(-INTERVAL_MS, False), (3 * INTERVAL_MS, True), (HOUR_MS, False)]
)
def test_maintenance_that_a_person_planned_for_later_keeps_to_the_calendar(
    database: Database, distance: int, is_in_window: bool
) -> None:
    process = make_process(database)
    starts_at, ends_at = minute(4) - 1, minute(12)
    request = MaintenanceRequest(EVERYTHING, ends_at, selects_everything=True, starts_at=starts_at)
    begin_maintenance(database, request, ANA, process.now)
    process.run(minute(2) + 10_000)
    to = process.step(distance)
    process.failing_probes = {process.first}
    window = process.harness.select_row(maintenance_windows)
    assert (window["starts_at"], window["ends_at"]) == (starts_at, ends_at)
    process.run(to + 10)
    assert is_in_maintenance(process) == is_in_window
    process.run(to + INTERVAL_MS + 10_000)
    assert process.incidents == ([] if is_in_window else [(process.first, "availability")])
    assert replays(process)


@pytest.mark.parametrize("is_by_person", [True, False])
@pytest.mark.parametrize("distance", [HOUR_MS, -HOUR_MS])
def test_what_is_held_back_opens_without_another_run_after_a_step(
    database: Database, distance: int, is_by_person: bool
) -> None:
    """Its aftermath was not over at the step."""
    process = make_process(database)
    if is_by_person:
        begin(process, for_ms=2 * INTERVAL_MS)
    else:
        window = ConfiguredMaintenanceWindow("Move", EVERYTHING, 2 * INTERVAL_MS, starts_at=minute(1) + 30_000)
        process.harness.plan_maintenance(process.now, window)
    process.failing_probes = {process.first}
    process.run(minute(2) + 10_000)
    process.probes_without_results = {process.first}
    process.run(minute(4) + 10_000)
    to = process.step(distance)
    process.in_flight = []
    process.run(to + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS)
    assert process.incidents == []
    process.run(to + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS + 30 * INTERVAL_MS)
    assert (process.first, "availability") in process.incidents
    assert replays(process)


def test_no_period_of_the_generation_that_ended_reaches_beyond_it(database: Database) -> None:
    process = make_process(database)
    begin(process, for_ms=HOUR_MS)
    daily = ConfiguredMaintenanceWindow("Move", EVERYTHING, INTERVAL_MS, starts_at=minute(90))
    process.harness.plan_maintenance(process.now, daily)
    stepped_from = process.now
    to = process.step(30 * INTERVAL_MS)
    rows = process.harness.select_rows(maintenance_periods)
    assert sorted((row["generation"], row["starts_at"], row["ends_at"]) for row in rows) == [
        (0, stepped_from, stepped_from + 1),
        (1, to, to + HOUR_MS),
        (1, minute(90), minute(91)),
    ]
