"""What time takes away: roll-ups of whole hours, and retention in small chunks so that no write waits long."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.model import Outcome
from watchdog.store.database import Database
from watchdog.store.tables import evidence, gaps, incidents, lapses, outbox, probes, results, rollups

HOUR = 3_600_000
CHUNK = 2_000
"""Rows a transaction: one DELETE of everything would block writers for seconds."""


def roll_up(database: Database, now: int, lateness: int) -> int:
    """Sum up each probe's hours that are over and not summed up yet; returns how many rows were written.

    An hour is over once `lateness` has passed since its end: nothing judged can be added to it.
    """
    end = (now - lateness) // HOUR * HOUR
    written = 0
    with database.read() as connection:
        done = sa.select(probes.c.id, probes.c.created_at, sa.func.max(rollups.c.hour))
        per_probe = done.select_from(probes.outerjoin(rollups, rollups.c.probe == probes.c.id)).group_by(probes.c.id)
        starts = [
            (id, created // HOUR * HOUR if last is None else last + HOUR)
            for id, created, last in connection.execute(per_probe)
        ]
    for id, start in starts:
        if start < end:
            written += _roll_up_probe(database, id, start, end)
    return written


def _roll_up_probe(database: Database, id: int, start: int, end: int) -> int:
    hour = (results.c.slot - results.c.slot % HOUR).label("hour")

    def total(outcome: Outcome, value: sa.ColumnElement[int] | int = 1) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((results.c.outcome == outcome, value), else_=0))

    timed = sa.case((results.c.outcome == Outcome.PASS, results.c.duration))
    query = (
        sa.select(
            results.c.probe, hour, results.c.location, total(Outcome.PASS), total(Outcome.FAIL), total(Outcome.ERROR),
            total(Outcome.MISSED, results.c.n), sa.func.coalesce(sa.func.sum(timed), 0), sa.func.max(timed),
        )
        .where(results.c.probe == id, results.c.slot >= start, results.c.slot < end)
        .group_by(results.c.probe, hour, results.c.location)
    )  # fmt: skip
    with database.write() as connection:
        insert = database.insert(rollups).from_select([c.name for c in rollups.c], query)
        return connection.execute(insert.on_conflict_do_nothing()).rowcount


def expire(database: Database, now: int, keep_results: int, keep_rollups: int) -> int:
    """Delete one chunk of what is too old from each table; returns how many rows went. Call until it returns 0.

    Results go only once their hour is rolled up; incidents and what was told of them stay as long as roll-ups.
    """
    old, older = now - keep_results, now - keep_rollups
    rolled = sa.select(sa.func.max(rollups.c.hour)).where(rollups.c.probe == results.c.probe).scalar_subquery()
    ended = incidents.c.resolved_at < older
    gone = 0
    for table, which in (
        (evidence, evidence.c.slot < old),
        (results, (results.c.slot < old) & (results.c.slot < rolled + HOUR)),
        (lapses, lapses.c.slot < old),
        (gaps, gaps.c.stop < old),
        (rollups, rollups.c.hour < older),
        (outbox, outbox.c.incident.in_(sa.select(incidents.c.id).where(ended))),
        (incidents, ended),
    ):
        key = list(table.primary_key.columns)
        chunk = sa.select(*key).where(which).limit(CHUNK)
        with database.write() as connection:
            gone += connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(chunk))).rowcount
    return gone
