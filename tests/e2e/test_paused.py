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

from tests.crash.harness import Target
from tests.patience import until
from watchdog.app import assemble
from watchdog.assets import asset
from watchdog.config import load
from watchdog.model import Outcome
from watchdog.service.service import Service
from watchdog.service.storage import Storage
from watchdog.store.claims import AHEAD
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade
from watchdog.store.tables import gaps, incidents, outbox, results
from watchdog.wire import Wire

T0 = 1_795_000_000_000
PROBES, PAUSE = 10, 600_000


class Simulated:
    """The real service on a clock of ours: its verbs run when the test says, its runs at once."""

    def __init__(self, service: Service, storage: Storage):
        self.service, self.storage = service, storage
        self.now = T0
        self.gate = asyncio.Event()
        self.gate.set()
        real = service.dispatcher.runner.run

        async def run(*args: Any) -> Any:
            await self.gate.wait()
            return await real(*args)

        service.dispatcher.runner.run = run  # type: ignore[assignment, method-assign]
        service.dispatcher.clock = lambda: self.now + AHEAD

    async def landed(self) -> None:
        await until(lambda: not self.service.dispatcher._runs)

    async def on(self, ms: int) -> None:
        """So long, with every tick on time."""
        for _ in range(ms // 500):
            self.now += 500
            await self.service.claim()
            await self.landed()
            await self.service.record()
            if self.now % 5_000 == 0:
                await self.service.wake()

    def count(self, table: sa.Table, *where: Any) -> int:
        with self.storage.database.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())


@asynccontextmanager
async def simulated(url: str, target: str) -> AsyncIterator[Simulated]:
    probes = [
        {"name": f"P{i}", "http": target, "every": "10s", "timeout": "5s", "alert": {"after": 1, "recover": 1}}
        for i in range(PROBES)
    ]
    text = json.dumps({"storage": {"url": url}, "probes": probes, "receivers": {"oncall": {"log": {}}}})
    made: list[Simulated] = []
    clock: Callable[[], int] = lambda: made[0].now if made else T0  # noqa: E731 (a named closure)
    loaded = load(Path("watchdog.yaml"), text, {})
    storage = Storage(Database(loaded.config.storage.url))
    try:
        await storage.write(upgrade, storage.database, asset("migrations"))
        async with Wire() as wire:
            made.append(Simulated(await assemble(loaded, storage, wire, clock), storage))
            yield made[0]
    finally:
        storage.close()


@pytest.mark.parametrize("first", ["claim", "record", "wake", "keep"])
async def test_ten_minutes_standing_still(database_url: str, first: str) -> None:
    """`first`: the tick that happens to come first afterwards."""
    with Target() as target:
        async with simulated(database_url, target.url) as house:
            await house.on(15_000)
            before = house.count(results, results.c.outcome == Outcome.PASS)
            assert before >= PROBES
            house.gate.clear()
            house.now += 4_000
            await house.service.claim()
            flying = len(house.service.dispatcher._runs)
            assert flying > 0
            house.now += PAUSE
            await getattr(house.service, first)()
            await house.service.wake()
            house.gate.set()
            await house.landed()
            await house.on(35_000)
            await house.service.keep()
            assert house.count(incidents) == 0
            assert house.count(outbox) == 0
            assert house.count(gaps) == 1
            assert house.count(results, results.c.outcome == Outcome.FAIL) == 0
            assert house.count(results, results.c.outcome == Outcome.MISSED) <= PROBES
            assert house.count(results, results.c.outcome == Outcome.PASS) >= before + 3 * PROBES


async def test_what_breaks_meanwhile_is_found_afterwards(database_url: str) -> None:
    with Target() as target:
        async with simulated(database_url, target.url) as house:
            await house.on(11_000)
            house.now += PAUSE
            target.up = False
            await house.on(11_000)
            assert house.count(incidents, incidents.c.rule == "availability") == house.count(incidents) == PROBES
