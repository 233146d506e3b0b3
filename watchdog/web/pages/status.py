"""The public status page: what was read becomes what is shown. Public words only: names, groups, states and times.

Nothing here looks at a target, a reason, a message or evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    NBSP,
    format_date,
    format_duration,
    format_duration_rounded,
    format_time_of_day,
    format_timestamp,
)
from watchdog.domain.model import HealthState, ProbeInfo
from watchdog.domain.rules import HEALTH_STATE_BY_RULE
from watchdog.store.read.history import IncidentInterval, list_incident_intervals, load_days_with_data
from watchdog.store.read.status import (
    MAX_WATERMARK_LAG_MS,
    Connection,
    ProbeStatus,
    ServiceStatus,
    list_probe_statuses,
    load_service_status,
)
from watchdog.web import charts
from watchdog.web.pages.timeline import (
    DaySummary,
    StateInterval,
    merge_adjacent_intervals,
    summarize_days,
    uptime_basis_points,
)

MAX_PAST_INCIDENTS, MAX_TROUBLED_DAYS = 10, 200
"""The most entries shown of past incidents, and of days with trouble."""

SINGULAR_STATE_PHRASES = {HealthState.DEGRADED: "is degraded", HealthState.DOWN: "is down"}
PLURAL_STATE_PHRASES = {HealthState.DEGRADED: "are degraded", HealthState.DOWN: "are down"}
PAST_STATE_PHRASES = {
    HealthState.DEGRADED: "was degraded",
    HealthState.DOWN: "was down",
    HealthState.UNKNOWN: "sent no data",
}


@dataclass(frozen=True, slots=True)
class StatusPageConfig:
    """What the public page is about."""

    title: str = "Status"
    includes_probe: Callable[[ProbeInfo], bool] = lambda _: True
    group_order: tuple[str, ...] = ()
    """In this order; the others follow by name."""
    probe_order: tuple[str, ...] = ()
    """Keys of probes in the order of the configuration, which is that within a group."""
    history_ms: int = 90 * DAY_MS


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """Everything that was read for one page."""

    read_at: int
    service_status: ServiceStatus
    probe_statuses: tuple[ProbeStatus, ...]
    incident_intervals: tuple[IncidentInterval, ...]
    measured_days: dict[int, set[int]]


def load_status_snapshot(connection: Connection, config: StatusPageConfig, now: int) -> StatusSnapshot:
    rank = {key: i for i, key in enumerate(config.probe_order)}
    shown = tuple(s for s in list_probe_statuses(connection) if config.includes_probe(s.probe))
    shown = tuple(sorted(shown, key=lambda s: rank.get(s.probe.id, len(rank))))
    ids = {s.probe.database_id for s in shown}
    start = (now // DAY_MS - history_days(config) + 1) * DAY_MS
    reaching = tuple(p for p in list_incident_intervals(connection, start) if p.probe in ids)
    return StatusSnapshot(
        now, load_service_status(connection), shown, reaching, load_days_with_data(connection, ids, start, now)
    )


def history_days(config: StatusPageConfig) -> int:
    """How many days the bars show."""
    return max(1, config.history_ms // DAY_MS)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One row: a probe under its public name."""

    name: str
    state: HealthState
    label: str
    """What stands beside the state's shape; empty: the state's own word."""
    group: str
    days: tuple[DaySummary, ...]
    bars: Markup
    uptime: str
    uptime_coverage: str
    """How much of the time that is, unless all."""


@dataclass(frozen=True, slots=True)
class ServiceGroup:
    name: str
    summary: str
    services: tuple[ServiceRow, ...]


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """Trouble that is not over, of one service."""

    title: str
    state: HealthState
    since: int
    state_changes: tuple[tuple[HealthState, int, str], ...]
    """Each state that it took and is still in part: (state, since, in words), newest first."""


@dataclass(frozen=True, slots=True)
class PastIncident:
    """Trouble that is over."""

    started_at: int
    title: str
    duration_text: str


@dataclass(frozen=True, slots=True)
class TroubledDay:
    """Days on which a service was not fully up."""

    day_text: str
    service_name: str
    state: HealthState
    down_ms: int
    degraded_ms: int


@dataclass(frozen=True, slots=True)
class StatusPageView:
    state: HealthState
    headline: str
    subtitle: str
    checked_at: int | None
    """When the newest result that passed or failed was stored."""
    day_count: int
    open_incidents: tuple[OpenIncident, ...]
    groups: tuple[ServiceGroup, ...]
    troubled_days: tuple[TroubledDay, ...]
    past_incidents: tuple[PastIncident, ...]


def build_status_page(snapshot: StatusSnapshot, config: StatusPageConfig) -> StatusPageView:
    """The page as of the snapshot's instant. Without any service shown, it has no groups."""
    now, watermark = snapshot.read_at, snapshot.service_status.watermark
    current = watermark is not None and now - watermark <= MAX_WATERMARK_LAG_MS
    spans: dict[int, list[StateInterval]] = {s.probe.database_id: [] for s in snapshot.probe_statuses}
    for p in snapshot.incident_intervals:
        spans[p.probe].append(
            StateInterval(HEALTH_STATE_BY_RULE[p.rule], p.since, now if p.resolved_at is None else p.resolved_at)
        )
    services = [
        _build_service_row(s, current, spans[s.probe.database_id], snapshot, history_days(config))
        for s in snapshot.probe_statuses
    ]
    judged = [
        s.latest_result.recorded_at
        for s in snapshot.probe_statuses
        if s.latest_result and s.latest_result.slot == s.last_judged_slot
    ]
    return StatusPageView(
        state=overall_state(services),
        headline=format_status_headline(services),
        subtitle=_format_subtitle(services, snapshot.incident_intervals, now),
        checked_at=max(judged, default=None),
        day_count=history_days(config),
        open_incidents=tuple(
            _build_open_incident(s) for s in snapshot.probe_statuses if s.state in SINGULAR_STATE_PHRASES
        )
        if current
        else (),
        groups=_group_services(services, config.group_order),
        troubled_days=_list_troubled_days(services, now),
        past_incidents=_list_past_incidents(snapshot, now),
    )


def _build_service_row(
    status: ProbeStatus, is_current: bool, intervals: Sequence[StateInterval], snapshot: StatusSnapshot, day_count: int
) -> ServiceRow:
    now, name = snapshot.read_at, status.probe.name
    state = status.state if is_current else HealthState.UNKNOWN
    word = ""
    if state is HealthState.UNKNOWN:
        word = (
            "No data yet"
            if status.last_judged_slot is None
            else f"No data since {_format_since(status.last_judged_slot, now)}"
        )
    line = summarize_days(
        intervals, snapshot.measured_days[status.probe.database_id], status.created_at, now, day_count
    )
    percent, known = uptime_basis_points(line), sum(day.state is not HealthState.UNKNOWN for day in line)
    bars = charts.render_day_bars(
        [(day.state, _format_day_title(day, state, now)) for day in line], _describe_bars(name, line)
    )
    of = "" if known == day_count else f"{known} of {day_count}{NBSP}days"
    return ServiceRow(name, state, word, status.probe.group, tuple(line), bars, format_percent(percent), of)


def _format_since(at: int, now: int) -> str:
    """The clock for today, the date for any other day: there is little room."""
    return format_time_of_day(at) if at // DAY_MS == now // DAY_MS else format_date(at, now)


def format_percent(basis_points: int | None) -> str:
    """9_995 -> "99.95 %", 9_900 -> "99 %"; empty when nothing was measured."""
    if basis_points is None:
        return ""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02}{NBSP}%" if rest else f"{whole}{NBSP}%"


def _format_day_title(day: DaySummary, state: HealthState, now: int) -> str:
    """ "13 Nov: down 14 min"; empty for a day that says nothing by itself."""
    lengths = ((HealthState.DOWN, day.down_ms), (HealthState.DEGRADED, day.degraded_ms))
    told = [f"{state.value} {format_duration(ms)}" for state, ms in lengths if ms]
    so_far = " so far" if now - day.start < DAY_MS and state is day.state and told else ""
    return f"{format_date(day.start, now)}: {', '.join(told)}{so_far}" if told else ""


def _describe_bars(name: str, day_summaries: Sequence[DaySummary]) -> str:
    """What the bars come to, for those who do not see them."""
    words = {
        HealthState.UP: "up",
        HealthState.DEGRADED: "degraded",
        HealthState.DOWN: "with downtime",
        HealthState.UNKNOWN: "without data",
    }
    tally = {state: sum(day.state is state for day in day_summaries) for state in words}
    said = [f"{n} {'day' if n == 1 else 'days'} {words[state]}" for state, n in tally.items() if n]
    return f"{name}, last {len(day_summaries)} days: {', '.join(said)}"


def overall_state(services: Iterable[ServiceRow]) -> HealthState:
    """Down, else degraded, else without data, else up."""
    states = {service.state for service in services}
    order = (HealthState.DOWN, HealthState.DEGRADED, HealthState.UNKNOWN, HealthState.UP)
    return next((state for state in order if state in states), HealthState.UNKNOWN)


def format_status_headline(services: Sequence[ServiceRow]) -> str:
    """ "API is down, Search is degraded"; counts where more than two share a state."""
    if all(service.state is HealthState.UNKNOWN for service in services):
        measured = any(day.measured_ms for service in services for day in service.days)
        return "No current data" if measured else "No data yet"
    parts = []
    for state in (HealthState.DOWN, HealthState.DEGRADED):
        names = [service.name for service in services if service.state is state]
        if len(names) > 2:
            parts.append(f"{len(names)} of {len(services)} services {PLURAL_STATE_PHRASES[state]}")
        elif names:
            parts.append(
                f"{' and '.join(names)} {(SINGULAR_STATE_PHRASES if len(names) == 1 else PLURAL_STATE_PHRASES)[state]}"
            )
    if parts:
        return ", ".join(parts)
    silent = [service.name for service in services if service.state is HealthState.UNKNOWN]
    if not silent:
        return "Everything works"
    return f"No data from {' and '.join(silent) if len(silent) <= 2 else f'{len(silent)} services'}"


def _format_subtitle(services: Sequence[ServiceRow], incident_intervals: Sequence[IncidentInterval], now: int) -> str:
    up, silent = (sum(s.state is state for s in services) for state in (HealthState.UP, HealthState.UNKNOWN))
    total = len(services)
    if up < total:
        said = f"{up} of {total} services {'works' if up == 1 else 'work'}."
        return said + (f" {silent} sent no data." if 0 < silent < total else "")
    said = f"All {total} services are up." if total > 1 else f"{services[0].name} is up." if services else ""
    ends = [p.resolved_at for p in incident_intervals if p.resolved_at is not None]
    return said + (f" Last incident {format_duration_rounded(now - max(ends))} ago." if ends else "")


def _build_open_incident(status: ProbeStatus) -> OpenIncident:
    """One entry a service, however many of its findings are open: each state it took, since when."""
    since: dict[HealthState, int] = {}
    for incident in status.open_incidents:
        state = HEALTH_STATE_BY_RULE[incident.rule]
        since[state] = min(incident.since, since.get(state, incident.since))
    name = status.probe.name
    said = {
        HealthState.DOWN: f"{name} does not work as it should.",
        HealthState.DEGRADED: f"{name} works, though not in every part as it should.",
        HealthState.UNKNOWN: f"{name} cannot be measured in part.",
    }
    steps = sorted(((state, at, said[state]) for state, at in since.items()), key=lambda step: -step[1])
    return OpenIncident(
        f"{name} {SINGULAR_STATE_PHRASES[status.state]}", status.state, since[status.state], tuple(steps)
    )


def _group_services(services: Sequence[ServiceRow], group_order: Sequence[str]) -> tuple[ServiceGroup, ...]:
    rank = {name: i for i, name in enumerate(group_order)}
    names = sorted({s.group for s in services}, key=lambda name: (rank.get(name, len(rank)), not name, name))
    out = []
    for name in names:
        mine = tuple(s for s in services if s.group == name)
        out.append(ServiceGroup(name or ("Other" if len(names) > 1 else ""), _summarize_group(mine), mine))
    return tuple(out)


def _summarize_group(services: Sequence[ServiceRow]) -> str:
    """ "all up", "1 of 4 down", "1 of 4 down, 1 degraded"."""
    words = ((HealthState.DOWN, "down"), (HealthState.DEGRADED, "degraded"), (HealthState.UNKNOWN, "without data"))
    counts = [(sum(s.state is state for s in services), word) for state, word in words]
    first, *rest = [(n, word) for n, word in counts if n] or [(0, "")]
    if not first[0]:
        return "all up" if len(services) > 1 else "up"
    return ", ".join([f"{first[0]} of {len(services)} {first[1]}", *(f"{n} {word}" for n, word in rest)])


def _list_troubled_days(services: Iterable[ServiceRow], now: int) -> tuple[TroubledDay, ...]:
    """Days that were not fully up, newest first; days without data as one entry a stretch, once there was any."""
    found: list[tuple[int, TroubledDay]] = []
    for service in services:
        known = [i for i, day in enumerate(service.days) if day.state is not HealthState.UNKNOWN]
        line = service.days[known[0] :] if known else ()
        for i, day in enumerate(line):
            if day.state is HealthState.UNKNOWN and line[i - 1].state is HealthState.UNKNOWN:
                continue
            if day.state is HealthState.UP:
                continue
            said = format_date(day.start, now)
            if day.state is HealthState.UNKNOWN:
                last = next((j for j in range(i, len(line)) if line[j].state is not HealthState.UNKNOWN), len(line)) - 1
                said += f" to {format_date(line[last].start, now)}" if last > i else ""
            found.append((day.start, TroubledDay(said, service.name, day.state, day.down_ms, day.degraded_ms)))
    found.sort(key=lambda entry: -entry[0])
    return tuple(trouble for _, trouble in found[:MAX_TROUBLED_DAYS])


def _list_past_incidents(snapshot: StatusSnapshot, now: int) -> tuple[PastIncident, ...]:
    over = []
    for standing in snapshot.probe_statuses:
        mine = [
            StateInterval(HEALTH_STATE_BY_RULE[p.rule], p.since, p.resolved_at)
            for p in snapshot.incident_intervals
            if p.probe == standing.probe.database_id and p.resolved_at is not None
        ]
        over += [(episode, standing.probe.name) for episode in merge_adjacent_intervals(mine)]
    over.sort(key=lambda entry: -entry[0].start)
    return tuple(
        PastIncident(e.start, f"{name} {PAST_STATE_PHRASES[e.state]}", _format_episode(e, now))
        for e, name in over[:MAX_PAST_INCIDENTS]
    )


def _format_episode(episode: StateInterval, now: int) -> str:
    """ "14 min, 09:02 to 09:16"; with dates when it lasted over a day."""
    if episode.length < DAY_MS:
        start, stop = format_time_of_day(episode.start), format_time_of_day(episode.stop)
    else:
        start, stop = format_timestamp(episode.start, now), format_timestamp(episode.stop, now)
    return f"{format_duration(episode.length)}, {start} to {stop}"
