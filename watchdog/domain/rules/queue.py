"""queue: the metrics of a queue stay within their limits. Pure, and the same for every queue system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchdog.domain.formatting import (
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_count_with_noun,
    format_duration,
    format_duration_distinct_from_limit,
    format_number,
    format_utc_timestamp,
)
from watchdog.domain.observations import QueueStats
from watchdog.domain.probe_state import QueueThreshold, QueueThresholdStateRecord, compute_short_digest
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.schedule import MIN_CHECK_IN_RETRY_DURATION_MS
from watchdog.domain.uptime_clock import DowntimeGaps


class EvaluatedQueueThreshold(NamedTuple):
    """How one metric stands against its limit, now."""

    record: QueueThresholdStateRecord
    value: float | None
    """None: the system does not report it, or too few jobs completed to say."""
    unavailable: bool = False
    """The system does not report the metric. `record` is kept as it was."""

    @property
    def threshold(self) -> QueueThreshold:
        return self.record.threshold

    def is_breached(self, now: int) -> bool:
        return not self.unavailable and self.record.is_breached(now)


def evaluate_each_queue_threshold(
    thresholds: Iterable[QueueThreshold],
    stats: QueueStats,
    records: Mapping[str, QueueThresholdStateRecord],
    now: int,
    gaps: DowntimeGaps = (),
) -> list[EvaluatedQueueThreshold]:
    """`records`: what the last run remembered, by metric. `gaps`: when nothing was measured."""
    return [
        _evaluate_queue_threshold(threshold, stats, records.get(threshold.metric), now, gaps)
        for threshold in thresholds
    ]


def _evaluate_queue_threshold(
    threshold: QueueThreshold, stats: QueueStats, record: QueueThresholdStateRecord | None, now: int, gaps: DowntimeGaps
) -> EvaluatedQueueThreshold:
    since = _find_queue_threshold_breach_start(threshold, record, now, gaps)
    if threshold.metric == "stalled":
        return _evaluate_queue_stalled_threshold(
            threshold, stats, None if record is None else record.head_marker, since, now
        )
    value, reported = get_queue_metric_and_whether_reported(threshold, stats)
    if not reported:
        return EvaluatedQueueThreshold(QueueThresholdStateRecord(threshold, since), None, unavailable=True)
    is_bad = value is not None and (
        value < threshold.value if threshold.metric == "consumers" else value > threshold.value
    )
    return EvaluatedQueueThreshold(
        QueueThresholdStateRecord(threshold, (now if since is None else since) if is_bad else None), value
    )


def _find_queue_threshold_breach_start(
    threshold: QueueThreshold, record: QueueThresholdStateRecord | None, now: int, gaps: DowntimeGaps
) -> int | None:
    """Since when the metric is bad, as remembered under the same limit. A metric that had not been bad for long enough
    when a gap began starts anew after it; one that had been is not cleared by a gap."""
    if record is None or record.breached_since is None or record.threshold.value != threshold.value:
        return None
    since = min(record.breached_since, now)
    interrupted = any(
        stop - start > MIN_CHECK_IN_RETRY_DURATION_MS and since <= start < since + threshold.for_ms
        for start, stop in gaps
    )
    return None if interrupted else since


def _evaluate_queue_stalled_threshold(
    threshold: QueueThreshold, stats: QueueStats, previous_head: str | int | None, breached_since: int | None, now: int
) -> EvaluatedQueueThreshold:
    """The queue progresses when another job is next, or, where the system does not show which is, when fewer wait."""
    waiting = stats.waiting
    if waiting is None:
        return EvaluatedQueueThreshold(
            QueueThresholdStateRecord(threshold, breached_since, previous_head), None, unavailable=True
        )
    if not waiting:
        return EvaluatedQueueThreshold(QueueThresholdStateRecord(threshold), 0)
    head = waiting if stats.head is None else compute_short_digest(stats.head)
    if isinstance(head, int) and isinstance(previous_head, int):
        stalled = head >= previous_head
    else:
        stalled = head == previous_head
    since = breached_since if stalled and breached_since is not None else now
    return EvaluatedQueueThreshold(QueueThresholdStateRecord(threshold, since, head), waiting)


def get_queue_metric_and_whether_reported(threshold: QueueThreshold, stats: QueueStats) -> tuple[float | None, bool]:
    """A metric's value, and whether the system reports it."""
    if threshold.metric == "oldest":
        age = 0 if stats.waiting == 0 else stats.oldest
        return age, age is not None
    if threshold.metric != "failure_ratio":
        value = getattr(stats, threshold.metric)
        return value, value is not None
    if stats.completed is None:
        return None, False
    failed, succeeded = stats.completed
    completed = failed + (succeeded or 0)
    if completed < threshold.min_samples:
        return None, True
    return (None, False) if succeeded is None else (failed / completed, True)


def build_queue_threshold_breach_problem(
    state: EvaluatedQueueThreshold, stats: QueueStats, now: int
) -> tuple[str, str]:
    """Reason and message of a metric that is bad."""
    threshold, value = state.threshold, state.value or 0
    limit, count = f"{threshold.value:g}", round(value)
    shows_seconds = threshold.for_ms < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    since = format_utc_timestamp(state.record.breached_since or now, now, seconds=shows_seconds)
    allowed_for = format_duration(threshold.for_ms)
    match threshold.metric:
        case "consumers":
            limit += f", since {since} (allowed for {allowed_for})" if threshold.for_ms else ""
            return build_reason_and_message(
                "queue.no_consumers", observed=format_count_with_noun(count, "worker"), limit=limit
            )
        case "stalled":
            symptom = (
                "the number of waiting jobs has not fallen"
                if state.record.head_marker_is_waiting_count
                else "no job has been started"
            )
            return build_reason_and_message("queue.stalled", symptom=symptom, since=since, waiting=format_number(count))
        case "failure_ratio":
            return build_reason_and_message(
                "queue.failure_ratio",
                share=f"{value:.0%}",
                completed=format_count_with_noun(sum(n or 0 for n in stats.completed or ()), "job"),
                window=format_duration(threshold.window_ms),
                limit=f"{threshold.value:.0%}",
            )
        case "oldest":
            observed = f"oldest job waiting for {format_duration_distinct_from_limit(count, round(threshold.value))}"
            limit = format_duration(threshold.value)
        case _:
            observed = f"{format_count_with_noun(count, 'job')} {threshold.metric}"
            limit = format_number(round(threshold.value))
    limit += f", exceeded since {since} (allowed for {allowed_for})" if threshold.for_ms else ""
    if threshold.metric == "failed":
        return build_reason_and_message("queue.failed_jobs", observed=observed, limit=limit)
    return build_reason_and_message("queue.threshold", observed=observed, limit=limit)
