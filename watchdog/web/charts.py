"""Charts as inline SVG. Pure; colours and line widths come from the stylesheet.

Outer charts have no viewBox (x in %, y in px), so that text keeps its size at any width; lines are in a nested `plot`
that stretches. Labels are escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

from watchdog.domain.formatting import NBSP, format_number
from watchdog.domain.model import HealthState
from watchdog.web.times import TimeAxisLabel, render_time_axis

ChartValue: TypeAlias = float | None
"""Milliseconds; None: no data, which is a gap in the line."""

AxisMapping: TypeAlias = Callable[[float], float]
"""From a value or an index to a coordinate."""

CHART_HEIGHT, COUNT_CHART_HEIGHT = 216, 150
"""In pixels."""

HEALTH_STATE_CSS_CLASSES = {
    HealthState.UP: "d-up", HealthState.DEGRADED: "d-degraded", HealthState.DOWN: "d-down",
    HealthState.UNKNOWN: "d-none", HealthState.PAUSED: "d-none",
}  # fmt: skip


def format_svg_number(value: float) -> str:
    """At most two decimals, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class ChartFailedRunCluster(NamedTuple):
    """Failed runs close together. `start` and `stop` are fractions of the chart's width."""

    start: float
    stop: float
    run_count: int

    @property
    def width(self) -> float:
        return max(self.stop - self.start, 0.004)


class LimitLine(NamedTuple):
    value: float
    label: str


@dataclass(frozen=True)
class ChartScale:
    """Maps values and indexes to coordinates. Leaves a margin above the plot, and one below for the time axis."""

    height: int
    max_value: float
    point_count: int
    top_margin: int = 12
    bottom_margin: int = 22

    @property
    def plot_height(self) -> int:
        return self.height - self.top_margin - self.bottom_margin

    def value_to_chart_y(self, value: float) -> float:
        return self.top_margin + self.plot_height * (1 - value / self.max_value)

    def value_to_plot_y(self, value: float) -> float:
        return self.value_to_chart_y(value) - self.top_margin

    def index_to_x(self, index: float) -> float:
        """0 to 1000: the middle of the point's share of the width."""
        return (index + 0.5) / max(1, self.point_count) * 1000


def render_latency_chart(
    lines: tuple[Sequence[ChartValue], Sequence[ChartValue]],
    line_names: tuple[str, str],
    *,
    failures: Sequence[ChartFailedRunCluster],
    limit: LimitLine | None,
    time_labels: Sequence[TimeAxisLabel],
    label: str,
) -> Markup:
    """Two lines over time, the lower one first, with a tinted area between them. Failed runs are crosses on the
    baseline."""
    p50, p95 = lines
    present = [v for v in (*p50, *p95, limit.value if limit else None) if v is not None]
    peak = max([*present, 1.0]) if present else 100.0
    ceiling, step = choose_axis_maximum_and_step(peak)
    scale = ChartScale(CHART_HEIGHT, ceiling, len(p50))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(CHART_HEIGHT, label)
    out += _render_grid_lines(scale, step, limit)
    for f in failures:
        out += Markup('<rect class="badspan" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            format_svg_number(f.start * 100), scale.top_margin, format_svg_number(f.width * 100), scale.plot_height
        )
    out += Markup(
        '<svg class="plot" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none">'
    ).format(scale.top_margin, h=scale.plot_height)
    area = _build_svg_area(p50, p95, scale.index_to_x, scale.value_to_plot_y)
    out += Markup('<path class="area" d="{}"/>').format(area)
    for name, values in (("p95", p95), ("p50", p50)):
        out += Markup('<path class="{}" d="{}"/>').format(
            name, _build_svg_line_path(values, scale.index_to_x, scale.value_to_plot_y)
        )
    out += Markup("</svg>") + _render_line_labels(scale, lines, line_names)
    out += _render_limit_line(scale, limit)
    for f in failures:
        out += Markup(
            '<svg x="{}%" y="{}" overflow="visible"><path class="x-mark" d="M-3.5 0l7 7m0-7l-7 7"/>'
            '<text class="t-bad" x="8" y="7">{}</text></svg>'
        ).format(
            format_svg_number((f.start + f.width / 2) * 100), scale.top_margin + scale.plot_height - 12, f.run_count
        )
    return out + render_time_axis(time_labels, scale.height - 4) + Markup("</svg>")


def render_count_chart(
    values: Sequence[ChartValue], limit: LimitLine | None, time_labels: Sequence[TimeAxisLabel], label: str
) -> Markup:
    """A count over time."""
    present = [v for v in (*values, limit.value if limit else None) if v is not None]
    ceiling, step = choose_axis_maximum_and_step(max([*present, 5.0]))
    scale = ChartScale(COUNT_CHART_HEIGHT, ceiling, len(values))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(COUNT_CHART_HEIGHT, label)
    out += _render_grid_lines(scale, step, limit, lambda value, _: format_number(round(value)))
    out += Markup(
        '<svg class="plot" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none">'
        '<path class="area" d="{area}"/><path class="p50" d="{line}"/></svg>'
    ).format(
        scale.top_margin,
        h=scale.plot_height,
        area=_build_svg_area([0.0] * len(values), values, scale.index_to_x, scale.value_to_plot_y),
        line=_build_svg_line_path(values, scale.index_to_x, scale.value_to_plot_y),
    )
    return out + _render_limit_line(scale, limit) + render_time_axis(time_labels, scale.height - 4) + Markup("</svg>")


class CanaryChartColumn(NamedTuple):
    """The sentinel jobs of a point in time: ms until they were picked up, and from then (or from being sent) until they
    were finished."""

    pick_up_ms: float | None
    processing_ms: float | None
    has_failed_run: bool
    has_passed_run: bool


def render_canary_chart(
    timings: Sequence[CanaryChartColumn | None], time_labels: Sequence[TimeAxisLabel], label: str
) -> Markup:
    """Columns: waiting below, processing above. A cross marks a column with failed runs, which is hatched if none
    passed. None: no run."""
    peak = max([*((c.pick_up_ms or 0) + (c.processing_ms or 0) for c in timings if c), 1.0])
    ceiling, step = choose_axis_maximum_and_step(peak)
    scale = ChartScale(CHART_HEIGHT, ceiling, len(timings))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(CHART_HEIGHT, label) + _render_grid_lines(
        scale, step, None
    )
    baseline, width = scale.value_to_chart_y(0), 68 / max(1, len(timings))
    for i, column in enumerate(timings):
        if column is None:
            continue
        x, y = scale.index_to_x(i) / 10 - width / 2, baseline
        for name, ms in (("wait", column.pick_up_ms), ("work", column.processing_ms)):
            if ms:
                bar_height = max(baseline - scale.value_to_chart_y(ms), 1)
                y -= bar_height
                out += _build_svg_rect(name, x, y, width, bar_height)
        if column.has_failed_run:
            if not column.has_passed_run:
                y = min(y, baseline - scale.plot_height * 0.4)
                out += _build_svg_rect("fail", x, y, width, baseline - y)
            out += Markup(
                '<svg x="{}%" y="{}" overflow="visible"><path class="x-mark" d="M-3.5 0l7 7m0-7l-7 7"/></svg>'
            ).format(format_svg_number(x + width / 2), format_svg_number(y - 12))
    return out + render_time_axis(time_labels, scale.height - 4) + Markup("</svg>")


def _build_svg_rect(css_class: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"/>').format(
        css_class, format_svg_number(x), format_svg_number(y), format_svg_number(width), format_svg_number(height)
    )


def _render_limit_line(scale: ChartScale, limit: LimitLine | None) -> Markup:
    if limit is None:
        return Markup()
    return Markup(
        '<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        '<text class="t-limit" x="100%" y="{ty}" text-anchor="end">{text}</text>'
    ).format(
        y=format_svg_number(scale.value_to_chart_y(limit.value)),
        ty=format_svg_number(scale.value_to_chart_y(limit.value) - 5),
        text=limit.label,
    )


def _render_grid_lines(
    scale: ChartScale, step: float, limit: LimitLine | None, format_tick: Callable[[float, float], str] | None = None
) -> Markup:
    """Lines at round values, except close to the limit line."""
    out = Markup()
    for i in range(floor(scale.max_value / step + 1e-9) + 1):
        y = scale.value_to_chart_y(i * step)
        if limit is None or abs(y - scale.value_to_chart_y(limit.value)) >= 14:
            out += Markup(
                '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
                '<text x="0" dx="-8" y="{ty}" text-anchor="end">{text}</text>'
            ).format(
                y=format_svg_number(y),
                ty=format_svg_number(y + 4),
                text=(format_tick or format_duration_tick)(i * step, scale.max_value),
            )
    return out


def _render_line_labels(
    scale: ChartScale, lines: tuple[Sequence[ChartValue], Sequence[ChartValue]], names: tuple[str, str]
) -> Markup:
    """The names at the ends of the lines, moved apart if they would overlap."""
    ends: list[tuple[str, float, float]] = []
    for name, values in reversed(list(zip(names, lines, strict=True))):
        if present := [(i, v) for i, v in enumerate(values) if v is not None]:
            index, value = present[-1]
            ends.append((name, scale.index_to_x(index) / 10, scale.value_to_chart_y(value) + 4))
    if len(ends) == 2 and ends[1][2] - ends[0][2] < 12:
        middle = (ends[0][2] + ends[1][2]) / 2
        ends = [(name, x, middle + shift) for (name, x, _), shift in zip(ends, (-6, 6), strict=True)]
    return Markup().join(
        Markup('<text class="t-data" x="{}%" dx="6" y="{}">{}</text>').format(
            format_svg_number(x), format_svg_number(y), name
        )
        for name, x, y in ends
    )


def choose_axis_maximum_and_step(peak: float) -> tuple[float, float]:
    """(maximum, step): a maximum above the peak, and a round step that gives two to six grid lines."""
    rough = peak * 1.05 / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return ceil(peak * 1.05 / (step / 2)) * step / 2, step


def format_duration_tick(value: float, max_value: float) -> str:
    if value == 0:
        return "0"
    return f"{format_svg_number(value / 1000)}{NBSP}s" if max_value >= 2000 else f"{format_svg_number(value)}{NBSP}ms"


def render_phase_bar(parts: Iterable[tuple[int, float]], full_scale_ms: float, *, incomplete: bool = False) -> Markup:
    """One run's phases side by side, given as (colour 1-5, ms), on a scale of `full_scale_ms`.

    A phase that was interrupted (`incomplete`), or that exceeds the scale, is hatched up to the end.
    """
    at, out = 0.0, Markup()
    for colour, ms in parts:
        width = ms / full_scale_ms * 100 if full_scale_ms > 0 else 0
        if at + width > 101:
            incomplete = True
            break
        out += Markup('<rect class="ph{}" x="{}%" y="2" width="{}%" height="14"/>').format(
            colour, format_svg_number(at), format_svg_number(max(width - 0.25, 0.35))
        )
        at += width
    if incomplete:
        out += Markup('<rect class="fail" x="{}%" y="2.5" width="{}%" height="13"/>').format(
            format_svg_number(at), format_svg_number(max(100 - at, 1))
        )
    return Markup('<svg aria-hidden="true" focusable="false">{}</svg>').format(out)


def render_state_timeline(parts: Iterable[tuple[HealthState, float, float]], label: str) -> Markup:
    """States over time, given as (state, start, stop) in fractions of the width."""
    heights = {HealthState.UP: 9, HealthState.DEGRADED: 14, HealthState.DOWN: 18}
    out = Markup('<svg class="tl" role="img" aria-label="{}">').format(label)
    for state, start, stop in parts:
        h = heights.get(state, 3)
        out += Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            HEALTH_STATE_CSS_CLASSES[state],
            format_svg_number(start * 100),
            18 - h,
            format_svg_number(max((stop - start) * 100 - 0.1, 0.3)),
            h,
        )
    return out + Markup("</svg>")


def split_values_at_gaps(values: Sequence[ChartValue]) -> Iterator[list[tuple[int, float]]]:
    """Runs of consecutive values as (index, value)."""
    run: list[tuple[int, float]] = []
    for i, v in enumerate(values):
        if v is not None:
            run.append((i, v))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _build_svg_line_path(values: Sequence[ChartValue], x: AxisMapping, y: AxisMapping) -> str:
    """A single value becomes a dot: a line of almost no length with round ends."""
    return "".join(
        "M"
        + "L".join(f"{format_svg_number(x(i))} {format_svg_number(y(v))}" for i, v in run)
        + ("h.01" if len(run) == 1 else "")
        for run in split_values_at_gaps(values)
    )


def _build_svg_area(low: Sequence[ChartValue], high: Sequence[ChartValue], x: AxisMapping, y: AxisMapping) -> str:
    """The area between two lines, where both have a value."""
    both: list[ChartValue] = [None if a is None or b is None else b for a, b in zip(low, high, strict=True)]
    out = []
    for run in split_values_at_gaps(both):
        upper = [f"{format_svg_number(x(i))} {format_svg_number(y(v))}" for i, v in run]
        lower = [
            f"{format_svg_number(x(i))} {format_svg_number(y(v))}"
            for i, v in reversed([(i, low[i]) for i, _ in run])
            if v is not None
        ]
        out.append("M" + "L".join([*upper, *lower]) + "z")
    return "".join(out)
