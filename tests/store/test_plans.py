"""No verb reads a table from end to end: what costs one look at each row today costs seconds in a year.

SQLite tells how it reads a table from the statement alone; PostgreSQL chooses by what it knows of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from tests.store.lab import EVERY, T0, Databases, Lab, empty, fleet_of, result
from watchdog.beat import CheckIn, Kind
from watchdog.model import Report
from watchdog.store.check_ins import CheckIns, Told
from watchdog.store.database import Database
from watchdog.store.keep import expire, roll_up
from watchdog.store.story import story

GROWS = ("results", "evidence", "rollups", "outbox", "incidents", "lapses", "memory", "check_ins")
SLOT, DAY = T0 + EVERY, 86_400_000


@contextmanager
def noted(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement, with its values."""
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values[0] if isinstance(values, list) else values))

    for engine in (database.writer, database.reader):
        sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        for engine in (database.writer, database.reader):
            sa.event.remove(engine, "before_cursor_execute", note)


def plans(database: Database, statements: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """(a line of a plan, its statement)."""
    asked = [(s, v) for s, v in statements if s.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))]
    with database.reader.connect() as connection:
        cursor = connection.connection.cursor()
        found = []
        for statement, values in asked:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            found += [(row[3], statement) for row in cursor.fetchall()]
    return found


@pytest.fixture
def lab(on_sqlite: Databases) -> Lab:
    """Two incidents, told of, and results that are good and bad."""
    empty(on_sqlite.first)
    lab = Lab(on_sqlite.first, fleet_of(6, after=1)).without_gaps()
    lab.claim(SLOT)
    lab.record(*[result(p, SLOT + EVERY, "fail" if p % 3 == 0 else "pass") for p in lab.ids])
    return lab


def tell(lab: Lab, now: int) -> None:
    held = lab.take(now)
    assert held
    for one in held:
        with lab.database.read() as connection:
            assert lab.outbox.still_held(one, connection)
            story(connection, one.notification, now)
        lab.outbox.sent(one, {}, now)


def exercise(lab: Lab) -> None:
    """Every verb that a running service repeats."""
    now = SLOT + 2 * EVERY
    lab.claim(now)
    made = [Report(result(p, now, "pass"), remember={"x": 1}) for p in lab.ids]
    lab.journal.record(made, now)
    lab.wake(now + DAY)
    lab.claims.hasten(dict.fromkeys(lab.ids, now + 1))
    lab.claims.sweep(now + DAY)
    told = [Told(p, CheckIn("x", now, Kind.FAIL)) for p in lab.ids]
    assert CheckIns(lab.database, lab.fleet).record(told) == set(lab.ids)
    tell(lab, now + DAY)
    lab.outbox.abandon(["oncall/slack"], now, now + DAY)
    roll_up(lab.database, now + DAY)
    expire(lab.database, now + 3 * DAY, DAY, 90 * DAY)


def test_no_verb_scans_what_grows(lab: Lab) -> None:
    with noted(lab.database) as statements:
        exercise(lab)
    scans = [(line, said) for line, said in plans(lab.database, statements) if line in {f"SCAN {t}" for t in GROWS}]
    allowed = ("(SELECT incidents.probe, incidents.since", "(SELECT outbox.incident", "incidents.resolved_at <")
    assert [(line, said) for line, said in scans if not any(part in said for part in allowed)] == []


@pytest.mark.parametrize("index", ["ix_schedule_next_due", "ix_cursors_wake", "ix_outbox_due"])
def test_the_indexes_are_used(lab: Lab, index: str) -> None:
    with noted(lab.database) as statements:
        exercise(lab)
    assert any(index in line for line, _ in plans(lab.database, statements))
