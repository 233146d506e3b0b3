"""How long a probe's runs took: the latency chart of the last day, and where the time went. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    format_count,
    format_duration,
    format_time_of_day,
)
from watchdog.domain.model import Outcome, Result
from watchdog.domain.reasons import title
from watchdog.store.read.status import ResultRow
from watchdog.web import charts

LATENCY_LIMIT_PATTERN = re.compile(r"\s*elapsed_ms\s*<=?\s*(\d+)\s*")
CHART_WINDOWS_MS = (
    (5 * MINUTE_MS, 5 * SECOND_MS),
    (20 * MINUTE_MS, 10 * SECOND_MS),
    (HOUR_MS, 30 * SECOND_MS),
    (6 * HOUR_MS, 3 * MINUTE_MS),
    (DAY_MS, 10 * MINUTE_MS),
)
"""How much time is shown, and how much of it is one point: the shortest that holds every result, at most a day."""
CHART_STEPS_MS = tuple(
    n * SECOND_MS for n in (10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 14_400)
)
INTERRUPTING_REASONS = frozenset(
    {
        "timeout.exceeded",
        "dns.failed",
        "connection.refused",
        "connection.failed",
        "connection.lost",
        "connection.unreachable",
    }
    | {"tls.failed", "protocol.error"}
)
"""Reasons that cut a run short in the middle of a phase."""
FAILURE_MERGE_FRACTION = 0.04
"""Failures closer than this share of the width are told as one."""


class ChartWindow(NamedTuple):
    """[start, stop) in `points` of `step` ms."""

    start: int
    stop: int
    step: int
    point_count: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class LatencyCard:
    window: ChartWindow
    chart: Markup
    p50: int | None
    p95: int | None
    passed_count: int
    judged_count: int
    """Runs that passed or failed."""
    no_verdict_count: int
    no_verdict_period: str
    has_limit_line: bool
    """Whether one is drawn."""
    table_rows: tuple[tuple[int, float | None, float | None, int], ...]
    """(when, p50, p95, failed) of each point that has any run."""


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One run by its phases."""

    name: str
    durations: tuple[float | None, ...]
    """ms of each of the card's phases; None: it was not reached."""
    interrupted_index: int | None
    """Which phase never ended."""
    reason: str
    total_duration: float | None
    svg: Markup


@dataclass(frozen=True, slots=True)
class PhasesCard:
    phase_names: tuple[str, ...]
    colours: tuple[int, ...]
    rows: tuple[PhaseRow, ...]


def percentile(values: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, ceil(len(values) * percent / 100) - 1)]


def choose_chart_window(runs: Sequence[ResultRow], now: int) -> ChartWindow:
    """The shortest window that holds every run of the last day; a point is no shorter than the runs are apart."""
    age = now - runs[0].slot if runs else 0
    length, step = next((w for w in CHART_WINDOWS_MS if age <= w[0]), CHART_WINDOWS_MS[-1])
    apart = sorted(b.slot - a.slot for a, b in pairwise(runs))
    usual = apart[len(apart) // 2] if apart else 0
    if usual > step:
        step = next((s for s in CHART_STEPS_MS if s >= usual), CHART_STEPS_MS[-1])
    return ChartWindow(now - length, now, step, -(-length // step))


def parse_latency_limit(latest_result: Result | None) -> int | None:
    """The limit that a preference sets on `elapsed_ms`."""
    found = (
        [LATENCY_LIMIT_PATTERN.fullmatch(text) for text in (latest_result.preferences or {})] if latest_result else []
    )
    return min((int(match[1]) for match in found if match), default=None)


def build_latency_card(runs: Sequence[ResultRow], limit: int | None, now: int) -> LatencyCard:
    window = choose_chart_window(runs, now)
    took: list[list[int]] = [[] for _ in range(window.point_count)]
    failed = [0] * window.point_count
    for run in runs:
        i = min(max((run.slot - window.start) // window.step, 0), window.point_count - 1)
        if run.outcome is Outcome.PASS and run.duration is not None:
            took[i].append(run.duration)
        failed[i] += run.outcome is Outcome.FAIL
    for values in took:
        values.sort()
    p50 = [percentile(v, 50) if v else None for v in took]
    p95 = [percentile(v, 95) if v else None for v in took]
    everything = sorted(ms for values in took for ms in values)
    bad = cluster_failures(runs, window)
    peak = max((v for v in p95 if v is not None), default=0)
    drawn = limit if limit is not None and (not peak or limit <= 4 * peak) else None
    chart = charts.render_latency_chart(
        p50, p95, bad, None if drawn is None else charts.LimitLine(drawn, f"degraded over {format_duration(drawn)}"),
        time_axis_labels(window), _describe_latency_chart(window, p50, p95, bad, limit),
    )  # fmt: skip
    unjudged = [run for run in runs if run.outcome in (Outcome.ERROR, Outcome.MISSED)]
    return LatencyCard(
        window=window,
        chart=chart,
        p50=percentile(everything, 50) if everything else None,
        p95=percentile(everything, 95) if everything else None,
        passed_count=sum(run.outcome is Outcome.PASS for run in runs),
        judged_count=sum(run.outcome in (Outcome.PASS, Outcome.FAIL) for run in runs),
        no_verdict_count=sum(run.slot_count for run in unjudged),
        no_verdict_period=_format_slot_range(unjudged),
        has_limit_line=drawn is not None,
        table_rows=tuple(
            (window.start + i * window.step, p50[i], p95[i], failed[i])
            for i in range(window.point_count - 1, -1, -1)
            if took[i] or failed[i]
        ),
    )


def cluster_failures(runs: Iterable[ResultRow], window: ChartWindow) -> list[charts.FailureCluster]:
    """Failed runs, those near each other as one."""
    found: list[charts.FailureCluster] = []
    for run in runs:
        if run.outcome is not Outcome.FAIL:
            continue
        at = min(max((run.slot - window.start) / window.length, 0), 1)
        if found and at - found[-1].stop < FAILURE_MERGE_FRACTION:
            found[-1] = charts.FailureCluster(found[-1].start, at, found[-1].run_count + 1)
        else:
            found.append(charts.FailureCluster(at, at, 1))
    return found


def time_axis_labels(window: ChartWindow) -> list[str]:
    """What stands below a chart."""
    exact = window.length < HOUR_MS
    return [format_time_of_day(window.start + window.length * i // 6, seconds=exact) for i in range(6)] + ["now"]


def _format_slot_range(runs: Sequence[ResultRow]) -> str:
    if not runs:
        return ""
    first, last = format_time_of_day(runs[0].slot), format_time_of_day(runs[-1].slot)
    return first if first == last else f"{first} to {last}"


def _describe_latency_chart(
    window: ChartWindow,
    p50: Sequence[int | None],
    p95: Sequence[int | None],
    failure_clusters: Sequence[charts.FailureCluster],
    limit: int | None,
) -> str:
    """What the chart comes to, for those who do not see it."""
    said = []
    for name, values in (("p50", p50), ("p95", p95)):
        known = [v for v in values if v is not None]
        if known:
            said.append(f"{name} between {format_duration(min(known))} and {format_duration(max(known))}")
    if limit is not None and said:
        over = sum(v is not None and v > limit for v in p95)
        said.append(
            f"{'always under' if not over else f'p95 at {over} points over'} the limit of {format_duration(limit)}"
        )
    told = ", ".join(said) or "no run passed"
    told = f"Latency over {format_duration(window.length)}: {told}."
    for f in failure_clusters[:5]:
        failed_at = format_time_of_day(int(window.start + f.start * window.length))
        told += f" {format_count(f.run_count, 'run')} failed at {failed_at}."
    return told


def pick_representative_runs(runs: Sequence[ResultRow]) -> dict[str, int]:
    """Which runs stand for the last day: name -> slot. Median and p95 are real runs, those at that rank."""
    passed = sorted(
        (r for r in runs if r.outcome is Outcome.PASS and r.duration is not None), key=lambda r: r.duration or 0
    )
    chosen: dict[str, int] = {}
    if passed:
        chosen["Last run"] = max(r.slot for r in passed)
        slots = [r.slot for r in passed]
        if len(passed) > 2:
            chosen |= {"Median": percentile(slots, 50), "p95": percentile(slots, 95)}
    failed = [r for r in runs if r.outcome is Outcome.FAIL]
    if failed:
        chosen[f"Failed {format_time_of_day(failed[-1].slot)}"] = failed[-1].slot
    return chosen


def build_phases_card(results_by_name: Mapping[str, Result]) -> PhasesCard | None:
    """Runs by name, each with its phases; None when no run has any."""
    results_by_name = {name: result for name, result in results_by_name.items() if result.phases}
    if not results_by_name:
        return None
    names = merge_orderings([list(result.phases) for result in results_by_name.values()])
    colours = tuple(max(1, 5 - (len(names) - 1 - i)) for i in range(len(names)))
    passed = [result for result in results_by_name.values() if result.outcome is Outcome.PASS]
    whole = [
        sum(ms for phase, ms in r.phases.items() if phase != interrupted_phase(r))
        for r in passed or results_by_name.values()
    ]
    full = max(1.0, *whole)  # a failure may have taken a hundred times as long, and must not hide the rest
    drawn = []
    for name, result in results_by_name.items():
        parts = tuple(None if phase == interrupted_phase(result) else result.phases.get(phase) for phase in names)
        svg = charts.render_phase_bar(
            [(c, ms) for c, ms in zip(colours, parts, strict=True) if ms],
            full,
            incomplete=bool(interrupted_phase(result)),
        )
        total = sum(result.phases.values()) if result.duration is None else result.duration
        stopped = names.index(interrupted_phase(result)) if interrupted_phase(result) else None
        drawn.append(PhaseRow(name, parts, stopped, title(result.reason) if result.reason else "", total, svg))
    return PhasesCard(tuple(format_phase_name(name) for name in names), colours, tuple(drawn))


def interrupted_phase(result: Result) -> str:
    """The phase that never ended, whose time is only how long we waited; empty when every phase did."""
    return list(result.phases)[-1] if result.phases and result.reason in INTERRUPTING_REASONS else ""


def merge_orderings(orderings: Iterable[Sequence[str]]) -> list[str]:
    """One order that keeps each list's: a name new to it comes after the one it followed."""
    merged: list[str] = []
    for names in sorted(orderings, key=len, reverse=True):
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def format_phase_name(name: str) -> str:
    """ "first_byte" -> "first byte", "tls" -> "TLS"."""
    return name.upper() if name in ("dns", "tls") else name.replace("_", " ")
