"""Claims of slots: a little ahead of time, each by the first process that comes for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import sqlalchemy as sa

from watchdog.domain.formatting import format_count_with_noun, format_time_in_zone
from watchdog.domain.model import ClaimedSlot, Json, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.own_network import MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.requested_runs import may_be_requested_run_slot
from watchdog.domain.rules import missed_run
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule
from watchdog.store.act_tables import pause_is_in_effect, pauses, requested_runs
from watchdog.store.bulk import execute_for_rows
from watchdog.store.database import Database
from watchdog.store.errors import ClockSteppedError
from watchdog.store.tables import results, schedule
from watchdog.store.write.in_flight_slots import InFlightSlot, decode_in_flight_slots, encode_in_flight_slots
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.probe_state import load_state_by_probe
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.requested_runs import build_claimed_slots_of_due_and_requested_runs, take_requested_slots
from watchdog.store.write.watermark import ClaimWatermark

SLOT_CLAIM_AHEAD_MS = 1_000
"""How long before its slot a run is claimed, so that it can start at its slot."""
MIN_CAUGHT_UP_LATENESS_MS = 5_000
"""A run that is claimed later than this was due while no process could run it."""
MISSED_BECAUSE_STORE_AWAY_REASON = "missed.store_away"
MAX_COUNTED_MISSED_SLOTS, MAX_MISSED_SLOTS_IN_MESSAGE = 1_000, 5
"""Slots of a cron schedule that a result counts, and whose times its message names."""
NONE_REQUESTED: Mapping[int, int] = {}


class SlotClaimer:
    """Hands out each slot of one location once, and accounts for those that did not run.

    Owns `schedule`: a row's lock makes its process the only one that claims the probe. A claimed slot stays in flight
    until its result is stored; if none is within the probe's max_lateness, the slot is recorded as missed. The lateness
    of a run that is caught up counts from when it was claimed. Every slot has therefore a result or lies in a gap.
    A step of the clock (`clock_steps.py`) begins a clock generation, in which the same slots are due again.
    """

    def __init__(
        self, database: Database, watermark: ClaimWatermark, recorder: ResultRecorder, registry: InMemoryProbeRegistry
    ):
        self.database, self.watermark, self.recorder, self.registry = database, watermark, recorder, registry
        self.location = watermark.location
        self.store_was_away = False
        """This process was there all the time, and could not claim: slots in the gap are missed as well."""
        # Statements of every tick, built once.
        self._location_schedule_rows_query = sa.select(schedule).where(schedule.c.location == self.location)
        self._location_schedule_rows_update = sa.update(schedule).where(
            schedule.c.probe == sa.bindparam("p"), schedule.c.location == sa.bindparam("of_location", self.location)
        )
        self._claimed_rows_update = self._location_schedule_rows_update.values(
            next_due=sa.bindparam("due"), last_slot=sa.bindparam("last"), in_flight=sa.bindparam("slots")
        )
        self._requested_probes_query = sa.select(requested_runs.c.probe)
        self._paused_probes_query = sa.select(pauses.c.probe).where(pause_is_in_effect)
        self._due_rows_query = (
            self._location_schedule_rows_query.where(
                schedule.c.next_due <= sa.bindparam("due_until"),
                ~schedule.c.paused,
                schedule.c.probe.not_in(sa.bindparam("not_claimed", expanding=True)),
            )
            .order_by(schedule.c.next_due)
            .limit(sa.bindparam("max_rows", type_=sa.Integer))
            .with_for_update(skip_locked=True)
        )

    def claim_due_slots(self, now: int, limit: int = 500) -> tuple[list[ClaimedSlot], Mapping[int, dict[str, Json]]]:
        """Claim what is due until SLOT_CLAIM_AHEAD_MS after `now`, and compute the next slot of each probe.

        Returns up to `limit` slots, and the state of their probes. If there are fewer than `limit`, everything due is
        claimed and the watermark has moved to `now`.

        Of several slots that are due for a probe, the newest runs, unless it is too late for that. Those before it
        become one `missed` row, except for those in a gap.
        """
        self.watermark.record_downtime_gap(now)
        slots: list[ClaimedSlot] = []
        all_claimed = False
        with self.database.open_write_transaction() as connection:
            slots += self._claim_requested_runs(connection, now)
            while not all_claimed and len(slots) < limit:
                free = limit - len(slots)
                values = {
                    "due_until": now + SLOT_CLAIM_AHEAD_MS,
                    "not_claimed": list(self.registry.not_claimed),
                    "max_rows": free,
                }
                rows = connection.execute(self._due_rows_query, values).all()
                all_claimed = len(rows) < free
                slots += self._claim_slots_of_schedule_rows(connection, rows, now)
            states = load_state_by_probe(connection, [slot.probe for slot in slots])
            self.registry.paused = set(connection.execute(self._paused_probes_query).scalars())
        if all_claimed:
            with suppress(ClockSteppedError):  # after the claim, whose slots this process runs
                self.watermark.record_downtime_gap(now, advance=True)
        return slots, states

    def _claim_requested_runs(self, connection: sa.Connection, now: int) -> list[ClaimedSlot]:
        """The runs that people have requested of probes that this process may run, and what else is due for these."""
        probes = connection.execute(self._requested_probes_query).scalars().all()
        if not probes:  # the usual case
            return []
        query = self._location_schedule_rows_query.where(schedule.c.probe.in_(probes)).order_by(schedule.c.probe)
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        may_claim = self.registry.may_claim_probe_else_exclude
        own_rows = [row for row in rows if may_claim(row.probe, row.probe_definition)]
        own_probes = [row.probe for row in own_rows]
        requested = take_requested_slots(connection, [row.probe for row in rows], own_probes, now)
        return self._claim_slots_of_schedule_rows(connection, own_rows, now, requested)

    def _claim_slots_of_schedule_rows(
        self, connection: sa.Connection, rows: Sequence[Any], now: int, requested: Mapping[int, int] = NONE_REQUESTED
    ) -> list[ClaimedSlot]:
        """`requested`: the slots that are requested, by probe."""
        rows = [row for row in rows if self.registry.may_claim_probe_else_exclude(row.probe, row.probe_definition)]
        in_flight, missed = self._split_in_flight_and_lost_slots(connection, rows, now)
        claimed, updates, timeline = [], [], self.watermark.clock_timeline_id
        started = self._find_cron_slots_started_before_clock_step(connection, rows, in_flight, missed, now)
        for row in rows:
            slot, skipped, next_due = self._choose_slot_to_run_and_missed_results(row, started, now)
            missed += skipped
            last_slot = row.last_slot
            for run in build_claimed_slots_of_due_and_requested_runs(row, slot, requested.get(row.probe), timeline):
                late_ms = now - run.slot if slot == run.slot and self._should_catch_up(row.probe, slot, now) else 0
                claimed.append(run._replace(late_ms=late_ms) if late_ms else run)
                in_flight[row.probe][run.slot, timeline] = run.slot + late_ms
                last_slot = run.slot
            slots = encode_in_flight_slots(in_flight[row.probe], timeline)
            updates.append(
                {"p": row.probe, "of_location": self.location, "due": next_due, "last": last_slot, "slots": slots}
            )
        if updates:
            execute_for_rows(connection, self._claimed_rows_update, updates)
        if missed:
            self.recorder.record_results_in_transaction(connection, [ResultToRecord(result) for result in missed], now)
        return claimed

    def _split_in_flight_and_lost_slots(
        self, connection: sa.Connection, rows: list[Any], now: int
    ) -> tuple[dict[int, dict[InFlightSlot, int]], list[ProbeResult]]:
        """The slots of each probe that are still in flight, with when each was to start, and `missed` results for those
        whose max_lateness has passed without a result."""
        in_flight = {row.probe: decode_in_flight_slots(row.in_flight, self.watermark.clock_timeline_id) for row in rows}
        starts = {(probe, *slot): start for probe, slots in in_flight.items() for slot, start in slots.items()}
        recorded = {
            (*key, timeline)
            for timeline in {timeline for *_, timeline in starts}
            for key in self.database.load_recorded_slots(
                connection, [(probe, slot) for probe, slot, each in starts if each == timeline], timeline
            )
        }
        has_uptime_elapsed_since = self.watermark.uptime_clock.has_uptime_elapsed_since
        lost = [
            key
            for key, start in starts.items()
            if key not in recorded and has_uptime_elapsed_since(start, self.registry[key[0]].policy.max_lateness, now)
        ]
        done = recorded | set(lost)
        remaining = {
            probe: {slot: start for slot, start in slots.items() if (probe, *slot) not in done}
            for probe, slots in in_flight.items()
        }
        missed = [
            self._build_lost_run_result(probe, slot, now)._replace(location=timeline) for probe, slot, timeline in lost
        ]
        last_slots = {row.probe: row.last_slot for row in rows}
        return remaining, [*missed, *self._build_results_of_runs_lost_in_clock_step(missed, last_slots, now)]

    def _build_results_of_runs_lost_in_clock_step(
        self, lost: Iterable[ProbeResult], last_slots: Mapping[int, int | None], now: int
    ) -> list[ProbeResult]:
        """A result at `now` for each cron schedule with lost runs of an ended timeline: these are not started again,
        and their own results are never evaluated."""
        odd_instant = now | 1  # no slot of a schedule is odd
        messages: dict[int, list[str]] = {}
        for result in lost:
            if result.reason == missed_run.MAY_HAVE_RUN_REASON and result.location != self.watermark.clock_timeline_id:
                messages.setdefault(result.probe, []).append(result.message)
        return [
            self._build_missed_slot_result(
                *(probe, odd_instant, missed_run.MAY_HAVE_RUN_REASON),
                slot_count=len(texts),
                previous_slot=last_slots[probe],
            )._replace(message="; ".join(texts))
            for probe, texts in messages.items()
        ]

    def _find_cron_slots_started_before_clock_step(
        self,
        connection: sa.Connection,
        rows: Sequence[Any],
        in_flight: Mapping[int, Iterable[InFlightSlot]],
        lost: Iterable[ProbeResult],
        now: int,
    ) -> set[tuple[int, int]]:
        """Which due (probe, slot) of cron schedules were started in an earlier clock generation: the run may have taken
        place, so it is never started again. `in_flight`, `lost`: slots without a stored result."""
        cron_rows = [row for row in rows if isinstance(self.registry[row.probe].schedule, CronSchedule)]
        if not self.watermark.generation or not cron_rows:
            return set()
        may_have_run = (results.c.outcome != Outcome.MISSED) | (results.c.reason == missed_run.MAY_HAVE_RUN_REASON)
        query = sa.select(results.c.probe, results.c.slot).where(
            results.c.probe.in_([row.probe for row in cron_rows]),
            results.c.slot.between(min(row.next_due for row in cron_rows), now + SLOT_CLAIM_AHEAD_MS),
            results.c.location != self.watermark.clock_timeline_id,
            may_have_run,
        )
        return {
            *map(tuple, connection.execute(query)),
            *((row.probe, slot) for row in cron_rows for slot, _ in in_flight[row.probe]),
            *((result.probe, result.slot) for result in lost if result.reason == missed_run.MAY_HAVE_RUN_REASON),
        }

    def _choose_slot_to_run_and_missed_results(
        self, row: Any, started: Collection[tuple[int, int]], now: int
    ) -> tuple[int | None, list[ProbeResult], int]:
        """The slot to run, if any; results for the slots that are skipped; the next slot. `started`: (probe, slot)
        whose run was started before a step of the clock."""
        registered, first = self.registry[row.probe], row.next_due
        if row.paused or first > now + SLOT_CLAIM_AHEAD_MS:  # a run is requested
            return None, [], first
        newest = max(first, registered.schedule.find_latest_slot_until(now)) if first <= now else first
        may_run = now - newest <= registered.policy.max_lateness or self._should_catch_up(row.probe, newest, now)
        run = newest if may_run and (row.probe, newest) not in started else None
        end = run if run is not None else newest + 1
        if isinstance(registered.schedule, CronSchedule):
            return (
                run,
                self._build_results_of_cron_slots_not_run(row, first, end, started, now),
                registered.schedule.find_next_slot_after(newest),
            )
        missed, next_due = [], registered.schedule.find_next_slot_after(newest)
        if self.store_was_away:
            missed = self.summarize_slots_missed_while_store_away(row.probe, first, end, row.last_slot)
        elif skipped := list(self._iter_slots_outside_gaps(registered, first, end)):
            missed = [
                self._build_missed_slot_result(
                    row.probe, skipped[0], "missed.skipped", slot_count=len(skipped), previous_slot=row.last_slot
                )
            ]
        return run, missed, next_due

    def summarize_slots_missed_while_store_away(
        self, probe: int, first: int, end: int, previous_slot: int | None
    ) -> list[ProbeResult]:
        """One result for the slots in [first, end) that no process could claim or run."""
        if first >= end:
            return []
        count = count_schedule_slots(self.registry[probe].schedule, first, end)
        return [
            self.build_result_of_slots_missed_while_store_away(
                probe, first, slot_count=count, previous_slot=previous_slot
            )
        ]

    def build_result_of_slots_missed_while_store_away(
        self, probe: int, slot: int, *, slot_count: int, previous_slot: int | None = None
    ) -> ProbeResult:
        """One result for slots without a run, from this one on."""
        return self._build_missed_slot_result(
            probe, slot, MISSED_BECAUSE_STORE_AWAY_REASON, slot_count=slot_count, previous_slot=previous_slot
        )

    def _should_catch_up(self, probe: int, slot: int, now: int) -> bool:
        """Whether a slot that was never claimed is run late: no process that may run the probe was there."""
        return MIN_CAUGHT_UP_LATENESS_MS < now - slot <= self.registry[probe].catch_up_ms

    def _build_results_of_cron_slots_not_run(
        self, row: Any, first: int, end: int, started: Collection[tuple[int, int]], now: int
    ) -> list[ProbeResult]:
        """Results for the slots of a cron schedule in [first, end): one for those in `started`, which come again, and
        one for the others: people rely on each run."""
        schedule, slot = self.registry[row.probe].schedule, first
        slots: list[int] = []
        again: list[int] = []
        while slot < end and len(slots) < MAX_COUNTED_MISSED_SLOTS:
            (again if (row.probe, slot) in started else slots).append(slot)
            slot = schedule.find_next_slot_after(slot)
        build_result = partial(self._build_missed_slot_result, row.probe, previous_slot=row.last_slot)
        missed = (
            [build_result(again[0], missed_run.CRON_SLOT_RUN_BEFORE_CLOCK_STEP_REASON, slot_count=len(again))]
            if again
            else []
        )
        if slots:
            last = slots[-1] if slot >= end else schedule.find_latest_slot_until(end - 1)
            message = self._describe_cron_slots_not_run(row.probe, slots, last, now, is_all=slot >= end)
            result = build_result(slots[0], missed_run.NOT_RUN_REASON, slot_count=len(slots))
            missed.append(result._replace(message=message))
        return missed

    def _describe_cron_slots_not_run(
        self, probe: int, slots: Sequence[int], last: int, now: int, *, is_all: bool
    ) -> str:
        named = [self._format_slot_time(probe, each, now) for each in (*slots[:MAX_MISSED_SLOTS_IN_MESSAGE], last)]
        listed = (
            ", ".join(named[:-1]) if len(slots) <= MAX_MISSED_SLOTS_IN_MESSAGE else f"from {named[0]} to {named[-1]}"
        )
        count = format_count_with_noun(len(slots), "run") + ("" if is_all else " or more")
        return f"{count} did not take place: {listed}"

    def _build_lost_run_result(self, probe: int, slot: int, now: int) -> ProbeResult:
        schedule = self.registry[probe].schedule
        if not isinstance(schedule, CronSchedule) or may_be_requested_run_slot(slot):
            return self._build_missed_slot_result(probe, slot, "missed.result_lost")
        run = missed_run.format_cron_run(slot, now, schedule.timezone)
        message = f"{run} was started, and may have taken place"
        return self._build_missed_slot_result(probe, slot, missed_run.MAY_HAVE_RUN_REASON)._replace(message=message)

    def _format_slot_time(self, probe: int, slot: int, now: int) -> str:
        schedule = self.registry[probe].schedule
        return format_time_in_zone(slot, now, schedule.timezone if isinstance(schedule, CronSchedule) else "UTC")

    def _iter_slots_outside_gaps(self, registered_probe: RegisteredProbe, first: int, end: int) -> Iterator[int]:
        """The slots in [first, end) that are not in a gap. A gap is crossed in one step, however many slots it has."""
        slot = first
        while slot < end:
            gap = self.watermark.uptime_clock.find_downtime_gap_at(slot)
            if gap is None:
                yield slot
            slot = registered_probe.schedule.find_next_slot_after(slot if gap is None else gap[1])

    def _build_missed_slot_result(
        self, probe: int, slot: int, reason: str, *, slot_count: int = 1, previous_slot: int | None = None
    ) -> ProbeResult:
        return ProbeResult(
            probe,
            slot,
            self.watermark.clock_timeline_id,
            Outcome.MISSED,
            reason,
            previous_slot=previous_slot,
            slot_count=slot_count,
        )

    def reschedule_sooner(self, due_at_by_probe: Mapping[int, int], *, timeline: str | None = None) -> None:
        """Move the next run of each probe to the given instant, if it is due later.

        A probe whose last claimed slot is at or after that instant is left alone, and all are if the instants lie on
        a `timeline` that a step of the clock has ended.
        """
        if not due_at_by_probe or timeline not in (None, self.watermark.clock_timeline_id):
            return
        due: sa.BindParameter[int] = sa.bindparam("due")
        not_claimed_since = schedule.c.last_slot.is_(None) | (schedule.c.last_slot < due)
        is_postponed = schedule.c.next_due > due, not_claimed_since
        update = self._location_schedule_rows_update.where(*is_postponed).values(next_due=due)
        values = [{"p": probe, "due": due_at} for probe, due_at in sorted(due_at_by_probe.items())]
        with self.database.open_write_transaction() as connection:
            connection.execute(update, values)

    def record_lost_runs_and_get_settled_until(self, now: int) -> int:
        """Record as missed the slots in flight whose max_lateness has passed, without waiting for the next claim.

        Returns the instant up to which every result that can still be evaluated is stored, and decided if it was held.
        """
        self.watermark.record_downtime_gap(now)
        max_lateness = max((registered.policy.max_lateness for registered in self.registry.values()), default=0)
        settled_until = self.watermark.uptime_clock.compute_cutoff_excluding_downtime(max_lateness, now)
        with self.database.open_write_transaction() as connection:
            is_unsettled = (schedule.c.in_flight != "[]") | (schedule.c.next_due < settled_until)
            query = self._location_schedule_rows_query.where(is_unsettled)
            rows = [row for row in connection.execute(query).all() if row.probe in self.registry]
            in_flight, lost = self._split_in_flight_and_lost_slots(connection, rows, now)
            if lost:
                recorded = [ResultToRecord(result) for result in lost]
                self.recorder.record_results_in_transaction(connection, recorded, now)
        next_due_by_probe: dict[int, int] = {row.probe: row.next_due for row in rows if not row.paused}
        to_catch_up = [due for probe, due in next_due_by_probe.items() if self._should_catch_up(probe, due, now)]
        return min(
            [
                settled_until - MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS,
                *to_catch_up,
                *(slot for slots in in_flight.values() for slot, _ in slots),
            ]
        )


def count_schedule_slots(schedule: Schedule, first: int, end: int) -> int:
    """Slots in [first, end), of a cron schedule at most MAX_COUNTED_MISSED_SLOTS. `first` is one, maybe early."""
    slot = schedule.find_next_slot_after(first)
    if isinstance(schedule, IntervalSchedule):
        return 1 + max(-((slot - end) // schedule.every), 0)
    count = 1
    while slot < end and count < MAX_COUNTED_MISSED_SLOTS:
        slot, count = schedule.find_next_slot_after(slot), count + 1
    return count
