"""From incidents to a line of time: spans of trouble, days, uptime. Pure; instants and lengths in milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from watchdog.model import State
from watchdog.words import DAY, STATE_WORD

STATE_WORDS = {**STATE_WORD, State.UNKNOWN: "No data"}
"""On a page, unknown is the absence of data."""

RANK = {state: rank for rank, state in enumerate(State)}
"""Better states have lower ranks."""


class Span(NamedTuple):
    """A probe was in one state from `start` up to `stop`."""

    state: State
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def worst(states: Iterable[State]) -> State:
    """Up when there is none."""
    return max(states, key=RANK.__getitem__, default=State.UP)


def flatten(spans: Iterable[Span], start: int, stop: int) -> list[Span]:
    """The worst state at every instant of [start, stop) that any span covers: in order, disjoint, neighbours joined."""
    inside = [Span(s.state, max(s.start, start), min(s.stop, stop)) for s in spans]
    inside = [span for span in inside if span.length > 0]
    edges = sorted([(s.start, 1, s.state) for s in inside] + [(s.stop, -1, s.state) for s in inside])
    flat: list[Span] = []
    count = dict.fromkeys(State, 0)
    for (at, step, state), (until, *_) in pairwise(edges):
        count[state] += step
        covered = [state for state, n in count.items() if n]
        if at == until or not covered:
            continue
        now = worst(covered)
        if flat and flat[-1].stop == at and flat[-1].state is now:
            flat[-1] = flat[-1]._replace(stop=until)
        else:
            flat.append(Span(now, at, until))
    return flat


def episodes(spans: Iterable[Span]) -> list[Span]:
    """Spans that touch or overlap become one, in its worst state; newest first."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start):
        if joined and span.start <= joined[-1].stop:
            last = joined[-1]
            joined[-1] = Span(worst([last.state, span.state]), last.start, max(last.stop, span.stop))
        else:
            joined.append(span)
    return joined[::-1]


class Day(NamedTuple):
    """One day (UTC) of one probe. `state` unknown: nothing was judged that day."""

    start: int
    state: State
    measured: int
    """How much of the day counts for uptime: none of it without data, the part so far of today."""
    down: int
    degraded: int


def days(spans: Iterable[Span], measured: Collection[int], first: int, now: int, count: int) -> list[Day]:
    """The last `count` days, today last.

    `measured`: the days (counted since the epoch) on which anything was judged; `first`: when the probe began. Trouble
    on a day without data does not count: nobody looked.
    """
    today = now // DAY
    spent: dict[tuple[int, State], int] = {}
    for span in flatten(spans, (today - count + 1) * DAY, now):
        for day in range(span.start // DAY, (span.stop - 1) // DAY + 1):
            inside = min(span.stop, (day + 1) * DAY) - max(span.start, day * DAY)
            spent[day, span.state] = spent.get((day, span.state), 0) + inside
    out = []
    for day in range(today - count + 1, today + 1):
        start, stop = day * DAY, min((day + 1) * DAY, now)
        if day not in measured:
            out.append(Day(start, State.UNKNOWN, 0, 0, 0))
            continue
        down, degraded = spent.get((day, State.DOWN), 0), spent.get((day, State.DEGRADED), 0)
        state = State.DOWN if down else State.DEGRADED if degraded else State.UP
        since = first if start < first < stop else start
        out.append(Day(start, state, stop - since, down, degraded))
    return out


def uptime(days: Sequence[Day]) -> int | None:
    """Hundredths of a percent, rounded down: 10,000 means no downtime at all. None: nothing was measured."""
    measured = sum(day.measured for day in days)
    if not measured:
        return None
    return max(0, measured - sum(day.down for day in days)) * 10_000 // measured
