"""Runs with their measurements, all of them or a sample, on both databases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.model import JsonScalar, Outcome
from watchdog.store.database import Database
from watchdog.store.read.history import IncidentInterval, list_incident_intervals
from watchdog.store.read.measured_runs import MeasuredRun, list_measured_runs, list_sampled_runs
from watchdog.store.read.queue_stats import load_newest_queue_sample

HOUR_AGO = NOW - 60 * MINUTE_MS


@pytest.fixture
def rows() -> FixtureRows:
    """Two probes that run each minute; the first one missed minutes 10 to 14 and, as all others, has no run since
    minute 40."""
    rows = FixtureRows()
    for probe in (rows.add_probe("Backlog", "queue"), rows.add_probe("Other", "queue")):
        for minute in range(40):
            slot, waiting = HOUR_AGO + minute * MINUTE_MS, {"waiting": 100 * probe + minute}
            if probe == 1 and minute == 10:
                rows.add_result(probe, slot, Outcome.MISSED, "", "missed.skipped", None, slot_count=5)
            elif probe == 2 or not 10 < minute < 15:
                rows.add_result(probe, slot, measurements=waiting, phases={"read": 5})
    return rows


def insert(database: Database, rows: FixtureRows) -> None:
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)


def to_minutes(runs: list[MeasuredRun]) -> list[int]:
    assert all(run.measurements["waiting"] == 100 + (run.slot - HOUR_AGO) // MINUTE_MS for run in runs)
    return [(run.slot - HOUR_AGO) // MINUTE_MS for run in runs]


@pytest.mark.parametrize(
    ("sentence", "first", "last", "interval", "expected"),
    [
        ("the first run of each interval", 0, 40, 10, [0, 15, 20, 30]),
        ("an interval without a run has none", 0, 60, 5, [0, 5, 15, 20, 25, 30, 35]),
        ("a part of an interval", 0, 21, 20, [0, 20]),
        ("one interval for all", 0, 60, 100, [0]),
        ("each run, where intervals are shorter than that of the probe", 36, 60, 0.5, [36, 37, 38, 39]),
        ("intervals that begin between runs", 5.5, 30, 10, [6, 16, 26]),
        ("no run at all", 41, 60, 10, []),
        ("no time at all", 41, 41, 10, []),
    ],
)
def test_a_sample(
    database: Database,
    rows: FixtureRows,
    sentence: str,
    first: float,
    last: float,
    interval: float,
    expected: list[int],
) -> None:
    insert(database, rows)
    start, end = (HOUR_AGO + round(minute * MINUTE_MS) for minute in (first, last))
    with database.open_read_transaction() as connection:
        runs = list_sampled_runs(connection, 1, start, end, round(interval * MINUTE_MS))
    assert to_minutes(runs) == expected, sentence


def test_a_sample_has_the_runs_with_which_incidents_began(database: Database, rows: FixtureRows) -> None:
    """Whether they are the first of their interval, in the time, of the probe, or stored at all."""
    for probe, minute in ((1, 0), (1, 17), (1, 17), (1, 12), (1, 30), (1, 36), (2, 25)):
        since = HOUR_AGO + minute * MINUTE_MS
        rows.add_incident(probe, "availability", "refused", since, resolved_at=since + MINUTE_MS)
    insert(database, rows)
    with database.open_read_transaction() as connection:
        runs = list_sampled_runs(connection, 1, HOUR_AGO, HOUR_AGO + 36 * MINUTE_MS, 10 * MINUTE_MS)
    assert to_minutes(runs) == [0, 15, 17, 20, 30]


def test_all_runs_of_a_time(database: Database, rows: FixtureRows) -> None:
    insert(database, rows)
    with database.open_read_transaction() as connection:
        runs = list_measured_runs(connection, 1, HOUR_AGO + 8 * MINUTE_MS, HOUR_AGO + 17 * MINUTE_MS)
        assert list_measured_runs(connection, 1, NOW, NOW) == []
    assert to_minutes(runs) == [8, 9, 15, 16]
    assert runs[0][:3] == (HOUR_AGO + 8 * MINUTE_MS, Outcome.PASS, "")
    assert (runs[0].phases, runs[0].measurements) == ({"read": 5}, {"waiting": 108})
    empty = MeasuredRun(NOW, Outcome.FAIL, "refused", None, None)
    assert (empty.phases, empty.measurements) == ({}, {})


@pytest.mark.parametrize(
    ("sentence", "failed_minutes_later", "measurements", "is_found"),
    [
        ("a failed run on request has not read the queue", range(1, 10), {"manual": True}, True),
        ("a run on request that passed has", [1], {"waiting": 7, "manual": True}, False),
        ("scheduled runs have failed since", range(1, 10), None, True),
        ("the probe runs once a week, and its last run failed", [7 * 24 * 60], None, True),
        ("runs have failed for a long time", [9 * 24 * 60], None, False),
    ],
)
def test_the_newest_reading_of_a_queue(
    database: Database,
    rows: FixtureRows,
    sentence: str,
    failed_minutes_later: Sequence[int],
    measurements: dict[str, JsonScalar] | None,
    is_found: bool,
) -> None:
    newest = HOUR_AGO + 39 * MINUTE_MS
    for minute in failed_minutes_later:
        slot = newest + minute * MINUTE_MS
        rows.add_result(1, slot, Outcome.FAIL, "refused", "broker.unreachable", None, measurements=measurements or {})
    insert(database, rows)
    with database.open_read_transaction() as connection:
        sample = load_newest_queue_sample(connection, 1)
        assert load_newest_queue_sample(connection, 3) is None
    if measurements and "waiting" in measurements:
        assert sample == (newest + MINUTE_MS, QueueMeasurements(waiting=7)), sentence
    else:
        assert sample == ((newest, QueueMeasurements(waiting=139)) if is_found else None), sentence


def test_the_incidents_of_a_probe_that_began_last(database: Database, rows: FixtureRows) -> None:
    for minute in (1, 5, 9):
        for probe in (1, 2):
            since = HOUR_AGO + minute * MINUTE_MS
            rows.add_incident(probe, "availability", "refused", since, resolved_at=since + MINUTE_MS)
    insert(database, rows)
    with database.open_read_transaction() as connection:
        both = list_incident_intervals(connection, HOUR_AGO)
        of_first = list_incident_intervals(connection, HOUR_AGO, probe=1)
        last = list_incident_intervals(connection, HOUR_AGO, probe=1, limit=2)
    assert (len(both), len(of_first)) == (6, 3)
    instants = [HOUR_AGO + minute * MINUTE_MS for minute in (9, 5)]
    assert last == [IncidentInterval(1, "availability", at, at + MINUTE_MS) for at in instants]
