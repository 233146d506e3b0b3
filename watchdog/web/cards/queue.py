"""A queue: each metric against its limit, and how many jobs waited over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_duration, format_duration_rounded, format_number
from watchdog.domain.probe_state import QueueThresholdRecord
from watchdog.store.read import queue_stats
from watchdog.store.read.queue_stats import QueueSample
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.chart_window import ChartWindow, build_time_axis_labels, choose_chart_window

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


@dataclass(frozen=True, slots=True)
class QueueCard:
    read_at: int
    metrics: tuple[QueueCardMetric, ...]
    window: ChartWindow
    chart: Markup
    table_rows: tuple[tuple[int, int], ...]
    """(start, maximum of waiting jobs) of each point that has a sample, newest first."""


def load_queue_card(context: ProbeCardLoadContext) -> QueueCard | None:
    """None: the queue was not read within the last day."""
    samples = queue_stats.list_queue_samples(context.connection, context.probe_database_id, context.now - DAY_MS)
    if not samples:
        return None
    thresholds = queue_stats.load_queue_threshold_records(context.connection, context.probe_database_id)
    return build_queue_card(samples, thresholds, choose_chart_window(context.runs, context.now))


def build_queue_card(
    samples: Sequence[QueueSample], thresholds: Mapping[str, QueueThresholdRecord], window: ChartWindow
) -> QueueCard:
    """`samples`: oldest first, all with a number of waiting jobs. `thresholds`: by rule."""
    read_at, newest = samples[-1]
    waiting: list[int | None] = [None] * window.point_count
    for sample in samples:
        index = window.find_chart_point_index(sample.slot)
        waiting[index] = max(waiting[index] or 0, sample.metrics.waiting or 0)
    metrics = [
        _build_queue_card_metric(name, value, thresholds.get(name), read_at)
        for name in QUEUE_METRIC_LABELS_AND_FORMATTERS
        if (value := getattr(newest, name)) is not None
    ]
    if stalled := thresholds.get(STALLED_QUEUE_RULE_NAME):
        metrics.insert(1, _build_stalled_card_metric(stalled, read_at))
    return QueueCard(
        read_at=read_at,
        metrics=tuple(metrics),
        window=window,
        chart=_render_waiting_jobs_chart(waiting, newest.waiting or 0, thresholds.get("waiting"), window),
        table_rows=tuple(
            (window.get_chart_point_start_ms(i), count)
            for i, count in reversed(list(enumerate(waiting)))
            if count is not None
        ),
    )


def _render_waiting_jobs_chart(
    waiting: Sequence[int | None], newest: int, threshold: QueueThresholdRecord | None, window: ChartWindow
) -> Markup:
    peak = max(count for count in waiting if count is not None)
    limit = None if threshold is None else threshold.threshold.value
    limit_line = None
    if limit is not None and limit <= 4 * max(peak, 5):
        limit_line = charts.LimitLine(limit, f"over {_format_rounded_to_integer(limit)}")
    label = (
        f"Waiting jobs over {format_duration(window.length)}: "
        f"{_format_rounded_to_integer(newest)} now, at most {_format_rounded_to_integer(peak)}."
    )
    return charts.render_count_chart(waiting, limit_line, build_time_axis_labels(window, window.stop), label)


def _build_queue_card_metric(
    name: str, value: float, record: QueueThresholdRecord | None, read_at: int
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


def _build_stalled_card_metric(record: QueueThresholdRecord, read_at: int) -> QueueCardMetric:
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
