"""The state of a probe survives JSON, and fields of a newer version are ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watchdog.domain.probe_state import (
    CanaryJobLeftByEarlierRun,
    NegotiatedMcpEraRecord,
    NeverRunMcpTasksRecord,
    OutstandingCanaryJobs,
    QueueThreshold,
    QueueThresholdStateRecord,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
    build_scheduled_job_state_key,
    compute_short_digest,
    drop_scheduled_job_state_updates,
    find_scheduled_job_record_in_probe_state,
    queue_threshold_records_from_json,
    queue_threshold_records_to_json,
)

JOB = ScheduledJobStateRecord("backup", SavedScheduledJobState("0 3 * * * UTC", 5, 6, 7, 8, 9, 1))
WAITING = QueueThresholdStateRecord(QueueThreshold("waiting", 200, for_ms=5), breached_since=7)
STALLED = QueueThresholdStateRecord(QueueThreshold("stalled", for_ms=5), 7, "b7c1")


@pytest.mark.parametrize(
    "record",
    [
        JOB,
        ScheduledJobStateRecord("b", SavedScheduledJobState("", 0)),
        WAITING,
        STALLED,
        QueueThresholdStateRecord(QueueThreshold("failure_ratio", 0.2, window_ms=60_000, min_samples=20)),
        CanaryJobLeftByEarlierRun("job/1", 5, 6),
        OutstandingCanaryJobs((CanaryJobLeftByEarlierRun("job/1", 5, 6, 7, "canary.not_finished", 2),), 8),
        NegotiatedMcpEraRecord("stateless", 5),
    ],
)
def test_a_record_survives_json(record: Any) -> None:
    stored = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(stored) == record
    assert type(record).from_json(stored | {"field_of_a_newer_version": 1}) == record


def test_a_job_is_found_by_its_name() -> None:
    state = {build_scheduled_job_state_key("backup"): JOB.to_json(), build_scheduled_job_state_key("other"): None}
    assert find_scheduled_job_record_in_probe_state(state, "backup") == JOB
    assert find_scheduled_job_record_in_probe_state(state, "other") is None
    assert find_scheduled_job_record_in_probe_state({}, "backup") is None


def test_a_result_that_is_never_evaluated_updates_nothing_about_jobs() -> None:
    key = build_scheduled_job_state_key("digest")
    updates = {key: {"failures": 1}, build_forget_job_state_key(key): None, "scheduler": {"heartbeat_at": 5}}
    assert drop_scheduled_job_state_updates(updates) == {"scheduler": {"heartbeat_at": 5}}


def test_thresholds_are_found_by_their_metric() -> None:
    stored = queue_threshold_records_to_json([WAITING, STALLED])
    assert queue_threshold_records_from_json(json.loads(json.dumps(stored))) == {"waiting": WAITING, "stalled": STALLED}
    assert queue_threshold_records_from_json(None) == {}


def test_new_tasks() -> None:
    record = NeverRunMcpTasksRecord({"b7c1": 5})
    assert NeverRunMcpTasksRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert NeverRunMcpTasksRecord.from_json(None) == NeverRunMcpTasksRecord()
    assert NeverRunMcpTasksRecord().to_json() is None


def test_a_digest_is_short_for_a_name_of_any_length() -> None:
    assert len(compute_short_digest("a job's name " * 1_000)) == len(compute_short_digest("")) == 12


def test_no_outstanding_sentinel_is_nothing_to_remember() -> None:
    assert OutstandingCanaryJobs().to_json() is None
    assert OutstandingCanaryJobs.from_json(None) == OutstandingCanaryJobs()
    assert OutstandingCanaryJobs.from_json({"job_id": "of an older version", "slot": 5}) == OutstandingCanaryJobs()


def test_after_the_clock_was_set_back_no_sentinel_was_sent_later_than_now() -> None:
    early, late = CanaryJobLeftByEarlierRun("a", 1, 1, 2), CanaryJobLeftByEarlierRun("b", 9, 9)
    jobs = OutstandingCanaryJobs((early, late, late._replace(picked_up_at=8)), given_up_at=7)
    capped = late._replace(sent_at=5)
    assert jobs.cap_instants(5) == OutstandingCanaryJobs((early, capped, capped._replace(picked_up_at=5)), 5)
    assert OutstandingCanaryJobs().cap_instants(5) == OutstandingCanaryJobs()


def test_after_the_clock_was_set_back_nothing_about_a_job_is_later_than_now() -> None:
    state = SavedScheduledJobState("", 3, last_start=9, last_end=8, last_ok=2, next_due=20)
    capped = SavedScheduledJobState("", 3, last_start=5, last_end=5, last_ok=2)
    assert ScheduledJobStateRecord("b", state).cap_instants(5) == ScheduledJobStateRecord("b", capped)
