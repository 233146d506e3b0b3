"""The composition root: from a loaded configuration to a running service. The only place that sees everything below."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from watchdog.alerts import Routes
from watchdog.assets import asset
from watchdog.config import Loaded
from watchdog.notifiers.base import Notifier
from watchdog.probes import HeartbeatProbe
from watchdog.service.check_ins import DRAIN, Reception
from watchdog.service.clock import Clock, wall
from watchdog.service.delivery import Mailroom
from watchdog.service.members import member_of
from watchdog.service.remedies import Remedying
from watchdog.service.service import CLAIM, Retention, Service
from watchdog.service.spool import Spool
from watchdog.service.storage import Storage
from watchdog.store.check_ins import CheckIns
from watchdog.store.claims import Claims
from watchdog.store.database import Database
from watchdog.store.fleet import register
from watchdog.store.journal import Journal
from watchdog.store.migrate import upgrade
from watchdog.store.outbox import Outbox
from watchdog.store.remedies import Remedies
from watchdog.store.timekeeping import Timekeeper
from watchdog.wire import Wire
from watchdog.words import about

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from watchdog.config.models import Server as ListenConfig

log = structlog.get_logger()

LONGEST = 9
"""Seconds after which we end where we are: a database or a name server that hangs must not hold us."""
LOCATION = "local"
"""Where this process probes from; there is one location."""
FRESH = 20 * CLAIM * 1000
"""Ready means a claim in so many ms."""
VISITS = 256
"""Connections to the pages at once: a quarter of the files that a process may usually open."""
HEAD = 65_536
"""Bytes that the head of a request may have."""
LOOPBACK, EVERY = ("localhost", "127.0.0.1", "[::1]"), ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
UNREAD = 1
"""Seconds that a visitor may take to read what was asked for before we were told to stop."""


@dataclass(frozen=True, slots=True)
class App:
    """What runs: the service and what faces need of it."""

    loaded: Loaded
    service: Service
    storage: Storage
    clock: Clock
    reception: Reception | None = None
    """Takes check-ins; None: no job checks in."""

    def ready(self) -> str:
        """What keeps it from being ready, in words; empty when it is."""
        last = self.service.last_claim
        if not last:
            return "no slot was claimed yet"
        age = self.clock() - last
        if age > FRESH:
            return f"no slot was claimed for {about(age)}"
        behind = self.service.behind
        return f"the clock was put back: the store is {about(behind)} ahead of it" if behind else ""


@asynccontextmanager
async def running(loaded: Loaded, clock: Clock = wall) -> AsyncIterator[App]:
    """Build everything from a configuration, run it, and stop it in order.

    Raises SchemaError for a database of a newer version, Unusable for one that is out of reach.
    """
    config = loaded.config
    database = Database(config.storage.url)
    storage = Storage(database)
    try:
        await storage.write(upgrade, database, asset("migrations"))
        await asyncio.to_thread(
            lambda: [thing.prepare() for probe in config.probes for thing in (probe, probe.act) if thing]
        )
        async with Wire() as wire, AsyncExitStack() as stack:
            service = await assemble(loaded, storage, wire, clock)
            reception = receiving(service, loaded)
            if reception is not None:
                await stack.enter_async_context(reception)
                service.also(reception.drain, DRAIN)
            await service.start()
            try:
                yield App(loaded, service, storage, clock, reception)
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
    members = [member_of(probe, loaded.specs[probe.key], loaded.mask) for probe in config.probes]
    fleet = await storage.write(register, database, members, clock(), LOCATION, quiet)
    by_key = {probe.key: probe for probe in config.probes}
    probes = {id: by_key[member.info.key] for id, member in fleet.items()}
    timekeeper = Timekeeper(database, LOCATION)
    journal = Journal(database, timekeeper, fleet, routes)
    claims = Claims(database, timekeeper, journal, fleet)
    mailroom = Mailroom(storage, Outbox(database), notifiers, wire, loaded.mask, clock, config.server.public_url)
    retention = Retention(config.storage.keep_results, config.storage.keep_rollups)
    curable = {id: probe for id, probe in probes.items() if probe.remedy is not None}
    remedying = None
    if curable:
        remedying = Remedying(Remedies(database, fleet), storage, curable, wire, loaded.mask, clock)
    return Service(probes, storage, claims, journal, mailroom, retention, wire, loaded.mask, clock, remedying)


def receiving(service: Service, loaded: Loaded) -> Reception | None:
    """What takes the check-ins of jobs that have a heartbeat; None: none has."""
    ids = {probe.key: id for id, probe in service.probes.items() if isinstance(probe, HeartbeatProbe)}
    if not ids:
        return None
    store = CheckIns(service.storage.database, service.claims.fleet)
    spool = Spool(loaded.config.storage.waiting)
    return Reception(spool, service.storage, store, service.claims, ids, loaded.mask, service.clock)


def destinations(loaded: Loaded) -> dict[str, Notifier]:
    """Every destination by name: "oncall/slack"."""
    receivers = loaded.config.receivers.items()
    return {name: notifier for key, receiver in receivers for name, notifier in receiver.destinations(key).items()}


def faces(app: App) -> ASGIApp:
    """The pages of a running service, what agents ask of it, and the door at which jobs check in."""
    from watchdog.mcp_server.desk import Desk, Inside
    from watchdog.mcp_server.http import Mounted
    from watchdog.web.access import Key
    from watchdog.web.app import create_app
    from watchdog.web.check_ins import Door
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
    read, now, service = app.storage.read, app.clock, app.service
    desk = Desk(
        read, service.dispatcher.runner, config.probes, Inside(service, now),
        lambda request: bool(request.state.may_act),
    )  # fmt: skip
    agents = Mounted(desk, *known_as(config.server))
    pages = create_app(read=read, now=now, ready=app.ready, site=site, keys=keys, addresses=addresses, agents=agents)
    if app.reception is None:
        return pages
    jobs = {p.heartbeat.key.get_secret_value(): p.key for p in config.probes if isinstance(p, HeartbeatProbe)}
    return Door(pages, jobs, app.reception.take, now)


def known_as(server: ListenConfig) -> tuple[list[str], list[str]]:
    """The hosts that agents may name, and the origins they may come from: this machine's, and those configured."""
    own = [] if server.address[0] in EVERY else [server.listen.rpartition(":")[0]]
    hosts = [f"{name}{port}" for name in (*LOOPBACK, *own) for port in ("", ":*")]
    origins = [f"http://{host}" for host in hosts]
    if server.public_url:
        public = urlsplit(server.public_url)
        hosts.append(public.netloc)
        origins.append(f"{public.scheme}://{public.netloc}")
    return hosts, origins


class Visit(HttpToolsProtocol):
    """A connection to the pages. Visitors, however many, must not take the files that probes need to connect."""

    _heading, _head = False, 0
    """Whether the head of a request is under way, and how many bytes came since it began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > VISITS:
            idlest = self._idlest()
            self.connections.discard(idlest)
            idlest.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._heading, self._head = True, 0

    def on_headers_complete(self) -> None:
        self._heading = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """The parser itself would take a head without an end."""
        super().data_received(data)
        if self._heading:
            self._head += len(data)
            if self._head > HEAD:
                self._heading = False
                self.send_400_response("The head of the request is too long.")

    def _idlest(self) -> HttpToolsProtocol:
        """One that has asked for nothing, or has its answer; this one when there is none."""
        others = (other for other in self.connections if isinstance(other, HttpToolsProtocol) and other is not self)
        return next((other for other in others if other.cycle is None or other.cycle.response_complete), self)


class Server(uvicorn.Server):
    """Serves pages on a socket that is open already, until the block is left."""

    def __init__(self, pages: ASGIApp, listening: socket.socket):
        super().__init__(
            uvicorn.Config(
                pages,
                http=Visit,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=UNREAD,
                backlog=VISITS // 2,
            )
        )
        self._listening = listening

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self.serve([self._listening]), name="pages")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self._serving


def listen(host: str, port: int) -> socket.socket:
    """An open socket to serve pages on; port 0 takes a free one. Raises OSError."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening


def told_to_stop() -> asyncio.Event:
    """Set by SIGTERM, SIGINT, and the end of the terminal unless `nohup` had it ignored.

    From then on the process ends within LONGEST seconds, whatever holds it.
    """
    stop = asyncio.Event()

    def told() -> None:
        if not stop.is_set():
            stop.set()
            end = threading.Timer(LONGEST, os._exit, [128 + signal.SIGTERM])
            end.daemon = True
            end.start()

    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN or name is not signal.SIGHUP:
            asyncio.get_running_loop().add_signal_handler(name, told)
    return stop


async def serve(loaded: Loaded, listening: socket.socket) -> None:
    """Run until we are told to stop: the service, and its pages on this socket. The process ends soon afterwards."""
    stop = told_to_stop()
    async with running(loaded) as app, Server(faces(app), listening):
        host, port = listening.getsockname()[:2]
        pages = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        log.info("started", pages=pages, probes=len(loaded.config.probes), destinations=len(destinations(loaded)))
        await stop.wait()
        log.info("stopping")
    log.info("stopped")


async def converse(loaded: Loaded) -> None:
    """Speak MCP over standard input and output until the client leaves or we are told to stop.

    Beside a running service: it reads the same store, and asks the service what only that knows.
    """
    from watchdog.mcp_server.desk import Desk
    from watchdog.mcp_server.outside import Outside
    from watchdog.mcp_server.stdio import serve_stdio
    from watchdog.service.lag import LagSentinel
    from watchdog.service.runner import Runner
    from watchdog.store.views import pulse

    config = loaded.config
    stop = told_to_stop()
    storage = Storage(Database(config.storage.url))
    try:
        async with Wire() as wire, LagSentinel() as lag:
            host, port = config.server.address
            near = ("[::1]" if ":" in host else "127.0.0.1") if host in EVERY else f"[{host}]" if ":" in host else host
            keys = sorted(config.access.keys, key=lambda key: key.role != "operator")
            tending = Outside(
                wire,
                f"http://{near}:{port}/mcp" if port else "",
                keys[0].key.get_secret_value() if keys else "",
                lambda: desk.ask(lambda connection: pulse(connection).watermark),
                wall,
            )
            runner = Runner(wire, loaded.mask, wall, lag)
            desk = Desk(storage.read, runner, config.probes, tending, lambda _: True)
            ended = await serve_stdio(desk, stop)
    finally:
        storage.close()
    if not ended:
        os._exit(0)  # a thread waits for input that may never come, and everything else is closed
