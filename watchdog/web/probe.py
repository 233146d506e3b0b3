"""One probe's page: how it stands, how long it takes, its tasks, results, incidents and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from watchdog.model import Incident, Outcome, ProbeInfo, Result, State
from watchdog.rules import STATE_OF, stale
from watchdog.rules.task import verdict
from watchdog.store import history, views
from watchdog.store.jobs import Look, looks, tasks
from watchdog.store.views import Case, Connection, Pulse, Seen, Standing
from watchdog.web import charts
from watchdog.web.jobs import JobRow, Jobs, of_source, row
from watchdog.web.latency import Latency, Phases, latency, limit_of, phases, sample, window_of
from watchdog.web.queue import QueuePage
from watchdog.web.queue import read as read_queue
from watchdog.web.results import Query, Results
from watchdog.web.results import read as read_results
from watchdog.web.stages import RUNS, Stages, stages
from watchdog.web.timeline import STATE_WORDS, Span, flatten
from watchdog.web.told import ToldPage
from watchdog.web.told import read as read_told
from watchdog.words import DAY, about, clock, moment

TASKS = 50
"""Tasks shown of one server, bad ones first."""
SPANS = 6


@dataclass(frozen=True, slots=True)
class Notice:
    state: State
    title: str
    text: str
    incident: str = ""
    """The incident behind it."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    row: JobRow
    said: str
    """What the server says of it."""
    age: int | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Tasks:
    at: int
    total: int
    rows: tuple[TaskRow, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The states of the last `length` ms."""

    length: int
    chart: Markup
    told: tuple[tuple[State, str], ...]


@dataclass(frozen=True, slots=True)
class ProbePage:
    probe: ProbeInfo
    pulse: Pulse
    state: State
    word: str
    next: str
    notices: tuple[Notice, ...]
    fresh: bool
    """Nothing has run yet."""
    latency: Latency | None
    phases: Phases | None
    stages: Stages | None
    tasks: Tasks | None
    jobs: Jobs | None
    told: ToldPage | None
    queue: QueuePage | None
    results: Results
    failed: int
    """Failures of the last day."""
    timeline: Timeline | None
    incidents: tuple[Case, ...]
    created_at: int
    spec: Markup = field(default_factory=Markup)


def read(connection: Connection, key: str, query: Query, now: int) -> ProbePage | None:
    """None: no probe of the running configuration has this key."""
    found = views.standings(connection, key)
    if not found:
        return None
    standing, probe = found[0], found[0].probe
    runs = history.between(connection, probe.id, now - DAY, now + 1)
    cases = views.cases(connection, probe=probe.id, limit=500)
    lanes = sample(runs)
    newest = [standing.judged_at] if standing.judged_at is not None else []
    kept = history.details(connection, probe.id, [*lanes.values(), *newest])
    look = looks(connection, probe.id).get(probe.id)
    listing = look.result if look else None
    last = kept[newest[0]].result if newest and newest[0] in kept else None
    return ProbePage(
        probe=probe,
        pulse=views.pulse(connection),
        state=standing.state,
        word=state_word(standing, now),
        next=_next(standing, now),
        notices=notices(standing, listing, now),
        fresh=standing.last is None,
        latency=latency(runs, limit_of(last), now) if runs and probe.kind not in ("canary", "heartbeat") else None,
        phases=phases({name: kept[slot].result for name, slot in lanes.items() if slot in kept}),
        stages=_stages(connection, probe, runs),
        jobs=of_source(connection, probe.id) if probe.kind == "jobs" else None,
        told=read_told(connection, probe.id) if probe.kind == "heartbeat" else None,
        queue=read_queue(connection, probe.id, runs, now) if probe.kind == "queue" else None,
        tasks=_tasks(look, now),
        results=read_results(connection, probe.id, query, cases),
        failed=sum(run.outcome is Outcome.FAIL for run in runs),
        timeline=timeline(runs, cases, now, window_of(runs, now).length) if runs else None,
        incidents=tuple(c for c in cases if c.incident.opened_at >= now - 30 * DAY)[:10],
        created_at=standing.created_at,
        spec=highlighted(views.spec(connection, probe.id)),
    )


def state_word(standing: Standing, now: int) -> str:
    """ "Degraded for 42 min", "No data yet", "Up"."""
    if standing.state is State.UP:
        return "Up"
    if not standing.incidents:
        return "No data yet"
    since = min(i.since for i in standing.incidents if STATE_OF[i.rule] is standing.state)
    return f"{STATE_WORDS[standing.state]} for {about(now - since)}"


def _next(standing: Standing, now: int) -> str:
    """ "next run in 38 s", "first run in 12 s", "next run is late"."""
    if standing.next_due is None:
        return ""
    which = "first run" if standing.last is None else "next run"
    if standing.next_due > now:
        return f"{which} in {about(max(standing.next_due - now, 1000))}"
    return f"{which} {'is late' if now - standing.next_due > 5_000 else 'now'}"


def notices(standing: Standing, listing: Result | None, now: int) -> tuple[Notice, ...]:
    """What needs saying before anything else: each open incident, or that nothing has run yet."""
    found = []
    for incident in standing.incidents:
        since = f"Since {moment(incident.since, now, seconds=True)}"
        said = f"{since} · {incident.severity} · {incident.rule}" + (f" {incident.subject}" if incident.subject else "")
        title = _by_now(incident, listing, standing.probe.task_limits, now)
        title = title if incident.rule == "job" else sentence(title)  # begins with the job's name, as it is written
        found.append(Notice(STATE_OF[incident.rule], title, said, incident.id))
    if standing.last is None and not found:
        when = _next(standing, now) or "no run is planned"
        text = "Its result shows here then, with its phases and the evidence. Reload to see it."
        found.append(Notice(State.UNKNOWN, f"Nothing has run yet: {when}", text))
    return tuple(found)


def _by_now(incident: Incident, listing: Result | None, limits: Mapping[str, int], now: int) -> str:
    """What an incident says, with the age of what is stale as it is by now."""
    if incident.rule == stale.NAME:
        return stale.lapsed(now - incident.since).message
    task = (listing.tasks or {}).get(incident.subject) if listing and incident.rule == "task" else None
    if listing is None or task is None or task.age is None:
        return incident.message
    aged = task._replace(age=task.age + now - listing.slot)
    _, message = verdict(incident.subject, aged, limits.get(incident.subject, limits.get("*")))
    return message or incident.message


def sentence(text: str) -> str:
    """With a capital, as a title."""
    return text[:1].upper() + text[1:]


def _stages(connection: Connection, probe: ProbeInfo, runs: Sequence[Seen]) -> Stages | None:
    if probe.kind != "canary":
        return None
    kept = history.details(connection, probe.id, [run.slot for run in runs[-RUNS:]])
    return stages([kept[slot].result for slot in sorted(kept)])


def _tasks(look: Look | None, now: int) -> Tasks | None:
    listing = look.result if look else None
    if look is None or listing is None or listing.tasks is None:
        return None
    rows = []
    for job in sorted(tasks(look), key=lambda job: (not job.reason, job.state is not State.DOWN)):
        told, limits = listing.tasks.get(job.name), look.probe.task_limits
        said = "not listed" if told is None else f"ok: {'true' if told.ok else 'false'}"
        said += "".join(f", {word}" for word in (told.status, told.error) if word) if told else ""
        age = None if job.last_start is None else now - job.last_start
        rows.append(TaskRow(row(job), said, age, limits.get(job.name, limits.get("*"))))
    return Tasks(listing.slot, len(rows), tuple(rows[:TASKS]))


def timeline(runs: Sequence[Seen], cases: Iterable[Case], now: int, length: int) -> Timeline:
    """Incidents over what the runs say by themselves: up while they were judged, no data while they were not."""
    start = now - length
    trouble = flatten(
        (Span(STATE_OF[c.incident.rule], c.incident.since, c.incident.resolved_at or now) for c in cases), start, now
    )
    base = _base(runs, start, now)
    line: list[Span] = []
    at = start
    for bad in trouble:
        line += [*_clip(base, at, bad.start), bad]
        at = bad.stop
    line += _clip(base, at, now)
    parts = [(s.state, (s.start - start) / length, (s.stop - start) / length) for s in line]
    told: list[tuple[State, str]] = [
        (s.state, _stretch(s, start, now)) for s in reversed(line) if s.state is not State.UP
    ]
    up = sum(s.length for s in line if s.state is State.UP)
    shown = told[:SPANS]
    if len(told) > SPANS:
        shown.append((State.UNKNOWN, f"and {len(told) - SPANS} more"))
    if up:
        shown.append((State.UP, f"the rest · {about(up)}" if told else "all of it"))
    label = ", ".join(f"{'no data' if s is State.UNKNOWN else s.value} {text}" for s, text in shown)
    return Timeline(length, charts.states(parts, sentence(label)), tuple(shown))


def _base(runs: Sequence[Seen], start: int, now: int) -> list[Span]:
    """Each run says how it was until the next; before the first nothing is known, if that is longer than a run."""
    line: list[Span] = []
    stops = [run.slot for run in runs[1:]] + [now]
    interval = stops[0] - runs[0].slot
    first = start if runs[0].slot - start <= interval else runs[0].slot
    edges = [first, *(run.slot for run in runs[1:])]
    if first > start:
        line.append(Span(State.UNKNOWN, start, first))
    for run, begin, stop in zip(runs, edges, stops, strict=True):
        state = State.UP if run.outcome in (Outcome.PASS, Outcome.FAIL) else State.UNKNOWN
        if line and line[-1].state is state:
            line[-1] = line[-1]._replace(stop=stop)
        else:
            line.append(Span(state, begin, stop))
    return line


def _clip(line: Iterable[Span], start: int, stop: int) -> list[Span]:
    clipped = [Span(s.state, max(s.start, start), min(s.stop, stop)) for s in line]
    return [s for s in clipped if s.length > 0]


def _stretch(s: Span, start: int, now: int) -> str:
    """ "01:47 until now · 42 min", "19:14 to 19:18 · 4 min", "until 06:00 · 3 h"."""
    if s.start == start:
        return f"until {'now' if s.stop == now else clock(s.stop)} · {about(s.length)}"
    return f"{clock(s.start)} {'until now' if s.stop == now else f'to {clock(s.stop)}'} · {about(s.length)}"


_YAML_LINE = re.compile(r"(\s*(?:- )?)([\w.\"'*-]+)(:(?:\s.*)?)", re.ASCII)


def highlighted(spec: str) -> Markup:
    """YAML with its keys in colour."""
    lines = []
    for line in spec.rstrip().splitlines():
        match = _YAML_LINE.fullmatch(line)
        lines.append(Markup('{}<span class="k">{}</span>{}').format(*match.groups()) if match else Markup.escape(line))
    return Markup("\n").join(lines)
