"""Runs that people have requested: whether a process has claimed one, and its result."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.domain.requested_runs import may_be_requested_run_slot
from watchdog.domain.rules import missed_run
from watchdog.store.act_tables import requested_runs
from watchdog.store.packed_values import unpack_values
from watchdog.store.read.history import StoredResultWithEvidence, load_results_with_evidence
from watchdog.store.tables import effective_results


def load_unclaimed_requested_run_slot(connection: sa.Connection, probe: int) -> int | None:
    """The slot that is requested for a probe and that no process has claimed yet. It may be too old to be claimed."""
    query = sa.select(requested_runs.c.slot).where(requested_runs.c.probe == probe)
    return connection.execute(query).scalar()


def load_requested_run_result(connection: sa.Connection, probe: int, slot: int) -> StoredResultWithEvidence | None:
    """The first result of a requested run from `slot` on; None: it is not stored yet."""
    is_candidate = effective_results.c.probe == probe, effective_results.c.slot >= slot
    candidates = connection.execute(sa.select(effective_results.c.slot).where(*is_candidate)).scalars()
    slots = filter_slots_of_requested_runs(connection, probe, list(candidates))
    return load_results_with_evidence(connection, probe, [min(slots)])[min(slots)] if slots else None


def filter_slots_of_requested_runs(connection: sa.Connection, probe: int, slots: Collection[int]) -> set[int]:
    """Those of the slots of a probe whose runs people have requested, and which have a result."""
    odd_slots = [slot for slot in slots if may_be_requested_run_slot(slot)]
    if not odd_slots:  # the usual case
        return set()
    columns = effective_results.c.slot, effective_results.c.measurements
    is_candidate = effective_results.c.probe == probe, effective_results.c.slot.in_(odd_slots)
    rows = connection.execute(sa.select(*columns).where(*is_candidate)).all()
    name = missed_run.REQUESTED_RUN_MEASUREMENT_NAME
    return {row.slot for row in rows if name in unpack_values(row.measurements)}
