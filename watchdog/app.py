"""The composition root: from a loaded configuration to a running service. Only this module imports all others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from watchdog.config.definitions import digest_json, parse_yaml_values_by_field_path
from watchdog.config.load import LoadedConfig
from watchdog.domain.client_addresses import TrustedProxies
from watchdog.domain.config_changes import (
    ConfigChanges,
    ConfigSectionSnapshot,
    compare_configs,
    list_restart_required_fields,
)
from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.net import NetworkAccess
from watchdog.net.connector import format_socket_address
from watchdog.resources import find_resource_folder
from watchdog.server import InboundConnectionGuard, InboundConnectionLimits, WebServer
from watchdog.service.acts import run_act_and_send
from watchdog.service.check_in_addresses import map_heartbeats_to_check_in_addresses
from watchdog.service.check_in_log import CheckInWriteAheadLog
from watchdog.service.check_ins import CHECK_IN_FLUSH_INTERVAL_S, DurableCheckInReceiver
from watchdog.service.clock import Clock, WatchdogClock, read_boot_clock_ms, read_wall_clock_ms
from watchdog.service.clock_synchronizer import ClockGenerationSynchronizer
from watchdog.service.composition import (
    ReloadableServiceParts,
    build_connectivity_check,
    build_remediation_runner,
    build_store_absence_notifier,
    build_watchdog_self_probe,
    create_run_self_probe_soon_callback,
    map_database_ids_to_probes,
    map_heartbeats_to_database_ids,
    preload_probe_modules,
)
from watchdog.service.config_check import PostedConfigChecker, RunningConfigActions
from watchdog.service.config_reload import ConfigReloadCounts, ConfigReloader, FileSignatures, log_config_warnings
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.dead_mans_switch import add_or_remove_dead_mans_switch
from watchdog.service.maintenance import RetentionPolicy
from watchdog.service.maintenance_windows import PLAN_MAINTENANCE_TASK_NAME
from watchdog.service.managed_probes import ManagedProbeEditor
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.notifications import NotificationSender
from watchdog.service.process_configuration import (
    build_config_snapshot,
    build_watchdog_process_configuration,
    join_and_create_process_lease_keeper,
    map_check_in_tokens_to_probe_ids,
)
from watchdog.service.process_metrics import collect_watchdog_activity_metrics
from watchdog.service.process_resources import keep_heap_small
from watchdog.service.receiver_tests import ReceiverTester
from watchdog.service.scheduler import MonitoringService
from watchdog.service.slack_socket import SlackSockets
from watchdog.service.store_executor import StoreExecutor
from watchdog.service.transition_feed import TransitionFeed
from watchdog.signals import install_shutdown_event
from watchdog.source_parsing import make_ast_parse_run_in_one_thread_at_a_time
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.read.members import find_probe_id_by_check_in_token_digest
from watchdog.store.write.check_ins import CheckInStore
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.members import WatchdogProcessConfiguration
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.transitions import number_transitions
from watchdog.store.write.watermark import ClaimWatermark

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from watchdog.web.routes.mcp import McpAsgiApp

log = structlog.get_logger()

DATABASE_FILE_CHECK_INTERVAL_S = 10.0

WebChange: TypeAlias = Callable[[], None]
"""Switches the web server to another configuration."""


@dataclass(slots=True)
class RunningWatchdogService:
    """A running service and what its web pages need of it. A reload replaces `loaded_config`."""

    loaded_config: LoadedConfig
    service: MonitoringService
    store_executor: StoreExecutor
    clock: Clock
    check_in_receiver: DurableCheckInReceiver
    network: NetworkAccess
    notice: str
    """At the top of every page. A reload sets it to the one of the configuration."""
    started_sections: Mapping[str, ConfigSectionSnapshot]
    """The sections of this process alone, as of its start."""
    web_change_preparations: list[Callable[[LoadedConfig], WebChange]] = field(default_factory=list)
    """Each prepares the web server for another configuration, in any thread."""
    config_actions: RunningConfigActions | None = None
    """None: this process has no files to read again."""
    reload_counts: ConfigReloadCounts = field(default_factory=ConfigReloadCounts)
    transition_feed: TransitionFeed = field(init=False)

    def __post_init__(self) -> None:
        number = partial(self.store_executor.run_write, number_transitions, self.store_executor.database)
        self.transition_feed = TransitionFeed(self.store_executor.run_read_query, number)

    async def apply_config(self, loaded_config: LoadedConfig) -> ConfigChanges:
        """Work with another configuration. Raises StoreUnavailableError; then nothing has changed."""
        membership, config = self.service.lease_keeper.membership, loaded_config.config
        notifiers = config.build_notifiers_by_destination()
        configured_probes = [*config.probes, build_watchdog_self_probe(self.store_executor, notifiers, self.clock)]

        def prepare_reload() -> tuple[WatchdogProcessConfiguration, ConfigChanges, ConnectivityCheck, list[WebChange]]:
            preload_probe_modules(config)
            sections = self.started_sections
            configuration = build_watchdog_process_configuration(loaded_config, configured_probes, sections)
            before, after = map(build_config_snapshot, (membership.configuration, configuration))
            changes = compare_configs(before, after, parse_yaml_values_by_field_path)
            connectivity_check = build_connectivity_check(config, self.network, self.clock)
            web_changes = [prepare_change(loaded_config) for prepare_change in self.web_change_preparations]
            return configuration, changes, connectivity_check, web_changes

        configuration, changes, connectivity_check, web_changes = await asyncio.to_thread(prepare_reload)

        def build_reloadable_service_parts() -> ReloadableServiceParts:
            probes = map_database_ids_to_probes(membership.registry, configured_probes)
            return ReloadableServiceParts(probes, notifiers, config.server.public_url, connectivity_check)

        register = partial(membership.change_configuration, configuration)
        if not await self.service.change_configuration(register, build_reloadable_service_parts):
            return ConfigChanges()
        await self.service.trigger_task(PLAN_MAINTENANCE_TASK_NAME)
        former, self.loaded_config = self.loaded_config.config, loaded_config
        self.notice, self.network.routing = config.status_page.notice, config.network.request_routing
        self.check_in_receiver.database_id_by_probe = map_heartbeats_to_database_ids(self.service.probes)
        if (former.dead_mans_switch, former.receivers) != (config.dead_mans_switch, config.receivers):
            add_or_remove_dead_mans_switch(self.service, self.network, config)
        for change in web_changes:
            change()
        restart_fields = list_restart_required_fields(self.started_sections, configuration.own_sections)
        self.service.fault_reporter.set_restart_required_fields(restart_fields)
        restart = {"restart_required": list(restart_fields)} if restart_fields else {}
        log.info("config_reloaded", revision=membership.revision, **changes.count_config_changes_by_kind(), **restart)
        return changes


@asynccontextmanager
async def start_watchdog_service_and_stop_on_exit(
    loaded_config: LoadedConfig, wall_clock: Clock = read_wall_clock_ms, monotonic_clock: Clock = read_boot_clock_ms
) -> AsyncIterator[RunningWatchdogService]:
    """Build everything from a configuration, run it, and stop it in order.

    Raises WatchdogDatabaseSchemaError if a newer version wrote the database, StoreUnavailableError if it cannot be
    reached.
    """
    make_ast_parse_run_in_one_thread_at_a_time()
    config, database = loaded_config.config, Database(loaded_config.config.storage.url)
    watermark = ClaimWatermark(database, LOCAL_LOCATION_NAME)
    clock_synchronizer = ClockGenerationSynchronizer(WatchdogClock(wall_clock, monotonic_clock), watermark)
    store_executor = StoreExecutor(database, clock_synchronizer.adopt_clock_steps_and_read_time)
    try:
        await store_executor.run_write(upgrade_schema, database, find_resource_folder("migrations"))
        await store_executor.run_read(database.check_file)
        await asyncio.to_thread(preload_probe_modules, config)
        async with NetworkAccess(config.network.request_routing) as network, AsyncExitStack() as stack:
            network.preload()
            service = await register_probes_and_build_service(
                loaded_config, store_executor, network, clock_synchronizer.clock, clock_synchronizer
            )
            check_in_receiver = build_check_in_receiver(service, loaded_config)
            await stack.enter_async_context(check_in_receiver)
            service.add_background_task("flush_check_ins", check_in_receiver.flush_check_ins, CHECK_IN_FLUSH_INTERVAL_S)
            add_or_remove_dead_mans_switch(service, network, config)
            if not database.is_postgres:
                check_file = partial(store_executor.run_read, database.check_file)
                service.add_background_task("check_database_file", check_file, DATABASE_FILE_CHECK_INTERVAL_S)
            await service.start()
            try:
                async with SlackSockets(service.notification_sender, service.fault_reporter.set_slack_problem):
                    yield RunningWatchdogService(
                        *(loaded_config, service, store_executor, service.clock, check_in_receiver),
                        network=network,
                        notice=config.status_page.notice,
                        started_sections=service.lease_keeper.membership.configuration.own_sections,
                    )
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
    lease_keeper = await join_and_create_process_lease_keeper(loaded_config, configured_probes, store_executor, clock)
    membership, registry = lease_keeper.membership, lease_keeper.membership.registry
    watermark = clock_synchronizer.watermark if clock_synchronizer else ClaimWatermark(database, LOCAL_LOCATION_NAME)
    watermark.refuse_writes_in_another_clock_generation()
    probes = map_database_ids_to_probes(registry, configured_probes)
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


def build_check_in_receiver(service: MonitoringService, loaded_config: LoadedConfig) -> DurableCheckInReceiver:
    """The receiver of check-ins, also for heartbeats of other processes."""
    return DurableCheckInReceiver(
        check_in_log=CheckInWriteAheadLog(loaded_config.config.storage.check_in_log_path),
        store_executor=service.store_executor,
        check_in_store=CheckInStore(service.store_executor.database),
        claims=service.claims,
        database_id_by_probe=map_heartbeats_to_database_ids(service.probes),
        mask=loaded_config.mask,
        clock=service.clock,
    )


def create_asgi_app(app: RunningWatchdogService) -> ASGIApp:
    """The web pages, the MCP server and the check-in endpoint of a running service. A reload replaces the pages."""
    from watchdog.mcp_server.context import LocalBackgroundTaskHealthAndTrigger, McpToolContext
    from watchdog.mcp_server.http import LazyMcpApp, list_allowed_hosts_and_origins
    from watchdog.web.auth.acts import get_actor_name
    from watchdog.web.replaceable_app import ReplaceableAsgiApp

    context = McpToolContext(
        *(app.store_executor.run_read_query, app.service.run_executor.runner, app.loaded_config.config.probes),
        LocalBackgroundTaskHealthAndTrigger(app.service, app.clock),
        is_operator=lambda request: bool(request.state.is_operator),
        run_act_in_store=partial(run_act_and_send, app.store_executor, app.service.notification_sender),
        get_actor_name=get_actor_name,
        receiver_tester=ReceiverTester(app.service.notification_sender),
    )
    started_server = app.loaded_config.config.server
    mcp_app = LazyMcpApp(context, *list_allowed_hosts_and_origins(started_server.listen, started_server.public_url))
    web_app = ReplaceableAsgiApp(_create_asgi_app_of_pages_and_check_ins(app, app.loaded_config, mcp_app))

    def prepare_page_app_replacement(loaded_config: LoadedConfig) -> WebChange:
        config, replacement = loaded_config.config, _create_asgi_app_of_pages_and_check_ins(app, loaded_config, mcp_app)

        def replace_page_app_and_end_subscriptions() -> None:
            web_app.current_app, context.probes = replacement, config.probes
            mcp_app.allow(*list_allowed_hosts_and_origins(started_server.listen, config.server.public_url))
            app.transition_feed.end_subscriptions()  # clients connect again, to the replacement

        return replace_page_app_and_end_subscriptions

    app.web_change_preparations.append(prepare_page_app_replacement)
    return web_app


def _create_asgi_app_of_pages_and_check_ins(
    app: RunningWatchdogService, loaded_config: LoadedConfig, mcp_app: McpAsgiApp
) -> ASGIApp:
    from watchdog.web import ApiKey, StatusPageConfig, create_web_app
    from watchdog.web.routes.check_ins import CheckInMiddleware
    from watchdog.web.routes.slack import build_slack_interactivity

    config = loaded_config.config
    matcher = config.status_page.match.to_probe_matcher()
    status_page = StatusPageConfig(
        title=config.status_page.title,
        includes_probe=lambda probe: not matcher.describe_mismatch(probe),
        group_order=tuple(config.status_page.groups),
        probe_order=tuple(probe.id for probe in config.probes),
        history_ms=config.status_page.history,
    )
    notifiers = config.build_notifiers_by_destination()
    pages = create_web_app(
        run_read_query=app.store_executor.run_read_query,
        run_act=partial(run_act_and_send, app.store_executor, app.service.notification_sender),
        get_site_notice=lambda: app.notice,
        config_actions=app.config_actions,
        clock=app.clock,
        not_ready_reason=app.service.describe_not_ready_reason,
        describe_probing_without_store=app.service.describe_probing_without_store,
        list_notes=lambda show_names: app.service.lease_keeper.list_own_process_conflict_notes(show_names=show_names),
        list_background_tasks=app.service.tasks.values,
        status_page=status_page,
        api_keys=[ApiKey(key.name, key.role, key.key.get_secret_value()) for key in config.access.api_keys],
        destination_addresses={destination: notifier.recipient for destination, notifier in notifiers.items()},
        config_warnings=[str(warning) for warning in loaded_config.warnings],
        collect_process_metrics=lambda: collect_watchdog_activity_metrics(app.service, app.reload_counts),
        mcp_app=mcp_app,
        slack=build_slack_interactivity(notifiers, app.network),
        receiver_tester=ReceiverTester(app.service.notification_sender),
        check_in_addresses=map_heartbeats_to_check_in_addresses(config),
        has_run_effect=lambda probe: app.loaded_config.config.has_run_effect(probe),  # noqa: PLW0108 - reloads
        transition_feed=app.transition_feed,
    )
    accept_check_in = app.check_in_receiver.accept_check_in

    async def find_probe_id(token: str) -> str | None:
        digest, now = digest_json(token), app.clock()
        return await app.store_executor.run_read_query(lambda c: find_probe_id_by_check_in_token_digest(c, digest, now))

    return CheckInMiddleware(
        pages, map_check_in_tokens_to_probe_ids(config.probes), accept_check_in, app.clock, find_probe_id
    )


def create_web_server(app: RunningWatchdogService, listen_socket: socket.socket) -> WebServer:
    """The web server of a running service, which serves while its `async with` block runs."""
    guard = InboundConnectionGuard(
        InboundConnectionLimits.from_process_limits(), TrustedProxies(app.loaded_config.config.server.trusted_proxies)
    )

    def prepare_trusted_proxies_change(loaded_config: LoadedConfig) -> WebChange:
        return partial(setattr, guard, "trusted_proxies", TrustedProxies(loaded_config.config.server.trusted_proxies))

    app.web_change_preparations.append(prepare_trusted_proxies_change)
    return WebServer(create_asgi_app(app), listen_socket, guard, app.transition_feed.end_subscriptions)


async def serve_until_shutdown(
    loaded_config: LoadedConfig, listen_socket: socket.socket, config_path: Path, signatures: FileSignatures
) -> None:
    """Run the service, and its pages on this socket, until a shutdown signal. SIGHUP reloads the configuration, and so
    does a change of its files. `signatures`: of the files when `loaded_config` was read."""
    reload_requested = asyncio.Event()
    shutdown = install_shutdown_event(on_hangup=reload_requested.set)
    async with start_watchdog_service_and_stop_on_exit(loaded_config) as app:
        reloader = ConfigReloader(
            *(loaded_config, config_path, app.apply_config, app.service.fault_reporter),
            clock=app.clock,
            signatures=signatures,
            requested=reload_requested,
            on_result=app.reload_counts.count,
        )
        editor = ManagedProbeEditor(
            *(config_path, lambda: reloader.loaded_config, reloader.reload, app.network), clock=app.clock
        )
        check = PostedConfigChecker(config_path, loaded_config.mask).check
        app.config_actions = RunningConfigActions(reloader.reload, check, editor)
        async with create_web_server(app, listen_socket):
            log_config_warnings(loaded_config)
            log.info(
                "started",
                url=f"http://{format_socket_address(listen_socket.getsockname())}/",
                probe_count=len(loaded_config.config.probes),
                destination_count=len(loaded_config.config.build_notifiers_by_destination()),
                member=app.service.lease_keeper.membership.member_id,
                revision=app.service.lease_keeper.membership.revision,
            )
            tasks = [asyncio.create_task(keep_heap_small()), asyncio.create_task(reloader.run_forever())]
            await shutdown.wait()
            for task in tasks:
                task.cancel()
            log.info("stopping")
    log.info("stopped")
