"""A queue on its probe's page: each figure with its limit, and how many jobs waited over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_duration, format_duration_rounded, format_number
from watchdog.domain.model import Scalar
from watchdog.store.read import queue_stats
from watchdog.store.read.queue_stats import QueueSample
from watchdog.store.read.status import Connection, ResultRow
from watchdog.web import charts
from watchdog.web.cards.latency import ChartWindow, choose_chart_window, time_axis_labels

ValueFormatter = Callable[[float], str]
"""How a figure is said."""


def _format_integer(value: float) -> str:
    return format_number(round(value))


def _format_percentage(value: float) -> str:
    return f"{value:.0%}"


QUEUE_METRIC_FORMATS: Mapping[str, tuple[str, ValueFormatter]] = {
    "waiting": ("Waiting", _format_integer),
    "oldest": ("Oldest waiting", format_duration),
    "active": ("Active", _format_integer),
    "delayed": ("Delayed", _format_integer),
    "failed": ("Failed", _format_integer),
    "failure_ratio": ("Failed lately", _format_percentage),
    "consumers": ("Consumers", _format_integer),
}


@dataclass(frozen=True, slots=True)
class QueueMetric:
    title: str
    value_text: str
    notes: tuple[str, ...]
    """Its limit, and for how long it is beyond."""
    exceeds_limit: bool


@dataclass(frozen=True, slots=True)
class QueueCard:
    read_at: int
    """When somebody last looked into it."""
    metrics: tuple[QueueMetric, ...]
    length: int
    step: int
    chart: Markup
    table_rows: tuple[tuple[int, float], ...]
    """How many waited at most from when on, newest first."""


def load_queue_card(connection: Connection, probe: int, runs: Sequence[ResultRow], now: int) -> QueueCard | None:
    """None: nobody has looked into it within a day."""
    looks = queue_stats.list_queue_samples(connection, probe, now - DAY_MS)
    return (
        build_queue_card(
            looks, queue_stats.load_queue_threshold_states(connection, probe), choose_chart_window(runs, now)
        )
        if looks
        else None
    )


def build_queue_card(
    samples: Sequence[QueueSample], limits: Mapping[str, Mapping[str, Any]], window: ChartWindow
) -> QueueCard:
    at, newest = samples[-1]
    waited: list[float | None] = [None] * window.point_count
    for slot, told in samples:
        i = min(max((slot - window.start) // window.step, 0), window.point_count - 1)
        waited[i] = max(waited[i] or 0, _number_or_zero(told["waiting"]))
    limit = limits.get("waiting", {}).get("at")
    peak = max(n for n in waited if n is not None)
    drawn = limit if limit is not None and limit <= 4 * max(peak, 5) else None
    chart = charts.render_count_chart(
        waited,
        None if drawn is None else charts.LimitLine(drawn, f"over {_format_integer(drawn)}"),
        time_axis_labels(window),
        f"Jobs that waited in {format_duration(window.length)}: "
        f"{_format_integer(_number_or_zero(newest['waiting']))} now, "
        f"{_format_integer(peak)} at most.",
    )
    figures = [
        _build_queue_metric(name, newest[name], limits.get(name), at) for name in QUEUE_METRIC_FORMATS if name in newest
    ]
    if kept := limits.get("stalled"):
        figures.insert(1, _build_stalled_metric(kept, at))
    rows = ((window.start + i * window.step, n) for i, n in enumerate(waited) if n is not None)
    return QueueCard(at, tuple(figures), window.length, window.step, chart, tuple(rows)[::-1])


def _number_or_zero(value: Scalar) -> float:
    return value if isinstance(value, int | float) else 0


def _build_queue_metric(name: str, value: Scalar, limit: Mapping[str, Any] | None, read_at: int) -> QueueMetric:
    title, say = QUEUE_METRIC_FORMATS[name]
    if limit is None:
        return QueueMetric(title, say(_number_or_zero(value)), (), False)
    lasting, since = limit.get("lasting", 0), limit.get("since")
    bound = "at least" if name == "consumers" else "limit"
    notes = [f"{bound} {say(limit['at'])}" + (f" for {format_duration(lasting)}" if lasting else "")]
    if since is not None:
        notes.append(
            f"{'under' if name == 'consumers' else 'over'} for {format_duration_rounded(read_at - since)}"
            if read_at > since
            else "just now"
        )
    return QueueMetric(
        title, say(_number_or_zero(value)), tuple(notes), since is not None and read_at - since >= lasting
    )


def _build_stalled_metric(limit_state: Mapping[str, Any], read_at: int) -> QueueMetric:
    since, limit = limit_state.get("since"), f"limit {format_duration(limit_state['lasting'])}"
    if since is None:
        return QueueMetric("Draining", "empty", (limit,), False)
    stood = read_at - since
    bad = stood >= limit_state["lasting"]
    if isinstance(limit_state.get("head"), int):
        return QueueMetric(
            "Getting shorter",
            "no" if bad else "yes",
            (limit, f"as many or more for {format_duration_rounded(stood)}"),
            bad,
        )
    return QueueMetric(
        "Draining", "no" if bad else "yes", (limit, f"same job next for {format_duration_rounded(stood)}"), bad
    )
