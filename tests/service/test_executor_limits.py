"""Each run starts at its slot, within the limits on concurrent runs in total and against one host."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.support.polling import wait_until_async
from tests.support.service import PASSING_OBSERVATION, scripted_probe
from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, ProbeResult, ResultToRecord
from watchdog.service import executor
from watchdog.service.clock import wall_clock_ms
from watchdog.service.executor import ProbeRunExecutor


class BlockingRunner:
    """A runner whose runs last until `gate` is set; counts concurrent runs."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.concurrent: Counter[str] = Counter()
        self.max_concurrent: Counter[str] = Counter()
        self.started: list[tuple[int, int]] = []

    async def run(self, probe: Any, slot: ClaimedSlot, *_: Any) -> ResultToRecord:
        self.started.append((slot.probe, wall_clock_ms()))
        for name in ("all", probe.host):
            self.concurrent[name] += 1
            self.max_concurrent[name] = max(self.max_concurrent[name], self.concurrent[name])
        await self.gate.wait()
        for name in ("all", probe.host):
            self.concurrent[name] -= 1
        return ResultToRecord(ProbeResult(slot.probe, slot.slot, slot.location, PASSING_OBSERVATION.outcome))


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MAX_CONCURRENT_PROBE_RUNS", 5)
    monkeypatch.setattr(executor, "MAX_CONCURRENT_PROBE_RUNS_PER_HOST", 2)


async def test_a_run_never_starts_before_its_slot() -> None:
    runner: Any = BlockingRunner()
    run_executor = ProbeRunExecutor(runner, wall_clock_ms, lambda _: None)
    slot = wall_clock_ms() + 300
    run_executor.start_run(scripted_probe(), ClaimedSlot(1, slot, "here", None), {})
    run_executor.start_run(scripted_probe(), ClaimedSlot(2, slot - 5_000, "here", None), {})
    await wait_until_async(lambda: len(runner.started) == 2)
    await run_executor.stop(0)
    (first, first_started_at), (second, second_started_at) = runner.started
    assert (first, second) == (2, 1), "the late slot first"
    assert first_started_at < slot
    assert second_started_at >= slot - 1, "a timer counts whole milliseconds"


async def test_limits(low_limits: None) -> None:
    runner: Any = BlockingRunner()
    recorded: list[ResultToRecord] = []
    run_executor = ProbeRunExecutor(runner, lambda: START_AT, recorded.append)
    hosts = ["a"] * 6 + ["b"] * 6 + [""] * 6
    for number, host in enumerate(hosts):
        run_executor.start_run(
            scripted_probe(host_name=host, timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.started) == 5)
    runner.gate.set()
    await wait_until_async(lambda: len(recorded) == len(hosts))
    assert runner.max_concurrent["all"] == 5
    assert max(runner.max_concurrent["a"], runner.max_concurrent["b"]) <= 2
    assert {item.result.outcome for item in recorded} == {PASSING_OBSERVATION.outcome}


async def test_a_host_that_hangs_does_not_block_others(low_limits: None) -> None:
    runner: Any = BlockingRunner()
    run_executor = ProbeRunExecutor(runner, lambda: START_AT, lambda _: None)
    for number in range(20):
        run_executor.start_run(
            scripted_probe(host_name="hangs", timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.started) == 2)
    run_executor.start_run(scripted_probe(host_name="fine", timeout="5m"), ClaimedSlot(99, START_AT, "here", None), {})
    await wait_until_async(lambda: len(runner.started) == 3)
    assert runner.started[-1][0] == 99
    await run_executor.stop(0)
