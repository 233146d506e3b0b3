"""The runs of one probe with what they measured, for charts: all of a short time, or a sample of a long one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.model import JsonScalar, Outcome
from watchdog.store.codec import OUTCOMES_BY_VALUE
from watchdog.store.packed_values import unpack_phases, unpack_values
from watchdog.store.tables import effective_results, incidents

MAX_INCIDENTS_IN_SAMPLE = 500
"""Of more, those that began last."""


class MeasuredRun(NamedTuple):
    """A run with its phases and measurements, which are decoded when they are read: a chart reads one of them."""

    slot: int
    outcome: Outcome
    message: str
    packed_phases: str | None
    packed_measurements: str | None

    @property
    def phases(self) -> Mapping[str, float]:
        """In ms."""
        return unpack_phases(self.packed_phases)

    @property
    def measurements(self) -> Mapping[str, JsonScalar]:
        return unpack_values(self.packed_measurements)


_MEASURED_RUN_COLUMNS = [effective_results.c[name] for name in ("slot", "outcome", "message", "phases", "measurements")]


def list_measured_runs(connection: Connection, probe: int, start: int, end: int) -> list[MeasuredRun]:
    """All runs with slots in [start, end), oldest first, without the slots that were missed."""
    inside = (effective_results.c.probe == probe, effective_results.c.slot >= start, effective_results.c.slot < end)
    query = sa.select(*_MEASURED_RUN_COLUMNS).where(*inside, effective_results.c.outcome != Outcome.MISSED)
    return [_measured_run_from_row(row) for row in connection.execute(query.order_by(effective_results.c.slot))]


def list_sampled_runs(connection: Connection, probe: int, start: int, end: int, interval_ms: int) -> list[MeasuredRun]:
    """The first run of each interval of [start, end), and those with which incidents began, oldest first. One index
    seek finds each of them, however many runs there are."""
    values = {"probe": probe, "start": start, "end": end, "interval": interval_ms}
    rows = (
        *connection.execute(_SAMPLED_RUNS_QUERY, values),
        *connection.execute(_FIRST_RUNS_OF_INCIDENTS_QUERY, {"probe": probe, "start": start, "end": end}),
    )
    runs = {run.slot: run for run in map(_measured_run_from_row, rows)}
    return [runs[slot] for slot in sorted(runs)]


def _build_sampled_runs_query() -> sa.Select[Any]:
    probe, start, end, interval = (
        sa.bindparam(name, type_=sa.BigInteger) for name in ("probe", "start", "end", "interval")
    )
    intervals = sa.select(start.label("start")).cte("intervals", recursive=True)
    intervals = intervals.union_all(sa.select(intervals.c.start + interval).where(intervals.c.start + interval < end))
    run = effective_results.alias("run_of_interval")
    first_slot = (
        sa.select(run.c.slot)
        .where(run.c.probe == probe, run.c.slot >= intervals.c.start, run.c.slot < intervals.c.start + interval)
        .where(run.c.slot < end, run.c.outcome != Outcome.MISSED)
        .order_by(run.c.slot)
        .limit(1)
    )
    is_first = sa.and_(effective_results.c.probe == probe, effective_results.c.slot == first_slot.scalar_subquery())
    return (
        sa.select(*_MEASURED_RUN_COLUMNS).join_from(intervals, effective_results, is_first).order_by(intervals.c.start)
    )


_SAMPLED_RUNS_QUERY = _build_sampled_runs_query()


def _build_first_runs_of_incidents_query() -> sa.Select[Any]:
    probe, start, end = (sa.bindparam(name, type_=sa.BigInteger) for name in ("probe", "start", "end"))
    since = incidents.c.since
    began = sa.select(since).where(incidents.c.probe == probe, since >= start, since < end).distinct()
    began_last = began.order_by(since.desc()).limit(MAX_INCIDENTS_IN_SAMPLE).subquery("began")
    is_first = sa.and_(effective_results.c.probe == probe, effective_results.c.slot == began_last.c.since)
    query = sa.select(*_MEASURED_RUN_COLUMNS).join_from(began_last, effective_results, is_first)
    return query.where(effective_results.c.outcome != Outcome.MISSED)


_FIRST_RUNS_OF_INCIDENTS_QUERY = _build_first_runs_of_incidents_query()


def _measured_run_from_row(row: Sequence[Any]) -> MeasuredRun:
    slot, outcome, *texts = row
    return MeasuredRun(slot, OUTCOMES_BY_VALUE[outcome], *texts)
