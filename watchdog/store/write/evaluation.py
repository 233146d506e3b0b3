"""The incremental fold: evaluates stored results of a probe from its cursor on, and writes only what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from watchdog.domain.closing import ClosedFinding
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS, POST_MAINTENANCE_RUN_GRACE_PERIOD_MS, MaintenancePeriods
from watchdog.domain.model import (
    IncidentEvent,
    IncidentTransition,
    Outcome,
    ProbeInfo,
    ProbeResult,
    SuspectOrOpenAlertState,
)
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.rules import (
    THRESHOLD_IGNORING_RULE_NAMES,
    AlertStates,
    ResultFoldMaintenancePeriods,
    advance_alert_state_in_place,
    fold_results_into_alert_states_in_place,
    has_finding_waiting_for_maintenance,
    service,
    stale,
)
from watchdog.domain.silencing import Silence
from watchdog.store.bulk import has_id_of
from watchdog.store.database import Database, run_after_commit
from watchdog.store.listings import SubjectListingCache, build_results_with_listings_from_rows
from watchdog.store.read.closures import load_closed_findings
from watchdog.store.read.maintenance import load_maintenance_periods
from watchdog.store.tables import END_OF_TIME_MS, alert_states, evaluation_cursors, results, staleness_events
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY
from watchdog.store.write.incidents import change_incident_cause, resolve_incident, store_opened_incident
from watchdog.store.write.muting import mute_alerts_of_other_probes
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.silences import load_silences_for_new_incidents
from watchdog.store.write.watermark import ClaimWatermark

log = structlog.get_logger()


class EvaluationCursor(NamedTuple):
    """How far the results of a probe are evaluated."""

    probe: int
    evaluated_until: int
    awaiting_slot: bool
    """The fold waits for the result of a claimed slot; the next fold starts at `evaluated_until`."""
    active: bool
    """An alert state exists or a slot is awaited, so any result may change something."""
    wake_at: int | None
    """When the deadlines of the probe are evaluated next: maybe early, never late. None while it is stale."""


class StalenessEvent(NamedTuple):
    """The decision that a probe is stale: a row of `staleness_events`."""

    probe: int
    last_result_slot: int
    timeline: str
    threshold_ms: int
    detected_at: int


@dataclass(slots=True)
class PendingEvaluationWrites:
    """The changes of several probes, collected in order to write them with few statements."""

    transitions: list[IncidentTransition] = field(default_factory=list)
    staleness_events: list[dict[str, Any]] = field(default_factory=list)
    alert_states: list[dict[str, Any]] = field(default_factory=list)
    cleared_alert_states: list[dict[str, Any]] = field(default_factory=list)
    cursor_updates: list[dict[str, Any]] = field(default_factory=list)
    expired_holds: list[dict[str, Any]] = field(default_factory=list)

    def add_expired_result_holds(self, rows: Iterable[ProbeResult], evaluated_until: int) -> None:
        """The results that were evaluated although they are held: no decision came in time."""
        self.expired_holds += [
            {"p": row.probe, "s": row.slot, "l": row.location}
            for row in rows
            if row.held_until is not None and row.slot <= evaluated_until
        ]

    def add_changed_alert_states(self, probe: int, before: AlertStates, after: AlertStates) -> None:
        """What differs between the alert states of a probe."""
        for (rule, subject), state in after.items():
            if before.get((rule, subject)) != state:
                self.alert_states.append({"probe": probe, "rule": rule, "subject": subject, **state._asdict()})
        self.cleared_alert_states += [
            {"p": probe, "r": rule, "s": subject} for rule, subject in before if (rule, subject) not in after
        ]


class AlertEvaluator:
    """Evaluates stored results and keeps cursors, alert states, incidents and the outbox in step with them.

    Owns `evaluation_cursors`, `alert_states` and `staleness_events`. The caller holds the probes' locks and owns the
    transaction, so all of it commits together with the results. Only stored rows are evaluated, in slot order;
    therefore replaying them gives the same transitions.
    """

    def __init__(
        self,
        database: Database,
        watermark: ClaimWatermark,
        registry: InMemoryProbeRegistry,
        *,
        gives_up_awaited: bool = False,
    ):
        """`gives_up_awaited`: fold everything that is stored, without waiting for results that may still arrive."""
        self.database, self.watermark, self.registry = database, watermark, registry
        self._gives_up_awaited = gives_up_awaited
        self.listings = SubjectListingCache()

    def find_newest_settled_slot(self, probe: int, now: int) -> int:
        """The newest slot whose max_lateness has passed: no result up to it can still be evaluated."""
        return self.watermark.uptime_clock.compute_cutoff_excluding_downtime(
            self.registry[probe].policy.max_lateness, now
        )

    def load_evaluation_cursors(
        self, connection: sa.Connection, ids: Iterable[int], condition: Any = None
    ) -> dict[int, EvaluationCursor]:
        """The cursors of these probes, by probe. `condition`: of which rows of evaluation_cursors."""
        query = sa.select(*[evaluation_cursors.c[name] for name in EvaluationCursor._fields]).where(
            has_id_of(evaluation_cursors.c.probe, list(ids)), sa.true() if condition is None else condition
        )
        return {row[0]: EvaluationCursor(*row) for row in connection.execute(query)}

    def load_alert_states(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, AlertStates]:
        states: dict[int, AlertStates] = defaultdict(dict)
        for row in connection.execute(sa.select(alert_states).where(has_id_of(alert_states.c.probe, list(ids)))):
            states[row.probe][row.rule, row.subject] = SuspectOrOpenAlertState(
                *(getattr(row, name) for name in SuspectOrOpenAlertState._fields)
            )
        return states

    def evaluate_probes(
        self,
        connection: sa.Connection,
        ids: set[int],
        cursors: Mapping[int, EvaluationCursor],
        now: int,
        newest_slots: Mapping[int, int] | None = None,
        first_slots: Mapping[int, int] = {},
    ) -> list[IncidentTransition]:
        """Evaluate what is stored and not yet evaluated; returns the transitions.

        `cursors`: those that are loaded already. `newest_slots`: with these, also decide whether a probe is stale by
        the slot of its newest result. `first_slots`: of older rows that have to be folded, too.

        Rows between `evaluated_until` and the newest settled slot changed nothing, or the cursor would have moved. So
        unless a slot is awaited, the fold starts at the later of the two. A probe that was removed in the meantime has
        no cursor and is no longer evaluated.
        """
        if missing := ids - cursors.keys():
            cursors = {**self.load_evaluation_cursors(connection, missing), **cursors}
        starts = {
            probe: self._find_fold_start(cursors[probe], now, first_slots.get(probe))
            for probe in sorted(ids & cursors.keys())
        }
        rows: dict[int, list[ProbeResult]] = {probe: [] for probe in starts}
        for result in build_results_with_listings_from_rows(
            connection, self.database.load_punctual_results_after(connection, starts), self.listings
        ):
            rows[result.probe].append(result)
        active = [probe for probe in starts if cursors[probe].active]
        states_before = self.load_alert_states(connection, active) if active else {}
        maintenance = self._load_maintenance_periods(connection, [cursors[probe] for probe in starts], states_before)
        closed = load_closed_findings(connection, starts, self.watermark.generation)
        writes = PendingEvaluationWrites()
        for probe, start in starts.items():
            self._evaluate_probe(
                cursors[probe],
                writes,
                start=start,
                rows=rows[probe],
                states_before=states_before.get(probe, {}),
                periods=maintenance.get(probe, NO_MAINTENANCE_PERIODS),
                closed_findings=closed.get(probe, ()),
                now=now,
                newest_slot=None if newest_slots is None else newest_slots[probe],
            )
        self._flush_pending_evaluation_writes(connection, writes, now)
        return writes.transitions

    def _find_fold_start(self, cursor: EvaluationCursor, now: int, first_slot: int | None) -> int:
        """The slot after which the fold starts. `first_slot`: of an older row that has to be folded, too."""
        if cursor.awaiting_slot:
            return cursor.evaluated_until
        settled = self.find_newest_settled_slot(cursor.probe, now)
        return max(cursor.evaluated_until, settled if first_slot is None else min(settled, first_slot - 1))

    def _evaluate_probe(
        self,
        cursor: EvaluationCursor,
        writes: PendingEvaluationWrites,
        *,
        start: int,
        rows: list[ProbeResult],
        states_before: AlertStates,
        periods: MaintenancePeriods,
        closed_findings: Sequence[ClosedFinding],
        now: int,
        newest_slot: int | None,
    ) -> None:
        probe, clock, generation = cursor.probe, self.watermark.uptime_clock, self.watermark.generation
        policy = self.registry[probe].policy
        states, waits_until = dict(states_before), END_OF_TIME_MS if self._gives_up_awaited else now
        lateness_passed = partial(clock.has_uptime_elapsed_since, duration=policy.max_lateness, now=waits_until)
        settled = 0 if self._gives_up_awaited else self.find_newest_settled_slot(probe, now)
        fold = fold_results_into_alert_states_in_place(
            policy, states, start, rows, lateness_passed, now=waits_until, closed_findings=closed_findings,
            generation=generation, maintenance=ResultFoldMaintenancePeriods(periods, cursor.evaluated_until, settled),
        )  # fmt: skip
        writes.add_expired_result_holds(rows, fold.evaluated_until)
        changed, until = fold.alert_states_changed, fold.evaluated_until
        if newest_slot is not None and stale.STALE_ALERT_STATE_KEY not in states:
            threshold = policy.staleness_threshold(newest_slot)
            if clock.has_uptime_elapsed_since(newest_slot, threshold, now):
                event = StalenessEvent(probe, newest_slot, self.watermark.clock_timeline_id, threshold, detected_at=now)
                writes.staleness_events.append(event._asdict())
                advance_alert_state_in_place(
                    policy, states, newest_slot, stale.build_stale_finding(threshold), fold.transitions,
                    generation=generation, maintenance=periods, decided_at=now,
                )  # fmt: skip
                if not changed and fold.awaited_slot is None and fold.held_until is None:
                    # No slot is decided by this, and one after the newest result may still be caught up.
                    until = max(cursor.evaluated_until, newest_slot)
                changed = True
        wake_at = self._find_staleness_deadline(cursor, rows, states_before, states, newest_slot)
        wait_ends_at = fold.held_until
        if fold.awaited_slot is not None:
            wait_ends_at = clock.compute_deadline_excluding_downtime(fold.awaited_slot, policy.max_lateness)
        maintenance_ends_at = self._find_end_of_maintenance(probe, states, periods, fold.evaluated_until)
        wake_at = _find_earliest(wake_at, wait_ends_at, maintenance_ends_at)
        awaiting, active = wait_ends_at is not None, bool(states) or wait_ends_at is not None
        if changed or (awaiting, active, wake_at) != (cursor.awaiting_slot, cursor.active, cursor.wake_at):
            until = until if changed or awaiting else cursor.evaluated_until
            update = {"p": probe, "until": until, "awaiting": awaiting, "active": active, "wake": wake_at}
            writes.cursor_updates.append(update)
        writes.add_changed_alert_states(probe, states_before, states)
        writes.transitions += fold.transitions

    def _load_maintenance_periods(
        self,
        connection: sa.Connection,
        cursors: Collection[EvaluationCursor],
        states_before: Mapping[int, AlertStates],
    ) -> Mapping[int, MaintenancePeriods]:
        """Those that a decision about these probes may depend on: from their last evaluated slot on, or since a finding
        that is not open began."""
        suspect = [state for states in states_before.values() for state in states.values() if state.incident is None]
        instants = [cursor.evaluated_until for cursor in cursors] + [state.first_bad_slot for state in suspect]
        since = min(instants, default=0) - POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
        probes = [cursor.probe for cursor in cursors]
        return load_maintenance_periods(connection, probes, self.watermark.generation, since)

    def _find_staleness_deadline(
        self,
        cursor: EvaluationCursor,
        rows: list[ProbeResult],
        states_before: AlertStates,
        states: AlertStates,
        newest_slot: int | None,
    ) -> int | None:
        """When the probe is stale without another result; None: it is. `newest_slot`: None: the deadline stays, unless
        a result has ended that it was stale."""
        if stale.STALE_ALERT_STATE_KEY in states:
            return None
        if newest_slot is None and stale.STALE_ALERT_STATE_KEY in states_before:
            newest_slot = max((row.slot for row in rows if row.outcome is not Outcome.MISSED), default=None)
        if newest_slot is None:
            return cursor.wake_at
        threshold = self.registry[cursor.probe].policy.staleness_threshold(newest_slot)
        return self.watermark.uptime_clock.compute_deadline_excluding_downtime(newest_slot, threshold)

    def _find_end_of_maintenance(
        self, probe: int, states: AlertStates, periods: MaintenancePeriods, evaluated_until: int
    ) -> int | None:
        """When it is decided whether something opens that maintenance holds back; None: nothing waits."""
        policy = self.registry[probe].policy
        ends = periods.list_aftermath_ends(evaluated_until)
        if not ends or not has_finding_waiting_for_maintenance(policy, states):
            return None
        return self.watermark.uptime_clock.compute_deadline_excluding_downtime(ends[0], policy.max_lateness)

    def _flush_pending_evaluation_writes(
        self, connection: sa.Connection, writes: PendingEvaluationWrites, now: int
    ) -> None:
        if writes.staleness_events:
            insert = self.database.build_insert_statement(staleness_events).on_conflict_do_nothing()
            connection.execute(insert, writes.staleness_events)
        if writes.cleared_alert_states:
            row = [alert_states.c.probe == sa.bindparam("p"), alert_states.c.rule == sa.bindparam("r")]
            delete = sa.delete(alert_states).where(*row, alert_states.c.subject == sa.bindparam("s"))
            connection.execute(delete, writes.cleared_alert_states)
        if writes.alert_states:
            insert = self.database.build_insert_statement(alert_states)
            values = {name: insert.excluded[name] for name in SuspectOrOpenAlertState._fields}
            upsert = insert.on_conflict_do_update(index_elements=["probe", "rule", "subject"], set_=values)
            connection.execute(upsert, writes.alert_states)
        if writes.cursor_updates:
            binds = {"evaluated_until": "until", "awaiting_slot": "awaiting", "active": "active", "wake_at": "wake"}
            values = {name: sa.bindparam(bind) for name, bind in binds.items()}
            update = sa.update(evaluation_cursors).where(evaluation_cursors.c.probe == sa.bindparam("p"))
            connection.execute(update.values(values), writes.cursor_updates)
        if writes.expired_holds:
            slot = (results.c.probe == sa.bindparam("p"), results.c.slot == sa.bindparam("s"))
            is_held = (*slot, results.c.location == sa.bindparam("l"))
            connection.execute(sa.update(results).where(*is_held).values(held_until=None), writes.expired_holds)
        silences: list[Silence] = []
        if any(transition.event is not IncidentEvent.RESOLVED for transition in writes.transitions):
            self.database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
            silences = load_silences_for_new_incidents(connection, now)
        for transition in writes.transitions:  # in order: one batch may resolve an incident and open the next
            self._write_incident_transition(connection, transition, silences, now)
        mute_alerts_of_other_probes(connection, writes.transitions, now)

    def _write_incident_transition(
        self, connection: sa.Connection, transition: IncidentTransition, silences: Sequence[Silence], now: int
    ) -> None:
        registered = self.registry[transition.probe]
        run_after_commit(connection, partial(_log_incident_transition, transition, registered.info))
        if transition.event is IncidentEvent.RESOLVED:
            resolve_incident(
                connection,
                transition.incident,
                slot=transition.slot,
                resolution=transition.reason,
                now=now,
                destinations_without_resolved=registered.routes.without_resolved,
            )
            return
        routing = registered.routes.decide_routing(
            registered.info,
            transition.reason,
            service.get_failing_destination_of_incident(transition.rule, transition.subject),
        )
        if transition.event is IncidentEvent.CHANGED:
            change_incident_cause(connection, transition, registered, routing, now)
            return
        if not routing.destinations:
            log_incident = partial(_log_incident_without_destination, transition, registered.info, routing)
            run_after_commit(connection, log_incident)  # a batch that is rolled back is evaluated again
        store_opened_incident(
            connection,
            transition,
            registered=registered,
            threshold=1 if transition.rule in THRESHOLD_IGNORING_RULE_NAMES else registered.policy.failure_threshold,
            routing=routing,
            silences=silences,
            now=now,
        )


def _find_earliest(*instants: int | None) -> int | None:
    return min((instant for instant in instants if instant is not None), default=None)


def _log_incident_transition(transition: IncidentTransition, probe: ProbeInfo) -> None:
    log.info(
        f"incident_{transition.event}",
        probe_id=probe.id,
        rule=transition.rule,
        subject=transition.subject,
        message=transition.message or transition.reason,
    )


def _log_incident_without_destination(
    transition: IncidentTransition, probe: ProbeInfo, routing: RoutingDecision
) -> None:
    log.warning(
        "incident_notifies_no_one",
        incident=transition.incident,
        probe_id=probe.id,
        rule=transition.rule,
        subject=transition.subject,
        message=transition.message or transition.reason,
        routing=list(routing.routing_log),
    )
