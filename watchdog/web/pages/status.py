"""The public status page: names, groups, states and times only, never a target, message, reason or evidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_date,
    format_duration,
    format_duration_rounded,
)
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.model import HealthState
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.store.read.status import ProbeStatus
from watchdog.web.pages.list_page import PageNumberPagination
from watchdog.web.pages.status_selection import StatusPageGroupAndPageNumber
from watchdog.web.pages.status_services import (
    STATUS_PAGE_SINGULAR_STATE_PHRASES,
    StatusPageServiceGroup,
    StatusPageServiceStatus,
    build_status_page_services,
    find_overall_status_page_state,
    format_status_headline,
    format_status_subtitle,
    group_status_page_services,
)
from watchdog.web.pages.status_snapshot import StatusPageConfig, StatusPageDataFromStore
from watchdog.web.pages.timeline import (
    HealthStateInterval,
    merge_touching_intervals_into_worst_state,
)
from watchdog.web.times import render_time_of_day, render_timestamp

MAX_PAST_INCIDENTS_ON_STATUS_PAGE, MAX_TROUBLED_DAYS_ON_STATUS_PAGE = 10, 200
MAX_OPEN_INCIDENTS_ON_STATUS_PAGE = 50
MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE, MAX_NAMES_PER_MAINTENANCE_WINDOW = 10, 3
STATUS_PAGE_PAST_STATE_PHRASES = {
    HealthState.DEGRADED: "was degraded",
    HealthState.DOWN: "was down",
    HealthState.UNKNOWN: "had no data",
}
STATUS_PAGE_PROBLEM_SENTENCE_BY_STATE = {
    HealthState.DOWN: "{} is not working.",
    HealthState.DEGRADED: "{} is working, but some features are impaired.",
    HealthState.UNKNOWN: "{} cannot be fully monitored.",
}


@dataclass(frozen=True, slots=True)
class OpenIncidentsOfStatusPageService:
    """All open incidents of one service, as one entry."""

    title: str
    state: HealthState
    since: int
    state_changes: tuple[tuple[HealthState, int, str], ...]
    """(state, since, explanation) of each state with an open incident, newest first."""


@dataclass(frozen=True, slots=True)
class StatusPageMaintenance:
    """A maintenance window in effect or to come."""

    title: str
    starts_at: int
    state_text: Markup
    """ "In progress until 04:30", "Starts in 2 h, until 04:30"."""
    services_text: str
    """ "API, Search", "12 services"."""


@dataclass(frozen=True, slots=True)
class StatusPagePastIncident:
    started_at: int
    title: str
    duration_text: Markup


@dataclass(frozen=True, slots=True)
class StatusPageTroubledDay:
    """A day on which a service was not fully up, or several days in a row without data."""

    day_text: str
    service_name: str
    state: HealthState
    down_ms: int
    degraded_ms: int


@dataclass(frozen=True, slots=True)
class StatusPage:
    state: HealthState
    is_in_maintenance: bool
    """Nothing is wrong, and a service is in maintenance."""
    headline: str
    subtitle: str
    checked_at: int | None
    """When the newest result with a verdict was stored."""
    day_count: int
    open_incidents: tuple[OpenIncidentsOfStatusPageService, ...]
    """At most MAX_OPEN_INCIDENTS_ON_STATUS_PAGE."""
    open_incident_count: int
    maintenance: tuple[StatusPageMaintenance, ...]
    """At most MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE, by their start."""
    view: StatusPageGroupAndPageNumber
    pagination: PageNumberPagination
    groups: tuple[StatusPageServiceGroup, ...]
    """Empty if the page shows no probe."""
    troubled_days: tuple[StatusPageTroubledDay, ...]
    past_incidents: tuple[StatusPagePastIncident, ...]


def build_status_page(snapshot: StatusPageDataFromStore, config: StatusPageConfig) -> StatusPage:
    """The page as of the snapshot. While Watchdog does not run its probes, every service is without data."""
    now = snapshot.read_at
    services = build_status_page_services(snapshot, config.day_count)
    open_statuses = [status for status in snapshot.probe_statuses if status.state in STATUS_PAGE_SINGULAR_STATE_PHRASES]
    checked_times = [
        status.latest_result.recorded_at
        for status in snapshot.probe_statuses
        if status.latest_result and status.latest_result.slot == status.last_judged_slot
    ]
    open_incidents = open_statuses if snapshot.are_states_current else []
    state = find_overall_status_page_state(services)
    return StatusPage(
        state=state,
        is_in_maintenance=state is HealthState.UP and any(service.is_in_maintenance for service in services),
        headline=format_status_headline(services),
        subtitle=format_status_subtitle(services, snapshot.incident_intervals, now),
        checked_at=max(checked_times, default=None),
        day_count=config.day_count,
        open_incidents=tuple(
            map(_build_open_incidents_summary_of_probe, open_incidents[:MAX_OPEN_INCIDENTS_ON_STATUS_PAGE])
        ),
        open_incident_count=len(open_incidents),
        maintenance=tuple(
            _build_status_page_maintenance(window, names, now)
            for window, names in snapshot.maintenance[:MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE]
        ),
        view=snapshot.selection.view,
        pagination=snapshot.selection.pagination,
        groups=group_status_page_services(services, snapshot.selection),
        troubled_days=_list_troubled_days([service for service in services if service.is_listed], now),
        past_incidents=_list_past_incidents_on_status_page(snapshot, now),
    )


def _build_status_page_maintenance(
    window: MaintenanceWindow, names: Sequence[str], now: int
) -> StatusPageMaintenance:  # fmt: skip
    """What people wrote about a window that they began is not public."""
    end = Markup("until {}").format(render_timestamp(window.ends_at, now))
    starts_in = format_duration_rounded(max(window.starts_at - now, 1_000))
    are_few = len(names) <= MAX_NAMES_PER_MAINTENANCE_WINDOW
    return StatusPageMaintenance(
        title=window.name or "Maintenance",
        starts_at=window.starts_at,
        state_text=Markup("{} {}").format("In progress" if window.starts_at <= now else f"Starts in {starts_in},", end),
        services_text=", ".join(names) if are_few else f"{len(names)} services",
    )


def _build_open_incidents_summary_of_probe(status: ProbeStatus) -> OpenIncidentsOfStatusPageService:
    since: dict[HealthState, int] = {}
    for incident in status.open_incidents:
        state = INCIDENT_HEALTH_STATE_BY_RULE[incident.rule]
        since[state] = min(incident.since, since.get(state, incident.since))
    name = status.probe.name
    changes = [(state, at, STATUS_PAGE_PROBLEM_SENTENCE_BY_STATE[state].format(name)) for state, at in since.items()]
    return OpenIncidentsOfStatusPageService(
        title=f"{name} {STATUS_PAGE_SINGULAR_STATE_PHRASES[status.state]}",
        state=status.state,
        since=since[status.state],
        state_changes=tuple(sorted(changes, key=lambda change: -change[1])),
    )


def _list_troubled_days(services: Iterable[StatusPageServiceStatus], now: int) -> tuple[StatusPageTroubledDay, ...]:
    """Newest first. Days without data before the first day with data are left out."""
    troubled: list[tuple[int, StatusPageTroubledDay]] = []
    for service in services:
        covered = [i for i, day in enumerate(service.days) if day.state is not HealthState.UNKNOWN]
        days = service.days[covered[0] :] if covered else ()
        for i, day in enumerate(days):
            continues_gap = day.state is HealthState.UNKNOWN and days[i - 1].state is HealthState.UNKNOWN
            if day.state is HealthState.UP or continues_gap:
                continue
            day_text = format_date(day.start, now)
            if day.state is HealthState.UNKNOWN:
                end = next((j for j in range(i, len(days)) if days[j].state is not HealthState.UNKNOWN), len(days))
                day_text += f" to {format_date(days[end - 1].start, now)}" if end - 1 > i else ""
            troubled.append(
                (day.start, StatusPageTroubledDay(day_text, service.name, day.state, day.down_ms, day.degraded_ms))
            )
    troubled.sort(key=lambda entry: -entry[0])
    return tuple(day for _, day in troubled[:MAX_TROUBLED_DAYS_ON_STATUS_PAGE])


def _list_past_incidents_on_status_page(
    snapshot: StatusPageDataFromStore, now: int
) -> tuple[StatusPagePastIncident, ...]:
    """Newest first. Incidents of one service that overlap are one entry."""
    resolved: defaultdict[int, list[HealthStateInterval]] = defaultdict(list)
    for incident in snapshot.incident_intervals:
        if incident.resolved_at is not None:
            state = INCIDENT_HEALTH_STATE_BY_RULE[incident.rule]
            resolved[incident.probe].append(HealthStateInterval(state, incident.since, incident.resolved_at))
    episodes = [
        (episode, status.probe.name)
        for status in snapshot.probe_statuses
        if status.probe.database_id in resolved
        for episode in merge_touching_intervals_into_worst_state(resolved[status.probe.database_id])
    ]
    episodes.sort(key=lambda entry: -entry[0].start)
    return tuple(
        StatusPagePastIncident(
            episode.start,
            f"{name} {STATUS_PAGE_PAST_STATE_PHRASES[episode.state]}",
            _format_incident_duration_start_and_stop(episode, now),
        )
        for episode, name in episodes[:MAX_PAST_INCIDENTS_ON_STATUS_PAGE]
    )


def _format_incident_duration_start_and_stop(episode: HealthStateInterval, now: int) -> Markup:
    """ "14 min, 09:02 to 09:16"; with seconds if it was short, and with dates if it lasted over a day."""
    if episode.length < DAY_MS:
        is_short = episode.length < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
        start, stop = (render_time_of_day(at, seconds=is_short) for at in (episode.start, episode.stop))
    else:
        start, stop = (render_timestamp(at, now) for at in (episode.start, episode.stop))
    return Markup("{}, {} to {}").format(format_duration(episode.length), start, stop)
