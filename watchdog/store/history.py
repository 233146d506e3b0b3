"""What was: days with data, past runs, results with their evidence. Read-only, beside views.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.beat import CheckIn, Kind
from watchdog.model import Evidence, Outcome, Result
from watchdog.store.codec import loads, result_of
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.tables import check_ins, evidence, incidents, probes, results, rollups
from watchdog.store.views import JUDGED, SEEN, Seen, seen_of
from watchdog.words import DAY


class Past(NamedTuple):
    """An incident as a stretch of time."""

    probe: int
    rule: str
    since: int
    resolved_at: int | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One result with all that was kept of it."""

    result: Result
    recorded_at: int
    evidence: Evidence | None
    """None: none was kept for this result."""


def past(connection: Connection, start: int) -> list[Past]:
    """Every incident that reaches into the time since `start`."""
    columns = (incidents.c.probe, incidents.c.rule, incidents.c.since, incidents.c.resolved_at)
    reaching = sa.or_(incidents.c.resolved_at.is_(None), incidents.c.resolved_at >= start)
    return [Past(*row) for row in connection.execute(sa.select(*columns).where(reaching))]


def days_measured(connection: Connection, ids: Collection[int], start: int, now: int) -> dict[int, set[int]]:
    """Probe -> the days (since the epoch) on which anything was judged.

    Past days are told by the roll-ups; the last two also by the results, which may not be rolled up yet.
    """
    days: dict[int, set[int]] = {probe: set() for probe in ids}
    day = (rollups.c.hour // DAY).label("day")
    rolled = (rollups.c.probe.in_(ids), rollups.c.hour >= start, rollups.c.passed + rollups.c.failed > 0)
    for probe, number in connection.execute(sa.select(rollups.c.probe, day).where(*rolled).distinct()):
        days[probe].add(number)
    fresh = (now // DAY - 1, now // DAY)
    judged = [_any_judged(number * DAY, (number + 1) * DAY) for number in fresh]
    for probe, *found in connection.execute(sa.select(probes.c.id, *judged).where(probes.c.id.in_(ids))):
        days[probe].update(compress(fresh, found))
    return days


def _any_judged(start: int, stop: int) -> sa.ColumnElement[bool]:
    """Whether the probe at hand has a judged result in [start, stop): one seek."""
    between = (results.c.slot >= start, results.c.slot < stop)
    return sa.exists().where(results.c.probe == probes.c.id, *between, results.c.outcome.in_(JUDGED))


def latest(connection: Connection, ids: Collection[int], count: int) -> dict[int, list[Seen]]:
    """Probe -> its last `count` results, oldest first."""
    inner = results.alias("edge")
    edge = sa.select(inner.c.slot).where(inner.c.probe == probes.c.id).order_by(inner.c.slot.desc())
    first = sa.func.coalesce(edge.limit(1).offset(count - 1).scalar_subquery(), 0)
    statement = sa.select(probes.c.id, *SEEN).join_from(
        probes, results, sa.and_(results.c.probe == probes.c.id, results.c.slot >= first)
    )
    found: dict[int, list[Seen]] = {probe: [] for probe in ids}
    for probe, *row in connection.execute(statement.where(probes.c.id.in_(ids)).order_by(probes.c.id, results.c.slot)):
        found[probe].append(seen_of(row))
    return {probe: rows[-count:] for probe, rows in found.items()}


def between(connection: Connection, probe: int, start: int, stop: int) -> list[Seen]:
    """A probe's results with slots in [start, stop), oldest first."""
    inside = (results.c.probe == probe, results.c.slot >= start, results.c.slot < stop)
    return [seen_of(row) for row in connection.execute(sa.select(*SEEN).where(*inside).order_by(results.c.slot))]


def before(
    connection: Connection, probe: int, slot: int | None = None, limit: int = 50, only: Outcome | None = None
) -> list[Seen]:
    """A probe's results older than `slot` (or its newest), newest first."""
    statement = sa.select(*SEEN).where(results.c.probe == probe).order_by(results.c.slot.desc()).limit(limit)
    if slot is not None:
        statement = statement.where(results.c.slot < slot)
    if only is not None:
        statement = statement.where(results.c.outcome == only.value)
    return [seen_of(row) for row in connection.execute(statement)]


def details(connection: Connection, probe: int, slots: Collection[int]) -> dict[int, Detail]:
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
        result = result_of(columns_)
        found[result.slot] = Detail(result, recorded_at, None if facts is None else Evidence(loads(facts), excerpt))
    return found


def last_good(connection: Connection, probe: int, slot: int) -> int | None:
    """The newest slot before `slot` that passed."""
    passed = (results.c.probe == probe, results.c.slot < slot, results.c.outcome == Outcome.PASS.value)
    newest = sa.select(results.c.slot).where(*passed).order_by(results.c.slot.desc()).limit(1)
    return connection.execute(newest).scalar()


def last_good_evidence(connection: Connection, probe: int, slot: int) -> int | None:
    """The newest slot before `slot` that passed and whose evidence was kept."""
    same = sa.and_(*(evidence.c[name] == results.c[name] for name in ("probe", "slot", "location")))
    statement = (
        sa.select(evidence.c.slot).join_from(evidence, results, same)
        .where(evidence.c.probe == probe, evidence.c.slot < slot, results.c.outcome == Outcome.PASS.value)
        .order_by(evidence.c.slot.desc()).limit(1)
    )  # fmt: skip
    return connection.execute(statement).scalar()


def last_check_ins(connection: Connection, probe: int, limit: int) -> list[tuple[CheckIn, int | None]]:
    """What a job told us, newest first, each with how long the run took that it ended, in ms."""
    columns = [*(check_ins.c[name] for name in CheckIn._fields), check_ins.c.duration]
    told = sa.select(*columns).where(check_ins.c.probe == probe)
    newest = told.order_by(check_ins.c.at.desc(), check_ins.c.id.desc()).limit(limit)
    return [(CheckIn(id, at, Kind(kind), *rest), took) for id, at, kind, *rest, took in connection.execute(newest)]
