"""When each stage was reached, whatever the clocks of a queue and its workers say."""

from __future__ import annotations

import pytest

from watchdog.probes.canary import PATIENCE, TIDYING, Flight
from watchdog.queues import CANARIES, Look, Stage, http, mcp

SENT = 1_000_000
HOUR = 3_600_000


def flown(*looks: tuple[int, Look]) -> Flight:
    flight = Flight("job-1", SENT, SENT)
    for after, look in looks:
        flight.see(look, SENT + after)
    return flight


def running(at: int | None) -> Look:
    return Look(Stage.RUNNING, at)


def done(picked_up: int | None, finished: int | None) -> Look:
    return Look(Stage.DONE, picked_up, finished)


QUEUED = Look(Stage.QUEUED)


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
def test_phases(looks: list[tuple[int, Look]], phases: dict[str, int]) -> None:
    assert flown(*looks).phases == phases


def test_a_failed_job_has_finished() -> None:
    assert flown((300, Look(Stage.FAILED, SENT + 10, SENT + 200, "boom"))).phases == {"pick_up": 10, "finish": 190}


def test_a_vanished_job_has_not() -> None:
    assert flown((100, running(SENT + 10)), (300, Look(Stage.LOST))).phases == {"pick_up": 10}


def test_one_that_was_sent_may_or_may_not_have_been_picked_up() -> None:
    assert flown((100, Look(Stage.SENT)), (400, done(None, SENT + 300))).phases == {"finish": 300}
    assert flown((100, Look(Stage.SENT)), (200, running(None)), (400, done(None, None))).phases == {
        "pick_up": 200,
        "finish": 200,
    }


def test_by_what_it_is_known_may_come_to_light_later() -> None:
    flight = flown((100, Look(Stage.SENT, ref="job:7")), (200, QUEUED))
    assert flight.ref == "job:7"


def test_a_run_that_must_remember_its_sentinel_is_not_cut_off() -> None:
    """However slow all is: what an earlier slot left, opening and sending, the last look, and taking back."""
    slowest = {"http": http.SENDING, "mcp": mcp.OPENING + mcp.SENDING}
    assert slowest.keys() == {name for name, system in CANARIES.items() if not system.derives_refs}
    for name, seconds in slowest.items():
        assert CANARIES[name].margin >= (PATIENCE + seconds + PATIENCE + TIDYING) * 1_000, name
