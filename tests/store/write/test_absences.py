"""What members store when the database is back."""

from __future__ import annotations

import pytest

from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.rules.service import WatchdogProcessFaultName
from watchdog.store.tables import results, schedule
from watchdog.store.write.absences import (
    ProbeSlotsRunWithoutStore,
    advance_schedules_past_runs_without_store,
    load_processes_with_unreported_store_absence,
    record_dropped_results_as_missed,
)
from watchdog.store.write.claims import MISSED_BECAUSE_STORE_AWAY_REASON
from watchdog.store.write.member_faults import DetectedWatchdogProcessFault, replace_watchdog_process_faults

MINUTES = [START_AT + n * INTERVAL_MS for n in range(30)]


@pytest.fixture
def first(databases: DatabasePair) -> StoreHarness:
    harness = StoreHarness(databases.first, [make_registered_probe()])
    harness.claim_slots(MINUTES[1])
    return harness


def test_the_schedule_goes_on_after_the_last_run(first: StoreHarness) -> None:
    (probe,) = first.database_ids
    for n in (4, 5, 6):
        first.record_results(make_result(probe, MINUTES[n], previous_slot=MINUTES[n - 1]), now=MINUTES[8])
    advance_schedules_past_runs_without_store(
        first.slot_claimer,
        {probe: ProbeSlotsRunWithoutStore(MINUTES[4], MINUTES[7], LOCATION, frozenset({MINUTES[7]}))},
        MINUTES[8],
    )
    (row,) = first.select_rows(schedule)
    assert (row["last_slot"], row["next_due"]) == (MINUTES[7], MINUTES[8])
    assert str(MINUTES[7]) in row["in_flight"], "its run has not ended"
    missed = [row for row in first.select_rows(results) if row["outcome"] == "missed"]
    assert [(row["slot"], row["slot_count"], row["reason"]) for row in missed] == [
        (MINUTES[2], 2, MISSED_BECAUSE_STORE_AWAY_REASON)
    ]


def test_a_probe_that_another_process_has_claimed_since_is_left_alone(
    databases: DatabasePair, first: StoreHarness
) -> None:
    second = StoreHarness(databases.second, [make_registered_probe()], create_schema=False, now=MINUTES[1])
    (probe,) = first.database_ids
    second.claim_slots(MINUTES[9])
    before = second.select_rows(schedule)
    advance_schedules_past_runs_without_store(
        first.slot_claimer, {probe: ProbeSlotsRunWithoutStore(MINUTES[4], MINUTES[7], LOCATION)}, MINUTES[9]
    )
    assert second.select_rows(schedule) == before


def test_dropped_results_are_missed(first: StoreHarness) -> None:
    (probe,) = first.database_ids
    record_dropped_results_as_missed(
        first.slot_claimer, {probe: (MINUTES[2], LOCATION, 17), 4_711: (MINUTES[2], LOCATION, 1)}, MINUTES[20]
    )
    (row,) = first.select_rows(results)
    assert (row["slot"], row["slot_count"], row["reason"]) == (MINUTES[2], 17, MISSED_BECAUSE_STORE_AWAY_REASON)


def test_members_return_when_they_have_stored_what_they_ran(databases: DatabasePair, first: StoreHarness) -> None:
    second = StoreHarness(databases.second, [make_registered_probe()], create_schema=False, now=MINUTES[1])
    other = second.membership.member_id

    def missing() -> set[str]:
        with first.database.open_read_transaction() as connection:
            return load_processes_with_unreported_store_absence(connection, {other})

    assert missing() == {other}
    fault = DetectedWatchdogProcessFault(MINUTES[1], "locked")
    replace_watchdog_process_faults(second.database, other, {WatchdogProcessFaultName.DATABASE: fault})
    assert missing() == set()
    replace_watchdog_process_faults(second.database, other, {})
    second.membership.leave(MINUTES[2])
    assert missing() == set(), "it has left in order"
