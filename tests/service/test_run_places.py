"""Places for concurrent runs: targets that hang leave places to those that respond, and no probe is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from watchdog.service.run_places import ConcurrentRunLimitTimeoutError, ProbeRunLimiter

SHORT_S, LONG_S = 0.02, 60.0


class Runs:
    """Runs that hold their place until they are ended."""

    def __init__(self, places: ProbeRunLimiter):
        self.places = places
        self.running: dict[int, asyncio.Event] = {}
        self.refused: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, *probes: int, endpoint: str = "", is_slow: bool = False, wait_s: float = LONG_S
    ) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._run(probe, endpoint, is_slow=is_slow, wait_s=wait_s)) for probe in probes]
        self._tasks.update(tasks)
        await asyncio.sleep(SHORT_S * 3 if wait_s == SHORT_S else 0.01)
        return tasks

    async def _run(self, probe: int, endpoint: str, *, is_slow: bool, wait_s: float) -> None:
        try:
            async with self.places.occupy_run_place(probe, endpoint, is_slow=is_slow, wait_s=wait_s):
                ended = self.running[probe] = asyncio.Event()
                try:
                    await ended.wait()
                finally:
                    del self.running[probe]
        except ConcurrentRunLimitTimeoutError as e:
            self.refused[probe] = str(e)

    async def end(self, *probes: int) -> None:
        for probe in probes:
            self.running[probe].set()
        await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:  # type: ignore[misc] # an async fixture
    runs = Runs(ProbeRunLimiter(*request.param))
    yield runs
    await runs.close()


@pytest.mark.parametrize("runs", [(6, 4)], indirect=True)
async def test_limits_in_total_and_against_an_endpoint(runs: Runs) -> None:
    await runs.start(*range(5), endpoint="a:1")
    await runs.start(5, 6, 7, endpoint="b:1")
    assert sorted(runs.running) == [0, 1, 2, 3, 5, 6]
    await runs.end(0)
    assert sorted(runs.running) == [1, 2, 3, 4, 5, 6], "the first that waits and may start"
    await runs.end(5)
    assert sorted(runs.running) == [1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("runs", [(100, 10)], indirect=True)
async def test_probes_that_hang_share_half_of_an_endpoint(runs: Runs) -> None:
    await runs.start(*range(40), endpoint="a:1", is_slow=True)
    assert len(runs.running) == 5
    await runs.start(*range(100, 105), endpoint="a:1")
    assert len(runs.running) == 10
    await runs.start(200, endpoint="a:2", is_slow=True)
    assert 200 in runs.running, "another port of the host"


@pytest.mark.parametrize("runs", [(10, 100)], indirect=True)
async def test_probes_that_hang_share_half_of_all_places(runs: Runs) -> None:
    for number in range(50):
        await runs.start(number, endpoint=f"host{number}:1", is_slow=True)
    assert len(runs.running) == 5
    await runs.start(100, 101, 102, 103, 104)
    assert len(runs.running) == 10


@pytest.mark.parametrize("runs", [(2, 100)], indirect=True)
async def test_a_probe_that_found_no_place_comes_first_the_next_time(runs: Runs) -> None:
    """Otherwise the probes with the earliest slots would always get the places."""
    for number in range(3):
        await runs.start(number, endpoint="a:1", is_slow=True, wait_s=SHORT_S)
        if number == 0:
            await runs.end(0)  # it has run once
    assert runs.running.keys() == {1}
    assert runs.refused.keys() == {2}
    waiting = await runs.start(0, 1_000, 2, endpoint="a:1", is_slow=True)
    await runs.end(1)
    assert runs.running.keys() == {1_000}, "never started, and first of these in the queue"
    await runs.end(1_000)
    assert runs.running.keys() == {2}
    await runs.end(2)
    assert runs.running.keys() == {0}
    assert len(waiting) == 3


@pytest.mark.parametrize(
    ("runs", "endpoint", "is_slow", "expected"),
    [
        ((4, 2), "a:1", False, "2 runs against a:1"),
        ((4, 2), "a:1", True, "1 runs against a:1 of probes whose last run timed out"),
        ((2, 9), "a:1", False, "2 runs"),
        ((2, 9), "", True, "1 runs of probes whose last run timed out"),
    ],
    indirect=["runs"],
)
async def test_the_limit_that_a_run_waited_for(runs: Runs, endpoint: str, is_slow: bool, expected: str) -> None:
    await runs.start(*range(3), endpoint=endpoint, is_slow=is_slow, wait_s=SHORT_S)
    assert runs.refused[2] == expected


@pytest.mark.parametrize("runs", [(1, 1)], indirect=True)
async def test_no_place_is_lost(runs: Runs) -> None:
    """Runs are cancelled before, while and at the moment at which they get a place; and they fail."""
    await runs.start(0, endpoint="a:1")
    waiting = await runs.start(1, 2, 3, endpoint="a:1")
    waiting[0].cancel()
    await asyncio.sleep(0)
    runs.running[0].set()
    await asyncio.sleep(0)  # 2 has a place now, and does not know it yet
    waiting[1].cancel()
    await asyncio.sleep(0.01)
    assert runs.running.keys() == {3}
    await runs.end(3)
    with suppress(ZeroDivisionError):
        async with runs.places.occupy_run_place(4, "a:1", is_slow=True, wait_s=LONG_S):
            raise ZeroDivisionError
    async with runs.places.occupy_run_place(5, "a:1", is_slow=False, wait_s=SHORT_S):
        pass
