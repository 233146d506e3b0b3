"""What was: days with data, past runs, results with their evidence. Read-only, beside views.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.model import Evidence, Outcome, Result
from watchdog.store.codec import loads, result_from_row
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.read.status import JUDGED_OUTCOMES, RESULT_ROW_COLUMNS, ResultRow, result_row_from_columns
from watchdog.store.tables import check_ins, evidence, incidents, probes, results, rollups


class IncidentInterval(NamedTuple):
    """An incident as a stretch of time."""

    probe: int
    rule: str
    since: int
    resolved_at: int | None


@dataclass(frozen=True, slots=True)
class ResultDetail:
    """One result with all that was kept of it."""

    result: Result
    recorded_at: int
    evidence: Evidence | None
    """None: none was kept for this result."""


def list_incident_intervals(connection: Connection, start: int) -> list[IncidentInterval]:
    """Every incident that reaches into the time since `start`."""
    columns = (incidents.c.probe, incidents.c.rule, incidents.c.since, incidents.c.resolved_at)
    reaching = sa.or_(incidents.c.resolved_at.is_(None), incidents.c.resolved_at >= start)
    return [IncidentInterval(*row) for row in connection.execute(sa.select(*columns).where(reaching))]


def load_days_with_data(connection: Connection, ids: Collection[int], start: int, now: int) -> dict[int, set[int]]:
    """Probe -> the days (since the epoch) on which anything was judged.

    Past days are told by the roll-ups; the last two also by the results, which may not be rolled up yet.
    """
    days: dict[int, set[int]] = {probe: set() for probe in ids}
    day = (rollups.c.hour // DAY_MS).label("day")
    rolled = (rollups.c.probe.in_(ids), rollups.c.hour >= start, rollups.c.passed + rollups.c.failed > 0)
    for probe, number in connection.execute(sa.select(rollups.c.probe, day).where(*rolled).distinct()):
        days[probe].add(number)
    fresh = (now // DAY_MS - 1, now // DAY_MS)
    judged = [_has_judged_result_between(number * DAY_MS, (number + 1) * DAY_MS) for number in fresh]
    for probe, *found in connection.execute(sa.select(probes.c.id, *judged).where(probes.c.id.in_(ids))):
        days[probe].update(compress(fresh, found))
    return days


def _has_judged_result_between(start: int, stop: int) -> sa.ColumnElement[bool]:
    """Whether the probe at hand has a judged result in [start, stop): one seek."""
    between = (results.c.slot >= start, results.c.slot < stop)
    return sa.exists().where(results.c.probe == probes.c.id, *between, results.c.outcome.in_(JUDGED_OUTCOMES))


def load_latest_results(connection: Connection, ids: Collection[int], count: int) -> dict[int, list[ResultRow]]:
    """Probe -> its last `count` results, oldest first."""
    inner = results.alias("edge")
    edge = sa.select(inner.c.slot).where(inner.c.probe == probes.c.id).order_by(inner.c.slot.desc())
    first = sa.func.coalesce(edge.limit(1).offset(count - 1).scalar_subquery(), 0)
    statement = sa.select(probes.c.id, *RESULT_ROW_COLUMNS).join_from(
        probes, results, sa.and_(results.c.probe == probes.c.id, results.c.slot >= first)
    )
    found: dict[int, list[ResultRow]] = {probe: [] for probe in ids}
    for probe, *row in connection.execute(statement.where(probes.c.id.in_(ids)).order_by(probes.c.id, results.c.slot)):
        found[probe].append(result_row_from_columns(row))
    return {probe: rows[-count:] for probe, rows in found.items()}


def list_results_between(connection: Connection, probe: int, start: int, stop: int) -> list[ResultRow]:
    """A probe's results with slots in [start, stop), oldest first."""
    inside = (results.c.probe == probe, results.c.slot >= start, results.c.slot < stop)
    return [
        result_row_from_columns(row)
        for row in connection.execute(sa.select(*RESULT_ROW_COLUMNS).where(*inside).order_by(results.c.slot))
    ]


def list_results_before(
    connection: Connection, probe: int, slot: int | None = None, limit: int = 50, outcome: Outcome | None = None
) -> list[ResultRow]:
    """A probe's results older than `slot` (or its newest), newest first."""
    statement = (
        sa.select(*RESULT_ROW_COLUMNS).where(results.c.probe == probe).order_by(results.c.slot.desc()).limit(limit)
    )
    if slot is not None:
        statement = statement.where(results.c.slot < slot)
    if outcome is not None:
        statement = statement.where(results.c.outcome == outcome.value)
    return [result_row_from_columns(row) for row in connection.execute(statement)]


def load_result_details(connection: Connection, probe: int, slots: Collection[int]) -> dict[int, ResultDetail]:
    """Slot -> result with its evidence, for those that there are."""
    columns = [results.c[name] for name in RESULT_COLUMNS]
    same = sa.and_(*(evidence.c[name] == results.c[name] for name in ("probe", "slot", "location")))
    statement = (
        sa.select(*columns, results.c.recorded_at, evidence.c.facts, evidence.c.excerpt)
        .join_from(results, evidence, same, isouter=True)
        .where(results.c.probe == probe, results.c.slot.in_(slots))
    )
    found = {}
    for *columns_, recorded_at, facts, excerpt in connection.execute(statement):
        result = result_from_row(columns_)
        found[result.slot] = ResultDetail(
            result, recorded_at, None if facts is None else Evidence(loads(facts), excerpt)
        )
    return found


def load_last_good_slot(connection: Connection, probe: int, slot: int) -> int | None:
    """The newest slot before `slot` that passed."""
    passed = (results.c.probe == probe, results.c.slot < slot, results.c.outcome == Outcome.PASS.value)
    newest = sa.select(results.c.slot).where(*passed).order_by(results.c.slot.desc()).limit(1)
    return connection.execute(newest).scalar()


def load_last_good_slot_with_evidence(connection: Connection, probe: int, slot: int) -> int | None:
    """The newest slot before `slot` that passed and whose evidence was kept."""
    same = sa.and_(*(evidence.c[name] == results.c[name] for name in ("probe", "slot", "location")))
    statement = (
        sa.select(evidence.c.slot).join_from(evidence, results, same)
        .where(evidence.c.probe == probe, evidence.c.slot < slot, results.c.outcome == Outcome.PASS.value)
        .order_by(evidence.c.slot.desc()).limit(1)
    )  # fmt: skip
    return connection.execute(statement).scalar()


def list_last_check_ins(connection: Connection, probe: int, limit: int) -> list[tuple[CheckIn, int | None]]:
    """What a job told us, newest first, each with how long the run took that it ended, in ms."""
    columns = [*(check_ins.c[name] for name in CheckIn._fields), check_ins.c.duration]
    told = sa.select(*columns).where(check_ins.c.probe == probe)
    newest = told.order_by(check_ins.c.occurred_at.desc(), check_ins.c.id.desc()).limit(limit)
    return [
        (CheckIn(id, at, CheckInKind(kind), *rest), took) for id, at, kind, *rest, took in connection.execute(newest)
    ]
