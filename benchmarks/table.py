"""Figures against bounds, and statistics of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure. `most`: the bound, inclusive; None: told for information."""

    what: str
    value: float
    unit: str = ""
    most: float | None = None

    @property
    def holds(self) -> bool:
        return self.most is None or self.value <= self.most


def show(figures: Iterable[Figure]) -> None:
    for figure in figures:
        bound = "" if figure.most is None else f"at most {figure.most:g} {figure.unit}".rstrip()
        verdict = "" if figure.most is None else "holds" if figure.holds else "SHORT"
        value = f"{figure.value:.4g} {figure.unit}".rstrip()
        print(f"  {figure.what:<58} {value:>16}   {bound:<20} {verdict}", flush=True)


def percentile(samples: Sequence[float], q: float) -> float:
    """The smallest sample that is at least as large as `q` per cent of them."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * round(q * 100) // 10_000) - 1)]
