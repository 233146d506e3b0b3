"""The states of one probe in the part of its history that the URL of its page names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, HOUR_MS, format_duration_rounded, format_number
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS, MaintenancePeriods
from watchdog.domain.model import HealthState, Outcome
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.domain.text import capitalize_first
from watchdog.store.read.history import list_downtime_gaps, list_incident_intervals, list_pause_intervals
from watchdog.store.read.maintenance import load_maintenance_periods
from watchdog.store.read.rollups import HourlyRollup
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.timeline import (
    HealthStateInterval,
    clip_state_intervals,
    find_worst_state_or_up,
    flatten_to_worst_states,
)
from watchdog.web.times import render_time_of_day, render_timestamp

MAX_STATE_TIMELINE_ENTRIES = 6
MAX_STATE_TIMELINE_INCIDENTS = 2_000
"""If there are more, only the newest are shown, and the time before them without data."""
MAX_STATE_TIMELINE_PARTS = 360
"""If there are more, this many parts of equal length are drawn, each with its worst state."""


class TimelineRunOrHour(NamedTuple):
    """A run, or an hour of runs."""

    at: int
    is_judged: bool
    """It passed or failed; of an hour: any run in it did."""


@dataclass(frozen=True, slots=True)
class StateTimeline:
    period: Markup
    """ "last 7 days"."""
    chart: Markup
    entries: tuple[tuple[HealthState | None, Markup], ...]
    """(state, text); None: the text alone."""
    note: str
    """What the timeline leaves out; empty: nothing."""


def load_state_timeline(context: ProbeCardLoadContext) -> StateTimeline | None:
    """None: no run within the last day, and the URL asks for no other part of the history."""
    is_paused = context.status.pause is not None and context.status.latest_result is not None
    if not context.runs and not context.chart_query.parameters and not is_paused:
        return None
    start, stop = context.chart_window.start, context.chart_window.stop
    problems, shown_from = _load_incident_and_pause_intervals(context, start, stop)
    probe = context.probe_database_id
    maintenance = load_maintenance_periods(context.connection, [probe], since=start).get(probe, NO_MAINTENANCE_PERIODS)
    base = replace_state_during_maintenance_by_unknown(
        _load_measured_intervals(context, start, stop), maintenance, start, stop
    )
    intervals = clip_state_intervals(overlay_state_intervals(base, problems, start, stop), shown_from, stop)
    note = ""
    if shown_from > start:
        intervals.insert(0, HealthStateInterval(HealthState.UNKNOWN, start, shown_from))
        note = f"Only the {format_number(MAX_STATE_TIMELINE_INCIDENTS)} newest incidents are shown."
    return build_state_timeline(intervals, context.render_chart_period(), context.now, maintenance, note)


def _load_incident_and_pause_intervals(
    context: ProbeCardLoadContext, start: int, stop: int
) -> tuple[list[HealthStateInterval], int]:
    """The incidents and pauses in [start, stop), and the instant from which on they are complete."""
    connection, probe, count = context.connection, context.probe_database_id, MAX_STATE_TIMELINE_INCIDENTS
    incidents = list_incident_intervals(connection, start, stop=stop, probe=probe, limit=count)
    shown_from = start
    if len(incidents) == count:
        shown_from = max(start, min(incident.since for incident in incidents))
        incidents += list_incident_intervals(connection, shown_from, stop=shown_from, probe=probe, limit=count)
    problems = [
        HealthStateInterval(INCIDENT_HEALTH_STATE_BY_RULE[i.rule], i.since, i.resolved_at or context.now)
        for i in incidents
    ]
    problems += [
        HealthStateInterval(HealthState.PAUSED, pause.started_at, pause.ended_at or context.now)
        for pause in list_pause_intervals(connection, start, probe=probe)
    ]
    return problems, shown_from


def _load_measured_intervals(context: ProbeCardLoadContext, start: int, stop: int) -> list[HealthStateInterval]:
    """What was measured, without the time in which Watchdog did not run: slots of that time have no results."""
    measured = convert_sightings_to_up_or_no_data_intervals(_list_runs_or_hours_of_timeline_chart(context), start, stop)
    min_length = min(context.chart_window.step, HOUR_MS)  # a restart is no gap
    gaps = list_downtime_gaps(context.connection, start, stop, min_length)
    unknown = [HealthStateInterval(HealthState.UNKNOWN, *gap) for gap in gaps]
    return flatten_to_worst_states([*measured, *unknown], start, stop)


def _list_runs_or_hours_of_timeline_chart(context: ProbeCardLoadContext) -> list[TimelineRunOrHour]:
    """Oldest first, with the last run before the time that is shown, which stands for its beginning."""
    if not context.is_chart_of_runs:
        return list(list_timeline_runs_or_hours(context.hourly_rollups_of_chart))
    earlier = [run for run in context.runs if run.slot < context.chart_window.start][-1:]
    runs = [*earlier, *context.chart_runs]
    return [TimelineRunOrHour(run.slot, run.outcome in (Outcome.PASS, Outcome.FAIL)) for run in runs]


def list_timeline_runs_or_hours(parts: Sequence[HourlyRollup]) -> Iterator[TimelineRunOrHour]:
    """`parts`: hours and single runs, oldest first. One row of missed slots may stand for many hours, but only the
    first of them has it: an hour with missed slots does not stand for hours after it that have no results."""
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        yield TimelineRunOrHour(part.hour, part.passed + part.failed > 0)
        end = part.hour + HOUR_MS
        if part.missed and (following is None or following.hour > end):
            yield TimelineRunOrHour(end, False)


def convert_sightings_to_up_or_no_data_intervals(
    sightings: Sequence[TimelineRunOrHour], start: int, stop: int
) -> list[HealthStateInterval]:
    """Up where something was judged, passed or failed, and without data where not, over all of [start, stop). Each
    sighting stands for the time until the next. The time before the first is without data, unless it is short."""
    if not sightings:
        return [HealthStateInterval(HealthState.UNKNOWN, start, stop)]
    interval = (sightings[1].at if len(sightings) > 1 else stop) - sightings[0].at
    is_from_start_on = sightings[0].at - start <= interval
    changes = [TimelineRunOrHour(start, is_from_start_on and sightings[0].is_judged)]
    for sighting in sightings:
        if sighting.is_judged is not changes[-1].is_judged:
            changes.append(sighting)
    ends = [*(sighting.at for sighting in changes[1:]), stop]
    states = {True: HealthState.UP, False: HealthState.UNKNOWN}
    measured = [
        HealthStateInterval(states[each.is_judged], each.at, end) for each, end in zip(changes, ends, strict=True)
    ]
    return clip_state_intervals(measured, start, stop)


def overlay_state_intervals(
    base: Sequence[HealthStateInterval], problems: Iterable[HealthStateInterval], start: int, stop: int
) -> list[HealthStateInterval]:
    """The worst problem at each instant of [start, stop), and `base` where there is none."""
    intervals: list[HealthStateInterval] = []
    at = start
    for problem in flatten_to_worst_states(problems, start, stop):
        intervals += [*clip_state_intervals(base, at, problem.start), problem]
        at = problem.stop
    return [*intervals, *clip_state_intervals(base, at, stop)]


def replace_state_during_maintenance_by_unknown(
    measured: Sequence[HealthStateInterval], maintenance: MaintenancePeriods, start: int, stop: int
) -> list[HealthStateInterval]:
    """Without data during maintenance, in which no incident opens. `measured`: all of [start, stop)."""
    if not maintenance:
        return list(measured)
    outside = [
        HealthStateInterval(interval.state, *part)
        for interval in measured
        for part in maintenance.subtract_from(interval.start, interval.stop)
    ]
    return overlay_state_intervals([HealthStateInterval(HealthState.UNKNOWN, start, stop)], outside, start, stop)


def build_state_timeline(
    intervals: Sequence[HealthStateInterval],
    period: Markup,
    now: int,
    maintenance: MaintenancePeriods = NO_MAINTENANCE_PERIODS,
    note: str = "",
) -> StateTimeline:
    """`intervals`: in order and without gaps."""
    start, stop = intervals[0].start, intervals[-1].stop
    entries = _build_state_timeline_entries(intervals, maintenance, now)
    label = ", ".join(
        f"{PAGE_HEALTH_STATE_LABELS[state].lower()} {text.striptags()}" if state else text.striptags()
        for state, text in entries
    )
    parts = [
        (part.state, (part.start - start) / (stop - start), (part.stop - start) / (stop - start))
        for part in condense_intervals_into_equal_parts_of_worst_state(intervals, MAX_STATE_TIMELINE_PARTS)
    ]
    chart = charts.render_state_timeline(parts, f"{capitalize_first(label)} (UTC)")
    return StateTimeline(period, chart, entries, note)


def condense_intervals_into_equal_parts_of_worst_state(
    intervals: Sequence[HealthStateInterval], max_parts: int
) -> Sequence[HealthStateInterval]:
    """Unchanged unless there are more than `max_parts`. Otherwise that number of parts of equal length, each with the
    worst state in it, and equal neighbours joined."""
    if len(intervals) <= max_parts:
        return intervals
    start, length = intervals[0].start, intervals[-1].stop - intervals[0].start
    states = [HealthState.UP] * max_parts
    for interval in intervals:
        first, last = ((at - start) * max_parts // length for at in (interval.start, interval.stop - 1))
        for i in range(first, last + 1):
            states[i] = find_worst_state_or_up((states[i], interval.state))
    edges = [start + length * i // max_parts for i in range(max_parts + 1)]
    return flatten_to_worst_states(
        [HealthStateInterval(state, edges[i], edges[i + 1]) for i, state in enumerate(states)], start, start + length
    )


def _build_state_timeline_entries(
    intervals: Sequence[HealthStateInterval], maintenance: MaintenancePeriods, now: int
) -> tuple[tuple[HealthState | None, Markup], ...]:
    """(state, text) of the intervals that were not up, newest first, then the total times of maintenance and up."""
    start, stop = intervals[0].start, intervals[-1].stop
    problems, not_judged_ms = [], 0
    for interval in reversed(intervals):
        if interval.state is HealthState.UNKNOWN and not maintenance.subtract_from(interval.start, interval.stop):
            not_judged_ms += interval.length
        elif interval.state is not HealthState.UP:
            problems.append(interval)
    entries: list[tuple[HealthState | None, Markup]] = [
        (interval.state, _format_state_interval(interval, start, stop, now))
        for interval in problems[:MAX_STATE_TIMELINE_ENTRIES]
    ]
    if len(problems) > MAX_STATE_TIMELINE_ENTRIES:
        more = Markup("and {} more").format(format_number(len(problems) - MAX_STATE_TIMELINE_ENTRIES))
        entries.append((None, more))
    if not_judged_ms:
        text = Markup("In maintenance {}: nothing was judged").format(format_duration_rounded(not_judged_ms))
        entries.append((None, text))
    if up_ms := sum(interval.length for interval in intervals if interval.state is HealthState.UP):
        rest = Markup("the rest · {}").format(format_duration_rounded(up_ms))
        entries.append((HealthState.UP, rest if entries else Markup("the whole time")))
    return tuple(entries)


def _format_state_interval(interval: HealthStateInterval, start: int, stop: int, now: int) -> Markup:
    """ "01:47 until now · 42 min", "19:14 to 19:18 · 4 min", "until 06:00 · 3 h"; with seconds below an hour, and with
    dates beyond the last day."""

    def render_interval_edge_time(at: int) -> Markup:
        if start < now - DAY_MS:
            return render_timestamp(at, now)
        return render_time_of_day(at, seconds=stop - start < HOUR_MS)

    duration = format_duration_rounded(interval.length)
    is_current = interval.stop == now
    if interval.start == start:
        return Markup("until {} · {}").format(
            "now" if is_current else render_interval_edge_time(interval.stop), duration
        )
    end = "until now" if is_current else Markup("to {}").format(render_interval_edge_time(interval.stop))
    return Markup("{} {} · {}").format(render_interval_edge_time(interval.start), end, duration)
