"""A canary's way through its queue: the newest run stage by stage, and the stages of its last runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from watchdog.domain.formatting import format_count, format_duration, format_time_of_day
from watchdog.domain.model import HealthState, Outcome, Result, Scalar
from watchdog.domain.reasons import title as reason_title
from watchdog.web import charts

MAX_CANARY_RUNS = 48
"""Runs in the chart and its table."""
REASONS_AFTER_PICK_UP = ("canary.not_finished", "job.failed", "canary.progress_stalled")
"""Reasons of a job that was at work, whether or not its queue shows since when."""
STAGE_TITLES = {"enqueue": "Enqueued", "pick_up": "Picked up", "finish": "Finished"}


@dataclass(frozen=True, slots=True)
class StageCard:
    """One stage of the newest run."""

    title: str
    state: HealthState
    text: str
    detail: str


@dataclass(frozen=True, slots=True)
class CanaryCard:
    latest_slot: int
    """Of the newest run."""
    stage_cards: tuple[StageCard, ...]
    chart: Markup
    length: int
    """Milliseconds from the first run shown to the last."""
    table_rows: tuple[tuple[Result, Scalar], ...]
    """Newest first, each with how many jobs waited."""


def build_canary_card(results: Sequence[Result]) -> CanaryCard | None:
    """`results`: oldest first; None when nothing was judged."""
    ran = [result for result in results if result.outcome is not Outcome.MISSED][-MAX_CANARY_RUNS:]
    if not ran:
        return None
    newest = ran[-1]
    columns = [None if r.outcome is Outcome.ERROR else _canary_timing(r) for r in ran]
    return CanaryCard(
        newest.slot,
        tuple(_build_stage_cards(newest, ran)),
        charts.render_canary_chart(columns, _time_axis_labels(ran), _describe_canary_chart(ran)),
        newest.slot - ran[0].slot,
        tuple((result, result.measurements.get("waiting")) for result in reversed(ran)),
    )


def _canary_timing(result: Result) -> charts.CanaryTiming:
    told = result.phases
    return charts.CanaryTiming(told.get("pick_up"), told.get("finish"), result.outcome is Outcome.FAIL)


def _build_stage_cards(newest: Result, runs: Sequence[Result]) -> list[StageCard]:
    """The first stage that was not reached is the one that failed; a stage that is never told is not observable."""
    cards, broken = [], False
    for name, title in STAGE_TITLES.items():
        passed = [r.phases[name] for r in runs if name in r.phases and r.outcome is Outcome.PASS and r is not newest]
        usual = f"usually {format_duration(median(passed))}" if passed else ""
        took = newest.phases.get(name)
        if took is not None:
            failed = newest.outcome is Outcome.FAIL and name == list(STAGE_TITLES)[-1]
            cards.append(StageCard(title, HealthState.DOWN if failed else HealthState.UP, format_duration(took), usual))
        elif newest.outcome is Outcome.PASS or (name == "pick_up" and newest.reason in REASONS_AFTER_PICK_UP):
            cards.append(StageCard(title, HealthState.UNKNOWN, "not observable", "its queue does not show this"))
        elif broken:
            cards.append(StageCard(title, HealthState.UNKNOWN, "not reached", usual))
        else:
            broken = True
            cards.append(StageCard(title, HealthState.DOWN, reason_title(newest.reason), usual))
    return cards


def _time_axis_labels(runs: Sequence[Result]) -> list[str]:
    first, last = runs[0].slot, runs[-1].slot
    return [format_time_of_day(first + (last - first) * i // 4) for i in range(5)]


def _describe_canary_chart(runs: Sequence[Result]) -> str:
    """What the chart comes to, for those who do not see it."""
    told = f"Stage timings of {format_count(len(runs), 'canary run')}."
    for name, words in {"pick_up": "picked up after {}", "finish": "finished {} later"}.items():
        if known := [r.phases[name] for r in runs if name in r.phases]:
            told += f" Usually {words.format(format_duration(median(known)))}."
    failed = sum(r.outcome is Outcome.FAIL for r in runs)
    return told + (f" {format_count(failed, 'run')} failed." if failed else "")
