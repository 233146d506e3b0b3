"""The stretch of time that a chart shows, and how it is divided into points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_high
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, format_time_of_day
from watchdog.store.read.status import ResultRow
from watchdog.web.times import TimeAxisLabel, TimeStyle

CHART_WINDOW_AND_POINT_DURATIONS_MS = (
    (5 * MINUTE_MS, 5 * SECOND_MS),
    (20 * MINUTE_MS, 10 * SECOND_MS),
    (HOUR_MS, 30 * SECOND_MS),
    (6 * HOUR_MS, 3 * MINUTE_MS),
    (DAY_MS, 10 * MINUTE_MS),
)
"""(length, step): the time shown, and the share of it that is one point."""
CHART_POINT_DURATION_CHOICES_MS = tuple(
    seconds * SECOND_MS for seconds in (10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 14_400)
)


class ChartWindow(NamedTuple):
    """[start, stop) in `point_count` points of `step` ms."""

    start: int
    stop: int
    step: int
    point_count: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def find_chart_point_index(self, at: int) -> int:
        """The point that an instant belongs to; the first or last one for instants outside the window."""
        return min(max((at - self.start) // self.step, 0), self.point_count - 1)

    def get_chart_point_start_ms(self, index: int) -> int:
        return self.start + index * self.step


def choose_chart_window(runs: Sequence[ResultRow], now: int) -> ChartWindow:
    """The shortest window that holds all of `runs`, at most a day. A point is at least as long as their interval."""
    age = now - runs[0].slot if runs else 0
    length, step = next(
        (window for window in CHART_WINDOW_AND_POINT_DURATIONS_MS if age <= window[0]),
        CHART_WINDOW_AND_POINT_DURATIONS_MS[-1],
    )
    intervals = [later.slot - earlier.slot for earlier, later in pairwise(runs)]
    interval = median_high(intervals) if intervals else 0
    if interval > step:
        step = next(
            (step for step in CHART_POINT_DURATION_CHOICES_MS if step >= interval), CHART_POINT_DURATION_CHOICES_MS[-1]
        )
    return ChartWindow(now - length, now, step, -(-length // step))


def build_time_axis_labels(window: ChartWindow) -> list[TimeAxisLabel]:
    with_seconds = window.length < HOUR_MS
    style = TimeStyle.TIME_WITH_SECONDS if with_seconds else TimeStyle.TIME
    instants = [window.start + window.length * i // 6 for i in range(6)]
    labels = [TimeAxisLabel(format_time_of_day(at, seconds=with_seconds), at, style) for at in instants]
    return [*labels, TimeAxisLabel("now")]
