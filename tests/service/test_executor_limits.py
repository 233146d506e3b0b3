"""Each run starts at its slot, within the limits on concurrent runs in total and against one host."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from random import Random
from typing import Any

import pytest

from tests.simulation.virtual_loop import VirtualLoop
from tests.support.polling import wait_until_async
from tests.support.service import PASSING_OBSERVATION, scripted_probe
from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, Outcome, ProbeResult, ResultToRecord
from watchdog.service import executor
from watchdog.service.clock import Clock, read_wall_clock_ms
from watchdog.service.executor import ConcurrentProbeRunExecutor
from watchdog.service.run_places import ProbeRunLimiter


class BlockingRunner:
    """A runner whose runs last until `gate` is set; counts concurrent runs."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.concurrent: Counter[str] = Counter()
        self.max_concurrent: Counter[str] = Counter()
        self.started: list[tuple[int, int]] = []

    async def run(self, probe: Any, slot: ClaimedSlot, *_: Any) -> ResultToRecord:
        self.started.append((slot.probe, read_wall_clock_ms()))
        for name in ("all", probe.network_endpoint):
            self.concurrent[name] += 1
            self.max_concurrent[name] = max(self.max_concurrent[name], self.concurrent[name])
        await self.gate.wait()
        for name in ("all", probe.network_endpoint):
            self.concurrent[name] -= 1
        return ResultToRecord(ProbeResult(slot.probe, slot.slot, slot.location, PASSING_OBSERVATION.outcome))


def make_executor(
    runner: Any, clock: Clock = lambda: START_AT, on_result: Callable[[ResultToRecord], None] = lambda _: None
) -> ConcurrentProbeRunExecutor:
    return ConcurrentProbeRunExecutor(runner, clock, on_result, ProbeRunLimiter(5, per_endpoint=2), lambda _: None)


async def test_a_run_never_starts_before_its_slot() -> None:
    runner: Any = BlockingRunner()
    run_executor = make_executor(runner, read_wall_clock_ms)
    slot = read_wall_clock_ms() + 300
    run_executor.start_probe_run(scripted_probe(), ClaimedSlot(1, slot, "here", None), {})
    run_executor.start_probe_run(scripted_probe(), ClaimedSlot(2, slot - 5_000, "here", None), {})
    await wait_until_async(lambda: len(runner.started) == 2)
    await run_executor.stop(0)
    (first, first_started_at), (second, second_started_at) = runner.started
    assert (first, second) == (2, 1), "the late slot first"
    assert first_started_at < slot
    assert second_started_at >= slot - 1, "a timer counts whole milliseconds"


async def test_limits() -> None:
    runner: Any = BlockingRunner()
    recorded: list[ResultToRecord] = []
    run_executor = make_executor(runner, on_result=recorded.append)
    hosts = ["a"] * 6 + ["b"] * 6 + [""] * 6
    for number, host in enumerate(hosts):
        run_executor.start_probe_run(
            scripted_probe(endpoint_name=host, timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.started) == 5)
    runner.gate.set()
    await wait_until_async(lambda: len(recorded) == len(hosts))
    assert runner.max_concurrent["all"] == 5
    assert max(runner.max_concurrent["a"], runner.max_concurrent["b"]) <= 2
    assert {item.result.outcome for item in recorded} == {PASSING_OBSERVATION.outcome}


async def test_a_host_that_hangs_does_not_block_others() -> None:
    runner: Any = BlockingRunner()
    run_executor = make_executor(runner)
    for number in range(20):
        run_executor.start_probe_run(
            scripted_probe(endpoint_name="hangs", timeout="5m"), ClaimedSlot(number, START_AT, "here", None), {}
        )
    await wait_until_async(lambda: len(runner.started) == 2)
    run_executor.start_probe_run(
        scripted_probe(endpoint_name="fine", timeout="5m"), ClaimedSlot(99, START_AT, "here", None), {}
    )
    await wait_until_async(lambda: len(runner.started) == 3)
    assert runner.started[-1][0] == 99
    await run_executor.stop(0)


class HangingRunner:
    """Probes below 40 hang until they are ended as timeouts, all others pass at once."""

    def __init__(self) -> None:
        self.hanging: list[asyncio.Event] = []

    async def run(self, probe: Any, slot: ClaimedSlot, *_: Any) -> ResultToRecord:
        if slot.probe >= 40:
            return ResultToRecord(ProbeResult(slot.probe, slot.slot, slot.location, Outcome.PASS))
        self.hanging.append(ended := asyncio.Event())
        await ended.wait()
        return ResultToRecord(ProbeResult(slot.probe, slot.slot, slot.location, Outcome.FAIL, "timeout.first_byte"))

    async def end_all(self) -> None:
        for ended in self.hanging:
            ended.set()
        self.hanging.clear()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("endpoint", ["a:1", ""], ids=["one endpoint", "many hosts"])
def test_targets_that_hang_take_no_verdict_from_others(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """40 probes hang beside 60 that respond, with 10 places: as soon as it is known which of them hang, every healthy
    one passes each round, and every hanging one times out in turn."""
    monkeypatch.setattr(executor, "MAX_WAIT_FOR_FREE_RUN_PLACE_S", 0.1)
    with closing(VirtualLoop(Random(0))) as loop:
        loop.run_until_complete(run_beside_targets_that_hang(endpoint))


async def run_beside_targets_that_hang(endpoint: str) -> None:
    runner: Any = HangingRunner()
    recorded: list[ProbeResult] = []
    overloads: list[str] = []
    places = ProbeRunLimiter(10 if not endpoint else 99, per_endpoint=10)
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, lambda item: recorded.append(item.result), places, overloads.append
    )
    verdicts: Counter[int] = Counter()
    for round_number in range(16):
        recorded.clear()
        for number in range(100):
            probe = scripted_probe(endpoint_name=endpoint, timeout="5m")
            run_executor.start_probe_run(probe, ClaimedSlot(number, START_AT - 99 + round_number, "here", None), {})
        await wait_until_async(lambda: len(recorded) + len(runner.hanging) == 100)
        await runner.end_all()
        await wait_until_async(lambda: len(recorded) == 100)
        passed = {result.probe for result in recorded if result.outcome is Outcome.PASS}
        if round_number >= 7:  # by then, each hanging probe is known to hang
            assert passed == set(range(40, 100))
        assert {result.reason for result in recorded} <= {"", "timeout.first_byte", "watchdog.overloaded"}
        verdicts.update(result.probe for result in recorded if result.outcome is not Outcome.ERROR)
    assert min(verdicts[number] for number in range(40)) >= 1, "each hanging target was reported"
    assert overloads
