"""Runs that people request: stored, and claimed by the first process that may run the probe.

A requested run is identified by the probe and the instant of the request. The schedule of the probe does not move.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.model import ClaimedSlot
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.requested_runs import (
    MAX_REQUESTED_RUN_AGE_MS,
    NEVER_RUN_ON_REQUEST_REASON_BY_PROBE_KIND,
    derive_requested_slot,
)
from watchdog.domain.watermark import describe_outdated_watermark_with_advice
from watchdog.store.act_tables import requested_runs
from watchdog.store.database import Database
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.read.requested_runs import load_unclaimed_requested_run_slot
from watchdog.store.tables import schedule, watermarks
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.probe_rows import load_probe_row_or_refuse, open_probe_act_transaction


class RequestedRun(NamedTuple):
    """A run that is requested, and the probe as the process that decides about it has it."""

    registered: RegisteredProbe
    slot: int
    """The instant of the request, in epoch ms. The run may have a later slot, if another one was claimed before it."""
    is_new: bool
    """False: the same run had been requested, and not been claimed yet."""


def request_run(
    database: Database, location: str, probe: str, actor: Actor, comment: str, *, now: int
) -> RequestedRun:  # fmt: skip
    """`probe`: id or name. Requests that come before the run is claimed are one run. Raises OperatorActRefusedError if
    the probe is unknown or is never run, or no process runs probes."""
    with open_probe_act_transaction(database, probe) as connection:
        row = load_probe_row_or_refuse(connection, probe)
        if (reason := NEVER_RUN_ON_REQUEST_REASON_BY_PROBE_KIND.get(row.kind)) is not None:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.INVALID, f"{row.name} cannot be run on request: {reason}"
            )
        here = schedule.c.probe == row.id, schedule.c.location == location
        connection.execute(sa.select(schedule.c.probe).where(*here).with_for_update())
        registered = _load_probe_that_a_process_runs_or_refuse(connection, location, row, now)
        waiting = load_unclaimed_requested_run_slot(connection, row.id)
        if waiting is not None and now - waiting <= MAX_REQUESTED_RUN_AGE_MS:
            return RequestedRun(registered, waiting, is_new=False)
        slot = derive_requested_slot(now, None)
        connection.execute(sa.delete(requested_runs).where(requested_runs.c.probe == row.id))
        connection.execute(sa.insert(requested_runs).values(probe=row.id, slot=slot))
        record_operator_act(connection, OperatorActKind.RUN_NOW, actor, now, probe=row.probe_id, comment=comment)
        return RequestedRun(registered, slot, is_new=True)


def _load_probe_that_a_process_runs_or_refuse(
    connection: sa.Connection, location: str, probe_row: Any, now: int
) -> RegisteredProbe:
    watermark = sa.select(watermarks.c.claimed_until).where(watermarks.c.location == location)
    if problem := describe_outdated_watermark_with_advice(connection.execute(watermark).scalar(), now):
        message = f"no process can run {probe_row.name}: {problem}"
        raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
    registered = load_active_probes(connection, location, {}, only=[probe_row.id]).get(probe_row.id)
    if registered is None:
        message = f"{probe_row.name} was registered by an earlier version: start `watchdog run` of this version first"
        raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
    return registered


def take_requested_slots(
    connection: sa.Connection, locked_probes: Collection[int], own_probes: Collection[int], now: int
) -> dict[int, int]:
    """Probe -> the slot that is requested, of those that this process may run. Requests that are too old are dropped.
    The caller has locked the schedules of `locked_probes`, and claims the slots."""
    oldest = now - MAX_REQUESTED_RUN_AGE_MS
    is_taken = requested_runs.c.probe.in_(own_probes) | (requested_runs.c.slot < oldest)
    query = sa.delete(requested_runs).where(requested_runs.c.probe.in_(locked_probes), is_taken)
    rows = connection.execute(query.returning(requested_runs.c.probe, requested_runs.c.slot)).all()
    return {row.probe: row.slot for row in rows if row.slot >= oldest}


def build_claimed_slots_of_due_and_requested_runs(
    row: Any, due_slot: int | None, requested_slot: int | None, timeline: str
) -> list[ClaimedSlot]:
    """The runs to claim now, in the order of their slots. `row`: of the table schedule."""
    slots: list[tuple[int, bool]] = [] if due_slot is None else [(due_slot, False)]
    if requested_slot is not None:
        slots.append((derive_requested_slot(requested_slot, row.last_slot), True))
    runs: list[ClaimedSlot] = []
    for slot, is_requested in sorted(slots):
        previous_slot = runs[-1].slot if runs else row.last_slot
        runs.append(ClaimedSlot(row.probe, slot, timeline, previous_slot, is_requested=is_requested))
    return runs
