"""The state of a probe survives JSON, and fields of a newer version are ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watchdog.domain.probe_state import (
    JobStateRecord,
    McpProtocolRecord,
    NeverRunTasksRecord,
    OutstandingSentinelRecord,
    OutstandingSentinels,
    QueueThreshold,
    QueueThresholdRecord,
    SavedJobState,
    build_forget_job_key,
    build_job_state_key,
    drop_job_state_updates,
    load_job_state_record,
    queue_threshold_records_from_json,
    queue_threshold_records_to_json,
    short_digest,
)

JOB = JobStateRecord("backup", SavedJobState("0 3 * * * UTC", 5, 6, 7, 8, 9, 1))
WAITING = QueueThresholdRecord(QueueThreshold("waiting", 200, for_ms=5), breached_since=7)
STALLED = QueueThresholdRecord(QueueThreshold("stalled", for_ms=5), 7, "b7c1")


@pytest.mark.parametrize(
    "record",
    [
        JOB,
        JobStateRecord("b", SavedJobState("", 0)),
        WAITING,
        STALLED,
        QueueThresholdRecord(QueueThreshold("failure_ratio", 0.2, window_ms=60_000, min_samples=20)),
        OutstandingSentinelRecord("job/1", 5, 6),
        OutstandingSentinels((OutstandingSentinelRecord("job/1", 5, 6, 7, "canary.not_finished", 2),), 8),
        McpProtocolRecord("stateless", 5),
    ],
)
def test_a_record_survives_json(record: Any) -> None:
    stored = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(stored) == record
    assert type(record).from_json(stored | {"field_of_a_newer_version": 1}) == record


def test_a_job_is_found_by_its_name() -> None:
    state = {build_job_state_key("backup"): JOB.to_json(), build_job_state_key("other"): None}
    assert load_job_state_record(state, "backup") == JOB
    assert load_job_state_record(state, "other") is None
    assert load_job_state_record({}, "backup") is None


def test_a_result_that_is_never_evaluated_updates_nothing_about_jobs() -> None:
    key = build_job_state_key("digest")
    updates = {key: {"failures": 1}, build_forget_job_key(key): None, "scheduler": {"heartbeat_at": 5}}
    assert drop_job_state_updates(updates) == {"scheduler": {"heartbeat_at": 5}}


def test_thresholds_are_found_by_their_metric() -> None:
    stored = queue_threshold_records_to_json([WAITING, STALLED])
    assert queue_threshold_records_from_json(json.loads(json.dumps(stored))) == {"waiting": WAITING, "stalled": STALLED}
    assert queue_threshold_records_from_json(None) == {}


def test_new_tasks() -> None:
    record = NeverRunTasksRecord({"b7c1": 5})
    assert NeverRunTasksRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert NeverRunTasksRecord.from_json(None) == NeverRunTasksRecord()
    assert NeverRunTasksRecord().to_json() is None


def test_a_digest_is_short_for_a_name_of_any_length() -> None:
    assert len(short_digest("a job's name " * 1_000)) == len(short_digest("")) == 12


def test_no_outstanding_sentinel_is_nothing_to_remember() -> None:
    assert OutstandingSentinels().to_json() is None
    assert OutstandingSentinels.from_json(None) == OutstandingSentinels()
    assert OutstandingSentinels.from_json({"job_id": "of an older version", "slot": 5}) == OutstandingSentinels()
