"""What of a configuration the running service works with, at the start and after a reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from watchdog.config.load import LoadedConfig
from watchdog.config.models import Config
from watchdog.domain.own_network import get_endpoint_host
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import Notifier
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import Probe
from watchdog.probes.service import WatchdogSelfProbe
from watchdog.service.absence_record import StoreAbsenceRecordFile
from watchdog.service.clock import Clock
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.direct_notices import StoreAbsenceNotifier
from watchdog.service.remediation import RemediationRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.read.destinations import load_watchdog_fault_facts
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.members import WatchdogProcessMembership
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.remediations import RemediationStore


@dataclass(frozen=True, slots=True)
class ReloadableServiceParts:
    """Immutable: a reload replaces it as a whole, at one point between two claims."""

    probes: Mapping[int, Probe]
    """By database id, with the built-in one."""
    notifiers: Mapping[str, Notifier]
    """By destination."""
    public_url: str
    connectivity_check: ConnectivityCheck


def build_watchdog_self_probe(
    store_executor: StoreExecutor, destinations: Iterable[str], clock: Callable[[], int]
) -> WatchdogSelfProbe:
    """The built-in probe, which observes these destinations."""
    names = sorted(destinations)

    async def load_fault_facts_of_destinations() -> dict[str, WatchdogFaultFacts]:
        return await store_executor.run_read_query(
            lambda connection: load_watchdog_fault_facts(connection, names, clock())
        )

    return WatchdogSelfProbe(load_facts=load_fault_facts_of_destinations)


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


def preload_probe_modules(config: Config) -> None:
    """Import what the probes and their remediations need, before anything runs."""
    for probe in config.probes:
        probe.preload()
        if probe.remediation_action is not None:
            probe.remediation_action.preload()


def map_database_ids_to_probes(registry: InMemoryProbeRegistry, configured_probes: Iterable[Probe]) -> dict[int, Probe]:
    """Those that are registered."""
    by_id = {probe.id: probe for probe in configured_probes}
    return {
        database_id: by_id[probe.info.id] for database_id, probe in registry.configured_probes_by_database_id.items()
    }


def map_heartbeats_to_database_ids(probes: Mapping[int, Probe]) -> dict[str, int]:
    """Probe id -> database id."""
    return {probe.id: database_id for database_id, probe in probes.items() if isinstance(probe, HeartbeatProbe)}


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
        record_file=StoreAbsenceRecordFile(loaded_config.config.storage.store_absence_record_path),
        is_lowest_member=membership.is_lowest_live_process,
        may_notify=membership.has_newest_definition_of_destination,
    )


def build_remediation_runner(
    probes: Mapping[int, Probe],
    registry: InMemoryProbeRegistry,
    store_executor: StoreExecutor,
    network: NetworkAccess,
    *,
    mask: SecretMask,
    clock: Clock,
) -> RemediationRunner:
    """Also if no probe has a remediation yet."""
    store = RemediationStore(store_executor.database, registry)
    return RemediationRunner(
        store=store, store_executor=store_executor, probes=probes, network=network, mask=mask, clock=clock
    )
