"""A configuration of examples/systems, run slot by slot: the whole service, on a clock of the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from watchdog.app import assemble
from watchdog.assets import asset
from watchdog.config import Loaded, load
from watchdog.model import Incident
from watchdog.service.clock import wall
from watchdog.service.service import Service
from watchdog.service.storage import Storage
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade
from watchdog.store.views import cases
from watchdog.wire import Wire

SYSTEMS = Path(__file__).parents[2] / "examples/systems"
HOUR, DAY = 3_600_000, 86_400_000


class Wrong(NamedTuple):
    """An open incident."""

    rule: str
    subject: str
    reason: str
    message: str


def wrong(incidents: list[Incident]) -> list[Wrong]:
    still = (i for i in incidents if i.state == "open")
    return sorted(Wrong(i.rule, i.subject, i.reason, i.message.replace("\N{NO-BREAK SPACE}", " ")) for i in still)


def loaded(name: str, folder: Path, env: dict[str, str], **more: object) -> Loaded:
    """One of the files, included by a main file that says where we keep what is ours."""
    file = folder / f"{name}.yaml"
    told = {"storage": {"url": f"sqlite:///{file.with_suffix('.db')}"}, **more}
    file.write_text(json.dumps({**told, "include": [str(SYSTEMS / f"{name}.yaml")]}))
    return load(file, env=env)


class Watch:
    """Watches with the one probe of a configuration."""

    def __init__(self, service: Service, storage: Storage):
        self.service, self.storage = service, storage
        (self.probe,) = service.probes
        self.now = wall()

    async def look(self, times: int = 1, later: int = 0) -> list[Wrong]:
        """Run the next slots, the first of them so many ms later than it is; returns what is wrong then."""
        self.now += later
        for _ in range(times):
            self.now = self.service.claims.fleet[self.probe].schedule.after(self.now)
            await self.service.claim()
            while runs := self.service.dispatcher._runs:
                await asyncio.gather(*runs)
            await self.service.record()
        return wrong([case.incident for case in await self.storage.read(cases)])


@asynccontextmanager
async def watching(name: str, folder: Path, **env: str) -> AsyncIterator[Watch]:
    """With one of the files of examples/systems, and its variables."""
    given = loaded(name, folder, env)
    storage = Storage(Database(given.config.storage.url))
    made: list[Watch] = []
    try:
        await storage.write(upgrade, storage.database, asset("migrations"))
        async with Wire() as wire:
            service = await assemble(given, storage, wire, lambda: made[0].now if made else wall())
            made.append(Watch(service, storage))
            yield made[0]
    finally:
        storage.close()
