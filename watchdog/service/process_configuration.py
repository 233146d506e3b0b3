"""What a process with a configuration brings to the database, and what configurations are compared by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from watchdog.config.definitions import ConfigDigests, digest_json
from watchdog.config.load import LoadedConfig
from watchdog.config.muting import map_muting_probes_by_probe_id
from watchdog.domain.config_changes import ComparableConfigSnapshot, ConfigSectionSnapshot, ProbeConfigSnapshot
from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.membership import ProcessLeaseKeeper, make_watchdog_process_id
from watchdog.service.registration import build_registered_probe
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.members import WatchdogProcessConfiguration, WatchdogProcessMembership


def build_watchdog_process_configuration(
    loaded_config: LoadedConfig,
    configured_probes: Sequence[Probe],
    started_sections: Mapping[str, ConfigSectionSnapshot] = {},
) -> WatchdogProcessConfiguration:
    """`configured_probes`: those of the configuration, and the built-in one, which observes the destinations.
    `started_sections`: those of this process alone, as of its start, if this is a reload."""
    definitions, routes = ConfigDigests(loaded_config), _build_notification_routing_table(loaded_config)
    muting_probes = map_muting_probes_by_probe_id(loaded_config.config)
    destinations, probe_definitions = definitions.compute_destination_digests(), definitions.compute_probe_digests()
    registered_probes = [
        build_registered_probe(
            probe,
            loaded_config.probe_yaml.get(probe.id, ""),
            loaded_config.mask,
            routes,
            probe_definitions.get(probe.id) or digest_json(sorted(destinations)),
            muting_probes=muting_probes.get(probe.id, ()),
        )
        for probe in configured_probes
    ]
    tokens = map_check_in_tokens_to_probe_ids(configured_probes)
    token_digests = {digest_json(token): probe_id for token, probe_id in tokens.items()}
    return WatchdogProcessConfiguration(
        definitions.digest,
        registered_probes,
        routes,
        destinations=destinations,
        check_in_tokens=token_digests,
        sections=definitions.build_config_section_snapshots(of_one_process=False),
        own_sections={
            name: section._replace(started_fields=started_sections[name].fields)
            if name in started_sections
            else section
            for name, section in definitions.build_config_section_snapshots(of_one_process=True).items()
        },
        maintenance_windows=[window.to_configured_window() for window in loaded_config.config.maintenance],
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
    without_reminders = frozenset(
        destination
        for destination, notifier in config.build_notifiers_by_destination().items()
        if notifier.repeats_alerts
    )
    routes = tuple(route.to_notification_route() for route in config.routes)
    return NotificationRoutingTable(destinations, routes, without_resolved, without_reminders)


def map_check_in_tokens_to_probe_ids(probes: Iterable[Probe]) -> dict[str, str]:
    """Token -> probe id."""
    return {probe.heartbeat.token.get_secret_value(): probe.id for probe in probes if isinstance(probe, HeartbeatProbe)}


def build_loaded_config_snapshot(loaded_config: LoadedConfig) -> ComparableConfigSnapshot:
    """What a loaded configuration is compared by."""
    return build_config_snapshot(build_watchdog_process_configuration(loaded_config, loaded_config.config.probes))


def build_config_snapshot(configuration: WatchdogProcessConfiguration) -> ComparableConfigSnapshot:
    """What a configuration is compared by."""
    return ComparableConfigSnapshot(
        {
            probe.info.id: ProbeConfigSnapshot(probe.info, probe.config_yaml, probe.content_digest, probe.definition)
            for probe in configuration.probes
            if probe.info.id != WATCHDOG_SELF_PROBE_ID
        },
        configuration.destinations,
        configuration.routes,
        {**configuration.sections, **configuration.own_sections},
    )


async def join_and_create_process_lease_keeper(
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
    await lease_keeper.acquire_process_lease()
    return lease_keeper
