"""When each stage was reached, whatever the clocks of a queue and its workers say."""

from __future__ import annotations

import pytest

from watchdog.domain.observations import JobStage, JobStatus
from watchdog.domain.rules.canary import SentinelTracker
from watchdog.probes.canary import BROKER_CALL_TIMEOUT_S, CLEANUP_TIMEOUT_S
from watchdog.queues import CANARY_DRIVERS, http, mcp

SENT = 1_000_000
HOUR = 3_600_000


def flown(*looks: tuple[int, JobStatus]) -> SentinelTracker:
    flight = SentinelTracker("job-1", SENT, SENT)
    for after, look in looks:
        flight.update_status(look, SENT + after)
    return flight


def running(at: int | None) -> JobStatus:
    return JobStatus(JobStage.RUNNING, at)


def done(picked_up: int | None, finished: int | None) -> JobStatus:
    return JobStatus(JobStage.DONE, picked_up, finished)


QUEUED = JobStatus(JobStage.QUEUED)


@pytest.mark.parametrize(
    ("looks", "phases"),
    [
        pytest.param([(50, QUEUED)], {}, id="still waiting"),
        pytest.param(
            [(50, QUEUED), (100, running(SENT + 70)), (900, done(SENT + 70, SENT + 800))],
            {"pick_up": 70, "finish": 730},
            id="honest clocks are believed to the millisecond",
        ),
        pytest.param(
            [(400, done(SENT + 20, SENT + 350))], {"pick_up": 20, "finish": 330}, id="seen only when it was over"
        ),
        pytest.param(
            [(50, QUEUED), (100, running(SENT - HOUR)), (900, done(SENT - HOUR, SENT - HOUR + 600))],
            {"pick_up": 50, "finish": 600},
            id="a worker an hour behind: not before the last look that found it waiting",
        ),
        pytest.param(
            [(50, QUEUED), (100, running(SENT + HOUR)), (900, done(SENT + HOUR, SENT + HOUR + 600))],
            {"pick_up": 100, "finish": 600},
            id="a worker an hour ahead: not after the look that found it running",
        ),
        pytest.param(
            [(400, done(SENT + HOUR, SENT + HOUR + 9_000))],
            {"pick_up": 400, "finish": 0},
            id="a worker that claims more than there was",
        ),
        pytest.param([(400, done(None, SENT + 300))], {"finish": 300}, id="no word of a pick-up is no pick-up"),
        pytest.param([(400, done(None, None))], {"finish": 400}, id="no times at all: what we saw"),
        pytest.param(
            [(100, running(None)), (400, done(None, None))],
            {"pick_up": 100, "finish": 300},
            id="no times, both stages seen",
        ),
    ],
)
def test_phases(looks: list[tuple[int, JobStatus]], phases: dict[str, int]) -> None:
    assert flown(*looks).phase_durations_ms == phases


def test_a_failed_job_has_finished() -> None:
    assert flown((300, JobStatus(JobStage.FAILED, SENT + 10, SENT + 200, "boom"))).phase_durations_ms == {
        "pick_up": 10,
        "finish": 190,
    }


def test_a_vanished_job_has_not() -> None:
    assert flown((100, running(SENT + 10)), (300, JobStatus(JobStage.LOST))).phase_durations_ms == {"pick_up": 10}


def test_one_that_was_sent_may_or_may_not_have_been_picked_up() -> None:
    assert flown((100, JobStatus(JobStage.SENT)), (400, done(None, SENT + 300))).phase_durations_ms == {"finish": 300}
    assert flown((100, JobStatus(JobStage.SENT)), (200, running(None)), (400, done(None, None))).phase_durations_ms == {
        "pick_up": 200,
        "finish": 200,
    }


def test_by_what_it_is_known_may_come_to_light_later() -> None:
    flight = flown((100, JobStatus(JobStage.SENT, job_id="job:7")), (200, QUEUED))
    assert flight.job_id == "job:7"


def test_a_run_that_must_remember_its_sentinel_is_not_cut_off() -> None:
    """However slow all is: what an earlier slot left, opening and sending, the last look, and taking back."""
    slowest = {"http": http.ENQUEUE_TIMEOUT_S, "mcp": mcp.CONNECT_TIMEOUT_S + mcp.JOB_ID_TIMEOUT_S}
    assert slowest.keys() == {name for name, system in CANARY_DRIVERS.items() if not system.deterministic_id}
    for name, seconds in slowest.items():
        assert (
            CANARY_DRIVERS[name].deadline_margin_ms
            >= (BROKER_CALL_TIMEOUT_S + seconds + BROKER_CALL_TIMEOUT_S + CLEANUP_TIMEOUT_S) * 1_000
        ), name
