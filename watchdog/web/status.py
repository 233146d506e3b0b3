"""The public status page: what was read becomes what is shown. Public words only: names, groups, states and times.

Nothing here looks at a target, a reason, a message or evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.model import ProbeInfo, State
from watchdog.rules import STATE_OF
from watchdog.store.history import Past, days_measured, past
from watchdog.store.views import STANDSTILL, Connection, Pulse, Standing, pulse, standings
from watchdog.web import charts
from watchdog.web.timeline import Day, Span, days, episodes, uptime
from watchdog.words import DAY, NBSP, about, clock, date, moment, span

PAST, TROUBLE = 10, 200
"""The most entries shown of past incidents, and of days with trouble."""

DOES = {State.DEGRADED: "is degraded", State.DOWN: "is down"}
DO = {State.DEGRADED: "are degraded", State.DOWN: "are down"}
DID = {State.DEGRADED: "was degraded", State.DOWN: "was down", State.UNKNOWN: "sent no data"}


@dataclass(frozen=True, slots=True)
class Site:
    """What the public page is about."""

    title: str = "Status"
    shown: Callable[[ProbeInfo], bool] = lambda _: True
    groups: tuple[str, ...] = ()
    """In this order; the others follow by name."""
    order: tuple[str, ...] = ()
    """Keys of probes in the order of the configuration, which is that within a group."""
    history: int = 90 * DAY


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that was read for one page."""

    at: int
    pulse: Pulse
    standings: tuple[Standing, ...]
    past: tuple[Past, ...]
    measured: dict[int, set[int]]


def read(connection: Connection, site: Site, now: int) -> Snapshot:
    rank = {key: i for i, key in enumerate(site.order)}
    shown = tuple(s for s in standings(connection) if site.shown(s.probe))
    shown = tuple(sorted(shown, key=lambda s: rank.get(s.probe.key, len(rank))))
    ids = {s.probe.id for s in shown}
    start = (now // DAY - length(site) + 1) * DAY
    reaching = tuple(p for p in past(connection, start) if p.probe in ids)
    return Snapshot(now, pulse(connection), shown, reaching, days_measured(connection, ids, start, now))


def length(site: Site) -> int:
    """How many days the bars show."""
    return max(1, site.history // DAY)


@dataclass(frozen=True, slots=True)
class Service:
    """One row: a probe under its public name."""

    name: str
    state: State
    word: str
    """What stands beside the state's shape; empty: the state's own word."""
    group: str
    days: tuple[Day, ...]
    bars: Markup
    uptime: str
    of: str
    """How much of the time that is, unless all."""


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    summary: str
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Open:
    """Trouble that is not over, of one service."""

    title: str
    state: State
    since: int
    steps: tuple[tuple[State, int, str], ...]
    """Each state that it took and is still in part: (state, since, in words), newest first."""


@dataclass(frozen=True, slots=True)
class Over:
    """Trouble that is over."""

    start: int
    what: str
    took: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Days on which a service was not fully up."""

    day: str
    name: str
    state: State
    down: int
    degraded: int


@dataclass(frozen=True, slots=True)
class StatusPage:
    state: State
    headline: str
    sub: str
    checked_at: int | None
    """When the newest result that passed or failed was stored."""
    days: int
    open: tuple[Open, ...]
    groups: tuple[Group, ...]
    trouble: tuple[Trouble, ...]
    past: tuple[Over, ...]


def status_page(snapshot: Snapshot, site: Site) -> StatusPage:
    """The page as of the snapshot's instant. Without any service shown, it has no groups."""
    now, watermark = snapshot.at, snapshot.pulse.watermark
    current = watermark is not None and now - watermark <= STANDSTILL
    spans: dict[int, list[Span]] = {s.probe.id: [] for s in snapshot.standings}
    for p in snapshot.past:
        spans[p.probe].append(Span(STATE_OF[p.rule], p.since, now if p.resolved_at is None else p.resolved_at))
    services = [_service(s, current, spans[s.probe.id], snapshot, length(site)) for s in snapshot.standings]
    judged = [s.last.recorded_at for s in snapshot.standings if s.last and s.last.slot == s.judged_at]
    return StatusPage(
        state=overall(services),
        headline=headline(services),
        sub=_sub(services, snapshot.past, now),
        checked_at=max(judged, default=None),
        days=length(site),
        open=tuple(_open(s) for s in snapshot.standings if s.state in DOES) if current else (),
        groups=_groups(services, site.groups),
        trouble=_trouble(services, now),
        past=_past(snapshot, now),
    )


def _service(standing: Standing, current: bool, spans: Sequence[Span], snapshot: Snapshot, count: int) -> Service:
    now, name = snapshot.at, standing.probe.name
    state = standing.state if current else State.UNKNOWN
    word = ""
    if state is State.UNKNOWN:
        word = "No data yet" if standing.judged_at is None else f"No data since {_since(standing.judged_at, now)}"
    line = days(spans, snapshot.measured[standing.probe.id], standing.created_at, now, count)
    percent, known = uptime(line), sum(day.state is not State.UNKNOWN for day in line)
    bars = charts.bars([(day.state, _day_title(day, state, now)) for day in line], _bars_label(name, line))
    of = "" if known == count else f"{known} of {count}{NBSP}days"
    return Service(name, state, word, standing.probe.group, tuple(line), bars, percent_text(percent), of)


def _since(at: int, now: int) -> str:
    """The clock for today, the date for any other day: there is little room."""
    return clock(at) if at // DAY == now // DAY else date(at, now)


def percent_text(hundredths: int | None) -> str:
    """9_995 -> "99.95 %", 9_900 -> "99 %"; empty when nothing was measured."""
    if hundredths is None:
        return ""
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02}{NBSP}%" if rest else f"{whole}{NBSP}%"


def _day_title(day: Day, state: State, now: int) -> str:
    """ "13 Nov: down 14 min"; empty for a day that says nothing by itself."""
    lengths = ((State.DOWN, day.down), (State.DEGRADED, day.degraded))
    told = [f"{state.value} {span(ms)}" for state, ms in lengths if ms]
    so_far = " so far" if now - day.start < DAY and state is day.state and told else ""
    return f"{date(day.start, now)}: {', '.join(told)}{so_far}" if told else ""


def _bars_label(name: str, line: Sequence[Day]) -> str:
    """What the bars come to, for those who do not see them."""
    words = {State.UP: "up", State.DEGRADED: "degraded", State.DOWN: "with downtime", State.UNKNOWN: "without data"}
    tally = {state: sum(day.state is state for day in line) for state in words}
    said = [f"{n} {'day' if n == 1 else 'days'} {words[state]}" for state, n in tally.items() if n]
    return f"{name}, last {len(line)} days: {', '.join(said)}"


def overall(services: Iterable[Service]) -> State:
    """Down, else degraded, else without data, else up."""
    states = {service.state for service in services}
    order = (State.DOWN, State.DEGRADED, State.UNKNOWN, State.UP)
    return next((state for state in order if state in states), State.UNKNOWN)


def headline(services: Sequence[Service]) -> str:
    """ "API is down, Search is degraded"; counts where more than two share a state."""
    if all(service.state is State.UNKNOWN for service in services):
        measured = any(day.measured for service in services for day in service.days)
        return "No current data" if measured else "No data yet"
    parts = []
    for state in (State.DOWN, State.DEGRADED):
        names = [service.name for service in services if service.state is state]
        if len(names) > 2:
            parts.append(f"{len(names)} of {len(services)} services {DO[state]}")
        elif names:
            parts.append(f"{' and '.join(names)} {DOES[state] if len(names) == 1 else DO[state]}")
    if parts:
        return ", ".join(parts)
    silent = [service.name for service in services if service.state is State.UNKNOWN]
    if not silent:
        return "Everything works"
    return f"No data from {' and '.join(silent) if len(silent) <= 2 else f'{len(silent)} services'}"


def _sub(services: Sequence[Service], past: Sequence[Past], now: int) -> str:
    up, silent = (sum(s.state is state for s in services) for state in (State.UP, State.UNKNOWN))
    total = len(services)
    if up < total:
        said = f"{up} of {total} services {'works' if up == 1 else 'work'}."
        return said + (f" {silent} sent no data." if 0 < silent < total else "")
    said = f"All {total} services are up." if total > 1 else f"{services[0].name} is up." if services else ""
    ends = [p.resolved_at for p in past if p.resolved_at is not None]
    return said + (f" Last incident {about(now - max(ends))} ago." if ends else "")


def _open(standing: Standing) -> Open:
    """One entry a service, however many of its findings are open: each state it took, since when."""
    since: dict[State, int] = {}
    for incident in standing.incidents:
        state = STATE_OF[incident.rule]
        since[state] = min(incident.since, since.get(state, incident.since))
    name = standing.probe.name
    said = {
        State.DOWN: f"{name} does not work as it should.",
        State.DEGRADED: f"{name} works, though not in every part as it should.",
        State.UNKNOWN: f"{name} cannot be measured in part.",
    }
    steps = sorted(((state, at, said[state]) for state, at in since.items()), key=lambda step: -step[1])
    return Open(f"{name} {DOES[standing.state]}", standing.state, since[standing.state], tuple(steps))


def _groups(services: Sequence[Service], order: Sequence[str]) -> tuple[Group, ...]:
    rank = {name: i for i, name in enumerate(order)}
    names = sorted({s.group for s in services}, key=lambda name: (rank.get(name, len(rank)), not name, name))
    out = []
    for name in names:
        mine = tuple(s for s in services if s.group == name)
        out.append(Group(name or ("Other" if len(names) > 1 else ""), _summary(mine), mine))
    return tuple(out)


def _summary(services: Sequence[Service]) -> str:
    """ "all up", "1 of 4 down", "1 of 4 down, 1 degraded"."""
    words = ((State.DOWN, "down"), (State.DEGRADED, "degraded"), (State.UNKNOWN, "without data"))
    counts = [(sum(s.state is state for s in services), word) for state, word in words]
    first, *rest = [(n, word) for n, word in counts if n] or [(0, "")]
    if not first[0]:
        return "all up" if len(services) > 1 else "up"
    return ", ".join([f"{first[0]} of {len(services)} {first[1]}", *(f"{n} {word}" for n, word in rest)])


def _trouble(services: Iterable[Service], now: int) -> tuple[Trouble, ...]:
    """Days that were not fully up, newest first; days without data as one entry a stretch, once there was any."""
    found: list[tuple[int, Trouble]] = []
    for service in services:
        known = [i for i, day in enumerate(service.days) if day.state is not State.UNKNOWN]
        line = service.days[known[0] :] if known else ()
        for i, day in enumerate(line):
            if day.state is State.UNKNOWN and line[i - 1].state is State.UNKNOWN:
                continue
            if day.state is State.UP:
                continue
            said = date(day.start, now)
            if day.state is State.UNKNOWN:
                last = next((j for j in range(i, len(line)) if line[j].state is not State.UNKNOWN), len(line)) - 1
                said += f" to {date(line[last].start, now)}" if last > i else ""
            found.append((day.start, Trouble(said, service.name, day.state, day.down, day.degraded)))
    found.sort(key=lambda entry: -entry[0])
    return tuple(trouble for _, trouble in found[:TROUBLE])


def _past(snapshot: Snapshot, now: int) -> tuple[Over, ...]:
    over = []
    for standing in snapshot.standings:
        mine = [
            Span(STATE_OF[p.rule], p.since, p.resolved_at)
            for p in snapshot.past
            if p.probe == standing.probe.id and p.resolved_at is not None
        ]
        over += [(episode, standing.probe.name) for episode in episodes(mine)]
    over.sort(key=lambda entry: -entry[0].start)
    return tuple(Over(e.start, f"{name} {DID[e.state]}", _took(e, now)) for e, name in over[:PAST])


def _took(episode: Span, now: int) -> str:
    """ "14 min, 09:02 to 09:16"; with dates when it lasted over a day."""
    if episode.length < DAY:
        return f"{span(episode.length)}, {clock(episode.start)} to {clock(episode.stop)}"
    return f"{span(episode.length)}, {moment(episode.start, now)} to {moment(episode.stop, now)}"
