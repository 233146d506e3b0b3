"""Incidents as intervals of time, the days that they affect, and the uptime that follows. Pure; times in ms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS, MaintenancePeriods
from watchdog.domain.model import HealthState

RANK_BY_HEALTH_STATE = {state: rank for rank, state in enumerate(HealthState)}
"""The better the state, the lower its rank."""


class HealthStateInterval(NamedTuple):
    """A probe was in one state during [start, stop)."""

    state: HealthState
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def clip_to_period_possibly_empty(self, start: int, stop: int) -> HealthStateInterval:
        """Its part within [start, stop); of no or negative length if there is none."""
        return HealthStateInterval(self.state, max(self.start, start), min(self.stop, stop))


def find_worst_state_or_up(states: Iterable[HealthState]) -> HealthState:
    """Up if there are no states."""
    return max(states, key=RANK_BY_HEALTH_STATE.__getitem__, default=HealthState.UP)


def clip_state_intervals(intervals: Iterable[HealthStateInterval], start: int, stop: int) -> list[HealthStateInterval]:
    """The parts of the intervals within [start, stop)."""
    clipped = (interval.clip_to_period_possibly_empty(start, stop) for interval in intervals)
    return [interval for interval in clipped if interval.length > 0]


def flatten_to_worst_states(
    intervals: Iterable[HealthStateInterval], start: int, stop: int
) -> list[HealthStateInterval]:
    """The worst state at every instant of [start, stop) that any interval covers: in order, disjoint, and adjacent
    intervals of the same state joined."""
    inside = clip_state_intervals(intervals, start, stop)
    edges = sorted([(i.start, 1, i.state) for i in inside] + [(i.stop, -1, i.state) for i in inside])
    flat: list[HealthStateInterval] = []
    open_counts = dict.fromkeys(HealthState, 0)
    for (at, step, state), (until, *_) in pairwise(edges):
        open_counts[state] += step
        covering = [state for state, count in open_counts.items() if count]
        if at == until or not covering:
            continue
        worst = find_worst_state_or_up(covering)
        if flat and flat[-1].stop == at and flat[-1].state is worst:
            flat[-1] = flat[-1]._replace(stop=until)
        else:
            flat.append(HealthStateInterval(worst, at, until))
    return flat


def merge_touching_intervals_into_worst_state(intervals: Iterable[HealthStateInterval]) -> list[HealthStateInterval]:
    """Joins intervals that touch or overlap into one of their worst state; newest first."""
    merged: list[HealthStateInterval] = []
    for interval in sorted(intervals, key=lambda i: i.start):
        if merged and interval.start <= merged[-1].stop:
            last = merged[-1]
            state = find_worst_state_or_up([last.state, interval.state])
            merged[-1] = HealthStateInterval(state, last.start, max(last.stop, interval.stop))
        else:
            merged.append(interval)
    return merged[::-1]


class DailyUptime(NamedTuple):
    """One day (UTC) of one probe."""

    start: int
    state: HealthState
    """Unknown: no run had a verdict that day."""
    measured_ms: int
    """How much of the day counts for uptime: nothing without data, and no time in which the probe was paused or in
    maintenance; of today the part that has passed."""
    down_ms: int
    degraded_ms: int


def compute_daily_uptime(
    intervals: Iterable[HealthStateInterval], measured_days: Collection[int], created_at: int, now: int, day_count: int,
    *, maintenance: MaintenancePeriods = NO_MAINTENANCE_PERIODS,
) -> list[DailyUptime]:  # fmt: skip
    """The last `day_count` days, today last.

    `measured_days`: the days (since the epoch) on which any run had a verdict. Problems on other days do not count,
    because nothing was measured. `created_at`: when the probe was added. `maintenance`: does not count either.
    """
    today = now // DAY_MS
    intervals = [
        HealthStateInterval(interval.state, start, stop)
        for interval in intervals
        for start, stop in maintenance.subtract_from(interval.start, interval.stop)
    ]
    affected_ms_by_day: dict[int, dict[HealthState, int]] = {}
    for interval in flatten_to_worst_states(intervals, (today - day_count + 1) * DAY_MS, now):
        for day in range(interval.start // DAY_MS, (interval.stop - 1) // DAY_MS + 1):
            part = interval.clip_to_period_possibly_empty(day * DAY_MS, (day + 1) * DAY_MS)
            affected_ms = affected_ms_by_day.setdefault(day, {})
            affected_ms[interval.state] = affected_ms.get(interval.state, 0) + part.length
    summaries = []
    for day in range(today - day_count + 1, today + 1):
        start, stop = day * DAY_MS, min((day + 1) * DAY_MS, now)
        if day not in measured_days:
            summaries.append(DailyUptime(start, HealthState.UNKNOWN, 0, 0, 0))
            continue
        measured_from = created_at if start < created_at < stop else start
        affected_ms = affected_ms_by_day.get(day, {})
        down, degraded = affected_ms.get(HealthState.DOWN, 0), affected_ms.get(HealthState.DEGRADED, 0)
        state = HealthState.DOWN if down else HealthState.DEGRADED if degraded else HealthState.UP
        away = affected_ms.get(HealthState.PAUSED, 0)
        if maintenance:
            away += maintenance.compute_overlap_ms(measured_from, stop)
        summaries.append(DailyUptime(start, state, max(0, stop - measured_from - away), down, degraded))
    return summaries


def compute_uptime_basis_points(days: Sequence[DailyUptime]) -> int | None:
    """Hundredths of a percent, rounded down, so that 10,000 means no downtime at all. None: nothing was measured."""
    measured = sum(day.measured_ms for day in days)
    if not measured:
        return None
    return max(0, measured - sum(day.down_ms for day in days)) * 10_000 // measured
