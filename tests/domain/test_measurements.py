"""Measurements of queues and canaries keep their values through storage, and ignore other measurements."""

from __future__ import annotations

import json

import pytest

from watchdog.domain.measurements import (
    JOBS_EVIDENCE_KEY,
    TASKS_EVIDENCE_KEY,
    CanaryStageDurations,
    HttpStepRecord,
    ListedJobCounts,
    ListedMcpTaskCounts,
    QueueMeasurements,
    build_step_measurements,
    describe_steps,
    drop_facts_of_other_subjects,
    drop_step_measurements,
    read_step_records,
)
from watchdog.domain.model import JsonScalar
from watchdog.domain.observations import QueueStats, RecentlyEndedJobCounts

STATS = QueueStats(
    waiting=3, active=0, failed=2, oldest=90_000, completed=RecentlyEndedJobCounts(1, 3), paused=True, head="x"
)


def test_queue_metrics_survive_storage() -> None:
    metrics = QueueMeasurements.from_queue_metrics(STATS, failure_ratio=0.25)
    stored = json.loads(json.dumps(metrics.to_measurements()))
    assert stored == {"waiting": 3, "active": 0, "failed": 2, "oldest": 90_000, "failure_ratio": 0.25}
    assert QueueMeasurements.from_measurements(stored) == metrics
    assert (metrics.delayed, metrics.consumers) == (None, None)


def test_measurements_of_other_names_and_types_are_ignored() -> None:
    measurements: dict[str, JsonScalar] = {"waiting": "many", "jobs": 5, "oldest": None, "active": 1}
    assert QueueMeasurements.from_measurements(measurements) == QueueMeasurements(active=1)
    assert QueueMeasurements.from_measurements({}) == QueueMeasurements()


def test_canary_stages_survive_storage_among_other_phases() -> None:
    stages = CanaryStageDurations(enqueue=8.0, pick_up=0.0)
    phases = {"connect": 1.0, **stages.to_phases()}
    assert phases == {"connect": 1.0, "enqueue": 8.0, "pick_up": 0.0}
    assert CanaryStageDurations.from_phases(phases) == stages
    assert CanaryStageDurations.from_phases({}) == CanaryStageDurations()


def test_facts_about_a_job_leave_out_the_others() -> None:
    counts = ListedJobCounts(2, 1)._asdict()
    entries = {"export": {"worker": "app-3", "duration": "2 min"}, "sweep": {"worker": "app-4"}}
    facts = {**counts, JOBS_EVIDENCE_KEY: entries, "address": "10.0.0.1"}
    assert drop_facts_of_other_subjects("export", facts) == {
        "address": "10.0.0.1",
        "worker": "app-3",
        "duration": "2 min",
    }
    assert drop_facts_of_other_subjects("unknown", facts) == facts
    assert drop_facts_of_other_subjects("", counts) == counts


def test_facts_about_a_task_leave_out_all_tasks() -> None:
    facts = {
        **ListedMcpTaskCounts(2, 0)._asdict(),
        TASKS_EVIDENCE_KEY: {"crawl": {"ok": True}, "mail": {}},
        "server": "x 1",
    }
    assert drop_facts_of_other_subjects("crawl", facts) == {"server": "x 1"}


def test_the_facts_of_a_queue_have_an_age_that_people_can_read() -> None:
    measurements = QueueMeasurements(waiting=3, oldest=2_001)
    assert measurements.to_measurements() == {"waiting": 3, "oldest": 2_001}
    assert measurements.to_evidence_facts() == {"waiting": 3, "oldest": "2\N{NO-BREAK SPACE}s"}
    assert QueueMeasurements(waiting=3).to_evidence_facts() == {"waiting": 3}


STEPS = [
    HttpStepRecord("Log in", 200, 85),
    HttpStepRecord("Cart", None, 3_000, failed=True),
    HttpStepRecord("Buy"),
    HttpStepRecord("Pay", failed=True),
]


@pytest.mark.parametrize(
    ("step", "text", "was_run"),
    [
        (STEPS[0], "HTTP 200 in 85 ms", True),
        (STEPS[1], "no response in 3 s", True),
        (STEPS[2], "not run", False),
        (STEPS[3], "not sent", True),
    ],
)
def test_a_step_in_words(step: HttpStepRecord, text: str, was_run: bool) -> None:
    assert (step.describe().replace("\N{NO-BREAK SPACE}", " "), step.was_run) == (text, was_run)


def test_steps_survive_storage() -> None:
    assert describe_steps(STEPS[2:]) == "Buy: not run; Pay: not sent"
    stored = json.loads(json.dumps(build_step_measurements(STEPS[:3])))
    assert stored["failed_step"] == 2
    assert read_step_records({**stored, "status": 200}) == STEPS[:3]
    assert read_step_records({"status": 200}) == []
    assert drop_step_measurements({**stored, "status": 200, "step_x": 1}) == {"status": 200, "step_x": 1}
    assert read_step_records({"step_1": "x", "step_1_status": "y", "step_1_ms": "z"}) == [HttpStepRecord("x")]
