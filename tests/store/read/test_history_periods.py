"""When Watchdog did not run, when one probe was paused and had incidents, and how many results are stored."""

from __future__ import annotations

import pytest

from tests.support.fixture_rows import FixtureRows
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.store.read.history import (
    count_judged_results_between,
    list_downtime_gaps,
    list_incident_intervals,
    list_pause_intervals,
)


@pytest.fixture
def filled(database: Database) -> Database:
    """Instants are minutes. At minute 50 the clock is set back to minute 30."""
    rows = FixtureRows()
    rows.add_watermark(100)
    for name in ("API", "Other"):
        id = rows.add_probe(name)
        for since, resolved_at in ((10, 20), (30, 40), (60, 70), (80, None)):
            rows.add_incident(id, "availability", "x", since, resolved_at=resolved_at)
        rows.add_pause(id, 10, ended_at=20)
        rows.add_pause(id, 25, ended_at=40)
        rows.add_pause(id, 90)
    for location, start, end in (
        ("local", 10, 20), ("local", 25, 45), ("local", 46, 50), ("local#1", 60, 70), ("local#1", 71, 72),
    ):  # fmt: skip
        rows.rows["downtime"].append({"location": location, "started_at": start, "ended_at": end})
    rows.rows["clock_steps"].append(
        {
            "ended_timeline": "local", "location": "local", "generation": 1, "stepped_from": 50, "stepped_to": 30,
            "valid_until": 30,
        }
    )  # fmt: skip
    for minute, outcome in enumerate((Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.MISSED, Outcome.PASS)):
        rows.add_result(1, minute, outcome)
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    return database


@pytest.mark.parametrize(
    ("sentence", "start", "stop", "min_length", "expected"),
    [
        ("without what came again", 0, 100, 1, [(10, 20), (25, 30), (60, 70), (71, 72)]),
        ("of some length", 0, 100, 5, [(10, 20), (25, 30), (60, 70)]),
        ("that is left", 0, 100, 6, [(10, 20), (60, 70)]),
        ("that overlap", 19, 61, 1, [(10, 20), (25, 30), (60, 70)]),
        ("that touch", 20, 25, 1, []),
        ("that end in time that came again", 30, 60, 1, []),
    ],
)
def test_the_gaps_of_a_time(
    filled: Database, sentence: str, start: int, stop: int, min_length: int, expected: list[tuple[int, int]]
) -> None:
    with filled.open_read_transaction() as connection:
        assert list_downtime_gaps(connection, start, stop, min_length) == expected, sentence


def test_the_periods_of_one_probe(filled: Database) -> None:
    with filled.open_read_transaction() as connection:
        incidents = list_incident_intervals(connection, 15, stop=80, probe=1)
        last = list_incident_intervals(connection, 15, stop=80, probe=1, limit=2)
        pauses = list_pause_intervals(connection, 25, probe=2)
        assert len(list_pause_intervals(connection, 25)) == 4
    assert sorted(incidents) == [(1, "availability", since, since + 10) for since in (10, 30, 60)]
    assert last == [(1, "availability", since, since + 10) for since in (60, 30)]
    assert sorted(pauses) == [(2, 25, 40), (2, 90, None)]


def test_the_number_of_stored_results(filled: Database) -> None:
    with filled.open_read_transaction() as connection:
        for first, end, expected in ((0, 5, 3), (0, 4, 2), (1, 2, 1), (2, 4, 0)):
            count = count_judged_results_between(connection, 1, first, end)
            assert count == expected, (first, end)
        assert count_judged_results_between(connection, 2, 0, 100) == 0
