"""What the public status page reads from the store, and its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.maintenance import MaintenancePeriods
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.model import ProbeInfo
from watchdog.domain.watermark import is_watermark_current
from watchdog.store.read.history import (
    IncidentInterval,
    PauseInterval,
    list_incident_intervals,
    list_pause_intervals,
    load_days_with_judged_results,
)
from watchdog.store.read.maintenance import list_maintenance_with_probes, load_maintenance_periods
from watchdog.store.read.status import (
    Connection,
    ProbeStatus,
    WatchdogStatus,
    list_probe_statuses,
    load_watchdog_status,
)
from watchdog.web.pages.status_selection import (
    PaginatedStatusPageServices,
    StatusPageGroupAndPageNumber,
    paginate_status_page_services,
)

MAX_LOADED_MAINTENANCE_WINDOWS = 50
"""The page shows fewer: those of probes that it does not show are left out."""
STATUS_PAGE_ALL_GROUPS_FIRST_PAGE = StatusPageGroupAndPageNumber()


@dataclass(frozen=True, slots=True)
class StatusPageConfig:
    """Which probes the page shows, and in which order."""

    title: str = "Status"
    includes_probe: Callable[[ProbeInfo], bool] = lambda _: True
    group_order: tuple[str, ...] = ()
    """Groups that are not listed follow by name."""
    probe_order: tuple[str, ...] = ()
    """Probe ids in the order of the configuration, which is the order within a group."""
    history_ms: int = 90 * DAY_MS

    @property
    def day_count(self) -> int:
        """How many days the bars show."""
        return max(1, self.history_ms // DAY_MS)


@dataclass(frozen=True, slots=True)
class StatusPageDataFromStore:
    """Everything that one rendering of the page needs, as of `read_at`."""

    read_at: int
    service_status: WatchdogStatus
    probe_statuses: tuple[ProbeStatus, ...]
    """Of the probes that the page shows, in its order."""
    incident_intervals: tuple[IncidentInterval, ...]
    pause_intervals: tuple[PauseInterval, ...]
    selection: PaginatedStatusPageServices
    measured_days: dict[int, set[int]]
    """Listed probe -> the days (since the epoch) on which any run had a verdict."""
    maintenance_periods: Mapping[int, MaintenancePeriods]
    """Of the listed probes; those that were never in maintenance are missing."""
    maintenance: tuple[tuple[MaintenanceWindow, tuple[str, ...]], ...]
    """The windows in effect and the next ones, with the names of the probes that the page shows, if any."""

    @property
    def are_states_current(self) -> bool:
        """Whether Watchdog runs its probes; otherwise no state is current."""
        return is_watermark_current(self.service_status.watermark, self.read_at)


def load_status_page_snapshot(
    connection: Connection,
    config: StatusPageConfig,
    now: int,
    view: StatusPageGroupAndPageNumber = STATUS_PAGE_ALL_GROUPS_FIRST_PAGE,
) -> StatusPageDataFromStore:
    rank = {probe_id: i for i, probe_id in enumerate(config.probe_order)}
    statuses = list_probe_statuses(connection, now=now, with_silences=False)
    included = [status for status in statuses if config.includes_probe(status.probe)]
    included.sort(key=lambda status: rank.get(status.probe.id, len(rank)))
    ids = {status.probe.database_id for status in included}
    selection = paginate_status_page_services(included, config.group_order, view)
    start = (now // DAY_MS - config.day_count + 1) * DAY_MS
    return StatusPageDataFromStore(
        read_at=now,
        service_status=load_watchdog_status(connection),
        probe_statuses=tuple(included),
        incident_intervals=tuple(i for i in list_incident_intervals(connection, start) if i.probe in ids),
        pause_intervals=tuple(i for i in list_pause_intervals(connection, start) if i.probe in ids),
        selection=selection,
        measured_days=load_days_with_judged_results(connection, selection.listed_ids, start, now),
        maintenance_periods=load_maintenance_periods(connection, selection.listed_ids, since=start),
        maintenance=tuple(_list_shown_maintenance(connection, included, now)),
    )


def _list_shown_maintenance(
    connection: Connection, included: Sequence[ProbeStatus], now: int
) -> Iterator[tuple[MaintenanceWindow, tuple[str, ...]]]:
    probes = [status.probe for status in included]
    for window, ids in list_maintenance_with_probes(connection, now, MAX_LOADED_MAINTENANCE_WINDOWS, probes):
        if names := tuple(status.probe.name for status in included if status.probe.database_id in ids):
            yield window, names
