"""Pauses that the configuration states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.acts import ANA, BEN
from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    end_all_members,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import HealthState
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.service.acts import pause_probe, resume_probe
from watchdog.store.act_tables import acts, pauses
from watchdog.store.database import Database
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.tables import END_OF_TIME_MS, evaluation_cursors, results
from watchdog.store.write.pauses import end_expired_pauses

SLOT = START_AT + INTERVAL_MS


def make_probe(*, is_paused: bool = False) -> RegisteredProbe:
    probe = make_registered_probe("api", failure_threshold=1, success_threshold=1)
    return replace(probe, is_paused=is_paused, definition=f"paused: {is_paused}")


def start(database: Database, now: int, *, is_paused: bool = True, create_schema: bool = False) -> StoreHarness:
    """A process starts with this configuration. Those before have left."""
    if not create_schema:
        end_all_members(database, now)
    probes = [make_probe(is_paused=is_paused)]
    return StoreHarness(database, probes, now=now, create_schema=create_schema).without_downtime()


def find_state(harness: StoreHarness) -> HealthState:
    with harness.database.open_read_transaction() as connection:
        return list_probe_statuses(connection, "api")[0].state


def test_a_probe_that_is_paused_from_the_start_never_runs(database: Database) -> None:
    harness = start(database, START_AT, create_schema=True)
    assert find_state(harness) is HealthState.PAUSED
    assert harness.claim_slots(START_AT + HOUR_MS) == []
    assert harness.evaluate_deadlines(START_AT + HOUR_MS) == []
    row = harness.select_row(pauses)
    assert (row["started_at"], row["ends_at"], row["author"], row["interface"]) == (
        START_AT,
        None,
        "configuration",
        "configuration",
    )
    assert harness.select_rows(acts) == [], "no person has acted"


def test_it_follows_the_configuration_at_each_start(database: Database) -> None:
    first = start(database, START_AT, is_paused=False, create_schema=True)
    (claimed,) = first.claim_slots(SLOT)
    first.record_results(make_result(claimed.probe, claimed.slot))
    paused = start(database, SLOT + 1)
    assert paused.claim_slots(SLOT + HOUR_MS) == []
    again = start(database, SLOT + HOUR_MS)
    assert len(again.select_rows(pauses)) == 1, "a restart keeps it"
    resumed_at = SLOT + 2 * HOUR_MS
    resumed = start(database, resumed_at, is_paused=False)
    assert find_state(resumed) is HealthState.UP
    row = resumed.select_row(pauses)
    assert (row["ended_at"], row["ended_by"]) == (resumed_at, "")
    (run,) = resumed.claim_slots(resumed_at + INTERVAL_MS)
    assert run.slot > resumed_at
    assert [row["outcome"] for row in resumed.select_rows(results)] == ["pass"], "nothing is caught up"


def test_a_process_that_keeps_running_follows_a_newer_configuration(databases: DatabasePair) -> None:
    old = start(databases.first, START_AT, is_paused=False, create_schema=True)
    (claimed,) = old.claim_slots(SLOT)
    old.record_results(make_result(claimed.probe, claimed.slot))
    StoreHarness(databases.second, [make_probe(is_paused=True)], now=SLOT + 1, create_schema=False)
    assert old.claim_slots(SLOT + INTERVAL_MS) == []
    old.membership.renew_process_lease_and_update_probes(SLOT + LEASE_MS)
    assert find_state(old) is HealthState.PAUSED, "the newer configuration decides while its process is live"
    old.membership.renew_process_lease_and_update_probes(SLOT + LEASE_MS + 2)
    assert find_state(old) is HealthState.UP


def test_a_pause_by_a_person_goes_on_without_one_in_the_configuration(database: Database) -> None:
    start(database, START_AT, is_paused=False, create_schema=True)
    pause_probe(database, "api", None, ANA, "moved", now=SLOT)
    harness = start(database, SLOT + 1, is_paused=False)
    assert find_state(harness) is HealthState.PAUSED
    assert harness.select_row(pauses)["author"] == "Ana"


def test_a_pause_by_a_person_becomes_that_of_the_configuration(database: Database) -> None:
    start(database, START_AT, is_paused=False, create_schema=True)
    pause_probe(database, "api", SLOT + HOUR_MS, ANA, "moved", now=SLOT)
    harness = start(database, SLOT + 1)
    row = harness.select_row(pauses)
    assert (row["started_at"], row["ends_at"], row["interface"]) == (SLOT, None, "configuration")
    assert end_expired_pauses(database, LOCATION, SLOT + 2 * HOUR_MS) == []
    assert harness.select_row(evaluation_cursors)["evaluated_until"] == END_OF_TIME_MS


def test_no_person_changes_it(database: Database) -> None:
    harness = start(database, START_AT, create_schema=True)
    message = "Api is paused in the configuration: remove `paused` there"
    acts_of_persons: tuple[Callable[[], object], ...] = (
        lambda: pause_probe(database, "api", SLOT + HOUR_MS, ANA, "", now=SLOT),
        lambda: resume_probe(database, "api", BEN, "", SLOT),
    )
    for act in acts_of_persons:
        with pytest.raises(OperatorActRefusedError, match=message) as refused:
            act()
        assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    assert harness.select_rows(acts) == []
    assert find_state(harness) is HealthState.PAUSED
