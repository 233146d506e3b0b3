"""The composition root: from a loaded configuration to a running service. The only place that sees everything below."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import uvicorn

from watchdog.alerts import Routes
from watchdog.assets import asset
from watchdog.config import Loaded
from watchdog.notifiers.base import Notifier
from watchdog.service.clock import Clock, wall
from watchdog.service.delivery import Mailroom
from watchdog.service.members import member_of
from watchdog.service.service import CLAIM, Retention, Service
from watchdog.service.storage import Storage
from watchdog.store.claims import Claims
from watchdog.store.database import Database
from watchdog.store.fleet import register
from watchdog.store.journal import Journal
from watchdog.store.migrate import upgrade
from watchdog.store.outbox import Outbox
from watchdog.store.timekeeping import Timekeeper
from watchdog.wire import Wire

if TYPE_CHECKING:
    from fastapi import FastAPI

log = structlog.get_logger()

LOCATION = "local"
"""Where this process probes from; there is one location."""
FRESH = 20 * CLAIM * 1000
"""Ready means a claim in so many ms."""


@dataclass(frozen=True, slots=True)
class App:
    """What runs: the service and what faces need of it."""

    loaded: Loaded
    service: Service
    storage: Storage
    clock: Clock

    def ready(self) -> str:
        """What keeps it from being ready, in words; empty when it is."""
        age = self.clock() - self.service.last_claim
        return f"no slot was claimed for {age / 1000:.0f} s" if age > FRESH else ""


@asynccontextmanager
async def running(loaded: Loaded, clock: Clock = wall) -> AsyncIterator[App]:
    """Build everything from a configuration, run it, and stop it in order.

    Raises SchemaError for a database of a newer version, Away for one that is out of reach.
    """
    config = loaded.config
    database = Database(config.storage.url)
    storage = Storage(database)
    try:
        await storage.write(upgrade, database, asset("migrations"))
        for kind in {type(probe) for probe in config.probes}:
            await asyncio.to_thread(kind.prepare)
        async with Wire() as wire:
            service = await assemble(loaded, storage, wire, clock)
            await service.start()
            try:
                yield App(loaded, service, storage, clock)
            finally:
                await service.stop()
    finally:
        storage.close()


async def assemble(loaded: Loaded, storage: Storage, wire: Wire, clock: Clock) -> Service:
    """Register the probes and put the service together, without starting it."""
    config, database = loaded.config, storage.database
    notifiers = destinations(loaded)
    quiet = frozenset(
        name for receiver, told in config.receivers.items() if not told.resolve for name in told.destinations(receiver)
    )
    receivers = {name: tuple(receiver.destinations(name)) for name, receiver in config.receivers.items()}
    routes = Routes(receivers, tuple(route.table() for route in config.routes), quiet)
    members = [member_of(probe, loaded.specs[probe.key]) for probe in config.probes]
    fleet = await storage.write(register, database, members, clock(), LOCATION, quiet)
    by_key = {probe.key: probe for probe in config.probes}
    probes = {id: by_key[member.info.key] for id, member in fleet.items()}
    timekeeper = Timekeeper(database, LOCATION)
    journal = Journal(database, timekeeper, fleet, routes)
    claims = Claims(database, timekeeper, journal, fleet)
    mailroom = Mailroom(storage, Outbox(database), notifiers, wire, loaded.mask, clock, config.server.public_url)
    retention = Retention(config.storage.keep_results, config.storage.keep_rollups)
    return Service(probes, storage, claims, journal, mailroom, retention, wire, loaded.mask, clock)


def destinations(loaded: Loaded) -> dict[str, Notifier]:
    """Every destination by name: "oncall/slack"."""
    receivers = loaded.config.receivers.items()
    return {name: notifier for key, receiver in receivers for name, notifier in receiver.destinations(key).items()}


def faces(app: App) -> FastAPI:
    """The pages of a running service."""
    from watchdog.web.access import Key
    from watchdog.web.app import create_app
    from watchdog.web.status import Site

    config = app.loaded.config
    page, show = config.status_page, config.status_page.show.table()
    site = Site(
        title=page.title,
        shown=lambda probe: not show.misses(probe),
        groups=tuple(page.groups),
        order=tuple(probe.key for probe in config.probes),
        history=page.history,
    )
    keys = [Key(key.name, key.role, key.key.get_secret_value()) for key in config.access.keys]
    addresses = {name: notifier.address for name, notifier in destinations(app.loaded).items()}
    return create_app(read=app.storage.read, now=app.clock, ready=app.ready, site=site, keys=keys, addresses=addresses)


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: the service stops before its pages do."""
        yield


async def serve(loaded: Loaded) -> None:
    """Run until SIGTERM or SIGINT: the service and its pages."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    host, port = loaded.config.server.address
    async with running(loaded) as app:
        pages = faces(app)
        server = Server(uvicorn.Config(pages, host, port, log_config=None, access_log=False, server_header=False))
        serving = asyncio.create_task(server.serve())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        with contextlib.suppress(SystemExit):
            await serving
        stopped.cancel()
