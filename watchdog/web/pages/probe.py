"""One probe's page: its state, the cards of its kind, its results, incidents and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    HOUR_MS,
    format_duration_rounded,
)
from watchdog.domain.model import HealthState, Incident, Outcome, ProbeInfo
from watchdog.domain.requested_runs import MAX_REQUESTED_RUN_AGE_MS, can_run_on_request
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, job, stale
from watchdog.domain.silencing import Silence
from watchdog.store.read import history, status
from watchdog.store.read.acts import list_silences_in_effect, load_silences_in_effect_by_incident
from watchdog.store.read.history import IncidentInterval, PauseInterval
from watchdog.store.read.requested_runs import load_waiting_request
from watchdog.store.read.status import Connection, IncidentRecord, ProbeStatus, ResultRow, WatchdogStatus
from watchdog.web import charts
from watchdog.web.cards.base import LoadedProbeCard, ProbeCardLoadContext
from watchdog.web.cards.registry import load_probe_page_cards
from watchdog.web.chart_window import ChartUrlQuery, choose_chart_window
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.acts import build_maintenance_banner, build_pause_banner, build_silence_banners, describe_acts
from watchdog.web.pages.banner import PageBanner, capitalize_first
from watchdog.web.pages.results import ResultsCard, ResultsUrlQuery, load_results_card
from watchdog.web.pages.timeline import HealthStateInterval, clip_state_intervals, flatten_to_worst_states
from watchdog.web.times import render_time_of_day, render_timestamp

MAX_STATE_TIMELINE_ENTRIES = 6
PROBE_PAGE_INCIDENTS_PERIOD_MS = 30 * DAY_MS
MAX_INCIDENTS_ON_PROBE_PAGE = 10
MAX_INCIDENTS_LOADED_FOR_PROBE_PAGE = 500
"""Incidents that mark results and the timeline."""
NEXT_RUN_SHOWN_LATE_AFTER_MS = 5_000
"""A run this long overdue counts as late."""


class ProbePageUrlQuery(NamedTuple):
    """What the URL of the page asks for."""

    results: ResultsUrlQuery = ResultsUrlQuery()
    chart: ChartUrlQuery = ChartUrlQuery()


@dataclass(frozen=True, slots=True)
class StateTimeline:
    """The states of the last `length` ms."""

    length: int
    chart: Markup
    entries: tuple[tuple[HealthState, Markup], ...]


@dataclass(frozen=True, slots=True)
class ProbePage:
    probe: ProbeInfo
    service_status: WatchdogStatus
    state: HealthState
    state_label: str
    next_due: int | None
    next_run_text: str
    can_resume: bool
    """A person has paused it."""
    can_run_now: bool
    """On request."""
    banners: tuple[PageBanner, ...]
    has_no_results: bool
    """The probe has never run."""
    cards: tuple[LoadedProbeCard, ...]
    results: ResultsCard
    failed_count: int
    """Failed runs of the last day."""
    timeline: StateTimeline | None
    incidents: tuple[IncidentRecord, ...]
    created_at: int
    configuration: Markup


def load_probe_page(connection: Connection, probe_id: str, query: ProbePageUrlQuery, now: int) -> ProbePage | None:
    """None: the running configuration has no probe with this id."""
    statuses = status.list_probe_statuses(connection, probe_id, now=now)
    if not statuses:
        return None
    probe_status, probe = statuses[0], statuses[0].probe
    runs = history.list_results_between(connection, probe.database_id, now - DAY_MS, now + 1)
    incidents = status.list_incidents(
        connection, probe_database_ids=[probe.database_id], only_current=True, limit=MAX_INCIDENTS_LOADED_FOR_PROBE_PAGE
    )
    intervals = [i for i in history.list_incident_intervals(connection, now - DAY_MS) if i.probe == probe.database_id]
    pauses = [i for i in history.list_pause_intervals(connection, now - DAY_MS) if i.probe == probe.database_id]
    context = ProbeCardLoadContext(connection, probe_status, runs, now, query.chart)
    requested_slot = load_waiting_request(connection, probe.database_id)
    is_run_requested = requested_slot is not None and now - requested_slot <= MAX_REQUESTED_RUN_AGE_MS
    silences = list_silences_in_effect(connection)
    silences_by_incident = load_silences_in_effect_by_incident(connection, silences)
    in_period = (record for record in incidents if record.incident.opened_at >= now - PROBE_PAGE_INCIDENTS_PERIOD_MS)
    return ProbePage(
        probe=probe,
        service_status=status.load_watchdog_status(connection),
        state=probe_status.state,
        state_label=format_probe_state_with_duration(probe_status, now),
        next_due=None if is_run_requested else probe_status.next_due,
        next_run_text="run requested" if is_run_requested else _format_next_run_sentence(probe_status, now),
        can_resume=probe_status.pause is not None and not probe_status.pause.is_in_configuration,
        can_run_now=can_run_on_request(probe.kind),
        banners=(
            *build_maintenance_banner(connection, probe.database_id, now),
            *build_probe_banners(probe_status, now, silences_by_incident),
            *build_silence_banners(silences, probe, now),
        ),
        has_no_results=probe_status.latest_result is None,
        cards=load_probe_page_cards(context),
        results=load_results_card(connection, probe.database_id, query.results, incidents),
        failed_count=sum(run.outcome is Outcome.FAIL for run in runs),
        timeline=build_state_timeline(runs, intervals, now, choose_chart_window(runs, now).length, pauses)
        if runs
        else None,
        incidents=tuple(in_period)[:MAX_INCIDENTS_ON_PROBE_PAGE],
        created_at=probe_status.created_at,
        configuration=highlight_yaml(status.load_probe_config_yaml_text(connection, probe.database_id)),
    )


def format_probe_state_with_duration(status: ProbeStatus, now: int) -> str:
    """ "Degraded for 42 min", "No data yet", "Up"."""
    if status.state is HealthState.UP:
        return "Up"
    if status.pause is not None:
        return f"{PAGE_HEALTH_STATE_LABELS[status.state]} for {format_duration_rounded(now - status.pause.started_at)}"
    if not status.open_incidents:
        return "No data yet"
    since = min(i.since for i in status.open_incidents if INCIDENT_HEALTH_STATE_BY_RULE[i.rule] is status.state)
    return f"{PAGE_HEALTH_STATE_LABELS[status.state]} for {format_duration_rounded(now - since)}"


def _format_next_run_sentence(status: ProbeStatus, now: int) -> str:
    """ "next run in 38 s", "first run in 12 s", "next run is late"."""
    if status.next_due is None:
        return ""
    run = "first run" if status.latest_result is None else "next run"
    if status.next_due > now:
        return f"{run} in {format_duration_rounded(max(status.next_due - now, 1000))}"
    return f"{run} {'is late' if now - status.next_due > NEXT_RUN_SHOWN_LATE_AFTER_MS else 'now'}"


def build_probe_banners(
    status: ProbeStatus, now: int, silences: Mapping[str, Sequence[Silence]]
) -> tuple[PageBanner, ...]:
    """That it is paused, each open incident; or that the probe has not run yet. `silences`: those in effect, by
    incident."""
    banners = [] if status.pause is None else [build_pause_banner(status.pause, now)]
    banners += [
        _build_current_incident_banner(incident, describe_acts(incident, silences.get(incident.id, ()), now), now)
        for incident in status.open_incidents
    ]
    if status.latest_result is None and not banners:
        next_run = _format_next_run_sentence(status, now) or "no run is scheduled"
        text = "The first result appears here with its phases and evidence. Reload the page to see it."
        banners.append(PageBanner(HealthState.UNKNOWN, f"No run yet: {next_run}", text))
    return tuple(banners)


def _build_current_incident_banner(incident: Incident, marks: Iterable[str], now: int) -> PageBanner:
    title = _format_incident_message_as_of_now(incident, now)
    if incident.rule != job.ALERT_RULE_NAME:  # a message about a job starts with the job's name, which keeps its case
        title = capitalize_first(title)
    since = Markup("Since {}").format(render_timestamp(incident.since, now, seconds=True))
    text = Markup(" · ").join((since, incident.severity, f"{incident.rule} {incident.subject}".strip(), *marks))
    return PageBanner(INCIDENT_HEALTH_STATE_BY_RULE[incident.rule], title, text, incident.id)


def _format_incident_message_as_of_now(incident: Incident, now: int) -> str:
    """The incident's message; about missing results, with the time without any as of now."""
    if incident.rule == stale.ALERT_RULE_NAME:
        return stale.build_stale_finding(now - incident.since).message
    return incident.message


def build_state_timeline(
    runs: Sequence[ResultRow],
    incidents: Iterable[IncidentInterval],
    now: int,
    length: int,
    pauses: Iterable[PauseInterval] = (),
) -> StateTimeline:
    """Paused, or the states of incidents; elsewhere up where runs had a verdict, and no data where not."""
    start = now - length
    states = [
        HealthStateInterval(INCIDENT_HEALTH_STATE_BY_RULE[i.rule], i.since, i.resolved_at or now) for i in incidents
    ]
    states += [HealthStateInterval(HealthState.PAUSED, i.started_at, i.ended_at or now) for i in pauses]
    problems = flatten_to_worst_states(states, start, now)
    base = _state_intervals_from_runs(runs, start, now)
    intervals: list[HealthStateInterval] = []
    at = start
    for problem in problems:
        intervals += [*clip_state_intervals(base, at, problem.start), problem]
        at = problem.stop
    intervals += clip_state_intervals(base, at, now)
    parts = [(i.state, (i.start - start) / length, (i.stop - start) / length) for i in intervals]
    entries = _build_state_timeline_entries(intervals, start, now)
    label = ", ".join(f"{PAGE_HEALTH_STATE_LABELS[state].lower()} {text.striptags()}" for state, text in entries)
    return StateTimeline(length, charts.render_state_timeline(parts, f"{capitalize_first(label)} (UTC)"), entries)


def _build_state_timeline_entries(
    intervals: Sequence[HealthStateInterval], start: int, now: int
) -> tuple[tuple[HealthState, Markup], ...]:
    """(state, text) of the intervals that were not up, newest first, then the total time up."""
    problems: list[tuple[HealthState, Markup]] = [
        (interval.state, _format_state_interval(interval, start, now))
        for interval in reversed(intervals)
        if interval.state is not HealthState.UP
    ]
    entries = problems[:MAX_STATE_TIMELINE_ENTRIES]
    if len(problems) > MAX_STATE_TIMELINE_ENTRIES:
        more = Markup("and {} more").format(len(problems) - MAX_STATE_TIMELINE_ENTRIES)
        entries.append((HealthState.UNKNOWN, more))
    if up_ms := sum(interval.length for interval in intervals if interval.state is HealthState.UP):
        rest = Markup("the rest · {}").format(format_duration_rounded(up_ms))
        entries.append((HealthState.UP, rest if problems else Markup("the whole time")))
    return tuple(entries)


def _state_intervals_from_runs(runs: Sequence[ResultRow], start: int, now: int) -> list[HealthStateInterval]:
    """Each run stands for the time until the next. The time before the first is without data, unless it is short."""
    stops = [run.slot for run in runs[1:]] + [now]
    interval = stops[0] - runs[0].slot
    first = start if runs[0].slot - start <= interval else runs[0].slot
    starts = [first, *(run.slot for run in runs[1:])]
    intervals: list[HealthStateInterval] = []
    if first > start:
        intervals.append(HealthStateInterval(HealthState.UNKNOWN, start, first))
    for run, run_start, run_stop in zip(runs, starts, stops, strict=True):
        state = HealthState.UP if run.outcome in (Outcome.PASS, Outcome.FAIL) else HealthState.UNKNOWN
        if intervals and intervals[-1].state is state:
            intervals[-1] = intervals[-1]._replace(stop=run_stop)
        else:
            intervals.append(HealthStateInterval(state, run_start, run_stop))
    return intervals


def _format_state_interval(interval: HealthStateInterval, start: int, now: int) -> Markup:
    """ "01:47 until now · 42 min", "19:14 to 19:18 · 4 min", "until 06:00 · 3 h"; with seconds below an hour."""
    has_seconds, duration = now - start < HOUR_MS, format_duration_rounded(interval.length)
    is_current, stop = interval.stop == now, render_time_of_day(interval.stop, seconds=has_seconds)
    if interval.start == start:
        return Markup("until {} · {}").format("now" if is_current else stop, duration)
    end = "until now" if is_current else Markup("to {}").format(stop)
    return Markup("{} {} · {}").format(render_time_of_day(interval.start, seconds=has_seconds), end, duration)


_HIGHLIGHTED_YAML_KEY_PATTERN = re.compile(r"(\s*(?:- )?)([\w.\"'*-]+)(:(?:\s.*)?)", re.ASCII)


def highlight_yaml(yaml_text: str) -> Markup:
    """YAML with its keys highlighted."""
    lines = []
    for line in yaml_text.rstrip().splitlines():
        match = _HIGHLIGHTED_YAML_KEY_PATTERN.fullmatch(line)
        lines.append(Markup('{}<span class="k">{}</span>{}').format(*match.groups()) if match else Markup.escape(line))
    return Markup("\n").join(lines)
