"""The steps of the newest run, with the result and the duration of each."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.measurements import HttpStepRecord, read_step_records
from watchdog.domain.model import HealthState, Outcome, ProbeResult
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType


@dataclass(frozen=True, slots=True)
class StepsCardRow:
    step: HttpStepRecord
    state: HealthState
    label: str
    """ "Passed", "Failed", "Not run"."""
    message: str
    """Why it failed; empty: it did not fail."""


@dataclass(frozen=True, slots=True)
class StepsCard:
    slot: int
    rows: tuple[StepsCardRow, ...]
    run_count: int
    """How many of the steps were run."""


def load_steps_card(context: ProbeCardLoadContext) -> StepsCard | None:
    """None: no run within the last day has steps."""
    slot = next((run.slot for run in reversed(context.runs) if run.outcome is not Outcome.MISSED), None)
    result = None if slot is None else context.load_results_of_slots([slot]).get(slot)
    return None if result is None else build_steps_card(result)


def build_steps_card(result: ProbeResult) -> StepsCard | None:
    """None: the run has stored no steps, because it could not begin."""
    steps = read_step_records(result.measurements)
    if not steps:
        return None
    rows = tuple(_build_steps_card_row(step, result) for step in steps)
    return StepsCard(result.slot, rows, sum(step.was_run for step in steps))


def _build_steps_card_row(step: HttpStepRecord, result: ProbeResult) -> StepsCardRow:
    if step.failed and result.outcome is Outcome.ERROR:
        return StepsCardRow(step, HealthState.UNKNOWN, "No verdict", result.message)
    if step.failed:
        return StepsCardRow(step, HealthState.DOWN, "Failed", result.message)
    if step.was_run:
        return StepsCardRow(step, HealthState.UP, "Passed", "")
    return StepsCardRow(step, HealthState.UNKNOWN, "Not run", "")


PROBE_PAGE_CARD = ProbePageCardType("cards/steps.j2", load_steps_card)
