"""Runs that we stop, or never find a place for, are recorded as missed."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from tests.store.lab import T0
from watchdog.model import Outcome, Report, Slot
from watchdog.probes.base import Attempt, Probe
from watchdog.service import dispatch
from watchdog.service.dispatch import Dispatcher


class Endless(Probe):
    kind: ClassVar[str] = "endless"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: Attempt) -> Any:
        raise NotImplementedError


class Runner:
    async def run(self, *_: Any) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("what", "ahead", "begun", "reason"),
    [
        ("a run in the middle", 0, True, "missed.shutdown_during_run"),
        ("a run whose slot is still ahead", 900, True, "missed.shutdown_before_run"),
        ("a run that was claimed this very moment", 0, False, "missed.shutdown_during_run"),
        ("the same, with its slot still ahead", 900, False, "missed.shutdown_before_run"),
    ],
)
async def test_what_we_stop_is_missed(what: str, ahead: int, begun: bool, reason: str) -> None:
    told: list[Report] = []
    runner: Any = Runner()
    dispatcher = Dispatcher(runner, lambda: T0, told.append)
    dispatcher.start(Endless(name="p", key="p"), Slot(1, T0 + ahead, "local", None), {})
    if begun:
        await asyncio.sleep(0.01)
    await dispatcher.stop(grace=0)
    assert [(r.result.outcome, r.result.reason) for r in told] == [(Outcome.MISSED, reason)], what


async def test_a_run_that_finds_no_place_in_time_to_be_judged_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PER_HOST", 1)
    monkeypatch.setattr(dispatch, "PATIENCE", 0.05)

    class Hosted(Endless):
        @property
        def host(self) -> str:
            return "hangs.example"

    told: asyncio.Queue[Report] = asyncio.Queue()
    runner: Any = Runner()
    dispatcher = Dispatcher(runner, lambda: T0, told.put_nowait)
    for number in (1, 2):
        dispatcher.start(Hosted(name="p", key="p", timeout="5m"), Slot(number, T0, "local", None), {})
    async with asyncio.timeout(20):
        missed = await told.get()
    assert (missed.result.probe, missed.result.reason) == (2, "missed.overloaded")
    await dispatcher.stop(grace=0)
