"""What the results of queue and canary probes store, and pages read back: frozen classes with their stored form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from watchdog.domain.model import Scalar
from watchdog.domain.observations import QueueStats


class QueueMetrics(NamedTuple):
    """The numbers of a queue at one run, stored as the result's measurements. None: the system does not report it."""

    waiting: int | None = None
    active: int | None = None
    delayed: int | None = None
    failed: int | None = None
    oldest: int | None = None
    """How long the oldest waiting job has been ready, in ms."""
    consumers: int | None = None
    failure_ratio: float | None = None
    """The share of failures among the jobs that ended within the window of the `failure_ratio` rule."""

    @classmethod
    def from_stats(cls, stats: QueueStats, failure_ratio: float | None) -> Self:
        return cls(**stats.metrics, failure_ratio=failure_ratio)

    def to_measurements(self) -> dict[str, Scalar]:
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def from_measurements(cls, measurements: Mapping[str, Scalar]) -> Self:
        """Ignores measurements of other names, and values that are no numbers."""
        values = {name: measurements.get(name) for name in cls._fields}
        return cls(**{name: value for name, value in values.items() if isinstance(value, int | float)})  # type: ignore[arg-type] # by their names


class CanaryStages(NamedTuple):
    """How long each stage of a sentinel job took, in ms, stored among the result's phases.

    None: the stage was not reached, or the queue system does not show it.
    """

    enqueue: float | None = None
    pick_up: float | None = None
    """From enqueued to picked up by a worker."""
    finish: float | None = None
    """From picked up to finished; from enqueued where no pick-up is shown."""

    def to_phases(self) -> dict[str, float]:
        return {name: duration for name, duration in self._asdict().items() if duration is not None}

    @classmethod
    def from_phases(cls, phases: Mapping[str, float]) -> Self:
        """Ignores phases that are no stage, such as `connect`."""
        return cls(*(phases.get(name) for name in cls._fields))
