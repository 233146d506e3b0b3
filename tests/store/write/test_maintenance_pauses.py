"""Pauses during maintenance, and maintenance during pauses: nothing opens in either, and a replay decides the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.write.test_maintenance_windows import begin, check_replay, make_harness, minute, once, periods, record
from tests.support.acts import ANA, BEN
from tests.support.store import StoreHarness
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.service.acts import end_maintenance, pause_probe, resume_probe
from watchdog.store.database import Database
from watchdog.store.tables import evaluation_cursors, incidents


def pause(harness: StoreHarness, now: int) -> None:
    pause_probe(harness.database, "api", None, ANA, "", now=now)


def resume(harness: StoreHarness, now: int) -> None:
    resume_probe(harness.database, "api", BEN, "", now)


def rules_of_incidents(harness: StoreHarness) -> list[str]:
    return [row["rule"] for row in harness.select_rows(incidents)]


def test_what_maintenance_held_back_before_a_pause_opens_with_the_first_bad_run_afterwards(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 4))
    assert record(harness, "pff") == []
    pause(harness, minute(4.5))
    resume(harness, minute(30.5))
    assert record(harness, "f", 31) == ["opened at 31"]
    assert harness.select_row(incidents)["since"] == minute(2)
    check_replay(harness, minute(60))


def test_what_maintenance_held_back_before_a_pause_is_over_with_the_first_good_run_afterwards(
    database: Database,
) -> None:
    """Its aftermath, which would have ended during the pause, begins again when the pause ends."""
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 4))
    assert record(harness, "pff") == []
    pause(harness, minute(4.5))
    resume(harness, minute(30.5))
    assert record(harness, "p", 31) == []
    assert rules_of_incidents(harness) == []
    check_replay(harness, minute(60))


def test_without_a_run_after_the_pause_it_opens_when_the_aftermath_is_over(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 4))
    assert record(harness, "pff") == []
    pause(harness, minute(4.5))
    resume(harness, minute(30.5))
    lateness = harness.registry[harness.database_id("api")].policy.max_lateness
    decided_at = minute(30.5) + 1 + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS + lateness
    harness.evaluate_deadlines(decided_at - 1)
    assert "availability" not in rules_of_incidents(harness)
    harness.evaluate_deadlines(decided_at)
    assert "availability" in rules_of_incidents(harness)
    check_replay(harness, decided_at)


def test_maintenance_that_begins_during_a_pause_is_in_effect_when_it_ends(database: Database) -> None:
    harness = make_harness(database)
    assert record(harness, "p") == []
    pause(harness, minute(1.5))
    begin(harness, minute(2), for_ms=HOUR_MS)
    assert periods(harness)[0][1] == 62
    resume(harness, minute(10.5))
    assert record(harness, "ff", 11) == []
    check_replay(harness, minute(20))


def test_maintenance_that_ends_during_a_pause_is_over_when_it_ends(database: Database) -> None:
    harness = make_harness(database)
    id = begin(harness, minute(0.5), for_ms=HOUR_MS)
    assert record(harness, "pf") == []
    pause(harness, minute(2.5))
    end_maintenance(database, id, BEN, minute(3))
    (cursor,) = harness.select_rows(evaluation_cursors)
    assert cursor["wake_at"] is None, "nothing is evaluated during a pause"
    assert harness.evaluate_deadlines(minute(9)) == []
    resume(harness, minute(10.5))
    assert record(harness, "f", 11) == ["opened at 11"]
    check_replay(harness, minute(20))


@pytest.mark.parametrize("outcomes", ["pp", "fp", "ff"])
def test_a_pause_without_maintenance_changes_no_period(database: Database, outcomes: str) -> None:
    harness = make_harness(database)
    record(harness, outcomes)
    pause(harness, minute(2.5))
    resume(harness, minute(3.5))
    assert periods(harness) == []


def test_a_pause_long_after_maintenance_changes_no_period(database: Database) -> None:
    harness: Any = make_harness(database)
    harness.plan_maintenance(minute(0), once(1, 2))
    pause(harness, minute(2) + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS)
    resume(harness, minute(20))
    assert periods(harness) == [(1, 2)]
