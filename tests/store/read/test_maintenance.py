"""The lists of maintenance windows, page by page, and which probes they select, on each kind of database."""

from __future__ import annotations

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import filled_database
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.maintenance_windows import MaintenanceWindowState
from watchdog.store.read.maintenance import (
    list_maintenance_in_effect_of_probe,
    list_maintenance_windows,
    list_maintenance_with_probes,
    load_maintenance_ends_by_probe,
    load_maintenance_periods,
)
from watchdog.store.read.status import list_probe_infos, list_probe_statuses


def make_rows() -> FixtureRows:
    """m-1 is over, m-2 and m-3 are in effect, m-4 is to come, and m-5 ended before its time."""
    rows = FixtureRows()
    api, search = rows.add_probe("API"), rows.add_probe("Search")
    rows.add_maintenance([api], NOW - DAY_MS, NOW - 20 * HOUR_MS, name="Over")
    rows.add_maintenance([api, search], NOW - HOUR_MS, NOW + HOUR_MS, name="Now")
    rows.add_maintenance([api], NOW - HOUR_MS, NOW + 3 * HOUR_MS)
    rows.add_maintenance([search], NOW + HOUR_MS, NOW + 2 * HOUR_MS, name="Next")
    rows.add_maintenance([], NOW - HOUR_MS, NOW + HOUR_MS)
    rows.rows["maintenance_windows"][-1] |= {"ended_at": NOW - 1, "ended_by": "Ben"}
    for row in rows.rows["maintenance_windows"]:
        row.setdefault("ended_at", None)
    return rows


def test_windows_are_listed_by_their_start_and_after_a_position(database_url: str) -> None:
    with filled_database(database_url, make_rows()) as database, database.open_read_transaction() as connection:
        expected = ["m-4", "m-2", "m-3", "m-5", "m-1"]
        assert [window.id for window in list_maintenance_windows(connection, NOW, limit=9)] == expected
        listed: list[str] = []
        after = None
        while page := list_maintenance_windows(connection, NOW, limit=2, after=after):
            listed += [window.id for window in page]
            after = page[-1].starts_at, page[-1].id
        assert listed == expected
        assert list_maintenance_windows(connection, NOW, limit=9, after=(0, "\0\ud800~")) == []


@pytest.mark.parametrize(
    ("state", "ids"), [("planned", ["m-4"]), ("in_effect", ["m-2", "m-3"]), ("ended", ["m-5", "m-1"])]
)
def test_windows_in_one_state_are_listed(database_url: str, state: str, ids: list[str]) -> None:
    with filled_database(database_url, make_rows()) as database, database.open_read_transaction() as connection:
        windows = list_maintenance_windows(connection, NOW, state=MaintenanceWindowState(state), limit=9)
    assert [window.id for window in windows] == ids
    assert {window.find_state(NOW).value for window in windows} == {state}


def test_which_probes_are_in_maintenance(database_url: str) -> None:
    with filled_database(database_url, make_rows()) as database, database.open_read_transaction() as connection:
        windows = list_maintenance_with_probes(connection, NOW, 9, list_probe_infos(connection))
        assert [(window.id, probes) for window, probes in windows] == [("m-2", {1, 2}), ("m-3", {1}), ("m-4", {2})]
        assert [window.id for window, _ in list_maintenance_with_probes(connection, NOW, 1, ())] == ["m-2"]
        assert load_maintenance_ends_by_probe(connection, NOW) == {1: NOW + 3 * HOUR_MS, 2: NOW + HOUR_MS}
        assert load_maintenance_ends_by_probe(connection, NOW, [2]) == {2: NOW + HOUR_MS}
        of_probe = list_maintenance_in_effect_of_probe(connection, 1, NOW)
        assert [window.id for window in of_probe] == ["m-2", "m-3"], "by their end"
        statuses = list_probe_statuses(connection, now=NOW)
        assert [status.maintenance_ends_at for status in statuses] == [NOW + 3 * HOUR_MS, NOW + HOUR_MS]
        assert [status.maintenance_ends_at for status in list_probe_statuses(connection)] == [None, None]


def test_periods_are_loaded_from_an_instant_on(database_url: str) -> None:
    with filled_database(database_url, make_rows()) as database, database.open_read_transaction() as connection:
        everything = load_maintenance_periods(connection, [1, 2])
        periods = load_maintenance_periods(connection, [1, 2], since=NOW - HOUR_MS)
        assert load_maintenance_periods(connection, [1, 2], generation=1) == {}
    assert everything[1].compute_overlap_ms(0, NOW) == 4 * HOUR_MS + HOUR_MS
    assert periods[1].compute_overlap_ms(0, NOW) == HOUR_MS
    assert not periods[2].contains(NOW - 2 * HOUR_MS)
