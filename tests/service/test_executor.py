"""Runs that we stop, or never find a place for, are recorded as missed."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, Outcome, RecordedResult
from watchdog.probes.base import Probe, RunContext
from watchdog.service import executor
from watchdog.service.executor import RunExecutor


class Endless(Probe):
    kind: ClassVar[str] = "endless"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: RunContext) -> Any:
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
    told: list[RecordedResult] = []
    runner: Any = Runner()
    dispatcher = RunExecutor(runner, lambda: START_AT, told.append)
    dispatcher.start_run(Endless(name="p", id="p"), ClaimedSlot(1, START_AT + ahead, "local", None), {})
    if begun:
        await asyncio.sleep(0.01)
    await dispatcher.stop(grace_s=0)
    assert [(r.result.outcome, r.result.reason) for r in told] == [(Outcome.MISSED, reason)], what


async def test_a_run_that_finds_no_place_in_time_to_be_judged_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MAX_CONCURRENT_RUNS_PER_HOST", 1)
    monkeypatch.setattr(executor, "CONCURRENCY_WAIT_TIMEOUT_S", 0.05)

    class Hosted(Endless):
        @property
        def host(self) -> str:
            return "hangs.example"

    told: asyncio.Queue[RecordedResult] = asyncio.Queue()
    runner: Any = Runner()
    dispatcher = RunExecutor(runner, lambda: START_AT, told.put_nowait)
    for number in (1, 2):
        dispatcher.start_run(Hosted(name="p", id="p", timeout="5m"), ClaimedSlot(number, START_AT, "local", None), {})
    async with asyncio.timeout(20):
        missed = await told.get()
    assert (missed.result.probe, missed.result.reason) == (2, "missed.overloaded")
    await dispatcher.stop(grace_s=0)
