"""The drawing: pure functions from numbers to inline SVG. Colours and line widths are the stylesheet's.

Outer charts have no viewBox (x in %, y in px), so that text keeps its size at any width; lines sit in a nested `plot`
that stretches. Every label is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal, NamedTuple, TypeAlias

from markupsafe import Markup

from watchdog.model import State
from watchdog.words import NBSP, number

Point: TypeAlias = float | None
"""Milliseconds; None: no data, a gap in the line."""

Spark: TypeAlias = float | Literal["x"] | None
"""Milliseconds; "x": a failed run; None: no run."""

Axis: TypeAlias = Callable[[float], float]
"""From a value (or an index) to its place."""

BAR = {State.UP: 18, State.DEGRADED: 25, State.DOWN: 32, State.UNKNOWN: 3}
"""Height of a day's bar: the worse the day, the taller; no data is a stub."""

CLASS = {State.UP: "d-up", State.DEGRADED: "d-degraded", State.DOWN: "d-down", State.UNKNOWN: "d-none"}


def n(x: float) -> str:
    """A number as SVG takes it, no longer than it needs to be."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def bars(days: Sequence[tuple[State, str]], label: str) -> Markup:
    """One bar a day, as (state, title). Good days share a path, days without data too; each other day has its own."""
    width, gap, height = 10, 2.4, BAR[State.DOWN]
    paths: dict[State, list[str]] = {State.UP: [], State.UNKNOWN: []}
    titled: list[Markup] = []
    for i, (state, title) in enumerate(days):
        h, w = BAR[state], n(width - gap)
        d = f"M{n(i * width + gap / 2)} {height - h}h{w}v{h}h-{w}z"
        if state in paths:
            paths[state].append(d)
        else:
            titled.append(Markup('<path class="%s" d="%s"><title>%s</title></path>') % (CLASS[state], d, title))
    out = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">').format(
        max(1, len(days)) * width, height, label
    )
    if up := "".join(paths[State.UP]):
        out += Markup('<path class="d-up" d="{}"/>').format(up)
    if none := "".join(paths[State.UNKNOWN]):
        out += Markup('<path class="d-none" d="{}"><title>No data</title></path>').format(none)
    return out + Markup().join(titled) + Markup("</svg>")


def spark(values: Sequence[Spark], width: int = 112, height: int = 22) -> Markup:
    """The last runs, oldest first, on their own scale. Crosses sit on the baseline; a quiet line stays quiet."""
    numbers = [v for v in values if v is not None and v != "x"]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    high = high if high > low * 1.6 else low * 1.6 + 1  # noise is never stretched to full height
    low = min(low, high * 0.2)
    step = (width - 6) / max(1, len(values) - 1)
    line = _line([None if v == "x" else v for v in values], lambda i: 3 + i * step,
                 lambda v: height - 4 - (v - low) / (high - low) * (height - 8))  # fmt: skip
    crosses, runs = [], []
    for i, v in enumerate(values):
        x = 3 + i * step
        if v == "x" and list(values[max(0, i - 2) : i]) == ["x", "x"]:
            runs.append(f"M{n(x - step)} {height - 5}h{n(step)}")  # three or more in a row: one thick line
        elif v == "x":
            crosses.append(f"M{n(x - 2)} {height - 7}l4 4m0-4l-4 4")
    out = Markup('<svg class="spark" viewBox="0 0 {} {}" aria-hidden="true" focusable="false">').format(width, height)
    if line:
        out += Markup('<path d="{}"/>').format(line)
    elif not crosses:
        out += Markup('<path class="none" d="M3 {}h{}"/>').format(height - 5, width - 6)
    for name, parts in (("x-mark", crosses), ("run", runs)):
        if parts:
            out += Markup('<path class="{}" d="{}"/>').format(name, "".join(parts))
    return out + Markup("</svg>")


class Failures(NamedTuple):
    """Failed runs close together; `start` and `stop` as fractions of the chart's width."""

    start: float
    stop: float
    runs: int

    @property
    def width(self) -> float:
        return max(self.stop - self.start, 0.004)


class Limit(NamedTuple):
    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """Where values lie in a latency chart: a margin above, the hours below."""

    height: int
    ceiling: float
    count: int
    top: int = 12
    bottom: int = 22

    @property
    def inner(self) -> int:
        return self.height - self.top - self.bottom

    def y(self, value: float) -> float:
        return self.top + self.inner * (1 - value / self.ceiling)

    def plot_y(self, value: float) -> float:
        return self.y(value) - self.top

    def x(self, index: float) -> float:
        """0 to 1000: a value stands in the middle of its share of the width."""
        return (index + 0.5) / max(1, self.count) * 1000


def latency(
    p50: Sequence[Point],
    p95: Sequence[Point],
    failures: Sequence[Failures],
    limit: Limit | None,
    hours: Sequence[str],
    label: str,
    height: int = 216,
) -> Markup:
    """Two lines over time, the space between them tinted. Failed runs are crosses on the baseline."""
    known = [v for v in (*p50, *p95, limit.at if limit else None) if v is not None]
    peak = max([*known, 1.0]) if known else 100.0
    ceiling, step = scale(peak)
    frame = Frame(height, ceiling, len(p50))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(height, label)
    out += _grid(frame, step, limit)
    for f in failures:
        out += Markup('<rect class="badspan" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            n(f.start * 100), frame.top, n(f.width * 100), frame.inner
        )
    out += Markup(
        '<svg class="plot" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none">'
    ).format(frame.top, h=frame.inner)
    out += Markup('<path class="area" d="{}"/>').format(_area(p50, p95, frame.x, frame.plot_y))
    for name, values in (("p95", p95), ("p50", p50)):
        out += Markup('<path class="{}" d="{}"/>').format(name, _line(values, frame.x, frame.plot_y))
    out += Markup("</svg>") + _ends(frame, p50, p95)
    out += _limit(frame, limit)
    for f in failures:
        out += Markup(
            '<svg x="{}%" y="{}" overflow="visible"><path class="x-mark" d="M-3.5 0l7 7m0-7l-7 7"/>'
            '<text class="t-bad" x="8" y="7">{}</text></svg>'
        ).format(n((f.start + f.width / 2) * 100), frame.top + frame.inner - 12, f.runs)
    return out + _hours(frame, hours) + Markup("</svg>")


def counts(values: Sequence[Point], limit: Limit | None, hours: Sequence[str], label: str, height: int = 150) -> Markup:
    """How many there were over time."""
    known = [v for v in (*values, limit.at if limit else None) if v is not None]
    ceiling, step = scale(max([*known, 5.0]))
    frame = Frame(height, ceiling, len(values))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(height, label)
    out += _grid(frame, step, limit, lambda value, _: number(round(value)))
    out += Markup(
        '<svg class="plot" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none">'
        '<path class="area" d="{area}"/><path class="p50" d="{line}"/></svg>'
    ).format(
        frame.top, h=frame.inner, area=_area([0.0] * len(values), values, frame.x, frame.plot_y),
        line=_line(values, frame.x, frame.plot_y),
    )  # fmt: skip
    return out + _limit(frame, limit) + _hours(frame, hours) + Markup("</svg>")


class Column(NamedTuple):
    """One sentinel: ms until it was picked up, and from then (or from being sent) until it was finished."""

    wait: float | None
    work: float | None
    failed: bool


def stages(columns: Sequence[Column | None], hours: Sequence[str], label: str, height: int = 216) -> Markup:
    """A column a run, waiting below and working above it; a failed run is hatched. None: no run."""
    peak = max([*((c.wait or 0) + (c.work or 0) for c in columns if c), 1.0])
    ceiling, step = scale(peak)
    frame = Frame(height, ceiling, len(columns))
    out = Markup('<svg height="{}" role="img" aria-label="{}">').format(height, label) + _grid(frame, step, None)
    floor_, width = frame.y(0), 68 / max(1, len(columns))
    for i, column in enumerate(columns):
        if column is None:
            continue
        x, y = frame.x(i) / 10 - width / 2, floor_
        for name, ms in (("wait", column.wait), ("work", column.work)):
            if ms:
                tall = max(floor_ - frame.y(ms), 1)
                y -= tall
                out += _rect(name, x, y, width, tall)
        if column.failed:
            y = min(y, floor_ - frame.inner * 0.4)
            out += _rect("fail", x, y, width, floor_ - y)
            out += Markup(
                '<svg x="{}%" y="{}" overflow="visible"><path class="x-mark" d="M-3.5 0l7 7m0-7l-7 7"/></svg>'
            ).format(n(x + width / 2), n(y - 12))
    return out + _hours(frame, hours) + Markup("</svg>")


def _rect(name: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"/>').format(
        name, n(x), n(y), n(width), n(height)
    )


def _limit(frame: Frame, limit: Limit | None) -> Markup:
    if limit is None:
        return Markup()
    return Markup(
        '<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        '<text class="t-limit" x="100%" y="{ty}" text-anchor="end">{text}</text>'
    ).format(y=n(frame.y(limit.at)), ty=n(frame.y(limit.at) - 5), text=limit.text)


def _grid(frame: Frame, step: float, limit: Limit | None, say: Callable[[float, float], str] | None = None) -> Markup:
    """Lines at round values; none where the limit has its own."""
    out = Markup()
    for i in range(floor(frame.ceiling / step + 1e-9) + 1):
        y = frame.y(i * step)
        if limit is None or abs(y - frame.y(limit.at)) >= 14:
            out += Markup(
                '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
                '<text x="0" dx="-8" y="{ty}" text-anchor="end">{text}</text>'
            ).format(y=n(y), ty=n(y + 4), text=(say or tick)(i * step, frame.ceiling))
    return out


def _ends(frame: Frame, p50: Sequence[Point], p95: Sequence[Point]) -> Markup:
    """The names at the ends of the lines, kept apart."""
    ends: list[tuple[str, float, float]] = []
    for name, values in (("p95", p95), ("p50", p50)):
        if known := [(i, v) for i, v in enumerate(values) if v is not None]:
            index, value = known[-1]
            ends.append((name, frame.x(index) / 10, frame.y(value) + 4))
    if len(ends) == 2 and ends[1][2] - ends[0][2] < 12:
        middle = (ends[0][2] + ends[1][2]) / 2
        ends = [(name, x, middle + shift) for (name, x, _), shift in zip(ends, (-6, 6), strict=True)]
    return Markup().join(
        Markup('<text class="t-data" x="{}%" dx="6" y="{}">{}</text>').format(n(x), n(y), name) for name, x, y in ends
    )


def _hours(frame: Frame, hours: Sequence[str]) -> Markup:
    out = Markup()
    for i, text in enumerate(hours):
        anchor = "start" if i == 0 else "end" if i == len(hours) - 1 else "middle"
        out += Markup('<text{} x="{}%" y="{}" text-anchor="{}">{}</text>').format(
            Markup(' class="wide-only"') if i % 2 else "",
            n(i / max(1, len(hours) - 1) * 100),
            frame.height - 4,
            anchor,
            text,
        )
    return out


def scale(peak: float) -> tuple[float, float]:
    """A ceiling above the peak, and a round step with two to six lines below it."""
    rough = peak * 1.05 / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return ceil(peak * 1.05 / (step / 2)) * step / 2, step


def tick(value: float, ceiling: float) -> str:
    if value == 0:
        return "0"
    return f"{n(value / 1000)}{NBSP}s" if ceiling >= 2000 else f"{n(value)}{NBSP}ms"


def phases(parts: Iterable[tuple[int, float]], full: float, *, lost: bool = False) -> Markup:
    """One run's phases in a row, as (colour 1-5, ms) on a shared scale of `full` ms.

    Hatched up to the end: the phase that never ended (`lost`), or the one that goes beyond the scale.
    """
    at, out = 0.0, Markup()
    for colour, ms in parts:
        width = ms / full * 100 if full > 0 else 0
        if at + width > 101:
            lost = True
            break
        out += Markup('<rect class="ph{}" x="{}%" y="2" width="{}%" height="14"/>').format(
            colour, n(at), n(max(width - 0.25, 0.35))
        )
        at += width
    if lost:
        out += Markup('<rect class="fail" x="{}%" y="2.5" width="{}%" height="13"/>').format(n(at), n(max(100 - at, 1)))
    return Markup('<svg aria-hidden="true" focusable="false">{}</svg>').format(out)


def states(parts: Iterable[tuple[State, float, float]], label: str) -> Markup:
    """A line of time, as (state, from, to) in fractions of its width."""
    heights = {State.UP: 9, State.DEGRADED: 14, State.DOWN: 18, State.UNKNOWN: 3}
    out = Markup('<svg class="tl" role="img" aria-label="{}">').format(label)
    for state, start, stop in parts:
        h = heights[state]
        out += Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            CLASS[state], n(start * 100), 18 - h, n(max((stop - start) * 100 - 0.1, 0.3)), h
        )
    return out + Markup("</svg>")


def _runs(values: Sequence[Point]) -> Iterator[list[tuple[int, float]]]:
    """Stretches without a gap."""
    run: list[tuple[int, float]] = []
    for i, v in enumerate(values):
        if v is not None:
            run.append((i, v))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(values: Sequence[Point], x: Axis, y: Axis) -> str:
    """A lone value is a dot: a line of no length with round ends."""
    return "".join(
        "M" + "L".join(f"{n(x(i))} {n(y(v))}" for i, v in run) + ("h.01" if len(run) == 1 else "")
        for run in _runs(values)
    )


def _area(low: Sequence[Point], high: Sequence[Point], x: Axis, y: Axis) -> str:
    """Between two lines, where both have a value."""
    both: list[Point] = [None if a is None or b is None else b for a, b in zip(low, high, strict=True)]
    out = []
    for run in _runs(both):
        there = [f"{n(x(i))} {n(y(v))}" for i, v in run]
        back = [f"{n(x(i))} {n(y(v))}" for i, v in reversed([(i, low[i]) for i, _ in run]) if v is not None]
        out.append("M" + "L".join([*there, *back]) + "z")
    return "".join(out)
