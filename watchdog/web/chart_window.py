"""The stretch of time that the charts of a page show, how it is divided into points, and links to other ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median_high
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    format_date,
    format_duration,
    format_time_of_day,
)
from watchdog.store.read.status import ResultRow
from watchdog.web.times import TimeAxisLabel, TimeStyle, render_timestamp

CHART_WINDOW_AND_POINT_DURATIONS_MS = (
    (5 * MINUTE_MS, 5 * SECOND_MS),
    (20 * MINUTE_MS, 10 * SECOND_MS),
    (HOUR_MS, 30 * SECOND_MS),
    (6 * HOUR_MS, 3 * MINUTE_MS),
    (DAY_MS, 10 * MINUTE_MS),
)
"""(length, step): the time shown, and the share of it that is one point."""
CHART_POINT_DURATION_CHOICES_MS = tuple(
    seconds * SECOND_MS
    for seconds in (5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200)
)
CHART_RANGES_MS = {
    "1h": HOUR_MS, "6h": 6 * HOUR_MS, "24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS, "90d": 90 * DAY_MS,
}  # fmt: skip
"""The ranges to choose from, by their name in URLs."""
MIN_CHART_LENGTH_MS, MAX_CHART_AGE_MS = 5 * MINUTE_MS, 90 * DAY_MS
MAX_CHART_LENGTH_OF_RUNS_MS = DAY_MS
"""A longer chart is drawn from hourly roll-ups or a sample of the runs: a page reads at most the runs of a day."""
MAX_CHART_POINTS = 180
SAMPLED_RUNS_PER_CHART_POINT = 8
"""So a sample has at most about 1,500 runs."""


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

    def sum_counts_by_chart_point(self, counts: Iterable[tuple[int, int]]) -> list[int]:
        """`counts`: (instant, number)."""
        sums = [0] * self.point_count
        for at, count in counts:
            sums[self.find_chart_point_index(at)] += count
        return sums

    @property
    def sample_interval_ms(self) -> int:
        return self.step // SAMPLED_RUNS_PER_CHART_POINT


class ChartUrlQuery(NamedTuple):
    """The part of a probe's history that the URL names: `?range=7d`, or `?from=MS&to=MS`; default: the newest runs."""

    range_name: str = ""
    """A key of CHART_RANGES_MS."""
    start: int | None = None
    stop: int | None = None
    other_parameters: tuple[str, ...] = ()
    """Of the same page, such as `all`; links keep them."""

    @property
    def parameters(self) -> tuple[str, ...]:
        if self.start is not None and self.stop is not None:
            return (f"from={self.start}", f"to={self.stop}")
        return (f"range={self.range_name}",) if self.range_name else ()

    def build_query_string_of_other_period(
        self, *, range_name: str = "", start: int | None = None, stop: int | None = None
    ) -> str:
        """For a link to another part; without any, to the newest runs."""
        query = ChartUrlQuery(range_name, start, stop)
        return "?" + "&".join((*query.parameters, *self.other_parameters))

    def find_period(self, now: int) -> tuple[int, int] | None:
        """[start, stop) in epoch ms; None: the newest runs."""
        if self.start is not None and self.stop is not None:
            return self.start, self.stop
        return (now - CHART_RANGES_MS[self.range_name], now) if self.range_name else None

    def build_zoom_query_string(self, window: ChartWindow, index: int) -> str:
        """For a chart of this point alone; empty: it is too short for one."""
        start = window.get_chart_point_start_ms(index)
        stop = min(start + window.step, window.stop)
        is_long_enough = MIN_CHART_LENGTH_MS <= stop - start < window.length
        return self.build_query_string_of_other_period(start=start, stop=stop) if is_long_enough else ""

    def render_period_title(self, window: ChartWindow, now: int) -> Markup:
        """For titles: "last 7 days", "21 Nov 22:00 to 02:00"."""
        if self.start is None:
            length = CHART_RANGES_MS.get(self.range_name, window.length)
            return Markup("last {}").format(format_duration(length))
        return Markup("{} to {}").format(render_timestamp(window.start, now), render_timestamp(window.stop, now))


class ChartRangeLink(NamedTuple):
    """To another part of the history, which all charts of the page show then."""

    label: str
    query_string: str
    is_current: bool = False


def build_chart_range_links(window: ChartWindow, query: ChartUrlQuery, now: int) -> Iterator[ChartRangeLink]:
    """To each range; from a part that the URL names by instants, also to the time before it, unless that is too old for
    a chart, to the time after it, and to the newest runs."""
    for name, length in CHART_RANGES_MS.items():
        is_current = name == query.range_name or (not query.parameters and length == window.length)
        yield ChartRangeLink(
            format_duration(length), query.build_query_string_of_other_period(range_name=name), is_current
        )
    if query.start is None:
        return
    length = window.stop - window.start
    if window.start - MIN_CHART_LENGTH_MS >= now - MAX_CHART_AGE_MS:
        yield ChartRangeLink(
            "Earlier", query.build_query_string_of_other_period(start=window.start - length, stop=window.start)
        )
    if window.stop < now:
        yield ChartRangeLink(
            "Later", query.build_query_string_of_other_period(start=window.stop, stop=window.stop + length)
        )
    yield ChartRangeLink("Newest", query.build_query_string_of_other_period())


def parse_chart_url_query(range_name: str, start: int | None, stop: int | None, now: int) -> ChartUrlQuery:
    """Ignores a range that does not exist, and a period that is too short, too old or in the future."""
    if start is not None and stop is not None:
        start, stop = max(start, now - MAX_CHART_AGE_MS), min(stop, now)
        if stop - start >= MIN_CHART_LENGTH_MS:
            return ChartUrlQuery(start=start, stop=stop)
    return ChartUrlQuery(range_name if range_name in CHART_RANGES_MS else "")


def build_chart_window_of_runs(runs: Sequence[ResultRow], start: int, stop: int) -> ChartWindow:
    """A point is at least as long as the interval of the runs."""
    step = _choose_chart_point_duration(
        max(_compute_median_run_interval_ms(runs), -(-(stop - start) // MAX_CHART_POINTS))
    )
    return ChartWindow(start, stop, step, -(-(stop - start) // step))


def build_chart_window_of_whole_hours(start: int, stop: int, now: int) -> ChartWindow:
    """Points of whole hours: [start, stop) is extended to whole hours, but not beyond `now`."""
    start, stop = start // HOUR_MS * HOUR_MS, min(-(-stop // HOUR_MS) * HOUR_MS, now)
    step = _choose_chart_point_duration(max(HOUR_MS, -(-(stop - start) // MAX_CHART_POINTS)))
    return ChartWindow(start, stop, step, -(-(stop - start) // step))


def _compute_median_run_interval_ms(runs: Sequence[ResultRow]) -> int:
    """0 if there are too few runs."""
    intervals = [later.slot - earlier.slot for earlier, later in pairwise(runs)]
    return median_high(intervals) if intervals else 0


def _choose_chart_point_duration(min_duration: int) -> int:
    choices = CHART_POINT_DURATION_CHOICES_MS
    return next((choice for choice in choices if choice >= min_duration), choices[-1])


def choose_shortest_chart_window_holding_runs(runs: Sequence[ResultRow], now: int) -> ChartWindow:
    """The shortest window that holds all of `runs`, at most a day. A point is at least as long as their interval."""
    age = now - runs[0].slot if runs else DAY_MS
    length, step = next(
        (window for window in CHART_WINDOW_AND_POINT_DURATIONS_MS if age <= window[0]),
        CHART_WINDOW_AND_POINT_DURATIONS_MS[-1],
    )
    if (interval := _compute_median_run_interval_ms(runs)) > step:
        step = _choose_chart_point_duration(interval)
    return ChartWindow(now - length, now, step, -(-length // step))


def build_time_axis_labels(window: ChartWindow, now: int) -> list[TimeAxisLabel]:
    """Times; for more than two days, dates."""
    labels = []
    for at in [window.start + window.length * i // 6 for i in range(7)]:
        if window.length > 2 * DAY_MS:
            labels.append(TimeAxisLabel(format_date(at, now), at, TimeStyle.DATE))
        elif window.length < HOUR_MS:
            labels.append(TimeAxisLabel(format_time_of_day(at, seconds=True), at, TimeStyle.TIME_WITH_SECONDS))
        else:
            labels.append(TimeAxisLabel(format_time_of_day(at), at))
    return [*labels[:-1], TimeAxisLabel("now")] if window.stop == now else labels
