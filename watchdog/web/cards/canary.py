"""A canary's sentinel jobs, stage by stage: the newest run, and the durations over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain import reasons
from watchdog.domain.formatting import format_count_with_noun, format_duration
from watchdog.domain.measurements import CanaryStageDurations, QueueMeasurements
from watchdog.domain.model import HealthState, Outcome, ProbeResult
from watchdog.store.read.measured_runs import MeasuredRun
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.chart_window import ChartUrlQuery, ChartWindow, build_time_axis_labels

MAX_RUNS_OF_TYPICAL_STAGES = 48
"""The newest run is compared with those before it."""
REASONS_IMPLYING_PICK_UP = ("canary.not_finished", "job.failed", "canary.progress_stalled")
"""Reasons that imply a pick-up, even where the queue system does not show it."""
REASONS_IMPLYING_ENQUEUE = (*REASONS_IMPLYING_PICK_UP, "canary.not_picked_up", "canary.lost", "canary.poll_failed")
"""Reasons that imply a sentinel in the queue, even where an earlier run has sent it."""
CANARY_STAGE_TITLES = {"enqueue": "Enqueued", "pick_up": "Picked up", "finish": "Finished"}


@dataclass(frozen=True, slots=True)
class CanaryCardStage:
    """One stage of the newest run."""

    title: str
    state: HealthState
    text: str
    detail: str

    @property
    def failed(self) -> bool:
        return self.state is HealthState.DOWN


@dataclass(frozen=True, slots=True)
class CanaryLatestRun:
    slot: int
    stages: tuple[CanaryCardStage, ...]


class JudgedRunCountsByChartPoint(NamedTuple):
    """The numbers of runs at each point of a chart."""

    passed: Sequence[int]
    failed: Sequence[int]


class CanaryChartPoint(NamedTuple):
    """A point of the chart that has a run."""

    start: int
    zoom_query_string: str
    """Of a chart of this point alone; empty: it is too short for one."""
    stages: CanaryStageDurations
    """The medians of the runs that passed; if none did, of those that failed."""
    has_passed_run: bool
    """Of all runs; `stages` may be of a sample."""
    failed_count: int
    waiting: int | None
    """The most jobs that waited in the queue; measured only when a sentinel was not picked up."""
    message: str
    """Of the last failed run."""


@dataclass(frozen=True, slots=True)
class CanaryCard:
    latest: CanaryLatestRun | None
    """None: there was no run within the last day."""
    window: ChartWindow
    period: Markup
    """ "last 7 days"."""
    chart: Markup
    """Empty: there is no run in this time."""
    sample_note: Markup
    table_rows: tuple[CanaryChartPoint, ...]
    """Newest first."""


def load_canary_card(context: ProbeCardLoadContext) -> CanaryCard | None:
    """None: no run within the last day, and the URL asks for no other part of the history."""
    results = context.load_results_of_slots([run.slot for run in context.runs[-MAX_RUNS_OF_TYPICAL_STAGES:]])
    latest = build_canary_latest_run([results[slot] for slot in sorted(results)])
    if latest is None and not context.chart_query.parameters:
        return None
    runs, window = context.list_measured_chart_runs(), context.chart_window
    points = compute_canary_chart_points(
        runs, _count_passed_and_failed_runs_per_chart_point(context, runs), window, context.chart_query
    )
    return CanaryCard(
        latest=latest,
        window=window,
        period=context.render_chart_period(),
        chart=render_canary_chart_of_points(points, window, context.now),
        sample_note=context.render_sample_note(runs),
        table_rows=tuple(reversed(points)),
    )


def _count_passed_and_failed_runs_per_chart_point(
    context: ProbeCardLoadContext, runs: Iterable[MeasuredRun]
) -> JudgedRunCountsByChartPoint:
    """Of all runs, also where `runs` is a sample."""
    if context.is_chart_of_runs:
        passed = [(run.slot, 1) for run in runs if run.outcome is Outcome.PASS]
        failed = [(run.slot, 1) for run in runs if run.outcome is Outcome.FAIL]
    else:
        passed = [(part.hour, part.passed) for part in context.hourly_rollups_of_chart]
        failed = [(part.hour, part.failed) for part in context.hourly_rollups_of_chart]
    return JudgedRunCountsByChartPoint(*map(context.chart_window.sum_counts_by_chart_point, (passed, failed)))


def compute_canary_chart_points(
    runs: Iterable[MeasuredRun], counts: JudgedRunCountsByChartPoint, window: ChartWindow, query: ChartUrlQuery
) -> list[CanaryChartPoint]:
    """`runs`: oldest first. The points are in the order of time; without any run, a point needs a failure."""
    runs_by_point: dict[int, list[MeasuredRun]] = {}
    for run in runs:
        if run.outcome is not Outcome.ERROR:
            runs_by_point.setdefault(window.find_chart_point_index(run.slot), []).append(run)
    return [
        _build_canary_chart_point(
            runs_by_point.get(i, []),
            (passed_count, failed_count),
            window.get_chart_point_start_ms(i),
            query.build_zoom_query_string(window, i),
        )
        for i, (passed_count, failed_count) in enumerate(zip(*counts, strict=True))
        if failed_count or i in runs_by_point
    ]


def _build_canary_chart_point(
    runs: Sequence[MeasuredRun], counts: tuple[int, int], start: int, zoom_query_string: str
) -> CanaryChartPoint:
    failed = [run for run in runs if run.outcome is Outcome.FAIL]
    passed = [run for run in runs if run.outcome is Outcome.PASS]
    stages = [CanaryStageDurations.from_phases(run.phases) for run in passed or failed]
    waiting = [QueueMeasurements.from_measurements(run.measurements).waiting for run in failed]
    passed_count, failed_count = counts
    return CanaryChartPoint(
        start=start,
        zoom_query_string=zoom_query_string,
        stages=CanaryStageDurations(*(_compute_median(durations) for durations in zip(*stages, strict=True))),
        has_passed_run=passed_count > 0 or bool(passed),
        failed_count=max(failed_count, len(failed)),
        waiting=max((count for count in waiting if count is not None), default=None),
        message=failed[-1].message if failed else "",
    )


def _compute_median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return median(present) if present else None


def render_canary_chart_of_points(points: Sequence[CanaryChartPoint], window: ChartWindow, now: int) -> Markup:
    """`points`: oldest first. Empty if there is none."""
    if not points:
        return Markup()
    columns: list[charts.CanaryChartColumn | None] = [None] * window.point_count
    for point in points:
        columns[window.find_chart_point_index(point.start)] = charts.CanaryChartColumn(
            point.stages.pick_up, point.stages.finish, point.failed_count > 0, point.has_passed_run
        )
    label = _describe_canary_chart(points, window)
    return charts.render_canary_chart(columns, build_time_axis_labels(window, now), label)


def build_canary_latest_run(results: Sequence[ProbeResult]) -> CanaryLatestRun | None:
    """`results`: oldest first. None when there was no run."""
    runs = [result for result in results if result.outcome is not Outcome.MISSED]
    if not runs:
        return None
    return CanaryLatestRun(runs[-1].slot, tuple(_build_canary_stage_summaries(runs[-1], runs[:-1])))


def _build_canary_stage_summaries(newest: ProbeResult, earlier: Sequence[ProbeResult]) -> list[CanaryCardStage]:
    """The first stage that was not reached is the one that failed. A stage that is never reported is not observable."""
    passed = [CanaryStageDurations.from_phases(run.phases) for run in earlier if run.outcome is Outcome.PASS]
    reached = CanaryStageDurations.from_phases(newest.phases)
    summaries: list[CanaryCardStage] = []
    failed = False
    for name, title in CANARY_STAGE_TITLES.items():
        durations = [ms for stages in passed if (ms := getattr(stages, name)) is not None]
        typical = f"median {format_duration(median(durations))}" if durations else ""
        duration = getattr(reached, name)
        if duration is not None:
            is_last = name == "finish"
            state = HealthState.DOWN if newest.outcome is Outcome.FAIL and is_last else HealthState.UP
            summaries.append(CanaryCardStage(title, state, format_duration(duration), typical))
        elif name == "enqueue" and newest.reason in REASONS_IMPLYING_ENQUEUE:
            summaries.append(CanaryCardStage(title, HealthState.UP, "By an earlier run", typical))
        elif newest.outcome is Outcome.PASS or (name == "pick_up" and newest.reason in REASONS_IMPLYING_PICK_UP):
            detail = "the queue system does not report it"
            summaries.append(CanaryCardStage(title, HealthState.UNKNOWN, "Not observable", detail))
        elif failed:
            summaries.append(CanaryCardStage(title, HealthState.UNKNOWN, "Not reached", typical))
        else:
            failed = True
            summaries.append(CanaryCardStage(title, HealthState.DOWN, reasons.get_reason_title(newest.reason), typical))
    return summaries


def _describe_canary_chart(points: Sequence[CanaryChartPoint], window: ChartWindow) -> str:
    """The chart in words, for screen readers."""
    sentences = [f"Stage durations of canary runs over {format_duration(window.length)}."]
    for label, durations in (
        ("pick-up", [point.stages.pick_up for point in points if point.stages.pick_up is not None]),
        ("finish", [point.stages.finish for point in points if point.stages.finish is not None]),
    ):
        if durations:
            limits = f"{format_duration(min(durations))} and {format_duration(max(durations))}"
            sentences.append(f"Median time to {label} between {limits}.")
    if failed_count := sum(point.failed_count for point in points):
        sentences.append(f"{format_count_with_noun(failed_count, 'run')} failed.")
    return " ".join(sentences)


PROBE_PAGE_CARD = ProbePageCardType("cards/canary.j2", load_canary_card)
