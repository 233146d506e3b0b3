"""How long a probe's runs took over the last day, as percentiles over time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from markupsafe import Markup

from watchdog.domain.formatting import MINUTE_MS, format_count_with_noun, format_duration, format_time_of_day
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.rules import preference
from watchdog.store.read.status import ResultRow
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.chart_window import ChartWindow, build_time_axis_labels, choose_chart_window
from watchdog.web.times import render_time_of_day

LATENCY_LIMIT_EXPRESSION_PATTERN = re.compile(r"\s*elapsed_ms\s*<=?\s*(\d+)\s*")
MAX_FAILED_RUN_CLUSTER_GAP_CHART_FRACTION = 0.04
"""Failures closer to each other than this share of the chart's width are drawn as one cluster."""
MAX_FAILED_RUN_CLUSTERS_IN_CHART_DESCRIPTION = 5


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
    """Slots that were missed, and runs that ended in an error."""
    no_verdict_period: Markup
    has_limit_line: bool
    table_rows: tuple[tuple[int, float | None, float | None, int], ...]
    """(start, p50, p95, failed runs) of each point that has any run, newest first."""


def load_latency_card(context: ProbeCardLoadContext) -> LatencyCard | None:
    """None: no run within the last day."""
    if not context.runs:
        return None
    slot = context.status.last_judged_slot
    latest = None if slot is None else context.load_results_of_slots([slot]).get(slot)
    return build_latency_card(context.runs, find_latency_limit_in_preferences(latest), context.now)


def find_latency_limit_in_preferences(latest_result: ProbeResult | None) -> int | None:
    """The limit that a preference such as `elapsed_ms <= 800` sets, in ms."""
    if latest_result is None:
        return None
    listing = latest_result.listings.get(preference.ALERT_RULE_NAME)
    matches = [
        LATENCY_LIMIT_EXPRESSION_PATTERN.fullmatch(expression) for expression in (listing.subjects if listing else ())
    ]
    return min((int(match[1]) for match in matches if match), default=None)


def compute_percentile(values: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, ceil(len(values) * percent / 100) - 1)]


def build_latency_card(runs: Sequence[ResultRow], limit: int | None, now: int) -> LatencyCard:
    """`limit`: drawn as a line unless it lies far above every run."""
    window = choose_chart_window(runs, now)
    durations: list[list[int]] = [[] for _ in range(window.point_count)]
    failed_counts = [0] * window.point_count
    for run in runs:
        index = window.find_chart_point_index(run.slot)
        if run.outcome is Outcome.PASS and run.duration is not None:
            durations[index].append(run.duration)
        failed_counts[index] += run.outcome is Outcome.FAIL
    for values in durations:
        values.sort()
    p50 = [compute_percentile(values, 50) if values else None for values in durations]
    p95 = [compute_percentile(values, 95) if values else None for values in durations]
    all_durations = sorted(ms for values in durations for ms in values)
    clusters = cluster_failed_runs_for_chart(runs, window)
    limit_line = _build_latency_limit_line(limit, p95)
    no_verdict = [run for run in runs if run.outcome in (Outcome.ERROR, Outcome.MISSED)]
    return LatencyCard(
        window=window,
        chart=charts.render_latency_chart(
            p50=p50,
            p95=p95,
            failures=clusters,
            limit=limit_line,
            time_labels=build_time_axis_labels(window),
            label=_describe_latency_chart(window, p50, p95, clusters, limit),
        ),
        p50=compute_percentile(all_durations, 50) if all_durations else None,
        p95=compute_percentile(all_durations, 95) if all_durations else None,
        passed_count=sum(run.outcome is Outcome.PASS for run in runs),
        judged_count=sum(run.outcome in (Outcome.PASS, Outcome.FAIL) for run in runs),
        no_verdict_count=sum(run.slot_count for run in no_verdict),
        no_verdict_period=_format_slot_range(no_verdict),
        has_limit_line=limit_line is not None,
        table_rows=tuple(
            (window.get_chart_point_start_ms(i), p50[i], p95[i], failed_counts[i])
            for i in range(window.point_count - 1, -1, -1)
            if durations[i] or failed_counts[i]
        ),
    )


def _build_latency_limit_line(limit: int | None, p95: Sequence[int | None]) -> charts.LimitLine | None:
    peak = max((value for value in p95 if value is not None), default=0)
    if limit is None or (peak and limit > 4 * peak):
        return None
    return charts.LimitLine(limit, f"degraded over {format_duration(limit)}")


def cluster_failed_runs_for_chart(runs: Iterable[ResultRow], window: ChartWindow) -> list[charts.FailedRunCluster]:
    """Failed runs, those close to each other as one cluster."""
    clusters: list[charts.FailedRunCluster] = []
    for run in runs:
        if run.outcome is not Outcome.FAIL:
            continue
        at = min(max((run.slot - window.start) / window.length, 0), 1)
        if clusters and at - clusters[-1].stop < MAX_FAILED_RUN_CLUSTER_GAP_CHART_FRACTION:
            clusters[-1] = charts.FailedRunCluster(clusters[-1].start, at, clusters[-1].run_count + 1)
        else:
            clusters.append(charts.FailedRunCluster(at, at, 1))
    return clusters


def _format_slot_range(runs: Sequence[ResultRow]) -> Markup:
    if not runs:
        return Markup()
    first, last = render_time_of_day(runs[0].slot), render_time_of_day(runs[-1].slot)
    is_one_minute = runs[0].slot // MINUTE_MS == runs[-1].slot // MINUTE_MS
    return first if is_one_minute else Markup("{} to {}").format(first, last)


def _describe_latency_chart(
    window: ChartWindow,
    p50: Sequence[int | None],
    p95: Sequence[int | None],
    failure_clusters: Sequence[charts.FailedRunCluster],
    limit: int | None,
) -> str:
    """The chart in words, for screen readers."""
    parts = []
    for name, values in (("p50", p50), ("p95", p95)):
        present = [value for value in values if value is not None]
        if present:
            parts.append(f"{name} between {format_duration(min(present))} and {format_duration(max(present))}")
    if limit is not None and parts:
        points_over = sum(value is not None and value > limit for value in p95)
        position = (
            f"p95 over the limit of {{}} at {format_count_with_noun(points_over, 'point')}"
            if points_over
            else "never over the limit of {}"
        )
        parts.append(position.format(format_duration(limit)))
    sentences = [f"Latency over {format_duration(window.length)}: {', '.join(parts) or 'no run passed'}."]
    for cluster in failure_clusters[:MAX_FAILED_RUN_CLUSTERS_IN_CHART_DESCRIPTION]:
        failed_at = format_time_of_day(int(window.start + cluster.start * window.length))
        sentences.append(f"{format_count_with_noun(cluster.run_count, 'run')} failed at {failed_at} UTC.")
    return " ".join(sentences)


PROBE_PAGE_CARD = ProbePageCardType("cards/latency.j2", load_latency_card)
