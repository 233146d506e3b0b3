"""Figures against bounds, and statistics of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One measured figure. `most`: the bound, inclusive; None: told for information."""

    name: str
    value: float
    unit: str = ""
    max_value: float | None = None

    @property
    def within_bound(self) -> bool:
        return self.max_value is None or self.value <= self.max_value


def print_measurements(measurements: Iterable[Measurement]) -> None:
    for figure in measurements:
        bound = "" if figure.max_value is None else f"at most {figure.max_value:g} {figure.unit}".rstrip()
        verdict = "" if figure.max_value is None else "holds" if figure.within_bound else "SHORT"
        value = f"{figure.value:.4g} {figure.unit}".rstrip()
        print(f"  {figure.name:<58} {value:>16}   {bound:<20} {verdict}", flush=True)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that is at least as large as `q` per cent of them."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * round(percent * 100) // 10_000) - 1)]
