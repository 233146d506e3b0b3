"""Shows how long a probe's runs took, in the part of its history that the URL of the page names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import MINUTE_MS, format_count_with_noun, format_duration, format_utc_timestamp
from watchdog.domain.model import ProbeResult
from watchdog.domain.rules import preference
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.chart_window import ChartUrlQuery, ChartWindow, build_time_axis_labels
from watchdog.web.latency_points import LatencyPoints, compute_points_of_hours, compute_points_of_runs
from watchdog.web.times import render_time_of_day

LATENCY_LIMIT_EXPRESSION_PATTERN = re.compile(r"\s*elapsed_ms\s*<=?\s*(\d+)\s*")
MAX_FAILED_RUN_CLUSTER_GAP_CHART_FRACTION = 0.04
"""Failures closer to each other than this share of the chart's width are drawn as one cluster."""
MAX_FAILED_RUN_CLUSTERS_IN_CHART_DESCRIPTION = 5


@dataclass(frozen=True, slots=True)
class LatencyPointRow:
    """A point that has any run. Durations in ms."""

    start: int
    zoom_query_string: str
    """Of a chart of this point alone; empty: it is too short for one."""
    lower: int | None
    upper: int | None
    failed_count: int


@dataclass(frozen=True, slots=True)
class LatencyCard:
    points: LatencyPoints
    title: Markup
    chart: Markup
    has_limit_line: bool
    no_verdict_period: Markup
    table_rows: tuple[LatencyPointRow, ...]
    """Newest first."""

    @property
    def passed_or_failed_run_count(self) -> int:
        """Runs that passed or failed."""
        return self.points.passed_count + self.points.failed_count


def load_latency_card(context: ProbeCardLoadContext) -> LatencyCard | None:
    """None: no run within the last day, and the URL asks for no other part."""
    if not context.runs and not context.chart_query.parameters:
        return None
    slot = context.status.last_judged_slot
    latest = None if slot is None else context.load_results_of_slots([slot]).get(slot)
    limit = find_latency_limit_in_preferences(latest)
    if context.is_chart_of_runs:
        points = compute_points_of_runs(context.chart_runs, context.chart_window)
    else:
        points = compute_points_of_hours(context.hourly_rollups_of_chart, context.chart_window)
    return build_latency_card(points, limit, context.chart_query, context.now)


def find_latency_limit_in_preferences(latest_result: ProbeResult | None) -> int | None:
    """The limit that a preference such as `elapsed_ms <= 800` sets, in ms."""
    if latest_result is None:
        return None
    listing = latest_result.listings.get(preference.ALERT_RULE_NAME)
    matches = [
        LATENCY_LIMIT_EXPRESSION_PATTERN.fullmatch(expression) for expression in (listing.subjects if listing else ())
    ]
    return min((int(match[1]) for match in matches if match), default=None)


def build_latency_card(points: LatencyPoints, limit: int | None, query: ChartUrlQuery, now: int) -> LatencyCard:
    """`limit`: drawn as a line unless it lies far above every run."""
    window = points.window
    clusters = cluster_failed_runs_for_chart(points.failures, window)
    limit_line = _build_latency_limit_line(limit, points)
    return LatencyCard(
        points=points,
        title=Markup("Latency, {}").format(query.render_period_title(window, now)),
        chart=charts.render_latency_chart(
            (points.lower, points.upper),
            points.line_names,
            failures=clusters,
            limit=limit_line,
            time_labels=build_time_axis_labels(window, now),
            label=_describe_latency_chart(points, clusters, limit, now),
        ),
        has_limit_line=limit_line is not None,
        no_verdict_period=_format_slot_range(points.no_verdict_period),
        table_rows=tuple(_build_latency_table_rows(points, query)),
    )


def _build_latency_table_rows(points: LatencyPoints, query: ChartUrlQuery) -> Iterator[LatencyPointRow]:
    window, failed_counts = points.window, points.window.sum_counts_by_chart_point(points.failures)
    for i in range(window.point_count - 1, -1, -1):
        if points.lower[i] is None and not failed_counts[i]:
            continue
        start, zoom = window.get_chart_point_start_ms(i), query.build_zoom_query_string(window, i)
        yield LatencyPointRow(start, zoom, points.lower[i], points.upper[i], failed_counts[i])


def _build_latency_limit_line(limit: int | None, points: LatencyPoints) -> charts.LimitLine | None:
    peak = max((value for value in points.upper if value is not None), default=0)
    if limit is None or (peak and limit > 4 * peak):
        return None
    return charts.LimitLine(limit, f"degraded over {format_duration(limit)}")


def cluster_failed_runs_for_chart(
    failures: Iterable[tuple[int, int]], window: ChartWindow
) -> list[charts.ChartFailedRunCluster]:
    """Failed runs, as (instant, number), those close to each other as one cluster."""
    clusters: list[charts.ChartFailedRunCluster] = []
    for instant, count in failures:
        at = min(max((instant - window.start) / window.length, 0), 1)
        if clusters and at - clusters[-1].stop < MAX_FAILED_RUN_CLUSTER_GAP_CHART_FRACTION:
            clusters[-1] = charts.ChartFailedRunCluster(clusters[-1].start, at, clusters[-1].run_count + count)
        else:
            clusters.append(charts.ChartFailedRunCluster(at, at, count))
    return clusters


def _format_slot_range(period: tuple[int, int] | None) -> Markup:
    if period is None:
        return Markup()
    first, last = map(render_time_of_day, period)
    is_one_minute = period[0] // MINUTE_MS == period[1] // MINUTE_MS
    return first if is_one_minute else Markup("{} to {}").format(first, last)


def _describe_latency_chart(
    points: LatencyPoints, failure_clusters: Iterable[charts.ChartFailedRunCluster], limit: int | None, now: int
) -> str:
    """The chart in words, for screen readers."""
    parts, window = [], points.window
    for name, values in zip(points.line_names, (points.lower, points.upper), strict=True):
        present = [value for value in values if value is not None]
        if present:
            parts.append(f"{name} between {format_duration(min(present))} and {format_duration(max(present))}")
    if limit is not None and parts:
        points_over = sum(value is not None and value > limit for value in points.upper)
        position = (
            f"{points.line_names.upper} over the limit of {{}} at {format_count_with_noun(points_over, 'point')}"
            if points_over
            else "never over the limit of {}"
        )
        parts.append(position.format(format_duration(limit)))
    sentences = [f"Latency over {format_duration(window.length)}: {', '.join(parts) or 'no run passed'}."]
    for cluster in list(failure_clusters)[:MAX_FAILED_RUN_CLUSTERS_IN_CHART_DESCRIPTION]:
        failed_at = format_utc_timestamp(int(window.start + cluster.start * window.length), now)
        sentences.append(f"{format_count_with_noun(cluster.run_count, 'run')} failed at {failed_at}.")
    return " ".join(sentences)


PROBE_PAGE_CARD = ProbePageCardType("cards/latency.j2", load_latency_card)
