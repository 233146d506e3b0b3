"""What time takes away: roll-ups of whole hours, and retention in small chunks so that no write waits long.

Each function does a part of the work and returns how much; call it until it returns 0. Nothing here looks at every
result: a probe's oldest is found by a seek of its own.
"""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.store.tables import (
    check_ins,
    downtime,
    evidence,
    incidents,
    outbox,
    probes,
    remediations,
    results,
    rollups,
    staleness_events,
)

HOUR_MS = 3_600_000
MAX_PROBES_PER_ROLLUP = 25
"""How many probes are rolled up in one transaction."""
MAX_ROWS_PER_DELETE = 2_000
"""Rows a transaction: one DELETE of everything would block writers for seconds."""


def roll_up_hours(database: Database, settled_until: int) -> int:
    """Sum up the hours of some probes that are over and not summed up yet; returns of how many probes.

    `settled`: the instant up to which every result that can still be judged is stored.
    """
    end = settled_until // HOUR_MS * HOUR_MS
    rolled = sa.select(sa.func.max(rollups.c.hour) + HOUR_MS).where(rollups.c.probe == probes.c.id)
    begin = sa.func.coalesce(rolled.correlate(probes).scalar_subquery(), 0)
    first = sa.select(sa.func.min(results.c.slot)).where(results.c.probe == probes.c.id, results.c.slot >= begin)
    with database.write_transaction() as connection:
        todo = sa.select(probes.c.id, begin).where(first.scalar_subquery() < end).limit(MAX_PROBES_PER_ROLLUP)
        rows = connection.execute(todo).all()
        for probe, start in rows:
            insert = database.insert_statement(rollups).from_select(
                [c.name for c in rollups.c], _hourly_rollups_query(probe, start, end)
            )
            connection.execute(insert.on_conflict_do_nothing())
    return len(rows)


def _hourly_rollups_query(probe: int, start: int, end: int) -> sa.Select[tuple[object, ...]]:
    """A probe's results in [start, end) as rows of `rollups`."""
    hour = (results.c.slot - results.c.slot % HOUR_MS).label("hour")

    def total(outcome: Outcome, value: sa.ColumnElement[int] | int = 1) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((results.c.outcome == outcome, value), else_=0))

    timed = sa.case((results.c.outcome == Outcome.PASS, results.c.duration))
    return (
        sa.select(
            results.c.probe, hour, results.c.location, total(Outcome.PASS), total(Outcome.FAIL), total(Outcome.ERROR),
            total(Outcome.MISSED, results.c.slot_count), sa.func.coalesce(sa.func.sum(timed), 0), sa.func.max(timed),
        )
        .where(results.c.probe == probe, results.c.slot >= start, results.c.slot < end)
        .group_by(results.c.probe, hour, results.c.location)
    )  # fmt: skip


def delete_expired_rows(database: Database, now: int, results_retention_ms: int, rollups_retention_ms: int) -> int:
    """Delete a chunk of what is too old from each table, by whole hours; returns how many rows went.

    Results go only once their hour is rolled up, and never the last sign of life of a probe that is still configured:
    its next one may be due in months. Incidents that are over, what was told of them and the first bad result of each
    incident, with its evidence, stay as long as roll-ups; so do gaps, in which all deadlines are measured.
    """
    old, older = (now - results_retention_ms) // HOUR_MS * HOUR_MS, (now - rollups_retention_ms) // HOUR_MS * HOUR_MS
    rolled = sa.select(sa.func.max(rollups.c.hour) + HOUR_MS).where(rollups.c.probe == results.c.probe)
    seen = _not_first_of_incident(evidence) | (evidence.c.slot < older)
    told = _not_first_of_incident(results) & (results.c.slot < rolled.scalar_subquery()) | (results.c.slot < older)
    told &= results.c.slot < sa.func.coalesce(_newest_judgeable_slot(), old)
    ended = incidents.c.resolved_at < older
    gone = 0
    for table, which in (
        (evidence, _older_than(evidence.c.probe, evidence.c.slot, old) & seen),
        (results, _older_than(results.c.probe, results.c.slot, old) & told),
        (check_ins, _older_than(check_ins.c.probe, check_ins.c.occurred_at, old)),
        (staleness_events, _older_than(staleness_events.c.probe, staleness_events.c.last_result_slot, old)),
        (rollups, _older_than(rollups.c.probe, rollups.c.hour, older) & (rollups.c.hour < _newest_rollup_hour())),
        (downtime, downtime.c.ended_at < older),
        (remediations, remediations.c.incident.in_(sa.select(incidents.c.id).where(ended))),
        (outbox, outbox.c.incident.in_(sa.select(incidents.c.id).where(ended))),
        (
            incidents,
            ended & incidents.c.id.not_in(sa.union(sa.select(outbox.c.incident), sa.select(remediations.c.incident))),
        ),
    ):
        key = list(table.primary_key.columns)
        chunk = sa.select(*key).where(which).limit(MAX_ROWS_PER_DELETE)
        with database.write_transaction() as connection:
            gone += connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(chunk))).rowcount
    return gone


def _older_than(probe: sa.Column[int], slot: sa.Column[int], cutoff: int) -> sa.ColumnElement[bool]:
    """Rows before the cutoff, of the probes that have any."""
    oldest = sa.select(sa.func.min(slot)).where(probe == probes.c.id).correlate(probes).scalar_subquery()
    return probe.in_(sa.select(probes.c.id).where(oldest < cutoff)) & (slot < cutoff)


def _newest_rollup_hour() -> sa.ScalarSelect[int]:
    """The newest roll-up of the probe at hand stays: it says how far its results are summed up."""
    later = rollups.alias()
    return sa.select(sa.func.max(later.c.hour)).where(later.c.probe == rollups.c.probe).scalar_subquery()


def _newest_judgeable_slot() -> sa.ScalarSelect[int]:
    """The newest judgeable slot of the probe at hand; NULL where there is none, or the probe is gone."""
    later = results.alias()
    heard = (later.c.probe == results.c.probe, later.c.outcome != Outcome.MISSED, ~later.c.late)
    here = sa.exists().where(probes.c.id == later.c.probe, probes.c.removed_at.is_(None))
    return sa.select(later.c.slot).where(*heard, here).order_by(later.c.slot.desc()).limit(1).scalar_subquery()


def _not_first_of_incident(table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows that no incident began with."""
    return sa.tuple_(table.c.probe, table.c.slot).not_in(sa.select(incidents.c.probe, incidents.c.since))
