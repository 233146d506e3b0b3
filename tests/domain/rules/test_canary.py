"""When a sentinel reached each stage, even if the clocks of queue and worker differ, and the finding from it."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome
from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.domain.rules.canary import (
    CanaryLimits,
    SentinelTracker,
    canary_failure_reason,
    outstanding_sentinel_verdict,
)

SENT = 1_000_000
HOUR = 3_600_000


def tracked(*polls: tuple[int, JobStatus]) -> SentinelTracker:
    tracker = SentinelTracker("job-1", SENT, SENT)
    for after, status in polls:
        tracker.update_status(status, SENT + after)
    return tracker


def running(at: int | None) -> JobStatus:
    return JobStatus(JobStage.RUNNING, at)


def done(picked_up: int | None, finished: int | None) -> JobStatus:
    return JobStatus(JobStage.DONE, picked_up, finished)


QUEUED = JobStatus(JobStage.QUEUED)


@pytest.mark.parametrize(
    ("polls", "phases"),
    [
        pytest.param([(50, QUEUED)], {}, id="still waiting"),
        pytest.param(
            [(50, QUEUED), (100, running(SENT + 70)), (900, done(SENT + 70, SENT + 800))],
            {"pick_up": 70, "finish": 730},
            id="equal clocks: times to the millisecond",
        ),
        pytest.param(
            [(400, done(SENT + 20, SENT + 350))], {"pick_up": 20, "finish": 330}, id="first polled when it had finished"
        ),
        pytest.param(
            [(50, QUEUED), (100, running(SENT - HOUR)), (900, done(SENT - HOUR, SENT - HOUR + 600))],
            {"pick_up": 50, "finish": 600},
            id="a worker an hour behind: not before the last poll that returned it as waiting",
        ),
        pytest.param(
            [(50, QUEUED), (100, running(SENT + HOUR)), (900, done(SENT + HOUR, SENT + HOUR + 600))],
            {"pick_up": 100, "finish": 600},
            id="a worker an hour ahead: not after the poll that returned it as running",
        ),
        pytest.param(
            [(400, done(SENT + HOUR, SENT + HOUR + 9_000))],
            {"pick_up": 400, "finish": 0},
            id="a worker that reports a longer duration than possible",
        ),
        pytest.param(
            [(400, done(SENT + 300, SENT + 200))],
            {"pick_up": 300, "finish": 0},
            id="finished before it was picked up: finished at the pick-up",
        ),
        pytest.param([(400, done(None, SENT + 300))], {"finish": 300}, id="no time of the pick-up: no pick-up"),
        pytest.param([(400, done(None, None))], {"finish": 400}, id="no times: the instant of the poll"),
        pytest.param(
            [(100, running(None)), (400, done(None, None))],
            {"pick_up": 100, "finish": 300},
            id="no times, each stage polled: the instants of the polls",
        ),
    ],
)
def test_phases(polls: list[tuple[int, JobStatus]], phases: dict[str, int]) -> None:
    assert tracked(*polls).phase_durations_ms == phases


def test_a_failed_job_has_a_finish_phase() -> None:
    assert tracked((300, JobStatus(JobStage.FAILED, SENT + 10, SENT + 200, "boom"))).phase_durations_ms == {
        "pick_up": 10,
        "finish": 190,
    }


def test_a_lost_job_has_no_finish_phase() -> None:
    assert tracked((100, running(SENT + 10)), (300, JobStatus(JobStage.LOST))).phase_durations_ms == {"pick_up": 10}


def test_a_sent_job_has_a_pick_up_phase_only_if_it_was_polled_as_running() -> None:
    assert tracked((100, JobStatus(JobStage.SENT)), (400, done(None, SENT + 300))).phase_durations_ms == {"finish": 300}
    assert tracked(
        (100, JobStatus(JobStage.SENT)), (200, running(None)), (400, done(None, None))
    ).phase_durations_ms == {
        "pick_up": 200,
        "finish": 200,
    }


def test_the_job_id_may_be_reported_later() -> None:
    tracker = tracked((100, JobStatus(JobStage.SENT, job_id="job:7")), (200, QUEUED))
    assert tracker.job_id == "job:7"


LIMITS = CanaryLimits(start_within=10_000, finish_within=30_000)
QUEUE = QueueStats(waiting=3, active=1, oldest=90_000, consumers=0, paused=True)


@pytest.mark.parametrize(
    ("sentence", "polls", "stats", "expected"),
    [
        ("finished in time", [(400, done(SENT + 20, SENT + 350))], QueueStats(), ("", "")),
        ("finished at its limit", [(30_000, done(None, SENT + 30_000))], QueueStats(), ("", "")),
        ("finished 1 ms after its limit", [(30_001, done(None, SENT + 30_001))], QueueStats(),
         ("canary.not_finished", "not finished within 30 s")),
        ("waiting, without statistics", [(10_000, QUEUED)], QueueStats(),
         ("canary.not_picked_up", "not picked up within 10 s")),
        ("waiting, with all statistics", [(10_000, QUEUED)], QUEUE,
         ("canary.not_picked_up",
          "not picked up within 10 s: the queue is paused, 0 workers, 1 active, 3 waiting, oldest 1 min 30 s")),
        ("waiting, and the queue has workers", [(10_000, QUEUED)], QueueStats(consumers=2, active=0),
         ("canary.not_picked_up", "not picked up within 10 s: 2 workers")),
        ("running for too long", [(100, running(SENT + 70)), (30_000, running(SENT + 70))], QUEUE,
         ("canary.not_finished", "picked up after 70 ms, not finished within 30 s")),
        ("running for too long, with an error",
         [(100, JobStatus(JobStage.RUNNING, SENT + 70, error="its worker is gone\nTraceback"))], QUEUE,
         ("canary.not_finished", "picked up after 70 ms, not finished within 30 s: its worker is gone")),
        ("sent, without a further stage", [(30_000, JobStatus(JobStage.SENT))], QueueStats(waiting=1),
         ("canary.not_finished", "not finished within 30 s: 1 waiting")),
        ("sent, with an error", [(30_000, JobStatus(JobStage.SENT, error="boom"))], QueueStats(waiting=1),
         ("canary.not_finished", "not finished within 30 s: 1 waiting: boom")),
        ("failed", [(300, JobStatus(JobStage.FAILED, error="disk full\nTraceback"))], QueueStats(),
         ("job.failed", "the job failed: disk full")),
        ("failed without an error", [(300, JobStatus(JobStage.FAILED))], QueueStats(),
         ("job.failed", "the job failed: no error message")),
        ("lost", [(300, JobStatus(JobStage.LOST))], QueueStats(),
         ("canary.lost", "the canary job disappeared before it was picked up")),
        ("lost while it ran", [(100, running(SENT + 70)), (300, JobStatus(JobStage.LOST))], QueueStats(),
         ("canary.lost", "the canary job was picked up after 70 ms, then disappeared")),
    ],
)  # fmt: skip
def test_verdict(
    sentence: str, polls: list[tuple[int, JobStatus]], stats: QueueStats, expected: tuple[str, str]
) -> None:
    reason, message = canary_failure_reason(LIMITS, tracked(*polls), stats)
    assert (reason, message.replace(NBSP, " ")) == expected, sentence


@pytest.mark.parametrize(
    ("now", "outcome", "reason", "message"),
    [
        (34_999, Outcome.ERROR, "canary.in_flight",
         "not sent: the canary job of 00:00:00 UTC is still running"),
        (35_000, Outcome.FAIL, "canary.not_finished",
         "the canary job of 00:00:00 UTC is still running, so no other was sent"),
    ],
)  # fmt: skip
def test_an_outstanding_sentinel_fails_a_run_from_its_deadline_on(
    now: int, outcome: Outcome, reason: str, message: str
) -> None:
    assert outstanding_sentinel_verdict(0, 35_000, now) == (outcome, reason, message)
