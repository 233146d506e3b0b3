"""Waiting for the result of a run that a person has requested."""

from __future__ import annotations

import pytest

from tests.support.acts import ANA
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.service.acts import request_run
from watchdog.service.requested_runs import RequestedRunResultTimeoutError, find_requested_run_result
from watchdog.store.database import Database
from watchdog.store.read.history import StoredResultWithEvidence
from watchdog.store.write.requested_runs import RequestedRun

SLOT = START_AT + INTERVAL_MS
REQUESTED_AT = SLOT + 20_000


@pytest.fixture
def harness(database: Database) -> StoreHarness:
    harness = StoreHarness(database, [make_registered_probe("api", lateness_ms=40_000)]).without_downtime()
    harness.claim_slots(SLOT)
    harness.advance_watermark(SLOT)
    return harness


def load(harness: StoreHarness, requested: RequestedRun, now: int) -> StoredResultWithEvidence | None:
    with harness.database.open_read_transaction() as connection:
        return find_requested_run_result(connection, requested, now)


def test_the_result_comes_once_it_is_stored(harness: StoreHarness) -> None:
    requested = request_run(harness.database, "api", ANA, "", REQUESTED_AT)
    assert load(harness, requested, REQUESTED_AT + 100) is None
    (run,) = harness.claim_slots(REQUESTED_AT + 500)
    assert load(harness, requested, REQUESTED_AT + 11_000) is None, "it is in progress"
    harness.record_results(make_result(run.probe, run.slot, measurements={"manual": True}))
    stored = load(harness, requested, REQUESTED_AT + 12_000)
    assert stored is not None
    assert stored.result.slot == run.slot


def test_a_request_that_no_process_takes(harness: StoreHarness) -> None:
    requested = request_run(harness.database, "api", ANA, "", REQUESTED_AT)
    assert load(harness, requested, requested.slot + 10_000) is None
    with pytest.raises(RequestedRunResultTimeoutError, match="no running process runs Api"):
        load(harness, requested, requested.slot + 10_001)


def test_a_run_that_ends_too_late(harness: StoreHarness) -> None:
    requested = request_run(harness.database, "api", ANA, "", REQUESTED_AT)
    harness.claim_slots(REQUESTED_AT + 500)
    assert load(harness, requested, requested.slot + 40_000) is None
    with pytest.raises(RequestedRunResultTimeoutError, match="the run of Api has no result yet"):
        load(harness, requested, requested.slot + 40_001)
