"""What the figures of a queue mean: which is beyond its limit, and since when? Pure, and the same for every system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchdog.domain.formatting import format_count, format_duration, format_duration_over_limit, format_number
from watchdog.domain.model import Json
from watchdog.domain.schedule import SENDER_RETRY_WINDOW_MS, Gaps
from watchdog.probes.mcp_tasks import short_digest
from watchdog.queues import QueueStats


class QueueThreshold(NamedTuple):
    """What is asked of one figure. Durations in milliseconds."""

    metric: str
    """The figure; `stalled`: that jobs which wait are taken, one after the other."""
    value: float = 0
    """More than that is too much; of consumers, fewer are too few."""
    for_ms: int = 0
    """For how long it must have been so."""
    window_ms: int = 0
    """How far back the share of failures is looked at."""
    min_samples: int = 0
    """Jobs that must have ended by then, or their share of failures says nothing."""


class ThresholdState(NamedTuple):
    """How one figure stands."""

    threshold: QueueThreshold
    value: float | None
    """None: the system does not say, or it says too little."""
    breached_since: int | None
    """From when on it is seen beyond its limit; of `stalled`: that the same job is the next, or no fewer wait."""
    head_marker: str | int | None = None
    """What tells the job that is next to be taken from others, or how many wait."""
    unavailable: bool = False
    """The system does not say. What was known before is kept."""

    def is_breached(self, now: int) -> bool:
        return (
            not self.unavailable
            and self.breached_since is not None
            and now - self.breached_since >= self.threshold.for_ms
        )

    @property
    def head_is_count(self) -> bool:
        """Which job is next is not shown, only how many wait."""
        return isinstance(self.head_marker, int)

    @property
    def stored_state(self) -> dict[str, Json]:
        """What to remember of it."""
        told = {**self.threshold._asdict(), "since": self.breached_since, "head": self.head_marker}
        return {name: value for name, value in told.items() if value is not None}


def evaluate_thresholds(
    thresholds: Iterable[QueueThreshold], stats: QueueStats, saved_states: Mapping[str, Json], now: int, gaps: Gaps = ()
) -> list[ThresholdState]:
    """`memory`: figure -> what was kept of it. A look that failed says nothing, and changes nothing. `away`: when
    nobody looked."""
    return [_evaluate_threshold(limit, stats, saved_states.get(limit.metric) or {}, now, gaps) for limit in thresholds]


def _evaluate_threshold(
    threshold: QueueThreshold, stats: QueueStats, saved_state: Mapping[str, Json], now: int, gaps: Gaps
) -> ThresholdState:
    since = _breached_since(threshold, saved_state, now, gaps)
    if threshold.metric == "stalled":
        return _evaluate_stalled(threshold, stats, saved_state.get("head"), since, now)
    figure, known = metric_value(threshold, stats)
    if not known:
        return ThresholdState(threshold, None, since, unavailable=True)
    over = figure is not None and (
        figure < threshold.value if threshold.metric == "consumers" else figure > threshold.value
    )
    return ThresholdState(threshold, figure, (now if since is None else since) if over else None)


def _breached_since(threshold: QueueThreshold, saved_state: Mapping[str, Json], now: int, gaps: Gaps) -> int | None:
    """From when on it is known to be beyond its limit. What was not so for long enough by the time when nobody looked
    any more begins anew; what was is not right again because nobody looked."""
    if saved_state.get("since") is None or saved_state.get("at") != threshold.value:
        return None
    since = min(int(saved_state["since"]), now)
    unseen = any(
        stop - start > SENDER_RETRY_WINDOW_MS and since <= start < since + threshold.for_ms for start, stop in gaps
    )
    return None if unseen else since


def _evaluate_stalled(
    threshold: QueueThreshold, stats: QueueStats, previous_head: str | int | None, breached_since: int | None, now: int
) -> ThresholdState:
    """The queue moves when another job is the next, or where that is not shown, when fewer wait."""
    waiting = stats.waiting
    if waiting is None:
        return ThresholdState(threshold, None, breached_since, previous_head, unavailable=True)
    if not waiting:
        return ThresholdState(threshold, 0, None)
    head = waiting if stats.head is None else short_digest(stats.head)
    counted = isinstance(head, int) and isinstance(previous_head, int)
    stood = head >= previous_head if counted else head == previous_head  # type: ignore[operator] # both are numbers, or compared alike
    return ThresholdState(threshold, waiting, breached_since if stood and breached_since is not None else now, head)


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
    limit, figure = state.threshold, state.value or 0
    lasted = 0 if state.breached_since is None else now - state.breached_since
    so_long = f" for {format_duration(lasted)}" if limit.for_ms else ""
    match limit.metric:
        case "consumers":
            return "queue.no_consumers", f"consumers {figure:g}, under {limit.value:g}{so_long}"
        case "stalled":
            still = "no shorter" if state.head_is_count else "not draining"
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
