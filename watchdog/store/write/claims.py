"""Which slots run: claimed a little ahead, each once, by whichever process comes first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import ClaimedSlot, Json, Outcome, RecordedResult, Result
from watchdog.store.database import Database
from watchdog.store.tables import schedule
from watchdog.store.write.evidence import load_probe_state
from watchdog.store.write.probe_registry import ProbeRegistry, RegisteredProbe
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.watermark import Watermark

CLAIM_AHEAD_MS = 1_000
"""How long before its slot a run is claimed, in ms: each is then started at its slot."""


class SlotClaimer:
    def __init__(self, database: Database, watermark: Watermark, recorder: ResultRecorder, registry: ProbeRegistry):
        self.database, self.watermark, self.recorder, self.registry = database, watermark, recorder, registry
        self.location = watermark.location

    def claim_due_slots(self, now: int, limit: int = 500) -> tuple[list[ClaimedSlot], Mapping[int, dict[str, Json]]]:
        """Claim what is due within the next second and move each probe's next slot, in one transaction.

        Returns the slots to run, at most `limit`, and what their probes remember. Fewer: nothing is left to claim, and
        the watermark has moved to `now`.

        Slots that nobody ran become one `missed` row a probe, or none where a gap of ours covers them; a slot that was
        claimed and never recorded becomes `missed` once its lateness has passed.
        """
        self.watermark.detect_gap(now)
        slots: list[ClaimedSlot] = []
        drained = False
        with self.database.write_transaction() as connection:
            while not drained and len(slots) < limit:
                due = self._schedule_query.where(schedule.c.next_due <= now + CLAIM_AHEAD_MS).order_by(
                    schedule.c.next_due
                )
                first = due.limit(limit - len(slots)).with_for_update(skip_locked=True)
                rows = connection.execute(first).all()
                drained = len(rows) < limit - len(slots)
                slots += self._claim_rows(connection, rows, now)
            remembered = load_probe_state(connection, [slot.probe for slot in slots])
        if drained:
            self.watermark.detect_gap(now, advance=True)
        return slots, remembered

    def _claim_rows(self, connection: sa.Connection, rows: Sequence[Any], now: int) -> list[ClaimedSlot]:
        rows = self._registered_rows(rows)
        flying, missed = self._resolve_in_flight(connection, rows, now)
        claimed, moved = [], []
        for row in rows:
            slot, skipped, next_due = self._plan_next_run(row, now)
            missed += skipped
            if slot is not None:
                claimed.append(ClaimedSlot(row.probe, slot, self.location, row.last_slot))
                flying[row.probe].append(slot)
            last, still = row.last_slot if slot is None else slot, json.dumps(flying[row.probe])
            moved.append({"p": row.probe, "due": next_due, "last": last, "in_flight": still})
        if moved:
            move = self._schedule_update.values(
                next_due=sa.bindparam("due"), last_slot=sa.bindparam("last"), in_flight=sa.bindparam("in_flight")
            )
            connection.execute(move, moved)
        if missed:
            self.recorder.record_results_in_transaction(connection, [RecordedResult(result) for result in missed], now)
        return claimed

    def _resolve_in_flight(
        self, connection: sa.Connection, rows: list[Any], now: int
    ) -> tuple[dict[int, list[int]], list[Result]]:
        """What of the slots in the air still is, by probe, and rows for those whose lateness has passed unrecorded."""
        flying: dict[int, list[int]] = {row.probe: json.loads(row.in_flight) for row in rows}
        keys = [(probe, at) for probe, slots in flying.items() for at in slots]
        stored = self.database.load_recorded_slots(connection, keys, self.location)
        lost = [
            (probe, at)
            for probe, at in keys
            if (probe, at) not in stored
            and self.watermark.uptime_clock.has_elapsed(at, self.registry[probe].policy.max_lateness, now)
        ]
        done = stored | set(lost)
        still = {probe: [at for at in slots if (probe, at) not in done] for probe, slots in flying.items()}
        return still, [self._missed_result(probe, at, "missed.result_lost") for probe, at in lost]

    def _plan_next_run(self, row: Any, now: int) -> tuple[int | None, list[Result], int]:
        """The slot to run, if any; the rows for those skipped; the next slot."""
        member, first = self.registry[row.probe], row.next_due
        newest = max(first, member.schedule.latest_slot_until(now)) if first <= now else first
        run = newest if now - newest <= member.policy.max_lateness else None
        end = run if run is not None else newest + 1
        skipped = list(self._slots_outside_gaps(member, first, end))
        rows = (
            [self._missed_result(row.probe, skipped[0], "missed.skipped", len(skipped), row.last_slot)]
            if skipped
            else []
        )
        return run, rows, member.schedule.next_slot_after(newest)

    def _slots_outside_gaps(self, registered_probe: RegisteredProbe, first: int, end: int) -> Iterator[int]:
        """The slots in [first, end) that no gap of ours covers: a gap is stepped over, not through."""
        at = first
        while at < end:
            gap = self.watermark.uptime_clock.gap_at(at)
            if gap is None:
                yield at
            at = registered_probe.schedule.next_slot_after(at if gap is None else gap[1])

    def _missed_result(
        self, probe: int, slot: int, reason: str, slot_count: int = 1, previous_slot: int | None = None
    ) -> Result:
        return Result(
            probe, slot, self.location, Outcome.MISSED, reason, previous_slot=previous_slot, slot_count=slot_count
        )

    def reschedule_sooner(self, due_at_by_probe: Mapping[int, int]) -> None:
        """Probe -> the instant by which it runs again: sooner than planned, never later.

        A probe that has run, or begun to, since that instant has been looked at again already.
        """
        if not due_at_by_probe:
            return
        due: sa.BindParameter[int] = sa.bindparam("due")
        unseen = schedule.c.last_slot.is_(None) | (schedule.c.last_slot < due)
        sooner = self._schedule_update.where(schedule.c.next_due > due, unseen).values(next_due=due)
        with self.database.write_transaction() as connection:
            connection.execute(sooner, [{"p": probe, "due": at} for probe, at in sorted(due_at_by_probe.items())])

    def record_lost_runs(self, now: int) -> int:
        """Record as `missed` what a crash left in the air, before the probe's next claim would.

        Returns the instant up to which all is settled: every result that can still be judged is stored.
        """
        self.watermark.detect_gap(now)
        with self.database.write_transaction() as connection:
            rows = self._registered_rows(
                connection.execute(self._schedule_query.where(schedule.c.in_flight != "[]")).all()
            )
            _, lost = self._resolve_in_flight(connection, rows, now)
            if lost:
                self.recorder.record_results_in_transaction(
                    connection, [RecordedResult(result) for result in lost], now
                )
        lateness = max((member.policy.max_lateness for member in self.registry.values()), default=0)
        return self.watermark.uptime_clock.elapsed_cutoff(lateness, now)

    def _registered_rows(self, rows: Sequence[Any]) -> list[Any]:
        ours = self.registry.filter_registered(row.probe for row in rows)
        return [row for row in rows if row.probe in ours]

    @property
    def _schedule_query(self) -> sa.Select[Any]:
        here = schedule.c.location == self.location, schedule.c.probe.not_in(self.registry.unregistered_probes)
        return sa.select(schedule).where(*here)

    @property
    def _schedule_update(self) -> sa.Update:
        return sa.update(schedule).where(schedule.c.probe == sa.bindparam("p"), schedule.c.location == self.location)
