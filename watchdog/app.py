"""The composition root: from a loaded configuration to a running service. Only this module imports all others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog

from watchdog.config.definitions import ConfigDigests, digest_json
from watchdog.config.load import LoadedConfig
from watchdog.config.models import Config
from watchdog.domain.client_addresses import TrustedProxies
from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.domain.own_network import get_endpoint_host
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.net import NetworkAccess, SecretMask
from watchdog.net.connector import format_socket_address
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import Probe
from watchdog.probes.service import WatchdogSelfProbe
from watchdog.resources import find_resource_folder
from watchdog.server import ConnectionGuard, ConnectionLimits, WebServer
from watchdog.service.absence_record import StoreAbsenceRecordFile
from watchdog.service.check_in_log import CheckInLog
from watchdog.service.check_ins import CHECK_IN_FLUSH_INTERVAL_S, CheckInReceiver
from watchdog.service.clock import Clock, WatchdogClock, read_boot_clock_ms, read_wall_clock_ms
from watchdog.service.clock_synchronizer import ClockGenerationSynchronizer
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.dead_mans_switch import DeadMansSwitch
from watchdog.service.direct_notices import StoreAbsenceNotifier
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.membership import ProcessLeaseKeeper
from watchdog.service.notifications import NotificationSender
from watchdog.service.process_resources import keep_heap_small
from watchdog.service.registration import build_registered_probe
from watchdog.service.remediation import RemediationRunner
from watchdog.service.scheduler import MonitoringService, RetentionPolicy
from watchdog.service.store_executor import StoreExecutor
from watchdog.signals import install_shutdown_event
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.read.destinations import load_watchdog_fault_facts
from watchdog.store.read.members import find_probe_id_by_token_digest
from watchdog.store.write.check_ins import CheckInStore
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.members import WatchdogProcessConfiguration, WatchdogProcessMembership
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.remediations import RemediationStore
from watchdog.store.write.watermark import Watermark

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = structlog.get_logger()

DATABASE_FILE_CHECK_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class RunningWatchdogService:
    """A running service and what its web pages need of it."""

    loaded_config: LoadedConfig
    service: MonitoringService
    store_executor: StoreExecutor
    clock: Clock
    check_in_receiver: CheckInReceiver


@asynccontextmanager
async def open_running_watchdog_service(
    loaded_config: LoadedConfig, wall_clock: Clock = read_wall_clock_ms, monotonic_clock: Clock = read_boot_clock_ms
) -> AsyncIterator[RunningWatchdogService]:
    """Build everything from a configuration, run it, and stop it in order.

    Raises WatchdogDatabaseSchemaError if a newer version wrote the database, StoreUnavailableError if it cannot be
    reached.
    """
    config, database = loaded_config.config, Database(loaded_config.config.storage.url)
    watermark = Watermark(database, LOCAL_LOCATION_NAME)
    clock_synchronizer = ClockGenerationSynchronizer(WatchdogClock(wall_clock, monotonic_clock), watermark)
    store_executor = StoreExecutor(database, clock_synchronizer.adopt_clock_steps_and_read_time)
    try:
        await store_executor.run_write(upgrade_schema, database, find_resource_folder("migrations"))
        await store_executor.run_read(database.check_file)
        await asyncio.to_thread(
            lambda: [part.preload() for probe in config.probes for part in (probe, probe.remediation_action) if part]
        )
        async with NetworkAccess() as network, AsyncExitStack() as stack:
            network.preload()
            service = await register_probes_and_build_service(
                loaded_config, store_executor, network, clock_synchronizer.clock, clock_synchronizer
            )
            check_in_receiver = build_check_in_receiver(service, loaded_config)
            await stack.enter_async_context(check_in_receiver)
            service.add_background_task("flush_check_ins", check_in_receiver.flush_check_ins, CHECK_IN_FLUSH_INTERVAL_S)
            if switch := config.dead_mans_switch:
                destinations = config.build_notifiers_by_destination().keys()
                ping = DeadMansSwitch(switch.url, service, network, destinations).ping
                service.add_background_task("ping_dead_mans_switch", ping, switch.every / 1000)
            if not database.is_postgres:
                check_file = partial(store_executor.run_read, database.check_file)
                service.add_background_task("check_database_file", check_file, DATABASE_FILE_CHECK_INTERVAL_S)
            await service.start()
            try:
                yield RunningWatchdogService(loaded_config, service, store_executor, service.clock, check_in_receiver)
            finally:
                await service.stop()
    finally:
        store_executor.close()


async def register_probes_and_build_service(
    loaded_config: LoadedConfig,
    store_executor: StoreExecutor,
    network: NetworkAccess,
    clock: Clock,
    clock_synchronizer: ClockGenerationSynchronizer | None = None,
) -> MonitoringService:
    """Become a member, register the probes and build the service, without starting it."""
    config, database, mask = loaded_config.config, store_executor.database, loaded_config.mask
    notifiers = config.build_notifiers_by_destination()
    configured_probes = [*config.probes, build_watchdog_self_probe(store_executor, notifiers, clock)]
    lease_keeper = await join_as_watchdog_process(loaded_config, configured_probes, store_executor, clock)
    membership, registry = lease_keeper.membership, lease_keeper.membership.registry
    watermark = clock_synchronizer.watermark if clock_synchronizer else Watermark(database, LOCAL_LOCATION_NAME)
    watermark.refuse_writes_in_another_clock_generation()
    by_id = {probe.id: probe for probe in configured_probes}
    probes = {number: by_id[probe.info.id] for number, probe in registry.configured_by_database_id.items()}
    claims = SlotClaimer(database, watermark, ResultRecorder(database, watermark, registry), registry)
    run_self_probe_soon = create_run_self_probe_soon_callback(probes, claims, store_executor)
    notification_sender = NotificationSender(
        store_executor=store_executor,
        outbox=NotificationOutbox(database),
        notifiers=notifiers,
        network=network,
        mask=mask,
        clock=clock,
        public_url=config.server.public_url,
        on_receiver_change=run_self_probe_soon,
        may_notify=membership.has_newest_definition_of_destination,
    )
    describe_problem = clock_synchronizer.clock.describe_problem if clock_synchronizer else str
    fault_reporter = WatchdogProcessFaultReporter(
        membership.member_id, store_executor, clock, run_self_probe_soon, describe_problem
    )
    return MonitoringService(
        probes=probes,
        store_executor=store_executor,
        claims=claims,
        recorder=claims.recorder,
        notification_sender=notification_sender,
        retention=RetentionPolicy(config.storage.keep_results, config.storage.keep_rollups),
        network=network,
        mask=mask,
        clock=clock,
        lease_keeper=lease_keeper,
        fault_reporter=fault_reporter,
        direct_notices=build_store_absence_notifier(loaded_config, membership, network, clock),
        connectivity_check=build_connectivity_check(config, network, clock),
        remediation_runner=build_remediation_runner(probes, registry, store_executor, network, mask=mask, clock=clock),
    )


async def join_as_watchdog_process(
    loaded_config: LoadedConfig,
    configured_probes: Sequence[Probe],
    store_executor: StoreExecutor,
    clock: Clock,
) -> ProcessLeaseKeeper:
    """Register this process and its probes. Raises StoreUnavailableError."""
    configuration = build_watchdog_process_configuration(loaded_config, configured_probes)
    membership = WatchdogProcessMembership(
        store_executor.database, make_watchdog_process_id(), configuration, LOCAL_LOCATION_NAME
    )
    lease_keeper = ProcessLeaseKeeper(membership, store_executor, clock)
    await lease_keeper.acquire_lease()
    return lease_keeper


def build_store_absence_notifier(
    loaded_config: LoadedConfig, membership: WatchdogProcessMembership, network: NetworkAccess, clock: Clock
) -> StoreAbsenceNotifier:
    """What notifies the receivers while the database is away."""
    return StoreAbsenceNotifier(
        notifiers=loaded_config.config.build_notifiers_by_destination(),
        network=network,
        mask=loaded_config.mask,
        clock=clock,
        member=membership.member_id,
        record_file=StoreAbsenceRecordFile(loaded_config.config.storage.absence_record_path),
        is_lowest_member=membership.is_lowest_live_process,
        may_notify=membership.has_newest_definition_of_destination,
    )


def create_run_self_probe_soon_callback(
    probes: Mapping[int, Probe], claims: SlotClaimer, store_executor: StoreExecutor
) -> Callable[[], Awaitable[None]]:
    """Runs the built-in probe soon."""
    self_probe_id = next(id for id, probe in probes.items() if isinstance(probe, WatchdogSelfProbe))

    async def run_self_probe_soon() -> None:
        await store_executor.run_write_with_now(lambda now: claims.reschedule_sooner({self_probe_id: now}))

    return run_self_probe_soon


def build_connectivity_check(config: Config, network: NetworkAccess, clock: Clock) -> ConnectivityCheck:
    """Of the configured targets, and of the names of the probes' targets."""
    targets = () if config.connectivity is None else config.connectivity.targets
    hosts = [get_endpoint_host(probe.network_endpoint) for probe in config.probes if probe.network_endpoint]
    return ConnectivityCheck(network, targets, hosts, clock)


def build_remediation_runner(
    probes: Mapping[int, Probe],
    registry: InMemoryProbeRegistry,
    store_executor: StoreExecutor,
    network: NetworkAccess,
    *,
    mask: SecretMask,
    clock: Clock,
) -> RemediationRunner | None:
    """None if no probe has a remediation."""
    remediated = {database_id: probe for database_id, probe in probes.items() if probe.remediation is not None}
    if not remediated:
        return None
    store = RemediationStore(store_executor.database, registry)
    return RemediationRunner(
        store=store, store_executor=store_executor, probes=remediated, network=network, mask=mask, clock=clock
    )


def build_watchdog_self_probe(
    store_executor: StoreExecutor, destinations: Iterable[str], clock: Callable[[], int]
) -> WatchdogSelfProbe:
    """The built-in probe, which observes these destinations."""
    names = sorted(destinations)

    async def load_facts() -> dict[str, WatchdogFaultFacts]:
        return await store_executor.run_read_query(
            lambda connection: load_watchdog_fault_facts(connection, names, clock())
        )

    return WatchdogSelfProbe(load_facts=load_facts)


def make_watchdog_process_id() -> str:
    """Names this process to people, and is unique."""
    return f"{socket.gethostname()}-{os.getpid()}-{token_hex(3)}"


def build_watchdog_process_configuration(
    loaded_config: LoadedConfig, configured_probes: Sequence[Probe]
) -> WatchdogProcessConfiguration:
    """`configured_probes`: those of the configuration, and the built-in one, which observes the destinations."""
    definitions, routes = ConfigDigests(loaded_config), _build_notification_routing_table(loaded_config)
    destinations, probe_definitions = definitions.compute_destination_digests(), definitions.compute_probe_digests()
    registered_probes = [
        build_registered_probe(
            probe,
            loaded_config.probe_yaml.get(probe.id, ""),
            loaded_config.mask,
            routes,
            probe_definitions.get(probe.id) or digest_json(sorted(destinations)),
        )
        for probe in configured_probes
    ]
    tokens = map_check_in_tokens_to_probe_ids(configured_probes)
    token_digests = {digest_json(token): probe_id for token, probe_id in tokens.items()}
    return WatchdogProcessConfiguration(
        definitions.digest, registered_probes, routes, destinations=destinations, check_in_tokens=token_digests
    )


def _build_notification_routing_table(loaded_config: LoadedConfig) -> NotificationRoutingTable:
    config = loaded_config.config
    destinations = {
        name: tuple(receiver.build_notifiers_by_destination(name)) for name, receiver in config.receivers.items()
    }
    without_resolved = frozenset(
        destination
        for name, receiver in config.receivers.items()
        if not receiver.send_resolved
        for destination in destinations[name]
    )
    return NotificationRoutingTable(
        destinations, tuple(route.to_notification_route() for route in config.routes), without_resolved
    )


def build_check_in_receiver(service: MonitoringService, loaded_config: LoadedConfig) -> CheckInReceiver:
    """The receiver of check-ins, also for heartbeats of other processes."""
    heartbeats = {probe.id: id for id, probe in service.probes.items() if isinstance(probe, HeartbeatProbe)}
    return CheckInReceiver(
        check_in_log=CheckInLog(loaded_config.config.storage.check_in_log_path),
        store_executor=service.store_executor,
        check_in_store=CheckInStore(service.store_executor.database),
        claims=service.claims,
        database_id_by_probe=heartbeats,
        mask=loaded_config.mask,
        clock=service.clock,
    )


def create_asgi_app(app: RunningWatchdogService) -> ASGIApp:
    """The pages, the MCP server and the check-in endpoint of a running service."""
    from watchdog.mcp_server.context import LocalBackgroundTaskControl, McpToolContext
    from watchdog.mcp_server.http import LazyMcpApp, list_allowed_hosts_and_origins
    from watchdog.web.app import create_web_app
    from watchdog.web.auth.session import ApiKey
    from watchdog.web.pages.status_snapshot import StatusPageConfig
    from watchdog.web.routes.check_ins import CheckInMiddleware

    config = app.loaded_config.config
    matcher = config.status_page.match.to_probe_matcher()
    status_page = StatusPageConfig(
        title=config.status_page.title,
        includes_probe=lambda probe: not matcher.describe_mismatch(probe),
        group_order=tuple(config.status_page.groups),
        probe_order=tuple(probe.id for probe in config.probes),
        history_ms=config.status_page.history,
    )
    notifiers = config.build_notifiers_by_destination()
    context = McpToolContext(
        app.store_executor.run_read_query,
        app.service.run_executor.runner,
        config.probes,
        LocalBackgroundTaskControl(app.service, app.clock),
        is_operator=lambda request: bool(request.state.is_operator),
    )
    pages = create_web_app(
        run_read_query=app.store_executor.run_read_query,
        clock=app.clock,
        not_ready_reason=app.service.describe_not_ready_reason,
        describe_probing_without_store=app.service.describe_probing_without_store,
        list_notes=lambda show_names: app.service.lease_keeper.notes(show_names=show_names),
        status_page=status_page,
        api_keys=[ApiKey(key.name, key.role, key.key.get_secret_value()) for key in config.access.api_keys],
        destination_addresses={destination: notifier.recipient for destination, notifier in notifiers.items()},
        config_warnings=[str(warning) for warning in app.loaded_config.warnings],
        mcp_app=LazyMcpApp(context, *list_allowed_hosts_and_origins(config.server.listen, config.server.public_url)),
    )
    accept_check_in = app.check_in_receiver.accept_check_in

    async def find_probe_id(token: str) -> str | None:
        digest, now = digest_json(token), app.clock()
        return await app.store_executor.run_read_query(lambda c: find_probe_id_by_token_digest(c, digest, now))

    return CheckInMiddleware(
        pages, map_check_in_tokens_to_probe_ids(config.probes), accept_check_in, app.clock, find_probe_id
    )


def map_check_in_tokens_to_probe_ids(probes: Iterable[Probe]) -> dict[str, str]:
    """Token -> probe id."""
    return {probe.heartbeat.token.get_secret_value(): probe.id for probe in probes if isinstance(probe, HeartbeatProbe)}


def create_web_server(app: RunningWatchdogService, listen_socket: socket.socket) -> WebServer:
    """The web server of a running service, which serves while its `async with` block runs."""
    proxies = TrustedProxies(app.loaded_config.config.server.trusted_proxies)
    return WebServer(
        create_asgi_app(app), listen_socket, ConnectionGuard(ConnectionLimits.from_process_limits(), proxies)
    )


async def serve_until_shutdown(loaded_config: LoadedConfig, listen_socket: socket.socket) -> None:
    """Run the service, and its pages on this socket, until a shutdown signal. SIGHUP is logged and ignored."""
    shutdown = install_shutdown_event(on_hangup=lambda: log.info("hangup_ignored"))
    async with open_running_watchdog_service(loaded_config) as app, create_web_server(app, listen_socket):
        for warning in loaded_config.warnings:
            place = {"location": str(warning.source_location), "field": warning.path}
            log.warning("config_warning", **place, detail=warning.message)
        log.info(
            "started",
            url=f"http://{format_socket_address(listen_socket.getsockname())}/",
            probe_count=len(loaded_config.config.probes),
            destination_count=len(loaded_config.config.build_notifiers_by_destination()),
            member=app.service.lease_keeper.membership.member_id,
            revision=app.service.lease_keeper.membership.revision,
        )
        heap_task = asyncio.create_task(keep_heap_small())
        await shutdown.wait()
        heap_task.cancel()
        log.info("stopping")
    log.info("stopped")
