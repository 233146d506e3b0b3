"""One probe's page: how it stands, how long it takes, its tasks, results, incidents and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_duration_rounded, format_time_of_day, format_timestamp
from watchdog.domain.model import HealthState, Incident, Outcome, ProbeInfo
from watchdog.domain.rules import HEALTH_STATE_BY_RULE, stale
from watchdog.store.read import history, status
from watchdog.store.read.jobs import SourceListing, jobs_from_tasks, load_source_listings
from watchdog.store.read.status import Connection, IncidentRecord, ProbeStatus, ResultRow, ServiceStatus
from watchdog.web import charts
from watchdog.web.cards.canary import MAX_CANARY_RUNS, CanaryCard, build_canary_card
from watchdog.web.cards.check_ins import CheckInsCard
from watchdog.web.cards.check_ins import load_check_ins_card as read_told
from watchdog.web.cards.latency import (
    LatencyCard,
    PhasesCard,
    build_latency_card,
    build_phases_card,
    choose_chart_window,
    parse_latency_limit,
    pick_representative_runs,
)
from watchdog.web.cards.queue import QueueCard
from watchdog.web.cards.queue import load_queue_card as read_queue
from watchdog.web.pages.jobs import JobRow, JobsCard, build_job_row, load_jobs_card
from watchdog.web.pages.results import ResultsCard, ResultsQuery
from watchdog.web.pages.results import load_results_card as read_results
from watchdog.web.pages.timeline import PAGE_STATE_LABELS, StateInterval, flatten_intervals

MAX_TASK_ROWS = 50
"""Tasks shown of one server, bad ones first."""
MAX_TIMELINE_ENTRIES = 6


@dataclass(frozen=True, slots=True)
class Banner:
    state: HealthState
    title: str
    text: str
    incident_id: str = ""
    """The incident behind it."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    job_row: JobRow
    server_report: str
    """What the server says of it."""
    last_run_age: int | None
    max_age: int | None


@dataclass(frozen=True, slots=True)
class TasksCard:
    read_at: int
    total: int
    rows: tuple[TaskRow, ...]


@dataclass(frozen=True, slots=True)
class StateTimeline:
    """The states of the last `length` ms."""

    length: int
    chart: Markup
    entries: tuple[tuple[HealthState, str], ...]


@dataclass(frozen=True, slots=True)
class ProbePage:
    probe: ProbeInfo
    service_status: ServiceStatus
    state: HealthState
    state_label: str
    next_run_text: str
    banners: tuple[Banner, ...]
    has_no_results: bool
    """Nothing has run yet."""
    latency: LatencyCard | None
    phases: PhasesCard | None
    canary: CanaryCard | None
    tasks: TasksCard | None
    jobs: JobsCard | None
    check_ins: CheckInsCard | None
    queue: QueueCard | None
    results: ResultsCard
    failed_count: int
    """Failures of the last day."""
    timeline: StateTimeline | None
    incidents: tuple[IncidentRecord, ...]
    created_at: int
    configuration: Markup = field(default_factory=Markup)


def load_probe_page(connection: Connection, probe_id: str, query: ResultsQuery, now: int) -> ProbePage | None:
    """None: no probe of the running configuration has this key."""
    found = status.list_probe_statuses(connection, probe_id)
    if not found:
        return None
    standing, probe = found[0], found[0].probe
    runs = history.list_results_between(connection, probe.database_id, now - DAY_MS, now + 1)
    cases = status.list_incidents(connection, probe=probe.database_id, limit=500)
    lanes = pick_representative_runs(runs)
    newest = [standing.last_judged_slot] if standing.last_judged_slot is not None else []
    kept = history.load_result_details(connection, probe.database_id, [*lanes.values(), *newest])
    look = load_source_listings(connection, probe.database_id).get(probe.database_id)
    last = kept[newest[0]].result if newest and newest[0] in kept else None
    return ProbePage(
        probe=probe,
        service_status=status.load_service_status(connection),
        state=standing.state,
        state_label=probe_state_label(standing, now),
        next_run_text=_format_next_run(standing, now),
        banners=probe_banners(standing, now),
        has_no_results=standing.latest_result is None,
        latency=build_latency_card(runs, parse_latency_limit(last), now)
        if runs and probe.kind not in ("canary", "heartbeat")
        else None,
        phases=build_phases_card({name: kept[slot].result for name, slot in lanes.items() if slot in kept}),
        canary=_load_canary_card(connection, probe, runs),
        jobs=load_jobs_card(connection, probe.database_id) if probe.kind == "jobs" else None,
        check_ins=read_told(connection, probe.database_id) if probe.kind == "heartbeat" else None,
        queue=read_queue(connection, probe.database_id, runs, now) if probe.kind == "queue" else None,
        tasks=_build_tasks_card(look, now),
        results=read_results(connection, probe.database_id, query, cases),
        failed_count=sum(run.outcome is Outcome.FAIL for run in runs),
        timeline=build_state_timeline(runs, cases, now, choose_chart_window(runs, now).length) if runs else None,
        incidents=tuple(c for c in cases if c.incident.opened_at >= now - 30 * DAY_MS)[:10],
        created_at=standing.created_at,
        configuration=highlight_yaml(status.load_probe_config_yaml(connection, probe.database_id)),
    )


def probe_state_label(status: ProbeStatus, now: int) -> str:
    """ "Degraded for 42 min", "No data yet", "Up"."""
    if status.state is HealthState.UP:
        return "Up"
    if not status.open_incidents:
        return "No data yet"
    since = min(i.since for i in status.open_incidents if HEALTH_STATE_BY_RULE[i.rule] is status.state)
    return f"{PAGE_STATE_LABELS[status.state]} for {format_duration_rounded(now - since)}"


def _format_next_run(status: ProbeStatus, now: int) -> str:
    """ "next run in 38 s", "first run in 12 s", "next run is late"."""
    if status.next_due is None:
        return ""
    which = "first run" if status.latest_result is None else "next run"
    if status.next_due > now:
        return f"{which} in {format_duration_rounded(max(status.next_due - now, 1000))}"
    return f"{which} {'is late' if now - status.next_due > 5_000 else 'now'}"


def probe_banners(status: ProbeStatus, now: int) -> tuple[Banner, ...]:
    """What needs saying before anything else: each open incident, or that nothing has run yet."""
    found = []
    for incident in status.open_incidents:
        since = f"Since {format_timestamp(incident.since, now, seconds=True)}"
        said = f"{since} · {incident.severity} · {incident.rule}" + (f" {incident.subject}" if incident.subject else "")
        title = _current_incident_message(incident, now)
        title = (
            title if incident.rule == "job" else capitalize_first(title)
        )  # begins with the job's name, as it is written
        found.append(Banner(HEALTH_STATE_BY_RULE[incident.rule], title, said, incident.id))
    if status.latest_result is None and not found:
        when = _format_next_run(status, now) or "no run is planned"
        text = "Its result shows here then, with its phases and the evidence. Reload to see it."
        found.append(Banner(HealthState.UNKNOWN, f"Nothing has run yet: {when}", text))
    return tuple(found)


def _current_incident_message(incident: Incident, now: int) -> str:
    """What an incident says; of one about missing results, for how long by now."""
    if incident.rule == stale.RULE_NAME:
        return stale.stale_finding(now - incident.since).message
    return incident.message


def capitalize_first(text: str) -> str:
    """With a capital, as a title."""
    return text[:1].upper() + text[1:]


def _load_canary_card(connection: Connection, probe: ProbeInfo, runs: Sequence[ResultRow]) -> CanaryCard | None:
    if probe.kind != "canary":
        return None
    kept = history.load_result_details(connection, probe.database_id, [run.slot for run in runs[-MAX_CANARY_RUNS:]])
    return build_canary_card([kept[slot].result for slot in sorted(kept)])


def _build_tasks_card(source: SourceListing | None, now: int) -> TasksCard | None:
    listing = source.result if source else None
    if source is None or listing is None or listing.tasks is None:
        return None
    rows = []
    for job in sorted(jobs_from_tasks(source), key=lambda job: (not job.reason, job.state is not HealthState.DOWN)):
        told, limits = listing.tasks.get(job.name), source.probe.task_limits
        said = "not listed" if told is None else f"ok: {'true' if told.ok else 'false'}"
        said += "".join(f", {word}" for word in (told.status, told.error) if word) if told else ""
        age = None if job.last_start is None else now - job.last_start
        rows.append(TaskRow(build_job_row(job), said, age, limits.get(job.name, limits.get("*"))))
    return TasksCard(listing.slot, len(rows), tuple(rows[:MAX_TASK_ROWS]))


def build_state_timeline(
    runs: Sequence[ResultRow], incidents: Iterable[IncidentRecord], now: int, length: int
) -> StateTimeline:
    """Incidents over what the runs say by themselves: up while they were judged, no data while they were not."""
    start = now - length
    trouble = flatten_intervals(
        (
            StateInterval(HEALTH_STATE_BY_RULE[c.incident.rule], c.incident.since, c.incident.resolved_at or now)
            for c in incidents
        ),
        start,
        now,
    )
    base = _run_intervals(runs, start, now)
    line: list[StateInterval] = []
    at = start
    for bad in trouble:
        line += [*_clip_intervals(base, at, bad.start), bad]
        at = bad.stop
    line += _clip_intervals(base, at, now)
    parts = [(s.state, (s.start - start) / length, (s.stop - start) / length) for s in line]
    told: list[tuple[HealthState, str]] = [
        (s.state, _format_state_interval(s, start, now)) for s in reversed(line) if s.state is not HealthState.UP
    ]
    up = sum(s.length for s in line if s.state is HealthState.UP)
    shown = told[:MAX_TIMELINE_ENTRIES]
    if len(told) > MAX_TIMELINE_ENTRIES:
        shown.append((HealthState.UNKNOWN, f"and {len(told) - MAX_TIMELINE_ENTRIES} more"))
    if up:
        shown.append((HealthState.UP, f"the rest · {format_duration_rounded(up)}" if told else "all of it"))
    label = ", ".join(f"{'no data' if s is HealthState.UNKNOWN else s.value} {text}" for s, text in shown)
    return StateTimeline(length, charts.render_state_timeline(parts, capitalize_first(label)), tuple(shown))


def _run_intervals(runs: Sequence[ResultRow], start: int, now: int) -> list[StateInterval]:
    """Each run says how it was until the next; before the first nothing is known, if that is longer than a run."""
    line: list[StateInterval] = []
    stops = [run.slot for run in runs[1:]] + [now]
    interval = stops[0] - runs[0].slot
    first = start if runs[0].slot - start <= interval else runs[0].slot
    edges = [first, *(run.slot for run in runs[1:])]
    if first > start:
        line.append(StateInterval(HealthState.UNKNOWN, start, first))
    for run, begin, stop in zip(runs, edges, stops, strict=True):
        state = HealthState.UP if run.outcome in (Outcome.PASS, Outcome.FAIL) else HealthState.UNKNOWN
        if line and line[-1].state is state:
            line[-1] = line[-1]._replace(stop=stop)
        else:
            line.append(StateInterval(state, begin, stop))
    return line


def _clip_intervals(intervals: Iterable[StateInterval], start: int, stop: int) -> list[StateInterval]:
    clipped = [StateInterval(s.state, max(s.start, start), min(s.stop, stop)) for s in intervals]
    return [s for s in clipped if s.length > 0]


def _format_state_interval(interval: StateInterval, start: int, now: int) -> str:
    """ "01:47 until now · 42 min", "19:14 to 19:18 · 4 min", "until 06:00 · 3 h"."""
    end, duration = format_time_of_day(interval.stop), format_duration_rounded(interval.length)
    if interval.start == start:
        return f"until {'now' if interval.stop == now else end} · {duration}"
    return f"{format_time_of_day(interval.start)} {'until now' if interval.stop == now else f'to {end}'} · {duration}"


_YAML_LINE_PATTERN = re.compile(r"(\s*(?:- )?)([\w.\"'*-]+)(:(?:\s.*)?)", re.ASCII)


def highlight_yaml(yaml_text: str) -> Markup:
    """YAML with its keys in colour."""
    lines = []
    for line in yaml_text.rstrip().splitlines():
        match = _YAML_LINE_PATTERN.fullmatch(line)
        lines.append(Markup('{}<span class="k">{}</span>{}').format(*match.groups()) if match else Markup.escape(line))
    return Markup("\n").join(lines)
