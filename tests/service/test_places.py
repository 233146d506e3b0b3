"""Each run starts at its slot, and only so many go on at once: in all, and against one host."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.patience import until
from tests.service.house import GOOD, scripted
from tests.store.lab import T0
from watchdog.model import Report, Result, Slot
from watchdog.service import dispatch
from watchdog.service.clock import wall
from watchdog.service.dispatch import Dispatcher


class Busy:
    """A runner whose runs go on until they are let go; knows how many went on at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[tuple[int, int]] = []

    async def run(self, probe: Any, slot: Slot, *_: Any) -> Report:
        self.begun.append((slot.probe, wall()))
        for name in ("all", probe.host):
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await self.gate.wait()
        for name in ("all", probe.host):
            self.now[name] -= 1
        return Report(Result(slot.probe, slot.at, slot.location, GOOD.outcome))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AT_ONCE", 5)
    monkeypatch.setattr(dispatch, "PER_HOST", 2)


async def test_a_run_starts_at_its_slot_and_not_before() -> None:
    runner: Any = Busy()
    dispatcher = Dispatcher(runner, wall, lambda _: None)
    slot = wall() + 300
    dispatcher.start(scripted(), Slot(1, slot, "here", None), {})
    dispatcher.start(scripted(), Slot(2, slot - 5_000, "here", None), {})
    await until(lambda: len(runner.begun) == 2)
    await dispatcher.stop(0)
    (late, at_once), (ahead, begun) = runner.begun
    assert (late, ahead) == (2, 1)
    assert at_once < slot
    assert begun >= slot - 1, "a timer counts whole milliseconds"


async def test_limits(few: None) -> None:
    runner: Any = Busy()
    told: list[Report] = []
    dispatcher = Dispatcher(runner, lambda: T0, told.append)
    hosts = ["a"] * 6 + ["b"] * 6 + [""] * 6
    for number, host in enumerate(hosts):
        dispatcher.start(scripted(at=host, timeout="5m"), Slot(number, T0, "here", None), {})
    await until(lambda: len(runner.begun) == 5)
    runner.gate.set()
    await until(lambda: len(told) == len(hosts))
    assert runner.most["all"] == 5
    assert max(runner.most["a"], runner.most["b"]) <= 2
    assert {report.result.outcome for report in told} == {GOOD.outcome}


async def test_a_host_that_hangs_takes_no_place_from_others(few: None) -> None:
    runner: Any = Busy()
    dispatcher = Dispatcher(runner, lambda: T0, lambda _: None)
    for number in range(20):
        dispatcher.start(scripted(at="hangs", timeout="5m"), Slot(number, T0, "here", None), {})
    await until(lambda: len(runner.begun) == 2)
    dispatcher.start(scripted(at="fine", timeout="5m"), Slot(99, T0, "here", None), {})
    await until(lambda: len(runner.begun) == 3)
    assert runner.begun[-1][0] == 99
    await dispatcher.stop(0)
