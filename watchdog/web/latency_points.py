"""Computes the points of a chart of latency: percentiles of runs, or means and maxima of hourly roll-ups. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.store.read.rollups import HourlyRollup
from watchdog.store.read.status import ResultRow
from watchdog.web.chart_window import ChartWindow


class LatencyLineNames(NamedTuple):
    """Of the two lines of a chart."""

    lower: str
    upper: str


PERCENTILE_LINE_NAMES = LatencyLineNames("p50", "p95")
HOURLY_LINE_NAMES = LatencyLineNames("mean", "max")
"""Roll-ups hold no percentiles."""


@dataclass(frozen=True, slots=True)
class LatencyPoints:
    """Of each point of a chart, and of all of them. Durations in ms; None: no run passed."""

    window: ChartWindow
    line_names: LatencyLineNames
    lower: Sequence[int | None]
    upper: Sequence[int | None]
    failures: Sequence[tuple[int, int]]
    """(instant, number) of failed runs, oldest first."""
    total_lower: int | None
    total_upper: int | None
    passed_count: int
    failed_count: int
    no_verdict_count: int
    """Slots that were missed, and runs that ended in an error."""
    no_verdict_period: tuple[int, int] | None
    """The first and the last of them; None: there is none, or they are not known one by one."""


def compute_percentile_of_sorted_values(values: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, ceil(len(values) * percent / 100) - 1)]


def compute_points_of_runs(runs: Sequence[ResultRow], window: ChartWindow) -> LatencyPoints:
    """`runs`: those in the window, oldest first."""
    durations: list[list[int]] = [[] for _ in range(window.point_count)]
    for run in runs:
        if run.outcome is Outcome.PASS and run.duration is not None:
            durations[window.find_chart_point_index(run.slot)].append(run.duration)
    for values in durations:
        values.sort()
    all_durations = sorted(ms for values in durations for ms in values)
    no_verdict = [run for run in runs if run.outcome in (Outcome.ERROR, Outcome.MISSED)]
    failures = [(run.slot, 1) for run in runs if run.outcome is Outcome.FAIL]
    return LatencyPoints(
        window=window,
        line_names=PERCENTILE_LINE_NAMES,
        lower=[compute_percentile_of_sorted_values(values, 50) if values else None for values in durations],
        upper=[compute_percentile_of_sorted_values(values, 95) if values else None for values in durations],
        failures=failures,
        total_lower=compute_percentile_of_sorted_values(all_durations, 50) if all_durations else None,
        total_upper=compute_percentile_of_sorted_values(all_durations, 95) if all_durations else None,
        passed_count=sum(run.outcome is Outcome.PASS for run in runs),
        failed_count=len(failures),
        no_verdict_count=sum(run.slot_count for run in no_verdict),
        no_verdict_period=(no_verdict[0].slot, no_verdict[-1].slot) if no_verdict else None,
    )


def add_newest_runs_to_hours(
    hours: Sequence[HourlyRollup], newest_runs: Iterable[ResultRow], window: ChartWindow
) -> list[HourlyRollup]:
    """The hours of a chart, oldest first, then each run that is not rolled up yet."""
    rolled_up_until = hours[-1].hour + HOUR_MS if hours else window.start
    return [
        *hours,
        *(_build_rollup_of_one_run(run) for run in newest_runs if rolled_up_until <= run.slot < window.stop),
    ]


def compute_points_of_hours(parts: Sequence[HourlyRollup], window: ChartWindow) -> LatencyPoints:
    """`parts`: hours and single runs, oldest first."""
    counts, sums = [0] * window.point_count, [0] * window.point_count
    upper: list[int | None] = [None] * window.point_count
    for part in parts:
        if part.duration_max is not None:
            i = window.find_chart_point_index(part.hour)
            counts[i] += part.passed
            sums[i] += part.duration_sum
            upper[i] = max(upper[i] or 0, part.duration_max)
    return LatencyPoints(
        window=window,
        line_names=HOURLY_LINE_NAMES,
        lower=[round(total / count) if count else None for total, count in zip(sums, counts, strict=True)],
        upper=upper,
        failures=[(part.hour, part.failed) for part in parts if part.failed],
        total_lower=round(sum(sums) / sum(counts)) if sum(counts) else None,
        total_upper=max((value for value in upper if value is not None), default=None),
        passed_count=sum(part.passed for part in parts),
        failed_count=sum(part.failed for part in parts),
        no_verdict_count=sum(part.errors + part.missed for part in parts),
        no_verdict_period=None,
    )


def _build_rollup_of_one_run(run: ResultRow) -> HourlyRollup:
    passed = run.outcome is Outcome.PASS
    return HourlyRollup(
        hour=run.slot,
        passed=int(passed),
        failed=int(run.outcome is Outcome.FAIL),
        errors=int(run.outcome is Outcome.ERROR),
        missed=run.slot_count if run.outcome is Outcome.MISSED else 0,
        duration_sum=run.duration or 0 if passed else 0,
        duration_max=run.duration if passed else None,
    )
