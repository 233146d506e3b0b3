"""The fold: stored results of a probe, in slot order, and what happens between them, through the rules engine. Pure.

Results are stored out of order, as runs end. Each names the slot that was claimed before it (`previous_slot`), so a
hole is known as such, and the fold waits at it. Folding over the hole would judge the same results in another order
than a replay, which has them all. Once the lateness of the missing slot has passed, its result no longer counts, and
the fold goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from watchdog.domain.closing import ClosedFinding
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS, MaintenancePeriods
from watchdog.domain.model import IncidentTransition, ProbeResult
from watchdog.domain.rules import stale
from watchdog.domain.rules.engine import (
    AlertStates,
    advance_alert_state_in_place,
    fold_result_into_alert_states_in_place,
    has_finding_waiting_for_maintenance,
    open_findings_after_maintenance,
    resolve_closed_incident_in_alert_states,
)
from watchdog.domain.rules.policy import AlertPolicy


class ResultFoldMaintenancePeriods(NamedTuple):
    """When the probe is in maintenance, and which aftermaths of it the fold decides about."""

    periods: MaintenancePeriods = NO_MAINTENANCE_PERIODS
    decided_until: int = 0
    """Those that ended up to then were decided before."""
    settled_until: int = 0
    """No result up to this slot can still be evaluated that is not stored: those that ended up to then are decided also
    without a later result."""


FOLD_WITHOUT_MAINTENANCE = ResultFoldMaintenancePeriods()


class _EventsBetweenResults:
    """What a fold applies between two results: stored decisions of a replay, incidents that people closed, and the end
    of maintenance."""

    def __init__(
        self,
        policy: AlertPolicy,
        alert_states: AlertStates,
        transitions: list[IncidentTransition],
        *,
        staleness_events: Iterable[tuple[int, int, int]],
        closed_findings: Iterable[ClosedFinding],
        generation: int,
        maintenance: ResultFoldMaintenancePeriods,
    ):
        self._policy, self._alert_states, self._transitions = policy, alert_states, transitions
        self._staleness_events, self._generation = sorted(staleness_events), generation
        self._unapplied_closures = sorted(closed_findings, key=lambda closed: (closed.after_slot, closed.until_slot))
        self._applied_closures: list[ClosedFinding] = []
        self._periods = maintenance.periods
        self._aftermath_ends = maintenance.periods.list_aftermath_ends(maintenance.decided_until)

    def apply_stored_decisions_before(self, slot: int | None) -> None:
        """Closures from before this slot was evaluated, each after the earlier decisions, and staleness of results
        before this slot. None: all."""
        while self._unapplied_closures and (slot is None or self._unapplied_closures[0].after_slot < slot):
            closed = self._unapplied_closures.pop(0)
            self._apply_staleness_before(closed.after_slot + 1)
            self.open_findings_after_maintenance_before(closed.after_slot + 1)
            resolve_closed_incident_in_alert_states(self._policy, self._alert_states, closed, self._transitions)
            self._applied_closures.append(closed)
        self._apply_staleness_before(slot)

    def fold_result(self, result: ProbeResult) -> bool:
        """Returns whether it changed an alert state."""
        before = dict(self._alert_states)
        closed = [(each.rule, each.subject) for each in self._applied_closures if result.slot <= each.until_slot]
        fold_result_into_alert_states_in_place(
            self._policy, self._alert_states, result, self._transitions, self._periods, closed=closed
        )
        return self._alert_states != before

    def _apply_staleness_before(self, slot: int | None) -> None:
        while self._staleness_events and (slot is None or self._staleness_events[0][0] < slot):
            last_slot, threshold, detected_at = self._staleness_events.pop(0)
            finding = stale.build_stale_finding(threshold)
            advance_alert_state_in_place(
                self._policy, self._alert_states, last_slot, finding, self._transitions,
                generation=self._generation, maintenance=self._periods, decided_at=detected_at,
            )  # fmt: skip

    def open_findings_after_maintenance_before(self, slot: int) -> int | None:
        """Open what maintenance held back, if its aftermath ended before this slot. Returns when that was; None:
        nothing had to be opened."""
        opened_at = None
        while self._aftermath_ends and self._aftermath_ends[0] < slot:
            end = self._aftermath_ends.pop(0)
            if has_finding_waiting_for_maintenance(self._policy, self._alert_states):
                open_findings_after_maintenance(self._policy, self._alert_states, self._transitions)
                opened_at = end
        return opened_at


class AlertStateFoldOutcome(NamedTuple):
    """How far a fold came, and what it decided."""

    evaluated_until: int
    """Every slot up to this one is folded."""
    awaited_slot: int | None
    """The slot at which the fold stopped, because it was claimed and its result may still arrive."""
    alert_states_changed: bool
    """A step changed an alert state, even if a later step changed it back: the slots must not be folded again."""
    transitions: list[IncidentTransition]
    held_until: int | None = None
    """The fold stopped at a result that is held until this instant, unless it is decided before."""


def fold_results_into_alert_states_in_place(
    policy: AlertPolicy,
    alert_states: AlertStates,
    evaluated_until: int,
    results: Iterable[ProbeResult],
    lateness_passed: Callable[[int], bool],
    staleness_events: Iterable[tuple[int, int, int]] = (),
    now: int = 0,
    *,
    closed_findings: Iterable[ClosedFinding] = (),
    generation: int = 0,
    maintenance: ResultFoldMaintenancePeriods = FOLD_WITHOUT_MAINTENANCE,
) -> AlertStateFoldOutcome:
    """Folds results into `alert_states`, which it changes, up to the first slot that is still awaited, or whose result
    is held beyond `now`.

    `results`: ascending by slot, all after `evaluated_until`. `lateness_passed`: whether a result of this slot would be
    stored as late. `staleness_events`: for a replay, the stored decisions that results were missing, as (slot of the
    newest result, staleness threshold in ms, when it was decided). `closed_findings`: of the incidents that people have
    closed. `generation`: the clock generation of all of them.
    """
    transitions: list[IncidentTransition] = []
    events = _EventsBetweenResults(
        policy, alert_states, transitions, staleness_events=staleness_events, closed_findings=closed_findings,
        generation=generation, maintenance=maintenance,
    )  # fmt: skip
    changed, awaited = False, None

    def open_post_maintenance_findings_before(slot: int) -> None:
        nonlocal changed, evaluated_until
        if (end := events.open_findings_after_maintenance_before(slot)) is not None:
            changed, evaluated_until = True, max(evaluated_until, end)

    for result in results:
        if result.late:
            continue
        previous = result.previous_slot
        if previous is not None and previous > evaluated_until and not lateness_passed(previous):
            awaited = previous
            break
        events.apply_stored_decisions_before(result.slot)
        open_post_maintenance_findings_before(result.slot)
        if result.held_until is not None and result.held_until > now:
            return AlertStateFoldOutcome(evaluated_until, None, changed, transitions, result.held_until)
        changed = events.fold_result(result) or changed
        evaluated_until = result.slot
    events.apply_stored_decisions_before(awaited)
    open_post_maintenance_findings_before(maintenance.settled_until + 1)
    return AlertStateFoldOutcome(evaluated_until, awaited, changed, transitions)
