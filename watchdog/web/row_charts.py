"""Charts in the rows of lists, as inline SVG: sparklines, and bars of days. Pure; colours come from the stylesheet.

A page has hundreds of them, so numbers, which need no escaping, are put together without further calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from markupsafe import Markup

from watchdog.domain.model import HealthState
from watchdog.web.charts import HEALTH_STATE_CSS_CLASSES, format_svg_number, split_values_at_gaps

SparklineValue: TypeAlias = float | Literal["x"] | None
"""Milliseconds; "x": a failed run; None: no run."""

DAY_BAR_HEIGHT_BY_STATE = {
    HealthState.UP: 18, HealthState.DEGRADED: 25, HealthState.DOWN: 32, HealthState.UNKNOWN: 3, HealthState.PAUSED: 3,
}  # fmt: skip
"""The worse the day, the taller its bar; no data is a stub."""
DAY_BAR_WIDTH, DAY_BAR_GAP = 10, 2.4

SPARKLINE_WIDTH, SPARKLINE_HEIGHT = 112, 22
"""In pixels."""


def render_day_bars(days: Sequence[tuple[HealthState, str]], label: str) -> Markup:
    """One bar per day, given as (state, title).

    To keep the page small, all good days share one path, and so do days without data.
    """
    height = DAY_BAR_HEIGHT_BY_STATE[HealthState.DOWN]
    paths: dict[HealthState, list[str]] = {HealthState.UP: [], HealthState.UNKNOWN: []}
    titled: list[Markup] = []
    for i, (state, title) in enumerate(days):
        d = _build_day_bar_path(i, DAY_BAR_HEIGHT_BY_STATE[state])
        if state in paths:
            paths[state].append(d)
        else:
            titled.append(
                Markup('<path class="%s" d="%s"><title>%s</title></path>') % (HEALTH_STATE_CSS_CLASSES[state], d, title)
            )
    out = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">').format(
        max(1, len(days)) * DAY_BAR_WIDTH, height, label
    )
    if up := "".join(paths[HealthState.UP]):
        out += Markup('<path class="d-up" d="{}"/>').format(up)
    if none := "".join(paths[HealthState.UNKNOWN]):
        out += Markup('<path class="d-none" d="{}"><title>No data</title></path>').format(none)
    return out + Markup().join(titled) + Markup("</svg>")


@lru_cache(maxsize=1024)
def _build_day_bar_path(index: int, bar_height: int) -> str:
    """The same for each service, hence cached."""
    x, w = (
        format_svg_number(value) for value in (index * DAY_BAR_WIDTH + DAY_BAR_GAP / 2, DAY_BAR_WIDTH - DAY_BAR_GAP)
    )
    return f"M{x} {DAY_BAR_HEIGHT_BY_STATE[HealthState.DOWN] - bar_height}h{w}v{bar_height}h-{w}z"


def render_sparkline(values: Sequence[SparklineValue]) -> Markup:
    """The last runs, oldest first, on a scale of their own. Failed runs are crosses on the baseline."""
    width, height = SPARKLINE_WIDTH, SPARKLINE_HEIGHT
    numbers = [v for v in values if v is not None and v != "x"]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    high = high if high > low * 1.6 else low * 1.6 + 1  # small variations stay small
    low = min(low, high * 0.2)
    step = (width - 6) / max(1, len(values) - 1)
    span = high - low
    line = "".join(
        "M"
        + "L".join([f"{3 + i * step:.1f} {height - 4 - (v - low) / span * (height - 8):.1f}" for i, v in run])
        + ("h.01" if len(run) == 1 else "")
        for run in split_values_at_gaps([None if v == "x" else v for v in values])
    )
    crosses, runs = [], []
    for i in [i for i, v in enumerate(values) if v == "x"]:
        x = 3 + i * step
        if list(values[max(0, i - 2) : i]) == ["x", "x"]:
            runs.append(
                f"M{format_svg_number(x - step)} {height - 5}h{format_svg_number(step)}"
            )  # from the third failure in a row on, a thick line
        else:
            crosses.append(f"M{format_svg_number(x - 2)} {height - 7}l4 4m0-4l-4 4")
    out = Markup('<svg class="spark" viewBox="0 0 %s %s" aria-hidden="true" focusable="false">') % (width, height)
    if line:
        out += Markup('<path d="%s"/>') % line
    elif not crosses:
        out += Markup('<path class="none" d="M3 %sh%s"/>') % (height - 5, width - 6)
    for name, parts in (("x-mark", crosses), ("run", runs)):
        if parts:
            out += Markup('<path class="%s" d="%s"/>') % (name, "".join(parts))
    return out + Markup("</svg>")
