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

from watchdog.config.load import LoadedConfig
from watchdog.domain.formatting import format_duration_rounded
from watchdog.domain.routing import RoutingTable
from watchdog.net import Network
from watchdog.notifiers.base import Notifier
from watchdog.probes import HeartbeatProbe
from watchdog.resources import resource_path
from watchdog.service.check_in_log import CheckInLog
from watchdog.service.check_ins import CHECK_IN_FLUSH_INTERVAL_S, CheckInReceiver
from watchdog.service.clock import Clock, wall_clock_ms
from watchdog.service.notifications import NotificationSender
from watchdog.service.policies import build_registered_probe
from watchdog.service.remediation import RemediationRunner
from watchdog.service.scheduler import CLAIM_INTERVAL_S, MonitoringService, RetentionPolicy
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.write.check_ins import CheckInStore
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.outbox import Outbox
from watchdog.store.write.probe_registry import register_probes
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.remediations import RemediationStore
from watchdog.store.write.watermark import Watermark

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from watchdog.config.models import ServerSettings as ListenConfig

log = structlog.get_logger()

SHUTDOWN_TIMEOUT_S = 9
"""Seconds after which we end where we are: a database or a name server that hangs must not hold us."""
LOCAL_LOCATION = "local"
"""Where this process probes from; there is one location."""
MAX_CLAIM_AGE_MS = 20 * CLAIM_INTERVAL_S * 1000
"""Ready means a claim in so many ms."""
MAX_HTTP_CONNECTIONS = 256
"""Connections to the pages at once: a quarter of the files that a process may usually open."""
MAX_REQUEST_HEAD_BYTES = 65_536
"""Bytes that the head of a request may have."""
LOOPBACK_HOSTS, WILDCARD_HOSTS = ("localhost", "127.0.0.1", "[::1]"), ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
GRACEFUL_SHUTDOWN_TIMEOUT_S = 1
"""Seconds that a visitor may take to read what was asked for before we were told to stop."""


@dataclass(frozen=True, slots=True)
class RunningApp:
    """What runs: the service and what faces need of it."""

    loaded_config: LoadedConfig
    service: MonitoringService
    store_executor: StoreExecutor
    clock: Clock
    check_in_receiver: CheckInReceiver | None = None
    """Takes check-ins; None: no job checks in."""

    def not_ready_reason(self) -> str:
        """What keeps it from being ready, in words; empty when it is."""
        last = self.service.last_claim_at
        if not last:
            return "no slot was claimed yet"
        age = self.clock() - last
        if age > MAX_CLAIM_AGE_MS:
            return f"no slot was claimed for {format_duration_rounded(age)}"
        behind = self.service.clock_behind_ms
        return f"the clock was put back: the store is {format_duration_rounded(behind)} ahead of it" if behind else ""


@asynccontextmanager
async def run_app(loaded_config: LoadedConfig, clock: Clock = wall_clock_ms) -> AsyncIterator[RunningApp]:
    """Build everything from a configuration, run it, and stop it in order.

    Raises SchemaError for a database of a newer version, StoreUnavailableError for one that is out of reach.
    """
    config = loaded_config.config
    database = Database(config.storage.url)
    storage = StoreExecutor(database)
    try:
        await storage.run_write(upgrade_schema, database, resource_path("migrations"))
        await asyncio.to_thread(
            lambda: [thing.prepare() for probe in config.probes for thing in (probe, probe.remediation_action) if thing]
        )
        async with Network() as wire, AsyncExitStack() as stack:
            service = await build_service(loaded_config, storage, wire, clock)
            reception = build_check_in_receiver(service, loaded_config)
            if reception is not None:
                await stack.enter_async_context(reception)
                service.add_task(reception.flush_check_ins, CHECK_IN_FLUSH_INTERVAL_S)
            await service.start()
            try:
                yield RunningApp(loaded_config, service, storage, clock, reception)
            finally:
                await service.stop()
    finally:
        storage.close()


async def build_service(
    loaded_config: LoadedConfig, store_executor: StoreExecutor, network: Network, clock: Clock
) -> MonitoringService:
    """Register the probes and put the service together, without starting it."""
    config, database = loaded_config.config, store_executor.database
    notifiers = notifiers_by_destination(loaded_config)
    quiet = frozenset(
        name
        for receiver, told in config.receivers.items()
        if not told.send_resolved
        for name in told.notifiers_by_destination(receiver)
    )
    receivers = {name: tuple(receiver.notifiers_by_destination(name)) for name, receiver in config.receivers.items()}
    routes = RoutingTable(receivers, tuple(route.to_route() for route in config.routes), quiet)
    members = [
        build_registered_probe(probe, loaded_config.probe_yaml[probe.id], loaded_config.mask) for probe in config.probes
    ]
    fleet = await store_executor.run_write(register_probes, database, members, clock(), LOCAL_LOCATION, quiet)
    by_key = {probe.id: probe for probe in config.probes}
    probes = {id: by_key[member.info.id] for id, member in fleet.items()}
    timekeeper = Watermark(database, LOCAL_LOCATION)
    journal = ResultRecorder(database, timekeeper, fleet, routes)
    claims = SlotClaimer(database, timekeeper, journal, fleet)
    mailroom = NotificationSender(
        store_executor, Outbox(database), notifiers, network, loaded_config.mask, clock, config.server.public_url
    )
    retention = RetentionPolicy(config.storage.keep_results, config.storage.keep_rollups)
    curable = {id: probe for id, probe in probes.items() if probe.remediation is not None}
    remedying = None
    if curable:
        remedying = RemediationRunner(
            RemediationStore(database, fleet), store_executor, curable, network, loaded_config.mask, clock
        )
    return MonitoringService(
        probes, store_executor, claims, journal, mailroom, retention, network, loaded_config.mask, clock, remedying
    )


def build_check_in_receiver(service: MonitoringService, loaded_config: LoadedConfig) -> CheckInReceiver | None:
    """What takes the check-ins of jobs that have a heartbeat; None: none has."""
    ids = {probe.id: id for id, probe in service.probes.items() if isinstance(probe, HeartbeatProbe)}
    if not ids:
        return None
    store = CheckInStore(service.store_executor.database, service.claims.registry)
    spool = CheckInLog(loaded_config.config.storage.check_in_log_path)
    return CheckInReceiver(spool, service.store_executor, store, service.claims, ids, loaded_config.mask, service.clock)


def notifiers_by_destination(loaded_config: LoadedConfig) -> dict[str, Notifier]:
    """Every destination by name: "oncall/slack"."""
    receivers = loaded_config.config.receivers.items()
    return {
        name: notifier
        for key, receiver in receivers
        for name, notifier in receiver.notifiers_by_destination(key).items()
    }


def create_asgi_app(app: RunningApp) -> ASGIApp:
    """The pages of a running service, what agents ask of it, and the door at which jobs check in."""
    from watchdog.mcp_server.context import LocalService, ToolContext
    from watchdog.mcp_server.http import LazyMcpApp
    from watchdog.web.app import create_app
    from watchdog.web.auth.access import ApiKey
    from watchdog.web.pages.status import StatusPageConfig
    from watchdog.web.routes.check_ins import CheckInEndpoint

    config = app.loaded_config.config
    page, show = config.status_page, config.status_page.match.to_matcher()
    site = StatusPageConfig(
        title=page.title,
        includes_probe=lambda probe: not show.describe_mismatch(probe),
        group_order=tuple(page.groups),
        probe_order=tuple(probe.id for probe in config.probes),
        history_ms=page.history,
    )
    keys = [ApiKey(key.name, key.role, key.key.get_secret_value()) for key in config.access.api_keys]
    addresses = {name: notifier.recipient for name, notifier in notifiers_by_destination(app.loaded_config).items()}
    read, now, service = app.store_executor.run_read_query, app.clock, app.service
    desk = ToolContext(
        read, service.run_executor.runner, config.probes, LocalService(service, now),
        lambda request: bool(request.state.may_act),
    )  # fmt: skip
    agents = LazyMcpApp(desk, *allowed_hosts_and_origins(config.server))
    pages = create_app(
        run_read_query=read,
        clock=now,
        not_ready_reason=app.not_ready_reason,
        status_page=site,
        api_keys=keys,
        destination_addresses=addresses,
        mcp_app=agents,
    )
    if app.check_in_receiver is None:
        return pages
    jobs = {p.heartbeat.token.get_secret_value(): p.id for p in config.probes if isinstance(p, HeartbeatProbe)}
    return CheckInEndpoint(pages, jobs, app.check_in_receiver.accept_check_in, now)


def allowed_hosts_and_origins(server: ListenConfig) -> tuple[list[str], list[str]]:
    """The hosts that agents may name, and the origins they may come from: this machine's, and those configured."""
    own = [] if server.bind_address[0] in WILDCARD_HOSTS else [server.listen.rpartition(":")[0]]
    hosts = [f"{name}{port}" for name in (*LOOPBACK_HOSTS, *own) for port in ("", ":*")]
    origins = [f"http://{host}" for host in hosts]
    if server.public_url:
        public = urlsplit(server.public_url)
        hosts.append(public.netloc)
        origins.append(f"{public.scheme}://{public.netloc}")
    return hosts, origins


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection to the pages. Visitors, however many, must not take the files that probes need to connect."""

    _reading_head, _head_bytes = False, 0
    """Whether the head of a request is under way, and how many bytes came since it began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MAX_HTTP_CONNECTIONS:
            idlest = self._idlest_connection()
            self.connections.discard(idlest)
            idlest.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """The parser itself would take a head without an end."""
        super().data_received(data)
        if self._reading_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_REQUEST_HEAD_BYTES:
                self._reading_head = False
                self.send_400_response("The head of the request is too long.")

    def _idlest_connection(self) -> HttpToolsProtocol:
        """One that has asked for nothing, or has its answer; this one when there is none."""
        others = (other for other in self.connections if isinstance(other, HttpToolsProtocol) and other is not self)
        return next((other for other in others if other.cycle is None or other.cycle.response_complete), self)


class WebServer(uvicorn.Server):
    """Serves pages on a socket that is open already, until the block is left."""

    def __init__(self, asgi_app: ASGIApp, listen_socket: socket.socket):
        super().__init__(
            uvicorn.Config(
                asgi_app,
                http=BoundedHttpProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_TIMEOUT_S,
                backlog=MAX_HTTP_CONNECTIONS // 2,
            )
        )
        self._listen_socket = listen_socket

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield

    async def __aenter__(self) -> Self:
        self._serve_task = asyncio.create_task(self.serve([self._listen_socket]), name="pages")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self._serve_task


def open_listen_socket(host: str, port: int) -> socket.socket:
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


def install_shutdown_event() -> asyncio.Event:
    """Set by SIGTERM, SIGINT, and the end of the terminal unless `nohup` had it ignored.

    From then on the process ends within LONGEST seconds, whatever holds it.
    """
    stop = asyncio.Event()

    def told() -> None:
        if not stop.is_set():
            stop.set()
            end = threading.Timer(SHUTDOWN_TIMEOUT_S, os._exit, [128 + signal.SIGTERM])
            end.daemon = True
            end.start()

    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN or name is not signal.SIGHUP:
            asyncio.get_running_loop().add_signal_handler(name, told)
    return stop


async def serve(loaded_config: LoadedConfig, listen_socket: socket.socket) -> None:
    """Run until we are told to stop: the service, and its pages on this socket. The process ends soon afterwards."""
    stop = install_shutdown_event()
    async with run_app(loaded_config) as app, WebServer(create_asgi_app(app), listen_socket):
        host, port = listen_socket.getsockname()[:2]
        pages = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        log.info(
            "started",
            pages=pages,
            probes=len(loaded_config.config.probes),
            destinations=len(notifiers_by_destination(loaded_config)),
        )
        await stop.wait()
        log.info("stopping")
    log.info("stopped")


async def run_mcp_stdio(loaded_config: LoadedConfig) -> None:
    """Speak MCP over standard input and output until the client leaves or we are told to stop.

    Beside a running service: it reads the same store, and asks the service what only that knows.
    """
    from watchdog.mcp_server.context import ToolContext
    from watchdog.mcp_server.remote_service import RemoteService
    from watchdog.mcp_server.stdio import serve_mcp_stdio
    from watchdog.service.event_loop_lag import EventLoopLagMonitor
    from watchdog.service.runner import ProbeRunner
    from watchdog.store.read.status import load_service_status

    config = loaded_config.config
    stop = install_shutdown_event()
    storage = StoreExecutor(Database(config.storage.url))
    try:
        async with Network() as wire, EventLoopLagMonitor() as lag:
            host, port = config.server.bind_address
            near = (
                ("[::1]" if ":" in host else "127.0.0.1")
                if host in WILDCARD_HOSTS
                else f"[{host}]"
                if ":" in host
                else host
            )
            keys = sorted(config.access.api_keys, key=lambda key: key.role != "operator")
            tending = RemoteService(
                wire,
                f"http://{near}:{port}/mcp" if port else "",
                keys[0].key.get_secret_value() if keys else "",
                lambda: desk.run_query(lambda connection: load_service_status(connection).watermark),
                wall_clock_ms,
            )
            runner = ProbeRunner(wire, loaded_config.mask, wall_clock_ms, lag)
            desk = ToolContext(storage.run_read_query, runner, config.probes, tending, lambda _: True)
            ended = await serve_mcp_stdio(desk, stop)
    finally:
        storage.close()
    if not ended:
        os._exit(0)  # a thread waits for input that may never come, and everything else is closed
