"""From incidents to a line of time: spans of trouble, days, uptime. Pure; instants and lengths in milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS, HEALTH_STATE_LABELS
from watchdog.domain.model import HealthState

PAGE_STATE_LABELS = {**HEALTH_STATE_LABELS, HealthState.UNKNOWN: "No data"}
"""On a page, unknown is the absence of data."""

STATE_RANK = {state: rank for rank, state in enumerate(HealthState)}
"""Better states have lower ranks."""


class StateInterval(NamedTuple):
    """A probe was in one state from `start` up to `stop`."""

    state: HealthState
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def worst_state(states: Iterable[HealthState]) -> HealthState:
    """Up when there is none."""
    return max(states, key=STATE_RANK.__getitem__, default=HealthState.UP)


def flatten_intervals(intervals: Iterable[StateInterval], start: int, stop: int) -> list[StateInterval]:
    """The worst state at every instant of [start, stop) that any span covers: in order, disjoint, neighbours joined."""
    inside = [StateInterval(s.state, max(s.start, start), min(s.stop, stop)) for s in intervals]
    inside = [span for span in inside if span.length > 0]
    edges = sorted([(s.start, 1, s.state) for s in inside] + [(s.stop, -1, s.state) for s in inside])
    flat: list[StateInterval] = []
    count = dict.fromkeys(HealthState, 0)
    for (at, step, state), (until, *_) in pairwise(edges):
        count[state] += step
        covered = [state for state, n in count.items() if n]
        if at == until or not covered:
            continue
        now = worst_state(covered)
        if flat and flat[-1].stop == at and flat[-1].state is now:
            flat[-1] = flat[-1]._replace(stop=until)
        else:
            flat.append(StateInterval(now, at, until))
    return flat


def merge_adjacent_intervals(intervals: Iterable[StateInterval]) -> list[StateInterval]:
    """Spans that touch or overlap become one, in its worst state; newest first."""
    joined: list[StateInterval] = []
    for span in sorted(intervals, key=lambda s: s.start):
        if joined and span.start <= joined[-1].stop:
            last = joined[-1]
            joined[-1] = StateInterval(worst_state([last.state, span.state]), last.start, max(last.stop, span.stop))
        else:
            joined.append(span)
    return joined[::-1]


class DaySummary(NamedTuple):
    """One day (UTC) of one probe. `state` unknown: nothing was judged that day."""

    start: int
    state: HealthState
    measured_ms: int
    """How much of the day counts for uptime: none of it without data, the part so far of today."""
    down_ms: int
    degraded_ms: int


def summarize_days(
    intervals: Iterable[StateInterval], measured_days: Collection[int], created_at: int, now: int, day_count: int
) -> list[DaySummary]:
    """The last `count` days, today last.

    `measured`: the days (counted since the epoch) on which anything was judged; `first`: when the probe began. Trouble
    on a day without data does not count: nobody looked.
    """
    today = now // DAY_MS
    spent: dict[tuple[int, HealthState], int] = {}
    for span in flatten_intervals(intervals, (today - day_count + 1) * DAY_MS, now):
        for day in range(span.start // DAY_MS, (span.stop - 1) // DAY_MS + 1):
            inside = min(span.stop, (day + 1) * DAY_MS) - max(span.start, day * DAY_MS)
            spent[day, span.state] = spent.get((day, span.state), 0) + inside
    out = []
    for day in range(today - day_count + 1, today + 1):
        start, stop = day * DAY_MS, min((day + 1) * DAY_MS, now)
        if day not in measured_days:
            out.append(DaySummary(start, HealthState.UNKNOWN, 0, 0, 0))
            continue
        down, degraded = spent.get((day, HealthState.DOWN), 0), spent.get((day, HealthState.DEGRADED), 0)
        state = HealthState.DOWN if down else HealthState.DEGRADED if degraded else HealthState.UP
        since = created_at if start < created_at < stop else start
        out.append(DaySummary(start, state, stop - since, down, degraded))
    return out


def uptime_basis_points(days: Sequence[DaySummary]) -> int | None:
    """Hundredths of a percent, rounded down: 10,000 means no downtime at all. None: nothing was measured."""
    measured = sum(day.measured_ms for day in days)
    if not measured:
        return None
    return max(0, measured - sum(day.down_ms for day in days)) * 10_000 // measured
