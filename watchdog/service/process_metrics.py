"""What this process alone knows of itself, for /metrics and the page /service. store/read/metrics.py reads what all
processes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from watchdog.domain.model import ProbeInfo
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_KIND
from watchdog.service.config_reload import ConfigReloadCounts
from watchdog.service.counters import DeliveryResultKind, DurationHistogram, ProbeRunCounters
from watchdog.service.scheduler import MonitoringService


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogActivityMetrics:
    """Counts since the process was started. The counts themselves go on while another thread reads them."""

    member_id: str = ""
    """Of this process among those that share the database."""
    started_at: int | None = None
    """When this process started, in epoch ms; None: that is not known."""
    run_counts: Sequence[tuple[ProbeInfo, ProbeRunCounters]] = ()
    """Of every probe of this process that is not retired."""
    delivery_counts: Mapping[tuple[str, DeliveryResultKind], int] = field(default_factory=dict)
    """By destination, such as "oncall/slack", and result; every destination of this process with every result."""
    tick_durations: Mapping[str, DurationHistogram] = field(default_factory=dict)
    """By background task."""
    reload_counts: ConfigReloadCounts = field(default_factory=ConfigReloadCounts)
    scheduler_lag_ms: int | None = None
    """For how long due slots have waited to be claimed at most; None: this process has not claimed any yet."""


def collect_watchdog_activity_metrics(
    service: MonitoringService, reload_counts: ConfigReloadCounts
) -> WatchdogActivityMetrics:
    """In the event loop: the probes and destinations may change between two calls."""
    registry, counts = service.lease_keeper.membership.registry, service.run_executor.counts_by_probe
    registered = [(registry.get(id), counts[id]) for id in service.probes if id in counts]
    sender, claimed_until = service.notification_sender, service.claims.watermark.claimed_until
    return WatchdogActivityMetrics(
        member_id=service.lease_keeper.membership.member_id,
        started_at=service.lease_keeper.started_at,
        run_counts=[
            (probe.info, run_counts)
            for probe, run_counts in registered
            if probe is not None and probe.info.kind != WATCHDOG_SELF_PROBE_KIND
        ],
        delivery_counts={
            (destination, result): sender.delivery_counts[destination, result]
            for destination in sender.notifiers
            for result in DeliveryResultKind
        },
        tick_durations={name: task.run_durations for name, task in service.tasks.items()},
        reload_counts=reload_counts,
        scheduler_lag_ms=None if claimed_until is None else max(service.clock() - claimed_until, 0),
    )
