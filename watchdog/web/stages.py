"""A canary's way through its queue: the newest run stage by stage, and the stages of its last runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from watchdog.model import Outcome, Result, Scalar, State
from watchdog.web import charts
from watchdog.words import clock, count, span

RUNS = 48
"""Runs in the chart and its table."""
BEYOND = ("canary.not_finished", "job.failed", "canary.progress_stalled")
"""Reasons of a job that was at work, whether or not its queue shows since when."""
STAGES = {"enqueue": "Enqueued", "pick_up": "Picked up", "finish": "Finished"}


@dataclass(frozen=True, slots=True)
class StageCard:
    """One stage of the newest run."""

    title: str
    state: State
    told: str
    note: str


@dataclass(frozen=True, slots=True)
class Stages:
    slot: int
    """Of the newest run."""
    cards: tuple[StageCard, ...]
    chart: Markup
    length: int
    """Milliseconds from the first run shown to the last."""
    rows: tuple[tuple[Result, Scalar], ...]
    """Newest first, each with how many jobs waited."""


def stages(results: Sequence[Result]) -> Stages | None:
    """`results`: oldest first; None when nothing was judged."""
    ran = [result for result in results if result.outcome is not Outcome.MISSED][-RUNS:]
    if not ran:
        return None
    newest = ran[-1]
    columns = [None if r.outcome is Outcome.ERROR else _column(r) for r in ran]
    return Stages(
        newest.slot,
        tuple(_cards(newest, ran)),
        charts.stages(columns, _hours(ran), _label(ran)),
        newest.slot - ran[0].slot,
        tuple((result, result.measurements.get("waiting")) for result in reversed(ran)),
    )


def _column(result: Result) -> charts.Column:
    told = result.phases
    return charts.Column(told.get("pick_up"), told.get("finish"), result.outcome is Outcome.FAIL)


def _cards(newest: Result, ran: Sequence[Result]) -> list[StageCard]:
    """The first stage that was not reached is the one that failed; a stage that is never told is not observable."""
    cards, broken = [], False
    for name, title in STAGES.items():
        passed = [r.phases[name] for r in ran if name in r.phases and r.outcome is Outcome.PASS and r is not newest]
        usual = f"usually {span(median(passed))}" if passed else ""
        took = newest.phases.get(name)
        if took is not None:
            failed = newest.outcome is Outcome.FAIL and name == list(STAGES)[-1]
            cards.append(StageCard(title, State.DOWN if failed else State.UP, span(took), usual))
        elif newest.outcome is Outcome.PASS or (name == "pick_up" and newest.reason in BEYOND):
            cards.append(StageCard(title, State.UNKNOWN, "not observable", "its queue does not show this"))
        elif broken:
            cards.append(StageCard(title, State.UNKNOWN, "not reached", usual))
        else:
            broken = True
            cards.append(StageCard(title, State.DOWN, newest.reason.replace("_", " "), usual))
    return cards


def _hours(ran: Sequence[Result]) -> list[str]:
    first, last = ran[0].slot, ran[-1].slot
    return [clock(first + (last - first) * i // 4) for i in range(5)]


def _label(ran: Sequence[Result]) -> str:
    """What the chart comes to, for those who do not see it."""
    told = f"Stage timings of {count(len(ran), 'canary run')}."
    for name, words in {"pick_up": "picked up after {}", "finish": "finished {} later"}.items():
        if known := [r.phases[name] for r in ran if name in r.phases]:
            told += f" Usually {words.format(span(median(known)))}."
    failed = sum(r.outcome is Outcome.FAIL for r in ran)
    return told + (f" {count(failed, 'run')} failed." if failed else "")
