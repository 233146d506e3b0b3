"""Each run starts at its slot, and only so many go on at once: in all, and against one host."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.support.polling import wait_until_async
from tests.support.service import PASSING_OBSERVATION, scripted_probe
from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, RecordedResult, Result
from watchdog.service import executor
from watchdog.service.clock import wall_clock_ms
from watchdog.service.executor import RunExecutor


class Busy:
    """A runner whose runs go on until they are let go; knows how many went on at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[tuple[int, int]] = []

    async def run(self, probe: Any, slot: ClaimedSlot, *_: Any) -> RecordedResult:
        self.begun.append((slot.probe, wall_clock_ms()))
        for name in ("all", probe.host):
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await self.gate.wait()
        for name in ("all", probe.host):
            self.now[name] -= 1
        return RecordedResult(Result(slot.probe, slot.slot, slot.location, PASSING_OBSERVATION.outcome))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MAX_CONCURRENT_RUNS", 5)
    monkeypatch.setattr(executor, "MAX_CONCURRENT_RUNS_PER_HOST", 2)


async def test_a_run_starts_at_its_slot_and_not_before() -> None:
    runner: Any = Busy()
    dispatcher = RunExecutor(runner, wall_clock_ms, lambda _: None)
    slot = wall_clock_ms() + 300
    dispatcher.start_run(scripted_probe(), ClaimedSlot(1, slot, "here", None), {})
    dispatcher.start_run(scripted_probe(), ClaimedSlot(2, slot - 5_000, "here", None), {})
    await wait_until_async(lambda: len(runner.begun) == 2)
    await dispatcher.stop(0)
    (late, at_once), (ahead, begun) = runner.begun
    assert (late, ahead) == (2, 1)
    assert at_once < slot
    assert begun >= slot - 1, "a timer counts whole milliseconds"


async def test_limits(few: None) -> None:
    runner: Any = Busy()
    told: list[RecordedResult] = []
    dispatcher = RunExecutor(runner, lambda: START_AT, told.append)
    hosts = ["a"] * 6 + ["b"] * 6 + [""] * 6
    for number, host in enumerate(hosts):
        dispatcher.start_run(
            scripted_probe(host_name=host, timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.begun) == 5)
    runner.gate.set()
    await wait_until_async(lambda: len(told) == len(hosts))
    assert runner.most["all"] == 5
    assert max(runner.most["a"], runner.most["b"]) <= 2
    assert {report.result.outcome for report in told} == {PASSING_OBSERVATION.outcome}


async def test_a_host_that_hangs_takes_no_place_from_others(few: None) -> None:
    runner: Any = Busy()
    dispatcher = RunExecutor(runner, lambda: START_AT, lambda _: None)
    for number in range(20):
        dispatcher.start_run(
            scripted_probe(host_name="hangs", timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.begun) == 2)
    dispatcher.start_run(scripted_probe(host_name="fine", timeout="5m"), ClaimedSlot(99, START_AT, "here", None), {})
    await wait_until_async(lambda: len(runner.begun) == 3)
    assert runner.begun[-1][0] == 99
    await dispatcher.stop(0)
