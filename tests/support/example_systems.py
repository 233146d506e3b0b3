"""A configuration of examples/systems, run slot by slot: the whole service, on a clock of the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from watchdog.app import build_service
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.model import Incident
from watchdog.net import Network
from watchdog.resources import resource_path
from watchdog.service.clock import wall_clock_ms
from watchdog.service.scheduler import MonitoringService
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.read.status import list_incidents

EXAMPLE_SYSTEMS_DIR = Path(__file__).parents[2] / "examples/systems"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


class OpenIncidentSummary(NamedTuple):
    """An open incident."""

    rule: str
    subject: str
    reason: str
    message: str


def summarize_open_incidents(incidents: list[Incident]) -> list[OpenIncidentSummary]:
    still = (i for i in incidents if i.state == "open")
    return sorted(
        OpenIncidentSummary(i.rule, i.subject, i.reason, i.message.replace("\N{NO-BREAK SPACE}", " ")) for i in still
    )


def load_example(name: str, folder: Path, env: dict[str, str], **more: object) -> LoadedConfig:
    """One of the files, included by a main file that says where we keep what is ours."""
    file = folder / f"{name}.yaml"
    told = {"storage": {"url": f"sqlite:///{file.with_suffix('.db')}"}, **more}
    file.write_text(json.dumps({**told, "include": [str(EXAMPLE_SYSTEMS_DIR / f"{name}.yaml")]}))
    return load_config(file, env=env)


class ExampleSystemRunner:
    """Watches with the one probe of a configuration."""

    def __init__(self, service: MonitoringService, storage: StoreExecutor):
        self.service, self.store_executor = service, storage
        (self.probe,) = service.probes
        self.now = wall_clock_ms()

    async def run_slots(self, count: int = 1, delay_ms: int = 0) -> list[OpenIncidentSummary]:
        """Run the next slots, the first of them so many ms later than it is; returns what is wrong then."""
        self.now += delay_ms
        for _ in range(count):
            self.now = self.service.claims.registry[self.probe].schedule.next_slot_after(self.now)
            await self.service.claim_due_slots()
            while runs := self.service.run_executor._slot_by_task:
                await asyncio.gather(*runs)
            await self.service.record_results()
        return summarize_open_incidents(
            [case.incident for case in await self.store_executor.run_read_query(list_incidents)]
        )


@asynccontextmanager
async def running_example(name: str, folder: Path, **env: str) -> AsyncIterator[ExampleSystemRunner]:
    """With one of the files of examples/systems, and its variables."""
    given = load_example(name, folder, env)
    storage = StoreExecutor(Database(given.config.storage.url))
    made: list[ExampleSystemRunner] = []
    try:
        await storage.run_write(upgrade_schema, storage.database, resource_path("migrations"))
        async with Network() as wire:
            service = await build_service(given, storage, wire, lambda: made[0].now if made else wall_clock_ms())
            made.append(ExampleSystemRunner(service, storage))
            yield made[0]
    finally:
        storage.close()
