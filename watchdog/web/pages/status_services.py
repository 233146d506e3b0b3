"""The services on the status page: their state, days and uptime, and the sentences about all of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    NBSP,
    format_count_with_noun,
    format_date,
    format_duration,
    format_duration_rounded,
)
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS
from watchdog.domain.model import HealthState
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.store.read.history import IncidentInterval
from watchdog.store.read.status import ProbeStatus
from watchdog.web import row_charts
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.status_selection import PaginatedStatusPageServices
from watchdog.web.pages.status_snapshot import StatusPageDataFromStore
from watchdog.web.pages.timeline import (
    DailyUptime,
    HealthStateInterval,
    compute_daily_uptime,
    compute_uptime_basis_points,
)
from watchdog.web.times import render_time_or_date

NO_DAY_BARS_MARKUP = Markup()
HEALTH_STATES_WORST_FIRST = (HealthState.DOWN, HealthState.DEGRADED, HealthState.UNKNOWN)

STATUS_PAGE_SINGULAR_STATE_PHRASES = {HealthState.DEGRADED: "is degraded", HealthState.DOWN: "is down"}
STATUS_PAGE_PLURAL_STATE_PHRASES = {HealthState.DEGRADED: "are degraded", HealthState.DOWN: "are down"}


class StatusPageServiceStatus(NamedTuple):
    """A probe under its public name."""

    name: str
    state: HealthState
    label: str
    """Replaces the label of the state, if not empty."""
    group: str
    days: tuple[DailyUptime, ...] = ()
    bars: Markup = NO_DAY_BARS_MARKUP
    uptime: str = ""
    uptime_coverage: str = ""
    """ "34 of 90 days", if there is no data for some of them."""
    is_in_maintenance: bool = False
    """It is in maintenance, and nothing is wrong with it."""
    is_listed: bool = True
    """Whether this view lists it; otherwise it has no label and no history."""


@dataclass(frozen=True, slots=True)
class StatusPageServiceGroup:
    group: str
    """As configured."""
    name: str
    """As shown; empty if there is no other group."""
    summary: str
    services: tuple[StatusPageServiceStatus, ...]
    """Those that are listed."""
    service_count: int


def build_status_page_services(snapshot: StatusPageDataFromStore, day_count: int) -> list[StatusPageServiceStatus]:
    intervals: defaultdict[int, list[HealthStateInterval]] = defaultdict(list)
    for incident in snapshot.incident_intervals:
        stop = snapshot.read_at if incident.resolved_at is None else incident.resolved_at
        interval = HealthStateInterval(INCIDENT_HEALTH_STATE_BY_RULE[incident.rule], incident.since, stop)
        intervals[incident.probe].append(interval)
    for pause in snapshot.pause_intervals:
        stop = snapshot.read_at if pause.ended_at is None else pause.ended_at
        intervals[pause.probe].append(HealthStateInterval(HealthState.PAUSED, pause.started_at, stop))
    are_states_current, listed_ids = snapshot.are_states_current, snapshot.selection.listed_ids
    services = []
    for status in snapshot.probe_statuses:
        probe, state = status.probe, status.state if are_states_current else HealthState.UNKNOWN
        service = StatusPageServiceStatus(
            probe.name, state, "", probe.group,
            is_in_maintenance=status.maintenance_ends_at is not None and state is HealthState.UP, is_listed=False,
        )  # fmt: skip
        if probe.database_id in listed_ids:
            probe_intervals = intervals.get(probe.database_id, ())
            service = _add_label_and_history(service, status, probe_intervals, snapshot, day_count)
        services.append(service)
    return services


def _add_label_and_history(
    service: StatusPageServiceStatus, status: ProbeStatus, intervals: Sequence[HealthStateInterval],
    snapshot: StatusPageDataFromStore, day_count: int,
) -> StatusPageServiceStatus:  # fmt: skip
    now, state = snapshot.read_at, service.state
    measured_days = snapshot.measured_days[status.probe.database_id]
    maintenance = snapshot.maintenance_periods.get(status.probe.database_id, NO_MAINTENANCE_PERIODS)
    days = compute_daily_uptime(intervals, measured_days, status.created_at, now, day_count, maintenance=maintenance)
    covered_count = sum(day.state is not HealthState.UNKNOWN for day in days)
    bars = [(day.state, _format_day_title(day, state, now)) for day in days]
    return service._replace(
        label=_format_state_label(status, state, now),
        days=tuple(days),
        bars=row_charts.render_day_bars(bars, _describe_day_bars(service.name, days)),
        uptime=format_basis_points_as_percent(compute_uptime_basis_points(days)),
        uptime_coverage="" if covered_count == day_count else f"{covered_count} of {day_count}{NBSP}days",
        is_listed=True,
    )


def _format_state_label(status: ProbeStatus, state: HealthState, now: int) -> str:
    """Empty if the name of the state is enough."""
    label: str = ""
    if state is HealthState.UNKNOWN:
        since = status.last_judged_slot
        label = "No data yet" if since is None else Markup("No data since {}").format(render_time_or_date(since, now))
    if status.maintenance_ends_at is None or state is HealthState.PAUSED:
        return label
    if state is HealthState.UP:
        return "In maintenance"
    return Markup("{}, in maintenance").format(label or PAGE_HEALTH_STATE_LABELS[state])


def format_basis_points_as_percent(basis_points: int | None) -> str:
    """9_995 -> "99.95 %", 9_900 -> "99 %"; empty for None."""
    if basis_points is None:
        return ""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02}{NBSP}%" if rest else f"{whole}{NBSP}%"


def _format_day_title(day: DailyUptime, current_state: HealthState, now: int) -> str:
    """ "13 Nov: down 14 min"; empty for a day without problems."""
    if not day.down_ms and not day.degraded_ms:
        return ""
    durations = ((HealthState.DOWN, day.down_ms), (HealthState.DEGRADED, day.degraded_ms))
    parts = [f"{state.value} {format_duration(ms)}" for state, ms in durations if ms]
    so_far = " so far" if now - day.start < DAY_MS and current_state is day.state else ""
    return f"{format_date(day.start, now)}: {', '.join(parts)}{so_far}"


def _describe_day_bars(name: str, days: Sequence[DailyUptime]) -> str:
    """The bars in words, for screen readers."""
    descriptions = {
        HealthState.UP: "up",
        HealthState.DEGRADED: "degraded",
        HealthState.DOWN: "with downtime",
        HealthState.UNKNOWN: "without data",
    }
    counts = {state: sum(day.state is state for day in days) for state in descriptions}
    parts = [
        f"{format_count_with_noun(count, 'day')} {descriptions[state]}" for state, count in counts.items() if count
    ]
    return f"{name}, last {len(days)} days: {', '.join(parts)}"


def find_overall_status_page_state(services: Iterable[StatusPageServiceStatus]) -> HealthState:
    """Down before degraded before no data before up; paused only if all are."""
    states = {service.state for service in services}
    precedence = (*HEALTH_STATES_WORST_FIRST, HealthState.UP, HealthState.PAUSED)
    return next((state for state in precedence if state in states), HealthState.UNKNOWN)


def format_status_headline(services: Sequence[StatusPageServiceStatus]) -> str:
    """ "API is down, Search is degraded"; a count if more than two services share a state."""
    if all(service.state is HealthState.UNKNOWN for service in services):
        has_history = any(day.measured_ms for service in services for day in service.days)
        return "No current data" if has_history else "No data yet"
    parts = []
    for state in (HealthState.DOWN, HealthState.DEGRADED):
        names = [service.name for service in services if service.state is state]
        if len(names) > 2:
            parts.append(f"{len(names)} of {len(services)} services {STATUS_PAGE_PLURAL_STATE_PHRASES[state]}")
        elif names:
            phrases = STATUS_PAGE_SINGULAR_STATE_PHRASES if len(names) == 1 else STATUS_PAGE_PLURAL_STATE_PHRASES
            parts.append(f"{' and '.join(names)} {phrases[state]}")
    if parts:
        return ", ".join(parts)
    without_data = [service.name for service in services if service.state is HealthState.UNKNOWN]
    if not without_data:
        return _format_headline_if_no_service_has_problem(services)
    names_text = " and ".join(without_data) if len(without_data) <= 2 else f"{len(without_data)} services"
    return f"No data from {names_text}"


def _format_headline_if_no_service_has_problem(services: Sequence[StatusPageServiceStatus]) -> str:
    in_maintenance = [service.name for service in services if service.is_in_maintenance]
    if len(in_maintenance) > 2:
        return f"{len(in_maintenance)} of {len(services)} services are in maintenance"
    if in_maintenance:
        return f"{' and '.join(in_maintenance)} {'is' if len(in_maintenance) == 1 else 'are'} in maintenance"
    is_paused = services and all(service.state is HealthState.PAUSED for service in services)
    return "Monitoring is paused" if is_paused else "All systems operational"


def format_status_subtitle(
    services: Sequence[StatusPageServiceStatus], incident_intervals: Sequence[IncidentInterval], now: int
) -> str:
    count_by_state = Counter([service.state for service in services])
    maintenance_count = sum([service.is_in_maintenance for service in services])
    away_counts = {"paused": count_by_state[HealthState.PAUSED], "in maintenance": maintenance_count}
    total = len(services) - sum(away_counts.values())
    away_text = "".join(
        f" {count} {'is' if count == 1 else 'are'} {name}." for name, count in away_counts.items() if count
    )
    up_count = count_by_state[HealthState.UP] - maintenance_count  # only a service that is up can be in maintenance
    unknown_count = count_by_state[HealthState.UNKNOWN]
    if up_count < total:
        text = f"{up_count} of {format_count_with_noun(total, 'service')} {'is' if up_count == 1 else 'are'} up."
        if 0 < unknown_count < total:
            text += f" {unknown_count} {'has' if unknown_count == 1 else 'have'} no data."
        return text + away_text
    text = (
        f"All {total} services are up."
        if total > 1
        else f"{_find_name_of_first_up_service(services)} is up."
        if up_count
        else ""
    )
    text = (text + away_text).lstrip()
    resolved_times = [incident.resolved_at for incident in incident_intervals if incident.resolved_at is not None]
    return text + (
        f" Last incident {format_duration_rounded(now - max(resolved_times))} ago." if resolved_times else ""
    )


def _find_name_of_first_up_service(services: Iterable[StatusPageServiceStatus]) -> str:
    return next(s.name for s in services if s.state is HealthState.UP and not s.is_in_maintenance)


def group_status_page_services(
    services: Sequence[StatusPageServiceStatus], selection: PaginatedStatusPageServices
) -> tuple[StatusPageServiceGroup, ...]:
    members_by_group: dict[str, list[StatusPageServiceStatus]] = {name: [] for name in selection.group_names}
    for service in services:
        if service.group in members_by_group:
            members_by_group[service.group].append(service)
    other = "Other" if len(selection.service_count_by_group) > 1 else ""
    return tuple(
        StatusPageServiceGroup(
            name,
            name or other,
            _summarize_service_group(members),
            tuple(service for service in members if service.is_listed),
            len(members),
        )
        for name, members in members_by_group.items()
    )


def _summarize_service_group(services: Sequence[StatusPageServiceStatus]) -> str:
    """ "all up", "1 of 4 down", "1 of 4 down, 1 degraded"."""
    labels = {
        HealthState.DOWN: "down",
        HealthState.DEGRADED: "degraded",
        HealthState.UNKNOWN: "without data",
        HealthState.PAUSED: "paused",
    }
    count_by_state = Counter([service.state for service in services])
    counts = [(count_by_state[state], label) for state, label in labels.items()]
    counts.append((sum(service.is_in_maintenance for service in services), "in maintenance"))
    problems = [(count, label) for count, label in counts if count]
    if not problems:
        return "all up" if len(services) > 1 else "up"
    (first_count, first_label), *others = problems
    return ", ".join([f"{first_count} of {len(services)} {first_label}", *(f"{n} {label}" for n, label in others)])
