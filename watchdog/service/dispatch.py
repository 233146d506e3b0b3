"""Runs: each started at its slot, limited in number, its result handed on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from watchdog.model import Json, Outcome, Report, Result, Slot
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.runner import Runner

AT_ONCE, PER_HOST = 200, 20
"""How many runs go on at the same time, in all and against one host."""
PATIENCE = 20.0
"""Seconds a run waits for its place at most: one that began later could end too late to be judged."""


class Dispatcher:
    def __init__(self, runner: Runner, clock: Clock, deliver: Callable[[Report], None]):
        self.runner, self.clock, self.deliver = runner, clock, deliver
        self._all = asyncio.Semaphore(AT_ONCE)
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_HOST))
        self._runs: dict[asyncio.Task[None], Slot] = {}

    def start(self, probe: Probe, slot: Slot, memory: Mapping[str, Json]) -> None:
        """Run the probe at its slot, which may be up to a second ahead."""
        task = asyncio.create_task(self._run(probe, slot, memory), name=f"run {probe.key}")
        self._runs[task] = slot
        task.add_done_callback(lambda done: self._runs.pop(done, None))

    async def _run(self, probe: Probe, slot: Slot, memory: Mapping[str, Json]) -> None:
        started = False
        try:
            if (wait := slot.at - self.clock()) > 0:
                await asyncio.sleep(wait / 1000)
            async with AsyncExitStack() as places:
                if not await self._places(places, probe):
                    self.deliver(Report(missed(slot, "missed.overloaded")))
                    return
                started = True
                report = await self.runner.run(probe, slot, memory)
            self.deliver(report)
        except asyncio.CancelledError:
            self.deliver(Report(missed(slot, "missed.shutdown_during_run" if started else "missed.shutdown_before_run")))
            raise

    async def _places(self, places: AsyncExitStack, probe: Probe) -> bool:
        """Wait for a place among the runs, but no longer than a run may last; False when none became free."""
        limits: list[Any] = [self._all, *([self._hosts[probe.host]] if probe.host else [])]
        try:
            async with asyncio.timeout(min(probe.deadline / 1000, PATIENCE)):
                for limit in reversed(limits):
                    await places.enter_async_context(limit)
        except TimeoutError:
            return False
        return True

    async def stop(self, grace: float) -> None:
        """Let runs that have begun finish within `grace` seconds; what is left is recorded as missed."""
        await asyncio.sleep(0)  # a run that never took its first step could not tell of its end
        now = self.clock()
        ahead = [task for task, slot in self._runs.items() if slot.at > now]
        for task in ahead:
            task.cancel()
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=grace)
        for task in list(self._runs):
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)


def missed(slot: Slot, reason: str) -> Result:
    return Result(slot.probe, slot.at, slot.location, Outcome.MISSED, reason, prev=slot.prev)
