"""queue: the metrics of a queue stay within their limits. Pure, and the same for every queue system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchdog.domain.formatting import format_count, format_duration, format_duration_over_limit, format_number
from watchdog.domain.observations import QueueStats
from watchdog.domain.probe_state import QueueThreshold, ThresholdRecord, short_digest
from watchdog.domain.schedule import SENDER_RETRY_WINDOW_MS, Gaps


class ThresholdState(NamedTuple):
    """How one metric stands against its limit, now."""

    record: ThresholdRecord
    value: float | None
    """None: the system does not report it, or too few jobs completed to say."""
    unavailable: bool = False
    """The system does not report the metric. `record` is kept as it was."""

    @property
    def threshold(self) -> QueueThreshold:
        return self.record.threshold

    def is_breached(self, now: int) -> bool:
        return not self.unavailable and self.record.is_breached(now)


def evaluate_thresholds(
    thresholds: Iterable[QueueThreshold],
    stats: QueueStats,
    records: Mapping[str, ThresholdRecord],
    now: int,
    gaps: Gaps = (),
) -> list[ThresholdState]:
    """`records`: what the last run remembered, by metric. `gaps`: when nothing was measured."""
    return [_evaluate_threshold(threshold, stats, records.get(threshold.metric), now, gaps) for threshold in thresholds]


def _evaluate_threshold(
    threshold: QueueThreshold, stats: QueueStats, record: ThresholdRecord | None, now: int, gaps: Gaps
) -> ThresholdState:
    since = _breached_since(threshold, record, now, gaps)
    if threshold.metric == "stalled":
        return _evaluate_stalled(threshold, stats, None if record is None else record.head_marker, since, now)
    value, reported = metric_value(threshold, stats)
    if not reported:
        return ThresholdState(ThresholdRecord(threshold, since), None, unavailable=True)
    is_bad = value is not None and (
        value < threshold.value if threshold.metric == "consumers" else value > threshold.value
    )
    return ThresholdState(ThresholdRecord(threshold, (now if since is None else since) if is_bad else None), value)


def _breached_since(threshold: QueueThreshold, record: ThresholdRecord | None, now: int, gaps: Gaps) -> int | None:
    """Since when the metric is bad, as remembered under the same limit. A metric that had not been bad for long enough
    when a gap began starts anew after it; one that had been is not cleared by a gap."""
    if record is None or record.breached_since is None or record.threshold.value != threshold.value:
        return None
    since = min(record.breached_since, now)
    interrupted = any(
        stop - start > SENDER_RETRY_WINDOW_MS and since <= start < since + threshold.for_ms for start, stop in gaps
    )
    return None if interrupted else since


def _evaluate_stalled(
    threshold: QueueThreshold, stats: QueueStats, previous_head: str | int | None, breached_since: int | None, now: int
) -> ThresholdState:
    """The queue progresses when another job is next, or, where the system does not show which is, when fewer wait."""
    waiting = stats.waiting
    if waiting is None:
        return ThresholdState(ThresholdRecord(threshold, breached_since, previous_head), None, unavailable=True)
    if not waiting:
        return ThresholdState(ThresholdRecord(threshold), 0)
    head = waiting if stats.head is None else short_digest(stats.head)
    if isinstance(head, int) and isinstance(previous_head, int):
        stalled = head >= previous_head
    else:
        stalled = head == previous_head
    since = breached_since if stalled and breached_since is not None else now
    return ThresholdState(ThresholdRecord(threshold, since, head), waiting)


def metric_value(threshold: QueueThreshold, stats: QueueStats) -> tuple[float | None, bool]:
    """A figure, and whether the system says it."""
    if threshold.metric == "oldest":
        age = 0 if stats.waiting == 0 else stats.oldest
        return age, age is not None
    if threshold.metric != "failure_ratio":
        figure = getattr(stats, threshold.metric)
        return figure, figure is not None
    if stats.completed is None:
        return None, False
    failed, well = stats.completed
    ended = failed + (well or 0)
    if ended < threshold.min_samples:
        return None, True
    return (None, False) if well is None else (failed / ended, True)


def describe_breach(state: ThresholdState, stats: QueueStats, now: int) -> tuple[str, str]:
    """Reason and words for what is beyond its limit."""
    limit, figure, since = state.threshold, state.value or 0, state.record.breached_since
    lasted = 0 if since is None else now - since
    so_long = f" for {format_duration(lasted)}" if limit.for_ms else ""
    match limit.metric:
        case "consumers":
            return "queue.no_consumers", f"consumers {figure:g}, under {limit.value:g}{so_long}"
        case "stalled":
            still = "no shorter" if state.record.head_is_count else "not draining"
            return "queue.stalled", f"{still} for {format_duration(lasted)}: {format_number(round(figure))} waiting"
        case "failure_ratio":
            ended = sum(n or 0 for n in stats.completed or ())
            share = f"{figure:.0%} of {format_count(ended, 'job')} failed within {format_duration(limit.window_ms)}"
            return "queue.failure_ratio", f"{share}, over {limit.value:.0%}"
        case "oldest":
            told = (
                f"{format_duration_over_limit(round(figure), round(limit.value))}, over {format_duration(limit.value)}"
            )
        case _:
            told = f"{format_number(round(figure))}, over {format_number(round(limit.value))}"
    return "queue.threshold", f"{limit.metric} {told}{so_long}"
