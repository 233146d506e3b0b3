"""The past: days with data, incidents as intervals, results with their evidence, check-ins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.model import Evidence, JsonScalar, Outcome, ProbeResult, RunSummary
from watchdog.domain.uptime_clock import DowntimeGap
from watchdog.store.act_tables import pause_is_in_effect, pauses
from watchdog.store.codec import OUTCOMES_BY_VALUE
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.packed_values import unpack_phases, unpack_values
from watchdog.store.read.status import OUTCOMES_WITH_VERDICT, RESULT_ROW_COLUMNS, ResultRow, result_row_from_columns
from watchdog.store.tables import (
    RESULT_COLUMNS,
    check_ins,
    clock_steps,
    downtime,
    effective_results,
    evidence,
    incidents,
    newest_results,
    probes,
    rollups,
)

NEWEST_RESULT_ROW_COLUMNS = [newest_results.c[name] for name in ResultRow._fields]
_incident_began_at = incidents.c.since + incidents.c.clock_shift
RESULT_DETAIL_COLUMNS = [newest_results.c[name] for name in ("late", "phases", "measurements")]


class IncidentInterval(NamedTuple):
    """When an incident was open."""

    probe: int
    rule: str
    since: int
    resolved_at: int | None


class PauseInterval(NamedTuple):
    """When a probe was paused."""

    probe: int
    started_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class ResultDetails:
    """A result with its details, without its listings."""

    row: ResultRow
    late: bool
    """Stored too late to be evaluated."""
    phases: Mapping[str, float]
    measurements: Mapping[str, JsonScalar]
    evidence: Evidence | None
    """None: this result's evidence was not stored."""


@dataclass(frozen=True, slots=True)
class StoredResultWithEvidence:
    """A result with everything that is stored of it."""

    result: ProbeResult
    recorded_at: int
    evidence: Evidence | None
    """None: this result's evidence was not stored."""


def list_incident_intervals(
    connection: Connection, start: int, *, stop: int | None = None, probe: int | None = None, limit: int | None = None
) -> list[IncidentInterval]:
    """The incidents that were open at `start` or later, without what is at instants that came again afterwards.
    `stop`: only those that began before. `probe`: only its incidents. `limit`: only those that began last."""
    since, resolved_at, valid_until = _incident_began_at, incidents.c.resolved_at, clock_steps.c.valid_until
    ended_generation = clock_steps.c.generation - 1
    query = sa.select(incidents.c.probe, incidents.c.rule, since, resolved_at, valid_until).join_from(
        incidents, clock_steps, incidents.c.resolved_generation == ended_generation, isouter=True
    )
    is_valid = valid_until.is_(None) | (since <= valid_until)
    query = query.where(resolved_at.is_(None) | ((resolved_at >= start) & (since <= resolved_at) & is_valid))
    if stop is not None:
        query = query.where(since < stop)
    if probe is not None:
        query = query.where(incidents.c.probe == probe)
    if limit is not None:
        query = query.order_by(incidents.c.since.desc()).limit(limit)
    return [
        IncidentInterval(of_probe, rule, began_at, ended_at if until is None else min(ended_at, until))
        for of_probe, rule, began_at, ended_at, until in connection.execute(query)
    ]


def list_pause_intervals(connection: Connection, start: int, *, probe: int | None = None) -> list[PauseInterval]:
    """The pauses that were in effect at `start` or later. `probe`: only its pauses."""
    query = sa.select(pauses.c.probe, pauses.c.started_at, pauses.c.ended_at)
    query = query.where(pause_is_in_effect | (pauses.c.ended_at >= start))
    if probe is not None:
        query = query.where(pauses.c.probe == probe)
    return [PauseInterval(*row) for row in connection.execute(query)]


def list_downtime_gaps(connection: Connection, start: int, stop: int, min_length_ms: int) -> list[DowntimeGap]:
    """When no process of Watchdog ran, for at least `min_length_ms`, as far as it overlaps [start, stop), in order.
    Without what is at instants that came again after a step of the clock."""
    columns = downtime.c.started_at, downtime.c.ended_at, clock_steps.c.valid_until
    is_ended = clock_steps.c.ended_timeline == downtime.c.location
    query = sa.select(*columns).join_from(downtime, clock_steps, is_ended, isouter=True)
    query = query.where(downtime.c.started_at < stop, downtime.c.ended_at > start)
    gaps = []
    for started_at, ended_at, valid_until in connection.execute(query.order_by(downtime.c.started_at)):
        end = ended_at if valid_until is None else min(ended_at, valid_until)
        if end > start and end - started_at >= min_length_ms:
            gaps.append((started_at, end))
    return gaps


def count_judged_results_between(connection: Connection, probe: int, start: int, end: int) -> int:
    """A probe's stored results with slots in [start, end) that passed or failed."""
    inside = (effective_results.c.probe == probe, effective_results.c.slot >= start, effective_results.c.slot < end)
    query = sa.select(sa.func.count()).select_from(effective_results)
    return connection.execute(query.where(*inside, effective_results.c.outcome.in_(OUTCOMES_WITH_VERDICT))).scalar_one()


def load_days_with_judged_results(
    connection: Connection, ids: Collection[int], start: int, now: int
) -> dict[int, set[int]]:
    """Probe -> the days (since the epoch) with a pass or a failure, from the day of `start` to that of `now`.

    Days come from roll-ups; the last two also from results, which may not be rolled up yet.
    """
    days: dict[int, set[int]] = {probe: set() for probe in ids}
    today = now // DAY_MS
    for query, first_day in (
        (_DAYS_WITH_JUDGED_ROLLUPS_QUERY, start // DAY_MS),
        (_DAYS_WITH_JUDGED_RESULTS_QUERY, today - 1),
    ):
        values = {"ids": list(ids), "first_day": first_day, "last_day": today}
        for probe, day in connection.execute(query, values).all():
            days[probe].add(day)
    return days


def _build_days_with_data_query(rows: sa.FromClause, start: sa.ColumnElement[int], *is_judged: Any) -> sa.Select[Any]:
    """(probe, day) of the days on which a row is judged. One index seek for each probe and day ends at the first such
    row; grouping all roll-ups of 90 days takes three times as long. `start`: when a row begins."""
    day = sa.select(sa.bindparam("first_day", type_=sa.BigInteger).label("day")).cte("days", recursive=True)
    day = day.union_all(sa.select(day.c.day + 1).where(day.c.day < sa.bindparam("last_day", type_=sa.BigInteger)))
    is_inside = (start >= day.c.day * DAY_MS, start < (day.c.day + 1) * DAY_MS)
    has_data = sa.exists().where(rows.c.probe == probes.c.id, *is_inside, *is_judged)
    is_probe = probes.c.id.in_(sa.bindparam("ids", expanding=True))
    query = sa.select(probes.c.id, day.c.day).join_from(probes, day, sa.true()).where(is_probe, has_data)
    return query.order_by(probes.c.id)  # keeps the seeks of a probe together, which are close to each other on disk


_DAYS_WITH_JUDGED_ROLLUPS_QUERY = _build_days_with_data_query(
    rollups, rollups.c.hour, rollups.c.passed + rollups.c.failed > 0
)
_DAYS_WITH_JUDGED_RESULTS_QUERY = _build_days_with_data_query(
    effective_results, effective_results.c.slot, effective_results.c.outcome.in_(OUTCOMES_WITH_VERDICT)
)


def load_last_n_runs_by_probe(connection: Connection, ids: Collection[int], count: int) -> dict[int, list[RunSummary]]:
    """Probe -> its last `count` results, oldest first."""
    rows = connection.execute(_LAST_N_RUNS_QUERY, {"ids": list(ids), "count": count}).all()
    runs_by_probe: dict[int, list[RunSummary]] = {probe: [] for probe in ids}
    for probe, slot, outcome, duration in rows:
        runs_by_probe[probe].append(RunSummary(slot, OUTCOMES_BY_VALUE[outcome], duration))
    return {probe: runs[-count:] for probe, runs in runs_by_probe.items()}


def _build_last_n_runs_query() -> sa.Select[Any]:
    inner = newest_results.alias("inner_results")
    slots = sa.select(inner.c.slot).where(inner.c.probe == probes.c.id).order_by(inner.c.slot.desc())
    count = sa.bindparam("count", type_=sa.Integer)
    first_slot = sa.func.coalesce(slots.limit(1).offset(count - 1).scalar_subquery(), 0)
    is_run = sa.and_(newest_results.c.probe == probes.c.id, newest_results.c.slot >= first_slot)
    columns = (probes.c.id, newest_results.c.slot, newest_results.c.outcome, newest_results.c.duration)
    query = sa.select(*columns).join_from(probes, newest_results, is_run)
    return query.where(probes.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(
        probes.c.id, newest_results.c.slot
    )


_LAST_N_RUNS_QUERY = _build_last_n_runs_query()


def list_results_between(connection: Connection, probe: int, start: int, end: int) -> list[ResultRow]:
    """A probe's results with slots in [start, end), oldest first."""
    inside = (effective_results.c.probe == probe, effective_results.c.slot >= start, effective_results.c.slot < end)
    query = sa.select(*RESULT_ROW_COLUMNS).where(*inside).order_by(effective_results.c.slot)
    return [result_row_from_columns(row) for row in connection.execute(query)]


def list_results_before(
    connection: Connection, probe: int, slot: int | None = None, limit: int = 50, outcome: Outcome | None = None
) -> list[ResultRow]:
    """A probe's results before `slot`, or its newest ones, newest first."""
    query = (
        sa.select(*NEWEST_RESULT_ROW_COLUMNS)
        .where(newest_results.c.probe == probe)
        .order_by(newest_results.c.slot.desc())
        .limit(limit)
    )
    if slot is not None:
        query = query.where(newest_results.c.slot < slot)
    if outcome is not None:
        query = query.where(newest_results.c.outcome == outcome)
    return [result_row_from_columns(row) for row in connection.execute(query)]


def list_results_with_details(
    connection: Connection, probe: int, *, limit: int, before: int | None = None, since: int | None = None,
    until: int | None = None, outcome: Outcome | None = None,
) -> list[ResultDetails]:  # fmt: skip
    """A probe's results with slots in [since, until) and before `before`, newest first."""
    query = (
        sa.select(*NEWEST_RESULT_ROW_COLUMNS, *RESULT_DETAIL_COLUMNS, evidence.c.facts, evidence.c.excerpt)
        .join_from(newest_results, evidence, _build_evidence_join_condition(newest_results), isouter=True)
        .where(newest_results.c.probe == probe)
        .order_by(newest_results.c.slot.desc())
        .limit(limit)
    )
    ends = [end for end in (before, until) if end is not None]
    if ends:
        query = query.where(newest_results.c.slot < min(ends))
    if since is not None:
        query = query.where(newest_results.c.slot >= since)
    if outcome is not None:
        query = query.where(newest_results.c.outcome == outcome)
    return [_result_details_from_row(row) for row in connection.execute(query)]


def _result_details_from_row(row: Sequence[Any]) -> ResultDetails:
    *result, late, phases, measurements, facts, excerpt = row
    return ResultDetails(
        row=result_row_from_columns(result),
        late=late,
        phases=unpack_phases(phases),
        measurements=unpack_values(measurements),
        evidence=None if facts is None else Evidence(decode_nullable_json(facts), excerpt),
    )


def load_results_with_evidence(
    connection: Connection, probe: int, slots: Collection[int], counted: sa.Subquery = effective_results
) -> dict[int, StoredResultWithEvidence]:
    """Slot -> result with its evidence; slots without a result are missing. `counted`: the results that count."""
    columns = [counted.c[column.name] for column in RESULT_COLUMNS]
    query = (
        sa.select(*columns, counted.c.recorded_at, evidence.c.facts, evidence.c.excerpt)
        .join_from(counted, evidence, _build_evidence_join_condition(counted), isouter=True)
        .where(counted.c.probe == probe, counted.c.slot.in_(slots))
    )
    rows = connection.execute(query.order_by(counted.c.slot)).all()
    stored_results = build_results_with_listings_from_rows(connection, (row[:-3] for row in rows))
    details = {}
    for result, (*_, recorded_at, facts, excerpt) in zip(stored_results, rows, strict=True):
        stored_evidence = None if facts is None else Evidence(decode_nullable_json(facts), excerpt)
        details[result.slot] = StoredResultWithEvidence(result, recorded_at, stored_evidence)
    return details


def _build_evidence_join_condition(counted: sa.Subquery) -> sa.ColumnElement[bool]:
    return sa.and_(*(evidence.c[name] == counted.c[name] for name in ("probe", "slot", "location")))


def load_last_good_slot_before(
    connection: Connection, probe: int, slot: int, counted: sa.Subquery = effective_results
) -> int | None:
    """The newest slot before `slot` that passed. `counted`: the results that count."""
    passed = counted.c.probe == probe, counted.c.slot < slot, counted.c.outcome == Outcome.PASS
    query = sa.select(counted.c.slot).where(*passed).order_by(counted.c.slot.desc()).limit(1)
    return connection.execute(query).scalar()


def load_last_good_slot_that_has_evidence(
    connection: Connection, probe: int, slot: int, counted: sa.Subquery = effective_results
) -> int | None:
    """The newest slot before `slot` that passed and has evidence. `counted`: the results that count."""
    query = (
        sa.select(evidence.c.slot).join_from(evidence, counted, _build_evidence_join_condition(counted))
        .where(evidence.c.probe == probe, evidence.c.slot < slot, counted.c.outcome == Outcome.PASS)
        .order_by(evidence.c.slot.desc()).limit(1)
    )  # fmt: skip
    return connection.execute(query).scalar()


def list_newest_check_ins_of_probe(connection: Connection, probe: int, limit: int) -> list[tuple[CheckIn, int | None]]:
    """A job's check-ins, newest first, each with the duration in ms of the run that it ended."""
    columns = [*(check_ins.c[name] for name in CheckIn._fields), check_ins.c.duration]
    query = sa.select(*columns).where(check_ins.c.probe == probe)
    query = query.order_by(check_ins.c.occurred_at.desc(), check_ins.c.id.desc()).limit(limit)
    return [
        (CheckIn(id, occurred_at, CheckInKind(kind), *rest), duration)
        for id, occurred_at, kind, *rest, duration in connection.execute(query)
    ]
