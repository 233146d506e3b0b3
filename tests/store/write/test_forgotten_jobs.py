"""Decisions that jobs are no longer missed, and probes that wait for their first run."""

from __future__ import annotations

import pytest

from tests.support.store import START_AT, StoreHarness, make_recorded_result, make_registered_probe, make_results
from watchdog.domain.model import HealthState
from watchdog.domain.probe_state import (
    WAITING_FOR_FIRST_RUN_STATE_KEY,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
    build_scheduled_job_state_key,
)
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.write.forgotten_jobs import mark_missing_jobs_as_forgotten
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state


def test_only_missing_jobs_are_forgotten(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("api")])
    probe = harness.database_id("api")
    states = {
        "a": SavedScheduledJobState("", 1),
        "b": SavedScheduledJobState("", 1, gone_since=2),
        "c": SavedScheduledJobState("", 1, gone_since=2),
    }
    rows = [
        {
            "probe": probe,
            "key": build_scheduled_job_state_key(name),
            "value": codec.encode_storable_json(ScheduledJobStateRecord(name, state).to_json()),
        }
        for name, state in states.items()
    ]
    with database.open_write_transaction() as connection:
        upsert_probe_state(database, connection, rows)
    for name in ("a", "other"):
        with pytest.raises(LookupError, match=f"{name} is not missing"):
            mark_missing_jobs_as_forgotten(database, "api", name, START_AT)
    assert mark_missing_jobs_as_forgotten(database, "api", "b", START_AT) == ["b"]
    assert mark_missing_jobs_as_forgotten(database, "api", None, START_AT) == ["b", "c"]
    with pytest.raises(LookupError, match="no job is missing"):
        mark_missing_jobs_as_forgotten(database, "nowhere", None, START_AT)
    with database.open_read_transaction() as connection:
        stored = load_state_by_probe(connection, [probe])[probe]
    assert stored[build_forget_job_state_key(build_scheduled_job_state_key("c"))] == {"name": "c", "at": START_AT}


@pytest.mark.parametrize(("value", "state"), [(True, HealthState.UNKNOWN), (None, HealthState.UP)])
def test_a_probe_whose_jobs_wait_for_their_first_run_is_unknown(
    database: Database, value: bool | None, state: HealthState
) -> None:
    harness = StoreHarness(database, [make_registered_probe("api")])
    (result,) = make_results(harness.database_id("api"), "p")
    waiting = make_recorded_result(result)._replace(state_updates={WAITING_FOR_FIRST_RUN_STATE_KEY: value})
    harness.recorder.record_results([waiting], result.slot + 300)
    with database.open_read_transaction() as connection:
        assert list_probe_statuses(connection)[0].state is state
