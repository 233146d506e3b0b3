"""What a process counts from its start on, for /metrics: runs and their durations, deliveries, and reloads."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.reasons import get_reason_family

RUN_DURATION_BUCKET_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BACKGROUND_TASK_DURATION_BUCKET_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class DurationHistogram:
    """How many durations were at most as long as each bound, and their sum. Bounds in seconds, in ascending order."""

    __slots__ = ("_counts", "bounds_s", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]):
        self.bounds_s, self.sum_s = bounds_s, 0.0
        self._counts = [0] * (len(bounds_s) + 1)
        """Of the durations between two bounds, and of those above the last one."""

    def observe(self, duration_s: float) -> None:
        self._counts[bisect_left(self.bounds_s, duration_s)] += 1
        self.sum_s += duration_s

    def list_cumulative_counts(self) -> list[int]:
        """The number of durations up to each bound; the last one is that of all durations. Any thread may call it."""
        total, counts = 0, []
        for count in self._counts.copy():
            total += count
            counts.append(total)
        return counts


@dataclass(slots=True)
class ProbeRunCounters:
    """The runs of one probe."""

    count_by_outcome: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    """In slots: a result may stand for several that were missed."""
    failure_count_by_family: Counter[str] = field(default_factory=Counter)
    """By family of the reason: the runs that failed, and those without a verdict."""
    durations: DurationHistogram = field(default_factory=lambda: DurationHistogram(RUN_DURATION_BUCKET_BOUNDS_S))
    """Of the runs that reached their target."""

    def add(self, result: ProbeResult) -> None:
        self.count_by_outcome[result.outcome] += result.slot_count
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            self.failure_count_by_family[get_reason_family(result.reason)] += 1
        if result.duration is not None:
            self.durations.observe(result.duration / 1000)


class DeliveryResultKind(StrEnum):
    """How one attempt to deliver a notification ended."""

    SENT = "sent"
    """Its receiver confirmed it."""
    FAILED_WILL_RETRY = "failed"
    """It is tried again."""
    UNCONFIRMED = "unconfirmed"
    """Sent several times, and no response shows whether it arrived. It is tried again once an hour."""
    UNDELIVERED = "undelivered"
    """Retries were given up."""
