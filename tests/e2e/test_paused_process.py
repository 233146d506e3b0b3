"""A process that stood still for ten minutes finds one gap of its own, and no fault in anybody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async
from watchdog.app import build_service
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome
from watchdog.net import Network
from watchdog.resources import resource_path
from watchdog.service.scheduler import MonitoringService
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.tables import downtime, incidents, outbox, results
from watchdog.store.write.claims import CLAIM_AHEAD_MS

T0 = 1_795_000_000_000
PROBES, PAUSE = 10, 600_000


class Simulated:
    """The real service on a clock of ours: its verbs run when the test says, its runs at once."""

    def __init__(self, service: MonitoringService, storage: StoreExecutor):
        self.service, self.storage = service, storage
        self.now = T0
        self.gate = asyncio.Event()
        self.gate.set()
        real = service.run_executor.runner.run

        async def run(*args: Any) -> Any:
            await self.gate.wait()
            return await real(*args)

        service.run_executor.runner.run = run  # type: ignore[assignment, method-assign]
        service.run_executor.clock = lambda: self.now + CLAIM_AHEAD_MS

    async def landed(self) -> None:
        await wait_until_async(lambda: not self.service.run_executor._slot_by_task)

    async def on(self, ms: int) -> None:
        """So long, with every tick on time."""
        for _ in range(ms // 500):
            self.now += 500
            await self.service.claim_due_slots()
            await self.landed()
            await self.service.record_results()
            if self.now % 5_000 == 0:
                await self.service.evaluate_deadlines()

    def count(self, table: sa.Table, *where: Any) -> int:
        with self.storage.database.read_transaction() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())


@asynccontextmanager
async def simulated(url: str, target: str) -> AsyncIterator[Simulated]:
    probes = [
        {
            "name": f"P{i}",
            "http": target,
            "every": "10s",
            "timeout": "5s",
            "alert": {"failure_threshold": 1, "success_threshold": 1},
        }
        for i in range(PROBES)
    ]
    text = json.dumps({"storage": {"url": url}, "probes": probes, "receivers": {"oncall": {"log": {}}}})
    made: list[Simulated] = []
    clock: Callable[[], int] = lambda: made[0].now if made else T0  # noqa: E731 (a named closure)
    loaded = load_config(Path("watchdog.yaml"), text, {})
    storage = StoreExecutor(Database(loaded.config.storage.url))
    try:
        await storage.run_write(upgrade_schema, storage.database, resource_path("migrations"))
        async with Network() as wire:
            made.append(Simulated(await build_service(loaded, storage, wire, clock), storage))
            yield made[0]
    finally:
        storage.close()


@pytest.mark.parametrize("first", ["claim", "record", "wake", "maintain"])
async def test_ten_minutes_standing_still(database_url: str, first: str) -> None:
    """`first`: the tick that happens to come first afterwards."""
    with FakeHttpTarget() as target:
        async with simulated(database_url, target.url) as house:
            await house.on(15_000)
            before = house.count(results, results.c.outcome == Outcome.PASS)
            assert before >= PROBES
            house.gate.clear()
            house.now += 4_000
            await house.service.claim_due_slots()
            flying = len(house.service.run_executor._slot_by_task)
            assert flying > 0
            house.now += PAUSE
            await house.service.tasks[first].run()
            await house.service.evaluate_deadlines()
            house.gate.set()
            await house.landed()
            await house.on(35_000)
            await house.service.run_maintenance()
            assert house.count(incidents) == 0
            assert house.count(outbox) == 0
            assert house.count(downtime) == 1
            assert house.count(results, results.c.outcome == Outcome.FAIL) == 0
            assert house.count(results, results.c.outcome == Outcome.MISSED) <= PROBES
            assert house.count(results, results.c.outcome == Outcome.PASS) >= before + 3 * PROBES


async def test_what_breaks_meanwhile_is_found_afterwards(database_url: str) -> None:
    with FakeHttpTarget() as target:
        async with simulated(database_url, target.url) as house:
            await house.on(11_000)
            house.now += PAUSE
            target.up = False
            await house.on(11_000)
            assert house.count(incidents, incidents.c.rule == "availability") == house.count(incidents) == PROBES
