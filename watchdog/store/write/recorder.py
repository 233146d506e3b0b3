"""Recording of results, and evaluation of deadlines: results, alert states, incidents and outbox rows commit together
or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from watchdog.domain.model import IncidentTransition, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.rules import has_bad_finding, missed_run, stale
from watchdog.store import codec
from watchdog.store.act_tables import pauses
from watchdog.store.bulk import has_id_of
from watchdog.store.database import Database
from watchdog.store.listings import encode_result_listings_and_cache_entry
from watchdog.store.tables import evaluation_cursors, incidents, newest_results, probes, results
from watchdog.store.write.evaluation import AlertEvaluator, EvaluationCursor
from watchdog.store.write.evidence import EvidenceWriter
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.probe_state import apply_probe_state_updates
from watchdog.store.write.watermark import ClaimWatermark, load_claim_watermark

_DUE_DEADLINES_QUERY = (
    sa.select(evaluation_cursors.c.probe)
    .where(
        evaluation_cursors.c.wake_at <= sa.bindparam("due_until"),
        evaluation_cursors.c.probe.not_in(sa.bindparam("unknown", expanding=True)),
    )
    .order_by(evaluation_cursors.c.wake_at)
    .limit(sa.bindparam("max_probes", type_=sa.Integer))
)


class ResultRecorder:
    """Stores results and evaluates them, one transaction a batch.

    Invariants: a result's identity is (probe, slot, location), and one that is stored twice counts once; whether it is
    late is decided once, when it is stored, and late results are never evaluated; a probe has one writer at a time; a
    result that can change nothing costs no more than its row.
    """

    def __init__(self, database: Database, watermark: ClaimWatermark, registry: InMemoryProbeRegistry):
        self.database, self.watermark, self.registry = database, watermark, registry
        self.evaluator = AlertEvaluator(database, watermark, registry)
        self._evidence_store, self._listings = EvidenceWriter(database), self.evaluator.listings

    def record_results(self, recorded_results: Iterable[ResultToRecord], now: int) -> list[IncidentTransition]:
        """Store and evaluate a batch; returns the transitions. Idempotent."""
        self.watermark.record_downtime_gap(now)
        with self.database.open_write_transaction() as connection:
            transitions = self.record_results_in_transaction(connection, list(recorded_results), now)
        self._listings.commit_staged_listings()
        return transitions

    def record_results_in_transaction(
        self, connection: sa.Connection, recorded_results: Sequence[ResultToRecord], now: int
    ) -> list[IncidentTransition]:
        """As record_results, in a transaction of the caller. Results of unknown probes are ignored."""
        batch: dict[tuple[int, int, str], ResultToRecord] = {}
        for recorded in sorted(recorded_results, key=lambda r: r.result[:3]):
            if recorded.result.probe in self.registry:
                batch.setdefault(recorded.result[:3], recorded)
        if not batch:
            return []
        ids = {probe for probe, _, _ in batch}
        self.database.lock_probes(connection, ids)
        settled = {probe: self.evaluator.find_newest_settled_slot(probe, now) for probe in ids}
        # A cursor that is neither active nor ahead of every settled slot decides nothing below, and is not loaded.
        # A run of a cron schedule that was missed or caught up may be older than that, and still be evaluated.
        older = {key[0] for key, (r, *_) in batch.items() if _is_missed_cron_run(r) or _read_probe_run_late_start_ms(r)}
        relevant = (
            evaluation_cursors.c.active
            | (evaluation_cursors.c.evaluated_until > min(settled.values()))
            | has_id_of(evaluation_cursors.c.probe, older)
        )
        cursors = self.evaluator.load_evaluation_cursors(connection, ids, relevant)
        self._listings.discard_staged_listings()
        rows, suspect_keys, late_keys, encoded = [], set(), set(), {}
        timeline = self.watermark.clock_timeline_id
        for key, (result, *_) in batch.items():
            cursor = cursors.get(result.probe)
            late = key[2] != timeline or _is_result_too_late(result, cursor, settled[result.probe])
            late_keys |= {key} if late else set()
            listings, facts = encode_result_listings_and_cache_entry(result, self._listings)
            base = None if listings is None else listings.base_slot
            rows.append(codec.result_to_row(result, late=late, recorded_at=now, facts=facts, facts_base=base))
            if listings is not None and not late:
                encoded[key] = listings
            active = cursor is not None and cursor.active
            policy = self.registry[result.probe].policy
            if not late and (active or has_bad_finding(policy, result)):
                suspect_keys.add(key)
        new_keys = self.database.insert_new_rows(connection, results, rows)
        for key in encoded.keys() & new_keys:
            self._listings.stage(key, encoded[key])
        new_results = [recorded for key, recorded in batch.items() if key in new_keys]
        self._evidence_store.save_notable_and_sampled_evidence(connection, new_results, suspect_keys)
        apply_probe_state_updates(self.database, connection, new_results, late_keys)
        to_evaluate = {probe for probe, _, _ in suspect_keys & new_keys}
        older_keys = sorted((key for key in suspect_keys & new_keys if key[0] in older), reverse=True)
        first_slots = {probe: slot for probe, slot, _ in older_keys}
        if not to_evaluate:
            return []
        return self.evaluator.evaluate_probes(connection, to_evaluate, cursors, now, first_slots=first_slots)

    def evaluate_deadlines(self, now: int, limit: int = 500) -> tuple[int, list[IncidentTransition]]:
        """Evaluate up to `limit` probes whose deadline has come, by the watermark instead of `now`.

        A probe that has newer results gets a new deadline; otherwise it is stale, or its awaited slot is given up.
        Returns how many were due, and the transitions.
        """
        self.watermark.record_downtime_gap(now)
        with self.database.open_write_transaction() as connection:
            claimed_until = load_claim_watermark(connection, self.watermark.location)
            values = {"due_until": claimed_until, "unknown": list(self.registry.unknown), "max_probes": limit}
            due_probes = connection.execute(_DUE_DEADLINES_QUERY, values).scalars()
            due = self.registry.filter_known_probes_and_note_unknown(due_probes)
            if not due:
                return 0, []
            locked = self.database.lock_probes(connection, due, wait=False)
            is_due = evaluation_cursors.c.wake_at <= claimed_until
            cursors = self.evaluator.load_evaluation_cursors(connection, locked, is_due)
            newest_slots = self._load_staleness_start_slots(connection, cursors)
            clock = self.watermark.uptime_clock
            to_evaluate, postponed = set(), []
            for probe, cursor in sorted(cursors.items()):
                newest = newest_slots[probe]
                threshold = self.registry[probe].policy.staleness_threshold(newest)
                if cursor.active or clock.has_uptime_elapsed_since(newest, threshold, claimed_until):
                    to_evaluate.add(probe)
                else:
                    postponed.append({"p": probe, "wake": clock.compute_deadline_excluding_downtime(newest, threshold)})
            if postponed:
                update = sa.update(evaluation_cursors).where(evaluation_cursors.c.probe == sa.bindparam("p"))
                connection.execute(update.values(wake_at=sa.bindparam("wake")), postponed)
            if not to_evaluate:
                return len(due), []
            return len(due), self.evaluator.evaluate_probes(
                connection, to_evaluate, cursors, claimed_until, newest_slots
            )

    def _load_staleness_start_slots(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, int]:
        """The slot of each probe's newest result that was not missed or late, or of its newest run that took place
        before the clock was set back; without one, when the probe was added. At the earliest the last step of the
        clock, the end of the last pause, and when an incident of the rule stale was closed: deadlines restart there."""
        newest = (
            sa.select(newest_results.c.slot)
            .where(
                newest_results.c.probe == probes.c.id,
                newest_results.c.slot > probes.c.created_at,
                (newest_results.c.outcome != Outcome.MISSED)
                | (newest_results.c.reason == missed_run.CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON),
                ~newest_results.c.late,
            )
            .order_by(newest_results.c.slot.desc())
            .limit(1)
            .scalar_subquery()
        )
        resumed_at = sa.select(sa.func.max(pauses.c.ended_at)).where(pauses.c.probe == probes.c.id).scalar_subquery()
        of_stale = incidents.c.probe == probes.c.id, incidents.c.rule == stale.ALERT_RULE_NAME
        in_generation = incidents.c.resolved_generation == self.watermark.generation
        closed = sa.select(sa.func.max(incidents.c.closed_until_slot)).where(*of_stale, in_generation)
        restarts = sa.func.coalesce(resumed_at, 0), sa.func.coalesce(closed.scalar_subquery(), 0)
        query = sa.select(probes.c.id, sa.func.coalesce(newest, probes.c.created_at), *restarts)
        rows = connection.execute(query.where(probes.c.id.in_(list(ids))))
        return {probe: max(*instants, self.watermark.restarted_at) for probe, *instants in rows}


def _is_missed_cron_run(result: ProbeResult) -> bool:
    return result.reason in (missed_run.NOT_RUN_REASON, missed_run.MAY_HAVE_RUN_REASON)


def _read_probe_run_late_start_ms(result: ProbeResult) -> int:
    """How long after its slot a run was started; 0: on time."""
    late_ms = result.measurements.get(missed_run.LATE_START_MEASUREMENT_NAME, 0)
    return late_ms if isinstance(late_ms, int) else 0


def _is_result_too_late(result: ProbeResult, cursor: EvaluationCursor | None, settled_until: int) -> bool:
    """Whether a result arrives too late to be evaluated. `settled_until`: the newest slot whose lateness has passed."""
    is_evaluated = cursor is not None and result.slot <= cursor.evaluated_until
    if _is_missed_cron_run(result):
        return is_evaluated
    is_settled = result.slot + _read_probe_run_late_start_ms(result) <= settled_until
    return result.outcome is not Outcome.MISSED and (is_settled or is_evaluated)
