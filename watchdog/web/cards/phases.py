"""Where the time of representative runs went, phase by phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain import reasons
from watchdog.domain.formatting import DAY_MS, format_duration
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.store.read.status import ResultRow
from watchdog.web import charts
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.latency_points import compute_percentile_of_sorted_values
from watchdog.web.times import render_time_of_day, render_timestamp

PHASE_INTERRUPTING_REASON_FAMILIES = frozenset(
    {"timeout", "dns", "connection", "proxy", "tls", "starttls", "auth", "protocol", "body"}
)
"""Families of reasons that end a run in the middle of a phase."""


@dataclass(frozen=True, slots=True)
class PhasesCardRunRow:
    """One run."""

    name: str
    durations: tuple[float | None, ...]
    """Milliseconds in each of the card's phases; None: not reached."""
    interrupted_index: int | None
    """The phase in which the run was interrupted."""
    reason_text: str
    total_duration: float
    """Of all phases: the duration of a canary counts from the moment at which its job is sent."""
    svg: Markup


@dataclass(frozen=True, slots=True)
class PhasesCard:
    period: Markup
    """The period of the runs: "last 24 h"."""
    phase_names: tuple[str, ...]
    colours: tuple[int, ...]
    """Of each phase, 1 to 5."""
    rows: tuple[PhasesCardRunRow, ...]


def load_phases_card(context: ProbeCardLoadContext) -> PhasesCard | None:
    """Of the last day where the charts of the page show more than a day: a percentile needs all runs."""
    if context.is_chart_of_runs:
        runs, period = context.chart_runs, context.render_chart_period()
    else:
        runs, period = context.runs, Markup("last {}").format(format_duration(DAY_MS))
    slots = pick_last_median_p95_and_failed_run_slots(runs, context.now)
    results = context.load_results_of_slots(list(slots.values()))
    return build_phases_card({name: results[slot] for name, slot in slots.items() if slot in results}, period)


def pick_last_median_p95_and_failed_run_slots(runs: Sequence[ResultRow], now: int) -> dict[str, int]:
    """Name -> slot: the last run, the runs at the median and at p95, and the last failed run, with its date if it was
    more than a day ago."""
    passed = sorted(
        (run for run in runs if run.outcome is Outcome.PASS and run.duration is not None),
        key=lambda run: run.duration or 0,
    )
    slots: dict[str, int] = {}
    if passed:
        slots["Last run"] = max(run.slot for run in passed)
        if len(passed) > 2:
            ranked = [run.slot for run in passed]
            slots |= {
                "Median": compute_percentile_of_sorted_values(ranked, 50),
                "p95": compute_percentile_of_sorted_values(ranked, 95),
            }
    if failed := [run for run in runs if run.outcome is Outcome.FAIL]:
        slot = failed[-1].slot
        failed_at = render_timestamp(slot, now) if slot < now - DAY_MS else render_time_of_day(slot)
        slots[Markup("Failed {}").format(failed_at)] = slot
    return slots


def build_phases_card(results_by_name: Mapping[str, ProbeResult], period: Markup) -> PhasesCard | None:
    """None when no run has any phase."""
    results_by_name = {name: result for name, result in results_by_name.items() if result.phases}
    if not results_by_name:
        return None
    phases = merge_phase_name_orders([list(result.phases) for result in results_by_name.values()])
    colours = tuple(max(1, 5 - (len(phases) - 1 - i)) for i in range(len(phases)))
    full_scale_ms = _compute_phase_bar_scale_ms(results_by_name.values())
    rows = [
        _build_run_phases_row(name, result, phases, colours, full_scale_ms) for name, result in results_by_name.items()
    ]
    return PhasesCard(period, tuple(format_phase_name(phase) for phase in phases), colours, tuple(rows))


def _compute_phase_bar_scale_ms(results: Iterable[ProbeResult]) -> float:
    """The longest passed run, since a failed one may take a hundred times as long and would hide the others."""
    results = list(results)
    passed = [result for result in results if result.outcome is Outcome.PASS]
    return max(
        1.0,
        *(
            sum(ms for phase, ms in result.phases.items() if phase != find_interrupted_phase(result))
            for result in passed or results
        ),
    )


def _build_run_phases_row(
    name: str, result: ProbeResult, phases: Sequence[str], colours: Sequence[int], full_scale_ms: float
) -> PhasesCardRunRow:
    interrupted = find_interrupted_phase(result)
    durations = tuple(None if phase == interrupted else result.phases.get(phase) for phase in phases)
    parts = [(colour, ms) for colour, ms in zip(colours, durations, strict=True) if ms]
    return PhasesCardRunRow(
        name=name,
        durations=durations,
        interrupted_index=phases.index(interrupted) if interrupted else None,
        reason_text=reasons.get_reason_title(result.reason) if result.reason else "",
        total_duration=max(sum(result.phases.values()), result.duration or 0),
        svg=charts.render_phase_bar(parts, full_scale_ms, incomplete=bool(interrupted)),
    )


def find_interrupted_phase(result: ProbeResult) -> str:
    """The phase in which the run was interrupted; its time is only how long Watchdog waited. Empty if there is none."""
    return (
        list(result.phases)[-1]
        if result.phases and reasons.get_reason_family(result.reason) in PHASE_INTERRUPTING_REASON_FAMILIES
        else ""
    )


def merge_phase_name_orders(orderings: Iterable[Sequence[str]]) -> list[str]:
    """One order that keeps each list's own: a name that is new to it is inserted after the one that it followed."""
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
    return name.upper() if name in ("dns", "tls", "starttls") else name.replace("_", " ")


PROBE_PAGE_CARD = ProbePageCardType("cards/phases.j2", load_phases_card)
