"""A queue on its probe's page: each figure with its limit, and how many jobs waited over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_duration, format_duration_rounded, format_number
from watchdog.domain.model import Scalar
from watchdog.domain.probe_state import ThresholdRecord
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
        build_queue_card(looks, queue_stats.load_threshold_records(connection, probe), choose_chart_window(runs, now))
        if looks
        else None
    )


def build_queue_card(
    samples: Sequence[QueueSample], records: Mapping[str, ThresholdRecord], window: ChartWindow
) -> QueueCard:
    at, newest = samples[-1]
    waited: list[float | None] = [None] * window.point_count
    for slot, told in samples:
        i = min(max((slot - window.start) // window.step, 0), window.point_count - 1)
        waited[i] = max(waited[i] or 0, _number_or_zero(told["waiting"]))
    limit = records["waiting"].threshold.value if "waiting" in records else None
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
        _build_queue_metric(name, newest[name], records.get(name), at)
        for name in QUEUE_METRIC_FORMATS
        if name in newest
    ]
    if "stalled" in records:
        figures.insert(1, _build_stalled_metric(records["stalled"], at))
    rows = ((window.start + i * window.step, n) for i, n in enumerate(waited) if n is not None)
    return QueueCard(at, tuple(figures), window.length, window.step, chart, tuple(rows)[::-1])


def _number_or_zero(value: Scalar) -> float:
    return value if isinstance(value, int | float) else 0


def _build_queue_metric(name: str, value: Scalar, record: ThresholdRecord | None, read_at: int) -> QueueMetric:
    title, format_value = QUEUE_METRIC_FORMATS[name]
    value_text = format_value(_number_or_zero(value))
    if record is None:
        return QueueMetric(title, value_text, (), False)
    for_ms, since = record.threshold.for_ms, record.breached_since
    bound = "at least" if name == "consumers" else "limit"
    notes = [f"{bound} {format_value(record.threshold.value)}" + (f" for {format_duration(for_ms)}" if for_ms else "")]
    if since is not None:
        notes.append(
            f"{'under' if name == 'consumers' else 'over'} for {format_duration_rounded(read_at - since)}"
            if read_at > since
            else "just now"
        )
    return QueueMetric(title, value_text, tuple(notes), record.is_breached(read_at))


def _build_stalled_metric(record: ThresholdRecord, read_at: int) -> QueueMetric:
    limit = f"limit {format_duration(record.threshold.for_ms)}"
    if record.breached_since is None:
        return QueueMetric("Draining", "empty", (limit,), False)
    lasted, bad = format_duration_rounded(read_at - record.breached_since), record.is_breached(read_at)
    title, detail = (
        ("Getting shorter", f"as many or more for {lasted}")
        if record.head_is_count
        else ("Draining", f"same job next for {lasted}")
    )
    return QueueMetric(title, "no" if bad else "yes", (limit, detail), bad)
