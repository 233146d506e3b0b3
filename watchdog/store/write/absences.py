"""What members store when the database is back: which slots ran from memory meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import ProbeResult, ResultToRecord
from watchdog.domain.rules.service import WatchdogProcessFaultName
from watchdog.store.tables import member_faults, members, schedule
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.in_flight_slots import decode_in_flight_slots, encode_in_flight_slots


class ProbeSlotsRunWithoutStore(NamedTuple):
    """The runs of a probe that took place without the database."""

    first_slot: int
    last_slot: int
    timeline: str
    slots_in_progress: frozenset[int] = frozenset()
    """Those without a result so far."""


def record_dropped_results_as_missed(
    claims: SlotClaimer, dropped: Mapping[int, tuple[int, str, int]], now: int
) -> None:
    """Record as missed what was dropped. `dropped`: by probe, the first slot, its timeline and the number of slots."""
    missed = [
        ResultToRecord(
            claims.build_result_of_slots_missed_while_store_away(probe, first_slot, slot_count=count)._replace(
                location=timeline
            )
        )
        for probe, (first_slot, timeline, count) in dropped.items()
        if probe in claims.registry
    ]
    claims.recorder.record_results(missed, now)


def advance_schedules_past_runs_without_store(
    claims: SlotClaimer, runs_by_probe: Mapping[int, ProbeSlotsRunWithoutStore], now: int
) -> None:
    """Continue each probe's schedule after its last slot that ran from memory. Its results are stored already.

    Slots before the first one are recorded as missed. A probe that another process has claimed since is left alone, and
    so is one that ran before a step of the clock: its schedule has restarted at the step.
    """
    timeline = claims.watermark.clock_timeline_id
    with claims.database.open_write_transaction() as connection:
        here = schedule.c.location == claims.location, schedule.c.probe.in_([*runs_by_probe])
        rows = connection.execute(sa.select(schedule).where(*here).order_by(schedule.c.probe).with_for_update()).all()
        missed: list[ProbeResult] = []
        for row in rows:
            runs = runs_by_probe[row.probe]
            is_claimed_since = row.last_slot is not None and row.last_slot >= runs.last_slot
            if row.probe not in claims.registry or is_claimed_since or runs.timeline != timeline:
                continue
            missed += claims.summarize_slots_missed_while_store_away(
                row.probe, row.next_due, runs.first_slot, row.last_slot
            )
            in_flight = decode_in_flight_slots(row.in_flight, timeline)
            in_flight |= {(slot, timeline): slot for slot in runs.slots_in_progress}
            values = {
                "next_due": claims.registry[row.probe].schedule.find_next_slot_after(runs.last_slot),
                "last_slot": runs.last_slot,
                "in_flight": encode_in_flight_slots(in_flight, timeline),
            }
            update = sa.update(schedule).where(schedule.c.location == claims.location, schedule.c.probe == row.probe)
            connection.execute(update.values(values))
        claims.recorder.record_results_in_transaction(connection, [ResultToRecord(result) for result in missed], now)


def load_processes_with_unreported_store_absence(connection: sa.Connection, member_ids: Collection[str]) -> set[str]:
    """Those of these members that live again, and have not stored yet what they ran during the absence, and those that
    do not live so far and may still return."""
    rows = connection.execute(sa.select(members).where(members.c.id.in_(list(member_ids))))
    is_returned = member_faults.c.fault == WatchdogProcessFaultName.DATABASE
    returned = set(connection.execute(sa.select(member_faults.c.member).where(is_returned)).scalars())
    return {row.id for row in rows if not row.left_in_order and row.id not in returned}
