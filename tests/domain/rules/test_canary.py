"""When a sentinel reached each stage, even if the clocks of queue and worker differ, and the finding from it."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.probe_state import CanaryJobLeftByEarlierRun, OutstandingCanaryJobs
from watchdog.domain.rules.canary import (
    CanaryJobStageTracker,
    CanaryLimits,
    find_blocking_canary_job,
    find_canary_problem,
    give_up_oldest_canary_job_if_too_many,
)

SENT = 1_000_000
HOUR = 3_600_000


def tracked(*polls: tuple[int, CanaryJobPollResult]) -> CanaryJobStageTracker:
    tracker = CanaryJobStageTracker("job-1", SENT, SENT)
    for after, status in polls:
        tracker.apply_poll_result(status, SENT + after)
    return tracker


def running(at: int | None) -> CanaryJobPollResult:
    return CanaryJobPollResult(CanaryJobStage.RUNNING, at)


def done(picked_up: int | None, finished: int | None) -> CanaryJobPollResult:
    return CanaryJobPollResult(CanaryJobStage.DONE, picked_up, finished)


QUEUED = CanaryJobPollResult(CanaryJobStage.QUEUED)


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
def test_phases(polls: list[tuple[int, CanaryJobPollResult]], phases: dict[str, int]) -> None:
    assert tracked(*polls).phase_durations_ms == phases


def test_a_failed_job_has_a_finish_phase() -> None:
    assert tracked(
        (300, CanaryJobPollResult(CanaryJobStage.FAILED, SENT + 10, SENT + 200, "boom"))
    ).phase_durations_ms == {
        "pick_up": 10,
        "finish": 190,
    }


def test_a_lost_job_has_no_finish_phase() -> None:
    assert tracked((100, running(SENT + 10)), (300, CanaryJobPollResult(CanaryJobStage.LOST))).phase_durations_ms == {
        "pick_up": 10
    }


def test_a_sent_job_has_a_pick_up_phase_only_if_it_was_polled_as_running() -> None:
    assert tracked(
        (100, CanaryJobPollResult(CanaryJobStage.SENT)), (400, done(None, SENT + 300))
    ).phase_durations_ms == {"finish": 300}
    assert tracked(
        (100, CanaryJobPollResult(CanaryJobStage.SENT)), (200, running(None)), (400, done(None, None))
    ).phase_durations_ms == {
        "pick_up": 200,
        "finish": 200,
    }


def test_the_job_id_may_be_reported_later() -> None:
    tracker = tracked((100, CanaryJobPollResult(CanaryJobStage.SENT, job_id="job:7")), (200, QUEUED))
    assert tracker.job_id == "job:7"
    assert not tracker.has_ended


@pytest.mark.parametrize("stage", [CanaryJobStage.DONE, CanaryJobStage.FAILED, CanaryJobStage.LOST])
def test_a_job_that_is_finished_or_lost_has_ended(stage: CanaryJobStage) -> None:
    assert tracked((100, CanaryJobPollResult(stage))).has_ended


LIMITS = CanaryLimits(start_within=10_000, finish_within=30_000)
QUEUE = QueueStats(waiting=3, active=1, oldest=90_000, consumers=0, paused=True)


@pytest.mark.parametrize(
    ("sentence", "polls", "stats", "expected"),
    [
        ("finished in time", [(400, done(SENT + 20, SENT + 350))], QueueStats(), ("", "")),
        ("finished at its limit", [(30_000, done(None, SENT + 30_000))], QueueStats(), ("", "")),
        ("finished 1 ms after its limit", [(30_001, done(None, SENT + 30_001))], QueueStats(),
         ("canary.not_finished", "canary job not finished within 30 s")),
        ("waiting, without statistics", [(10_000, QUEUED)], QueueStats(),
         ("canary.not_picked_up", "canary job not picked up within 10 s")),
        ("waiting, with all statistics", [(10_000, QUEUED)], QUEUE,
         ("canary.not_picked_up",
          "canary job not picked up within 10 s: the queue is paused, 3 waiting, 0 workers, 1 active, "
          "oldest 1 min 30 s")),
        ("waiting, and the queue has workers", [(10_000, QUEUED)], QueueStats(consumers=2, active=0),
         ("canary.not_picked_up", "canary job not picked up within 10 s: 2 workers")),
        ("running for too long", [(100, running(SENT + 70)), (30_000, running(SENT + 70))], QUEUE,
         ("canary.not_finished", "canary job picked up after 70 ms, but not finished within 30 s")),
        ("running for too long, with an error",
         [(100, CanaryJobPollResult(CanaryJobStage.RUNNING, SENT + 70, error="its worker is gone\nTraceback"))], QUEUE,
         ("canary.not_finished", "canary job picked up after 70 ms, but not finished within 30 s: its worker is gone")),
        ("sent, without a further stage", [(30_000, CanaryJobPollResult(CanaryJobStage.SENT))], QueueStats(waiting=1),
         ("canary.not_finished", "canary job not finished within 30 s: 1 waiting")),
        ("sent, with an error",
         [(30_000, CanaryJobPollResult(CanaryJobStage.SENT, error="boom"))], QueueStats(waiting=1),
         ("canary.not_finished", "canary job not finished within 30 s: 1 waiting: boom")),
        ("failed", [(300, CanaryJobPollResult(CanaryJobStage.FAILED, error="disk full\nTraceback"))], QueueStats(),
         ("job.failed", "the job failed: disk full")),
        ("failed without an error", [(300, CanaryJobPollResult(CanaryJobStage.FAILED))], QueueStats(),
         ("job.failed", "the job failed: no error message")),
        ("lost", [(300, CanaryJobPollResult(CanaryJobStage.LOST))], QueueStats(),
         ("canary.lost", "canary job lost before it was picked up")),
        ("lost, without a shown pick-up",
         [(100, CanaryJobPollResult(CanaryJobStage.SENT)), (300, CanaryJobPollResult(CanaryJobStage.LOST))],
         QueueStats(), ("canary.lost", "canary job lost")),
        ("lost, with an answer",
         [(100, CanaryJobPollResult(CanaryJobStage.SENT)),
          (300, CanaryJobPollResult(CanaryJobStage.LOST, error="HTTP 404"))],
         QueueStats(), ("canary.lost", "canary job lost: HTTP 404")),
        ("lost while it ran",
         [(100, running(SENT + 70)), (300, CanaryJobPollResult(CanaryJobStage.LOST))], QueueStats(),
         ("canary.lost", "canary job picked up after 70 ms, but then lost")),
    ],
)  # fmt: skip
def test_verdict(
    sentence: str, polls: list[tuple[int, CanaryJobPollResult]], stats: QueueStats, expected: tuple[str, str]
) -> None:
    reason, message = find_canary_problem(LIMITS, tracked(*polls), stats)
    assert (reason, message.replace(NBSP, " ")) == expected, sentence


def test_slow_sending_is_named_if_it_left_too_little_time() -> None:
    tracker = tracked((20_000, CanaryJobPollResult(CanaryJobStage.SENT)))
    assert find_canary_problem(LIMITS, tracker, QueueStats(), sending_ms=11_000) == (
        "canary.not_finished",
        f"canary job not finished within 30{NBSP}s, of which sending took 11{NBSP}s",
    )


EARLIER = CanaryJobLeftByEarlierRun("job-1", SENT, SENT, reason="canary.not_picked_up")
IDLE = QueueStats(waiting=1, consumers=0)


def test_a_later_slot_goes_on_where_the_first_ended() -> None:
    tracker = CanaryJobStageTracker.from_outstanding_record(EARLIER._replace(picked_up_at=SENT + 70))
    assert (tracker.job_id, tracker.sent_at, tracker.picked_up_at) == ("job-1", SENT, SENT + 70)
    tracker.apply_poll_result(done(None, SENT + 900), SENT + 2 * MINUTE_MS)
    assert tracker.phase_durations_ms == {"pick_up": 70, "finish": 830}


@pytest.mark.parametrize(
    ("sentence", "record", "status", "stats", "expected"),
    [
        ("it still waits", EARLIER, QUEUED, IDLE,
         ("canary.not_picked_up", "canary job not picked up for 2 min, limit 10 s: 1 waiting, 0 workers")),
        ("it is sent, and the system shows no more", EARLIER, CanaryJobPollResult(CanaryJobStage.SENT), IDLE,
         ("canary.not_finished", "canary job not finished for 2 min, limit 30 s: 1 waiting, 0 workers")),
        ("it still runs", EARLIER._replace(picked_up_at=SENT + 70), running(SENT + 70), IDLE,
         ("canary.not_finished", "canary job picked up after 70 ms, but not finished for 2 min, limit 30 s")),
        ("it was picked up since", EARLIER, running(SENT + 90_000), IDLE,
         ("canary.not_finished", "canary job picked up after 1 min 30 s, but not finished for 2 min, limit 30 s")),
        ("its worker is gone",
         EARLIER, CanaryJobPollResult(CanaryJobStage.RUNNING, SENT + 70, error="its worker is gone"), IDLE,
         ("canary.not_finished",
          "canary job picked up after 70 ms, but not finished for 2 min, limit 30 s: its worker is gone")),
        ("its progress had stalled",
         EARLIER._replace(reason="canary.progress_stalled"), CanaryJobPollResult(CanaryJobStage.SENT), IDLE,
         ("canary.progress_stalled", "canary job not finished for 2 min, limit 30 s: 1 waiting, 0 workers")),
        ("it finishes in time after all", EARLIER, done(SENT + 70, SENT + 900), IDLE, ("", "")),
    ],
)  # fmt: skip
def test_a_later_slot_keeps_the_finding_of_the_first(
    sentence: str,
    record: CanaryJobLeftByEarlierRun,
    status: CanaryJobPollResult,
    stats: QueueStats,
    expected: tuple[str, str],
) -> None:
    tracker = CanaryJobStageTracker.from_outstanding_record(record)
    tracker.apply_poll_result(status, SENT + 2 * MINUTE_MS)
    reason, message = find_canary_problem(LIMITS, tracker, stats)
    assert (reason, message.replace(NBSP, " ")) == expected, sentence


def records(*blocked_slots: int) -> tuple[CanaryJobLeftByEarlierRun, ...]:
    """One record for each sentinel, oldest first."""
    return tuple(
        CanaryJobLeftByEarlierRun(f"job-{n}", n, n, blocked_slots=count) for n, count in enumerate(blocked_slots)
    )


SLOT = 100 * MINUTE_MS


@pytest.mark.parametrize(
    ("sentence", "outstanding", "blocking"),
    [
        ("none is outstanding", OutstandingCanaryJobs(), None),
        ("the slot after", OutstandingCanaryJobs(records(0)), "job-0"),
        ("the second slot after", OutstandingCanaryJobs(records(1)), "job-0"),
        ("the third slot after", OutstandingCanaryJobs(records(2)), None),
        ("an older one never blocks", OutstandingCanaryJobs(records(0, 2)), None),
        ("three, and none was given up before", OutstandingCanaryJobs(records(2, 2, 2)), None),
        ("three, and one was given up 9 min before",
         OutstandingCanaryJobs(records(2, 2, 2), SLOT - 9 * MINUTE_MS), "job-2"),
        ("three, and one was given up 10 min before",
         OutstandingCanaryJobs(records(2, 2, 2), SLOT - 10 * MINUTE_MS), None),
        ("two, and one was given up just before", OutstandingCanaryJobs(records(2, 2), SLOT - MINUTE_MS), None),
    ],
)  # fmt: skip
def test_an_earlier_sentinel_blocks_at_most_two_slots(
    sentence: str, outstanding: OutstandingCanaryJobs, blocking: str | None
) -> None:
    record = find_blocking_canary_job(outstanding, SLOT)
    assert (record and record.job_id) == blocking, sentence


def test_the_oldest_of_three_is_given_up_for_a_fourth() -> None:
    two, three = OutstandingCanaryJobs(records(2, 2)), OutstandingCanaryJobs(records(2, 2, 2), 5)
    assert give_up_oldest_canary_job_if_too_many(OutstandingCanaryJobs(), SLOT) == (None, OutstandingCanaryJobs())
    assert give_up_oldest_canary_job_if_too_many(two, SLOT) == (None, two)
    assert give_up_oldest_canary_job_if_too_many(three, SLOT) == (
        three.records[0],
        OutstandingCanaryJobs(three.records[1:], SLOT),
    )


def test_a_day_without_workers_leaves_three_sentinels_and_few_of_their_followers() -> None:
    """Slots every minute, and a system that can cancel nothing: the backlog is not fed."""
    outstanding, sent_count = OutstandingCanaryJobs(), 0
    for slot in range(0, 24 * HOUR, MINUTE_MS):
        if (record := find_blocking_canary_job(outstanding, slot)) is not None:
            blocked = record._replace(blocked_slots=record.blocked_slots + 1)
            outstanding = outstanding._replace(records=(*outstanding.records[:-1], blocked))
        else:
            _, outstanding = give_up_oldest_canary_job_if_too_many(outstanding, slot)
            sent = CanaryJobLeftByEarlierRun(f"job-{slot}", slot, slot)
            outstanding = outstanding._replace(records=(*outstanding.records, sent))
            sent_count += 1
        assert len(outstanding.records) <= 3
    assert sent_count <= 3 + 24 * 6
