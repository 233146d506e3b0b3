"""A process that was paused for ten minutes records one gap, and no failure of any target."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async
from watchdog.app import register_probes_and_build_service
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess
from watchdog.resources import find_resource_folder
from watchdog.service.scheduler import MonitoringService
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.tables import downtime, incidents, outbox, results
from watchdog.store.write.claims import SLOT_CLAIM_AHEAD_MS

START_AT = 1_795_000_000_000
PROBE_COUNT = 10
PAUSE_MS = 600_000


class SimulatedService:
    """The real service on a simulated clock: background tasks run when the test calls them, runs start at once."""

    def __init__(self, service: MonitoringService, store_executor: StoreExecutor):
        self.service, self.store_executor = service, store_executor
        self.now = START_AT
        self.runs_may_proceed = asyncio.Event()
        self.runs_may_proceed.set()
        run_probe = service.run_executor.runner.run

        async def run(*args: Any) -> Any:
            await self.runs_may_proceed.wait()
            return await run_probe(*args)

        service.run_executor.runner.run = run  # type: ignore[assignment, method-assign]
        service.run_executor.clock = lambda: self.now + SLOT_CLAIM_AHEAD_MS

    async def wait_for_runs(self) -> None:
        await wait_until_async(lambda: not self.service.run_executor._slot_by_task)

    async def advance(self, ms: int) -> None:
        """Let time pass, with every background task on time."""
        for _ in range(ms // 500):
            self.now += 500
            await self.service.claim_due_slots_and_start_runs()
            await self.wait_for_runs()
            await self.service.record_buffered_results_and_notify()
            if self.now % 5_000 == 0:
                await self.service.evaluate_deadlines()

    def count(self, table: sa.Table, *where: Any) -> int:
        query = sa.select(sa.func.count()).select_from(table).where(*where)
        with self.store_executor.database.open_read_transaction() as connection:
            return int(connection.execute(query).scalar_one())


@asynccontextmanager
async def simulated_service(database_url: str, target_url: str) -> AsyncIterator[SimulatedService]:
    probes = [
        {
            "name": f"P{i}",
            "http": target_url,
            "every": "10s",
            "timeout": "5s",
            "alert": {"failure_threshold": 1, "success_threshold": 1},
        }
        for i in range(PROBE_COUNT)
    ]
    config = {"storage": {"url": database_url}, "probes": probes, "receivers": {"oncall": {"log": {}}}}
    simulated: SimulatedService | None = None

    def clock() -> int:
        return START_AT if simulated is None else simulated.now

    loaded = load_config(Path("watchdog.yaml"), json.dumps(config), {})
    store_executor = StoreExecutor(Database(loaded.config.storage.url), clock)
    try:
        await store_executor.run_write(upgrade_schema, store_executor.database, find_resource_folder("migrations"))
        async with NetworkAccess() as network:
            service = await register_probes_and_build_service(loaded, store_executor, network, clock)
            simulated = SimulatedService(service, store_executor)
            yield simulated
    finally:
        store_executor.close()


@pytest.mark.parametrize("first_task", ["claim", "record", "wake", "maintain"])
async def test_a_pause_of_ten_minutes(database_url: str, first_task: str) -> None:
    """`first_task`: the background task that runs first after the pause."""
    with FakeHttpTarget() as target:
        async with simulated_service(database_url, target.url) as simulated:
            await simulated.advance(15_000)
            passed_before = simulated.count(results, results.c.outcome == Outcome.PASS)
            assert passed_before >= PROBE_COUNT
            simulated.runs_may_proceed.clear()
            simulated.now += 4_000
            await simulated.service.claim_due_slots_and_start_runs()
            assert simulated.service.run_executor._slot_by_task, "runs are in flight during the pause"
            simulated.now += PAUSE_MS
            await simulated.service.tasks[first_task].run()
            await simulated.service.evaluate_deadlines()
            simulated.runs_may_proceed.set()
            await simulated.wait_for_runs()
            await simulated.advance(35_000)
            await simulated.service.run_maintenance()
            assert simulated.count(incidents) == 0
            assert simulated.count(outbox) == 0
            assert simulated.count(downtime) == 1
            assert simulated.count(results, results.c.outcome == Outcome.FAIL) == 0
            assert simulated.count(results, results.c.outcome == Outcome.MISSED) <= PROBE_COUNT
            assert simulated.count(results, results.c.outcome == Outcome.PASS) >= passed_before + 3 * PROBE_COUNT


async def test_a_failure_during_the_pause_is_reported_afterwards(database_url: str) -> None:
    with FakeHttpTarget() as target:
        async with simulated_service(database_url, target.url) as simulated:
            await simulated.advance(11_000)
            simulated.now += PAUSE_MS
            target.up = False
            await simulated.advance(11_000)
            assert simulated.count(incidents) == PROBE_COUNT
            assert simulated.count(incidents, incidents.c.rule == "availability") == PROBE_COUNT
