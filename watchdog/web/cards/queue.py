"""A queue: each metric against its limit, and how many jobs waited over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_duration, format_duration_rounded, format_number
from watchdog.domain.probe_state import QueueThresholdStateRecord
from watchdog.store.read import queue_stats
from watchdog.store.read.queue_stats import QueueSample
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.chart_window import ChartUrlQuery, ChartWindow, build_time_axis_labels

QueueValueFormatter = Callable[[float], str]


def _format_rounded_to_integer(value: float) -> str:
    return format_number(round(value))


def _format_percentage(value: float) -> str:
    return f"{value:.0%}"


QUEUE_METRIC_LABELS_AND_FORMATTERS: Mapping[str, tuple[str, QueueValueFormatter]] = {
    "waiting": ("Waiting", _format_rounded_to_integer),
    "oldest": ("Oldest waiting", format_duration),
    "active": ("Active", _format_rounded_to_integer),
    "delayed": ("Delayed", _format_rounded_to_integer),
    "failed": ("Failed", _format_rounded_to_integer),
    "failure_ratio": ("Failure ratio", _format_percentage),
    "consumers": ("Consumers", _format_rounded_to_integer),
}
"""Metrics in the order of the card, with their title."""
STALLED_QUEUE_RULE_NAME = "stalled"
"""The rule that has no metric of its own."""


@dataclass(frozen=True, slots=True)
class QueueCardMetric:
    title: str
    value_text: str
    notes: tuple[str, ...] = ()
    """Its limit, and for how long it has been exceeded."""
    exceeds_limit: bool = False
    """For as long as the rule allows."""


class QueueChartPoint(NamedTuple):
    """A point of the chart that has a run. Values are the highest in it."""

    start: int
    zoom_query_string: str
    """Of a chart of this point alone; empty: it is too short for one."""
    waiting: int
    oldest: int | None
    """How long the oldest waiting job had been ready, in ms."""


@dataclass(frozen=True, slots=True)
class QueueCard:
    read_at: int | None
    """None: no run of the last days read the queue."""
    metrics: tuple[QueueCardMetric, ...]
    window: ChartWindow
    period: Markup
    """ "last 7 days"."""
    chart: Markup
    """Empty: there is no run in this time."""
    is_sample: bool
    """Whether the chart shows some of the runs."""
    sample_note: Markup
    table_rows: tuple[QueueChartPoint, ...]
    """Newest first."""


def load_queue_card(context: ProbeCardLoadContext) -> QueueCard | None:
    """None: the queue was not read within the last day, and the URL asks for no other part of the history."""
    newest = queue_stats.load_newest_queue_sample(context.connection, context.probe_database_id)
    is_recent = newest is not None and newest.slot >= context.now - DAY_MS
    if not (is_recent or context.chart_query.parameters):
        return None
    thresholds = queue_stats.load_queue_threshold_records(context.connection, context.probe_database_id)
    runs, window = context.list_measured_chart_runs(), context.chart_window
    points = compute_queue_chart_points(queue_stats.build_queue_samples(runs), window, context.chart_query)
    return QueueCard(
        read_at=None if newest is None else newest.slot,
        metrics=() if newest is None else build_queue_card_metrics(newest, thresholds),
        window=window,
        period=context.render_chart_period(),
        chart=render_waiting_jobs_chart(
            points, thresholds.get("waiting"), window, context.now, is_sample=not context.is_chart_of_runs
        ),
        is_sample=not context.is_chart_of_runs,
        sample_note=context.render_sample_note(runs),
        table_rows=tuple(reversed(points)),
    )


def build_queue_card_metrics(
    newest: QueueSample, thresholds: Mapping[str, QueueThresholdStateRecord]
) -> tuple[QueueCardMetric, ...]:
    """`thresholds`: by rule."""
    metrics = [
        _build_queue_card_metric(name, value, thresholds.get(name), newest.slot)
        for name in QUEUE_METRIC_LABELS_AND_FORMATTERS
        if (value := getattr(newest.metrics, name)) is not None
    ]
    if stalled := thresholds.get(STALLED_QUEUE_RULE_NAME):
        metrics.insert(1, _build_stalled_card_metric(stalled, newest.slot))
    return tuple(metrics)


def compute_queue_chart_points(
    samples: Iterable[QueueSample], window: ChartWindow, query: ChartUrlQuery
) -> list[QueueChartPoint]:
    """`samples`: oldest first, all with a number of waiting jobs. The points are in the same order."""
    waiting: dict[int, int] = {}
    oldest: dict[int, int] = {}
    for slot, metrics in samples:
        i = window.find_chart_point_index(slot)
        waiting[i] = max(waiting.get(i, 0), metrics.waiting or 0)
        if metrics.oldest is not None:
            oldest[i] = max(oldest.get(i, 0), metrics.oldest)
    return [
        QueueChartPoint(
            window.get_chart_point_start_ms(i), query.build_zoom_query_string(window, i), count, oldest.get(i)
        )
        for i, count in waiting.items()
    ]


def render_waiting_jobs_chart(
    points: Sequence[QueueChartPoint],
    threshold: QueueThresholdStateRecord | None,
    window: ChartWindow,
    now: int,
    *,
    is_sample: bool = False,
) -> Markup:
    """`points`: oldest first. Empty if there is none. The limit is drawn unless it lies far above all of them.
    `is_sample`: there are more runs, which may be higher."""
    if not points:
        return Markup()
    waiting: list[int | None] = [None] * window.point_count
    for point in points:
        waiting[window.find_chart_point_index(point.start)] = point.waiting
    peak = max(point.waiting for point in points)
    limit = None if threshold is None else threshold.threshold.value
    limit_line = None
    if limit is not None and limit <= 4 * max(peak, 5):
        limit_line = charts.LimitLine(limit, f"over {_format_rounded_to_integer(limit)}")
    label = (
        f"Waiting jobs over {format_duration(window.length)}: "
        f"{'highest run shown' if is_sample else 'at most'} {_format_rounded_to_integer(peak)}, "
        f"{_format_rounded_to_integer(points[-1].waiting)} at the end."
    )
    return charts.render_count_chart(waiting, limit_line, build_time_axis_labels(window, now), label)


def _build_queue_card_metric(
    name: str, value: float, record: QueueThresholdStateRecord | None, read_at: int
) -> QueueCardMetric:
    title, format_value = QUEUE_METRIC_LABELS_AND_FORMATTERS[name]
    if record is None:
        return QueueCardMetric(title, format_value(value))
    limit, since = record.threshold, record.breached_since
    is_minimum = name == "consumers"
    notes = [f"{'at least' if is_minimum else 'limit'} {format_value(limit.value)}"]
    if limit.for_ms:
        notes[0] += f" for {format_duration(limit.for_ms)}"
    if since is not None and read_at > since:
        notes.append(f"{'under' if is_minimum else 'over'} for {format_duration_rounded(read_at - since)}")
    elif since is not None:
        notes.append("just now")
    return QueueCardMetric(title, format_value(value), tuple(notes), record.is_breached(read_at))


def _build_stalled_card_metric(record: QueueThresholdStateRecord, read_at: int) -> QueueCardMetric:
    limit = f"limit {format_duration(record.threshold.for_ms)}"
    if record.breached_since is None:
        return QueueCardMetric("Stalled", "no", (limit, "queue is empty"))
    unchanged_for = format_duration_rounded(read_at - record.breached_since)
    progress = (
        f"not shorter for {unchanged_for}"
        if record.head_marker_is_waiting_count
        else f"same job next for {unchanged_for}"
    )
    is_breached = record.is_breached(read_at)
    return QueueCardMetric("Stalled", "yes" if is_breached else "no", (limit, progress), is_breached)


PROBE_PAGE_CARD = ProbePageCardType("cards/queue.j2", load_queue_card)
