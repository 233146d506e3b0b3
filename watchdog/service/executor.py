"""Runs: each started at its slot, limited in number, its result handed on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from watchdog.domain.model import ClaimedSlot, Json, Outcome, RecordedResult, Result
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.runner import ProbeRunner

MAX_CONCURRENT_RUNS, MAX_CONCURRENT_RUNS_PER_HOST = 200, 20
"""How many runs go on at the same time, in all and against one host."""
CONCURRENCY_WAIT_TIMEOUT_S = 20.0
"""Seconds a run waits for its place at most: one that began later could end too late to be judged."""


class RunExecutor:
    def __init__(self, runner: ProbeRunner, clock: Clock, on_result: Callable[[RecordedResult], None]):
        self.runner, self.clock, self.on_result = runner, clock, on_result
        self._total_semaphore = asyncio.Semaphore(MAX_CONCURRENT_RUNS)
        self._host_semaphores: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(MAX_CONCURRENT_RUNS_PER_HOST)
        )
        self._slot_by_task: dict[asyncio.Task[None], ClaimedSlot] = {}

    def start_run(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> None:
        """Run the probe at its slot, which may be up to a second ahead."""
        task = asyncio.create_task(self._run_at_slot(probe, slot, probe_state), name=f"run {probe.id}")
        self._slot_by_task[task] = slot
        task.add_done_callback(lambda done: self._slot_by_task.pop(done, None))

    async def _run_at_slot(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> None:
        started = False
        try:
            if (wait := slot.slot - self.clock()) > 0:
                await asyncio.sleep(wait / 1000)
            async with AsyncExitStack() as places:
                if not await self._acquire_permits(places, probe):
                    self.on_result(RecordedResult(missed_result(slot, "missed.overloaded")))
                    return
                started = True
                report = await self.runner.run(probe, slot, probe_state)
            self.on_result(report)
        except asyncio.CancelledError:
            self.on_result(
                RecordedResult(
                    missed_result(slot, "missed.shutdown_during_run" if started else "missed.shutdown_before_run")
                )
            )
            raise

    async def _acquire_permits(self, permits: AsyncExitStack, probe: Probe) -> bool:
        """Wait for a place among the runs, but no longer than a run may last; False when none became free."""
        limits: list[Any] = [self._total_semaphore, *([self._host_semaphores[probe.host]] if probe.host else [])]
        try:
            async with asyncio.timeout(min(probe.deadline_ms / 1000, CONCURRENCY_WAIT_TIMEOUT_S)):
                for limit in reversed(limits):
                    await permits.enter_async_context(limit)
        except TimeoutError:
            return False
        return True

    async def stop(self, grace_s: float) -> None:
        """Let runs that have begun finish within `grace` seconds; what is left is recorded as missed."""
        await asyncio.sleep(0)  # a run that never took its first step could not tell of its end
        now = self.clock()
        ahead = [task for task, slot in self._slot_by_task.items() if slot.slot > now]
        for task in ahead:
            task.cancel()
        if self._slot_by_task:
            await asyncio.wait(list(self._slot_by_task), timeout=grace_s)
        for task in list(self._slot_by_task):
            task.cancel()
        await asyncio.gather(*self._slot_by_task, return_exceptions=True)


def missed_result(slot: ClaimedSlot, reason: str) -> Result:
    return Result(slot.probe, slot.slot, slot.location, Outcome.MISSED, reason, previous_slot=slot.previous_slot)
