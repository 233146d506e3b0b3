"""Every error becomes a result, and only the deadline is a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from tests.support.probe_runs import IgnoringLagMonitor
from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, Outcome
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import RetryingProbeRunner


class Scripted(Probe):
    kind: ClassVar[str] = "scripted"
    script: Callable[[], Any]

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: ProbeAttemptContext) -> Any:
        await asyncio.sleep(0)
        return await self.script()


async def hang() -> None:
    await asyncio.Event().wait()


async def give_up() -> None:
    raise TimeoutError


async def fail_during_cleanup() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise KeyError("a bug")


async def leak_a_cancellation() -> None:
    inner = asyncio.create_task(hang())
    await asyncio.sleep(0)
    inner.cancel()
    await inner


async def fail_with_bug() -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize(
    ("what", "script", "outcome", "reason"),
    [
        ("a target that hangs", hang, Outcome.FAIL, "timeout.exceeded"),
        ("the same, and then a bug", fail_during_cleanup, Outcome.ERROR, "watchdog.internal_error"),
        ("a TimeoutError before the deadline", give_up, Outcome.ERROR, "watchdog.internal_error"),
        ("a cancellation of an inner task", leak_a_cancellation, Outcome.ERROR, "watchdog.internal_error"),
        ("a bug", fail_with_bug, Outcome.ERROR, "watchdog.internal_error"),
    ],
)
async def test_the_outcome_of_a_run(what: str, script: Any, outcome: Outcome, reason: str) -> None:
    probe = Scripted(
        name="p",
        id="p",
        timeout="60s" if script in (give_up, leak_a_cancellation, fail_with_bug) else "200ms",
        script=script,
    )
    async with IgnoringLagMonitor() as lag:
        report = await RetryingProbeRunner(NetworkAccess(), SecretMask([]), lambda: START_AT, lag).run(
            probe, ClaimedSlot(1, START_AT, "local", None), {}
        )
    assert (report.result.outcome, report.result.reason) == (outcome, reason), what


async def test_a_run_can_be_cancelled() -> None:
    probe = Scripted(name="p", id="p", timeout="60s", script=hang)
    async with EventLoopLagMonitor() as lag:
        runner = RetryingProbeRunner(NetworkAccess(), SecretMask([]), lambda: START_AT, lag)
        run = asyncio.create_task(runner.run(probe, ClaimedSlot(1, START_AT, "local", None), {}))
        await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
