"""Runs a configuration of examples/systems slot by slot: the whole service, on a clock that the test sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.probe_runs import IgnoringLagMonitor
from watchdog.app import register_probes_and_build_service
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.model import Incident
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_KIND
from watchdog.net import NetworkAccess
from watchdog.resources import find_resource_folder
from watchdog.service.clock import Clock, read_wall_clock_ms
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
    return sorted(
        OpenIncidentSummary(i.rule, i.subject, i.reason, i.message.replace("\N{NO-BREAK SPACE}", " "))
        for i in incidents
        if i.state == "open"
    )


def load_example(name: str, folder: Path, env: dict[str, str], **settings: object) -> LoadedConfig:
    """Load one of the files, included by a main file with these settings, and with a database in `folder`."""
    file = folder / f"{name}.yaml"
    settings = {"storage": {"url": f"sqlite:///{file.with_suffix('.db')}"}, **settings}
    file.write_text(json.dumps({**settings, "include": [str(EXAMPLE_SYSTEMS_DIR / f"{name}.yaml")]}))
    return load_config(file, env=env)


class ExampleSystemRunner:
    """Runs the only probe of a configuration."""

    def __init__(self, service: MonitoringService, storage: StoreExecutor):
        self.service, self.store_executor = service, storage
        (self.probe,) = [id for id, probe in service.probes.items() if probe.kind != WATCHDOG_SELF_PROBE_KIND]
        self.now = read_wall_clock_ms()

    async def run_slots(self, count: int = 1, delay_ms: int = 0) -> list[OpenIncidentSummary]:
        """Run the next slots, the first `delay_ms` later than it is due. Returns the open incidents after them."""
        self.now += delay_ms
        for _ in range(count):
            self.now = self.service.claims.registry[self.probe].schedule.find_next_slot_after(self.now)
            await self.service.claim_due_slots_and_start_runs()
            while runs := self.service.run_executor._slot_by_task:
                await asyncio.gather(*runs)
            await self.service.record_buffered_results_and_notify()
        records = await self.store_executor.run_read_query(list_incidents)
        return summarize_open_incidents([record.incident for record in records])


@asynccontextmanager
async def running_example(name: str, folder: Path, **env: str) -> AsyncIterator[ExampleSystemRunner]:
    """Run one of the files of examples/systems, with these variables."""
    loaded_config = load_example(name, folder, env)
    for probe in loaded_config.config.probes:
        probe.preload()  # as `watchdog run` does: loading libraries would take long inside a run
    runners: list[ExampleSystemRunner] = []
    clock: Clock = lambda: runners[0].now if runners else read_wall_clock_ms()  # noqa: E731 - a named closure
    storage = StoreExecutor(Database(loaded_config.config.storage.url), clock)
    try:
        await storage.run_write(upgrade_schema, storage.database, find_resource_folder("migrations"))
        async with NetworkAccess() as network:
            service = await register_probes_and_build_service(loaded_config, storage, network, clock)
            service.run_executor.runner.lag_monitor = IgnoringLagMonitor()
            runners.append(ExampleSystemRunner(service, storage))
            yield runners[0]
    finally:
        storage.close()
