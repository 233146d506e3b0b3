"""Measured figures with their limits, and statistics of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """A measured figure. `max_value` is its limit, inclusive; None if the figure is only informative."""

    name: str
    value: float
    unit: str = ""
    max_value: float | None = None

    @property
    def within_limit(self) -> bool:
        return self.max_value is None or self.value <= self.max_value


def print_measurements(measurements: Iterable[Measurement]) -> None:
    for measurement in measurements:
        limit = (
            "" if measurement.max_value is None else f"at most {measurement.max_value:g} {measurement.unit}".rstrip()
        )
        verdict = "" if measurement.max_value is None else "ok" if measurement.within_limit else "OVER THE LIMIT"
        value = f"{measurement.value:.4g} {measurement.unit}".rstrip()
        print(f"  {measurement.name:<58} {value:>16}   {limit:<20} {verdict}", flush=True)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that is at least as large as `percent` per cent of the samples."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * round(percent * 100) // 10_000) - 1)]
