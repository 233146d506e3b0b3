"""A canary's sentinel jobs, stage by stage: the newest run, and the durations of the last runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from watchdog.domain import reasons
from watchdog.domain.formatting import format_count_with_noun, format_duration, format_time_of_day
from watchdog.domain.measurements import CanaryStageDurations, QueueMeasurements
from watchdog.domain.model import HealthState, Outcome, ProbeResult
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.times import TimeAxisLabel

MAX_CANARY_RUNS_ON_CARD = 48
"""Runs in the chart and its table."""
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
class CanaryCardRun:
    slot: int
    outcome: Outcome
    reason: str
    message: str
    stages: CanaryStageDurations
    waiting: int | None
    """Jobs that waited in the queue; measured only when the sentinel was not picked up."""

    @classmethod
    def from_result(cls, result: ProbeResult) -> CanaryCardRun:
        stages = CanaryStageDurations.from_phases(result.phases)
        waiting = QueueMeasurements.from_measurements(result.measurements).waiting
        return cls(result.slot, result.outcome, result.reason, result.message, stages, waiting)


@dataclass(frozen=True, slots=True)
class CanaryCard:
    latest_slot: int
    stages: tuple[CanaryCardStage, ...]
    """Of the newest run."""
    chart: Markup
    length: int
    """Milliseconds from the oldest run shown to the newest."""
    runs: tuple[CanaryCardRun, ...]
    """Newest first."""


def load_canary_card(context: ProbeCardLoadContext) -> CanaryCard | None:
    results = context.load_results_of_slots([run.slot for run in context.runs[-MAX_CANARY_RUNS_ON_CARD:]])
    return build_canary_card([results[slot] for slot in sorted(results)])


def build_canary_card(results: Sequence[ProbeResult]) -> CanaryCard | None:
    """`results`: oldest first. None when there was no run."""
    runs = [CanaryCardRun.from_result(result) for result in results if result.outcome is not Outcome.MISSED]
    runs = runs[-MAX_CANARY_RUNS_ON_CARD:]
    if not runs:
        return None
    timings = [None if run.outcome is Outcome.ERROR else _build_canary_chart_column_of_run(run) for run in runs]
    return CanaryCard(
        latest_slot=runs[-1].slot,
        stages=tuple(_build_canary_stage_summaries(runs[-1], runs[:-1])),
        chart=charts.render_canary_chart(timings, _build_canary_time_axis_labels(runs), _describe_canary_chart(runs)),
        length=runs[-1].slot - runs[0].slot,
        runs=tuple(reversed(runs)),
    )


def _build_canary_chart_column_of_run(run: CanaryCardRun) -> charts.CanaryChartColumn:
    return charts.CanaryChartColumn(run.stages.pick_up, run.stages.finish, run.outcome is Outcome.FAIL)


def _build_canary_stage_summaries(newest: CanaryCardRun, earlier: Sequence[CanaryCardRun]) -> list[CanaryCardStage]:
    """The first stage that was not reached is the one that failed. A stage that is never reported is not observable."""
    passed = [run for run in earlier if run.outcome is Outcome.PASS]
    summaries: list[CanaryCardStage] = []
    failed = False
    for name, title in CANARY_STAGE_TITLES.items():
        durations = [ms for run in passed if (ms := getattr(run.stages, name)) is not None]
        typical = f"median {format_duration(median(durations))}" if durations else ""
        duration = getattr(newest.stages, name)
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


def _build_canary_time_axis_labels(runs: Sequence[CanaryCardRun]) -> list[TimeAxisLabel]:
    first, last = runs[0].slot, runs[-1].slot
    instants = [first + (last - first) * i // 4 for i in range(5)]
    return [TimeAxisLabel(format_time_of_day(at), at) for at in instants]


def _describe_canary_chart(runs: Sequence[CanaryCardRun]) -> str:
    """The chart in words, for screen readers."""
    sentences = [f"Stage durations of {format_count_with_noun(len(runs), 'canary run')}."]
    for label, durations in (
        ("pick-up", [run.stages.pick_up for run in runs if run.stages.pick_up is not None]),
        ("finish", [run.stages.finish for run in runs if run.stages.finish is not None]),
    ):
        if durations:
            sentences.append(f"Median time to {label} {format_duration(median(durations))}.")
    if failed_count := sum(run.outcome is Outcome.FAIL for run in runs):
        sentences.append(f"{format_count_with_noun(failed_count, 'run')} failed.")
    return " ".join(sentences)


PROBE_PAGE_CARD = ProbePageCardType("cards/canary.j2", load_canary_card)
