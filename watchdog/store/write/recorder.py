"""Record what was seen, judge it, and wake where nothing was: results, findings, incidents and outbox rows commit
together or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import AlertState, IncidentEvent, IncidentTransition, Outcome, RecordedResult, Result
from watchdog.domain.routing import RoutingTable
from watchdog.domain.rules import (
    IMMEDIATE_RULES,
    AlertPolicy,
    AlertStates,
    apply_finding,
    evaluate_rules,
    fold_results,
    stale,
)
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.tables import alert_states, evaluation_cursors, probes, results, staleness_events
from watchdog.store.write import incidents
from watchdog.store.write.evidence import EvidenceStore, save_probe_state
from watchdog.store.write.probe_registry import ProbeRegistry
from watchdog.store.write.watermark import Watermark


class EvaluationCursor(NamedTuple):
    """How far a probe's results are folded."""

    probe: int
    evaluated_until: int
    awaiting_slot: bool
    """A slot is awaited: the next fold starts at `folded`."""
    active: bool
    """Some machine is not clear, or a slot is awaited: any result may change something."""
    wake_at: int | None
    """May be early, never late; None while the staleness is decided."""


@dataclass(slots=True)
class PendingWrites:
    """What a fold changes, gathered over probes and written at once."""

    transitions: list[IncidentTransition] = field(default_factory=list)
    staleness_events: list[dict[str, Any]] = field(default_factory=list)
    alert_states: list[dict[str, Any]] = field(default_factory=list)
    cleared_alert_states: list[dict[str, Any]] = field(default_factory=list)
    cursor_updates: list[dict[str, Any]] = field(default_factory=list)


class ResultRecorder:
    def __init__(self, database: Database, watermark: Watermark, registry: ProbeRegistry, routes: RoutingTable):
        self.database, self.watermark, self.registry, self.routes = database, watermark, registry, routes
        self._evidence_store = EvidenceStore(database)

    def record_results(self, recorded_results: Iterable[RecordedResult], now: int) -> list[IncidentTransition]:
        """Store a batch and fold it. Idempotent: a result stored twice is one result."""
        self.watermark.detect_gap(now)
        with self.database.write_transaction() as connection:
            return self.record_results_in_transaction(connection, list(recorded_results), now)

    def record_results_in_transaction(
        self, connection: sa.Connection, recorded_results: Sequence[RecordedResult], now: int
    ) -> list[IncidentTransition]:
        """The same inside a transaction of the caller's."""
        told: dict[tuple[int, int, str], RecordedResult] = {}
        for report in sorted(recorded_results, key=lambda r: r.result[:3]):
            if report.result.probe in self.registry:
                told.setdefault(report.result[:3], report)
        if not told:
            return []
        ids = {probe for probe, _, _ in told}
        self.database.lock_probes(connection, ids)
        edges = {probe: self._newest_settled_slot(probe, now) for probe in ids}
        known = self._load_cursors(
            connection, ids, evaluation_cursors.c.active | (evaluation_cursors.c.evaluated_until > min(edges.values()))
        )
        rows, suspects = [], set()
        for key, (result, _, _) in told.items():
            cursor = known.get(result.probe)
            late = result.outcome is not Outcome.MISSED and (
                result.slot <= edges[result.probe] or (cursor is not None and result.slot <= cursor.evaluated_until)
            )
            rows.append(codec.result_to_row(result, late=late, recorded_at=now))
            hot = cursor is not None and cursor.active
            if not late and (hot or any(f.bad for f in evaluate_rules(self.registry[result.probe].policy, result))):
                suspects.add(key)
        new = self.database.insert_new_rows(connection, results, rows)
        stored = [report for key, report in told.items() if key in new]
        self._evidence_store.save_evidence(connection, stored, suspects)
        save_probe_state(self.database, connection, stored)
        awake = {probe for probe, _, _ in suspects & new}
        return self._fold_and_write(connection, awake, known, now) if awake else []

    def evaluate_deadlines(self, now: int, limit: int = 500) -> tuple[int, list[IncidentTransition]]:
        """Look at deadlines that have come, judged against the watermark: re-arm, fold a hold, or store a lapse.

        Returns how many were due, and what changed.
        """
        self.watermark.detect_gap(now)
        with self.database.write_transaction() as connection:
            mark = self.watermark.load_claimed_until(connection)
            due = evaluation_cursors.c.wake_at <= mark
            first = sa.select(evaluation_cursors.c.probe).where(
                due, evaluation_cursors.c.probe.not_in(self.registry.unregistered_probes)
            )
            ours = self.registry.filter_registered(
                connection.execute(first.order_by(evaluation_cursors.c.wake_at).limit(limit)).scalars()
            )
            if not ours:
                return 0, []
            known = self._load_cursors(connection, self.database.lock_probes(connection, ours, wait=False), due)
            newest = self._load_newest_slots(connection, known)
            awake, rearm = set(), []
            for probe, cursor in sorted(known.items()):
                silence = self.registry[probe].policy.staleness_threshold(newest[probe])
                if cursor.awaiting_slot or self.watermark.uptime_clock.has_elapsed(newest[probe], silence, mark):
                    awake.add(probe)
                else:
                    rearm.append(
                        {"p": probe, "wake": self.watermark.uptime_clock.deadline_after(newest[probe], silence)}
                    )
            if rearm:
                arm = sa.update(evaluation_cursors).where(evaluation_cursors.c.probe == sa.bindparam("p"))
                connection.execute(arm.values(wake_at=sa.bindparam("wake")), rearm)
            return len(ours), self._fold_and_write(connection, awake, known, mark, newest) if awake else []

    def replay_probe(
        self, probe: int, now: int, policy: AlertPolicy | None = None
    ) -> tuple[AlertStates, list[IncidentTransition]]:
        """The same fold over what is stored, from nothing. With another policy it is a back-test."""
        policy = policy or self.registry[probe].policy
        columns = [results.c[name] for name in RESULT_COLUMNS]
        with self.database.read_transaction() as connection:
            began = connection.execute(sa.select(probes.c.created_at).where(probes.c.id == probe)).scalar_one()
            of_probe = sa.select(*columns).where(results.c.probe == probe, results.c.slot > began)
            stored = connection.execute(of_probe.order_by(results.c.slot, results.c.location))
            rows = [codec.result_from_row(row) for row in stored]
            lapsed = sa.select(staleness_events.c.last_result_slot, staleness_events.c.threshold_ms).where(
                staleness_events.c.probe == probe, staleness_events.c.last_result_slot >= began
            )
            decided = [(slot, silence) for slot, silence in connection.execute(lapsed)]
        machines: AlertStates = {}
        passed = lambda slot: self.watermark.uptime_clock.has_elapsed(slot, policy.max_lateness, now)  # noqa: E731 - a named closure
        return machines, fold_results(policy, machines, began, rows, passed, decided).transitions

    # ------------------------------------------------------------------------------------------ the fold
    def _newest_settled_slot(self, probe: int, now: int) -> int:
        """The newest slot whose lateness has passed."""
        return self.watermark.uptime_clock.elapsed_cutoff(self.registry[probe].policy.max_lateness, now)

    def _load_cursors(
        self, connection: sa.Connection, ids: Iterable[int], condition: Any
    ) -> dict[int, EvaluationCursor]:
        query = sa.select(*[evaluation_cursors.c[name] for name in EvaluationCursor._fields]).where(
            evaluation_cursors.c.probe.in_(list(ids)), condition
        )
        return {row[0]: EvaluationCursor(*row) for row in connection.execute(query)}

    def _load_alert_states(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, AlertStates]:
        found: dict[int, AlertStates] = defaultdict(dict)
        for row in connection.execute(sa.select(alert_states).where(alert_states.c.probe.in_(list(ids)))):
            found[row.probe][row.rule, row.subject] = AlertState(
                row.bad_count, row.good_count, row.first_bad_slot, row.incident, row.reason
            )
        return found

    def _load_newest_slots(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, int]:
        """The newest slot of each probe that has a result to judge; else when the probe began."""
        heard = (results.c.outcome != Outcome.MISSED, ~results.c.late)
        of_probe = (
            sa.select(results.c.slot)
            .where(results.c.probe == probes.c.id, results.c.slot > probes.c.created_at, *heard)
            .order_by(results.c.slot.desc())
            .limit(1)
            .scalar_subquery()
        )
        newest = sa.func.coalesce(of_probe, probes.c.created_at)
        query = sa.select(probes.c.id, newest).where(probes.c.id.in_(list(ids)))
        return {row[0]: row[1] for row in connection.execute(query)}

    def _fold_and_write(
        self,
        connection: sa.Connection,
        probes_to_fold: set[int],
        cursor_by_probe: Mapping[int, EvaluationCursor],
        now: int,
        newest_slots: Mapping[int, int] | None = None,
    ) -> list[IncidentTransition]:
        """Fold what is stored and not yet folded; write what differs.

        Between `folded` and the edge of lateness every row was folded without changing anything, or the cursor would
        have moved: so a fold that awaits nothing may start at the later of the two. A probe that was removed in the
        meantime has no cursor and is judged no more. `newest`: where a wake asks, the newest slot heard of.
        """
        if cold := probes_to_fold - cursor_by_probe.keys():
            cursor_by_probe = {**self._load_cursors(connection, cold, sa.true()), **cursor_by_probe}
        starts = {
            p: cursor_by_probe[p].evaluated_until
            if cursor_by_probe[p].awaiting_slot
            else max(cursor_by_probe[p].evaluated_until, self._newest_settled_slot(p, now))
            for p in sorted(probes_to_fold & cursor_by_probe.keys())
        }
        rows: dict[int, list[Result]] = {probe: [] for probe in starts}
        for row in self.database.load_results_after(connection, starts):
            rows[row[0]].append(codec.result_from_row(row))
        hot = [probe for probe in starts if cursor_by_probe[probe].active]
        before = self._load_alert_states(connection, hot) if hot else {}
        writes = PendingWrites()
        for probe, start in starts.items():
            last = None if newest_slots is None else newest_slots[probe]
            self._fold_probe(cursor_by_probe[probe], start, rows[probe], before.get(probe, {}), now, last, writes)
        self._write_pending(connection, writes, now)
        return writes.transitions

    def _fold_probe(
        self,
        cursor: EvaluationCursor,
        start: int,
        rows: list[Result],
        states_before: AlertStates,
        now: int,
        last_slot: int | None,
        writes: PendingWrites,
    ) -> None:
        """One probe's fold. `last`: the newest slot heard of; None: nobody asks whether that is too long ago."""
        probe, alive = cursor.probe, self.watermark.uptime_clock
        policy = self.registry[probe].policy
        machines = dict(states_before)
        done = fold_results(
            policy, machines, start, rows, lambda slot: alive.has_elapsed(slot, policy.max_lateness, now)
        )
        changed = done.alert_states_changed
        if last_slot is not None and stale.ALERT_STATE_KEY not in machines:
            silence = policy.staleness_threshold(last_slot)
            if alive.has_elapsed(last_slot, silence, now):
                writes.staleness_events.append(
                    {"probe": probe, "last_result_slot": last_slot, "threshold_ms": silence, "detected_at": now}
                )
                apply_finding(policy, machines, last_slot, stale.stale_finding(silence), done.transitions)
                changed = True
        hold = None if done.awaited_slot is None else alive.deadline_after(done.awaited_slot, policy.max_lateness)
        wake = cursor.wake_at
        if stale.ALERT_STATE_KEY in machines:
            wake = None
        elif last_slot is not None or stale.ALERT_STATE_KEY in states_before:
            heard = last_slot if last_slot is not None else max(r.slot for r in rows if r.outcome is not Outcome.MISSED)
            wake = alive.deadline_after(heard, policy.staleness_threshold(heard))
        if hold is not None:
            wake = hold if wake is None else min(wake, hold)
        held = hold is not None
        hot = bool(machines) or held
        if changed or (held, hot, wake) != (cursor.awaiting_slot, cursor.active, cursor.wake_at):
            at = done.evaluated_until if changed or held else cursor.evaluated_until
            writes.cursor_updates.append({"p": probe, "until": at, "awaiting": held, "active": hot, "wake": wake})
        for (rule, subject), machine in machines.items():
            if states_before.get((rule, subject)) != machine:
                writes.alert_states.append({"probe": probe, "rule": rule, "subject": subject, **machine._asdict()})
        writes.cleared_alert_states += [
            {"p": probe, "r": rule, "s": subject} for rule, subject in states_before if (rule, subject) not in machines
        ]
        writes.transitions += done.transitions

    # ------------------------------------------------------------------------------------------ what is written
    def _write_pending(self, connection: sa.Connection, writes: PendingWrites, now: int) -> None:
        if writes.staleness_events:
            connection.execute(
                self.database.insert_statement(staleness_events).on_conflict_do_nothing(), writes.staleness_events
            )
        if writes.cleared_alert_states:
            which = [alert_states.c.probe == sa.bindparam("p"), alert_states.c.rule == sa.bindparam("r")]
            connection.execute(
                sa.delete(alert_states).where(*which, alert_states.c.subject == sa.bindparam("s")),
                writes.cleared_alert_states,
            )
        if writes.alert_states:
            insert = self.database.insert_statement(alert_states)
            values = {name: insert.excluded[name] for name in AlertState._fields}
            put = insert.on_conflict_do_update(index_elements=["probe", "rule", "subject"], set_=values)
            connection.execute(put, writes.alert_states)
        if writes.cursor_updates:
            move = sa.update(evaluation_cursors).where(evaluation_cursors.c.probe == sa.bindparam("p"))
            binds = {"evaluated_until": "until", "awaiting_slot": "awaiting", "active": "active", "wake_at": "wake"}
            connection.execute(
                move.values({name: sa.bindparam(bind) for name, bind in binds.items()}), writes.cursor_updates
            )
        for change in writes.transitions:  # in order: one batch may resolve and open anew
            if change.event is IncidentEvent.RESOLVED:
                incidents.resolve_incident(
                    connection, change.incident, change.slot, change.reason, now, self.routes.without_resolved
                )
                continue
            member = self.registry[change.probe]
            needed = 1 if change.rule in IMMEDIATE_RULES else member.policy.failure_threshold
            routing = self.routes.decide_routing(member.info)
            incidents.open_incident(connection, change, member.info.severity, needed, routing, now)
