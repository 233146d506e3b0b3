"""No verb reads a table from end to end: what costs one look at each row today costs seconds in a year.

SQLite tells how it reads a table from the statement alone; PostgreSQL chooses by what it knows of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probes,
    make_result,
)
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.model import RecordedResult
from watchdog.store.database import Database
from watchdog.store.read.alert_context import load_alert_context
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours

GROWS = ("results", "evidence", "rollups", "outbox", "incidents", "staleness_events", "probe_state", "check_ins")
SLOT, DAY = START_AT + INTERVAL_MS, 86_400_000


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
def lab(on_sqlite: DatabasePair) -> StoreHarness:
    """Two incidents, told of, and results that are good and bad."""
    delete_all_rows(on_sqlite.first)
    lab = StoreHarness(on_sqlite.first, make_registered_probes(6, failure_threshold=1)).without_downtime()
    lab.claim_slots(SLOT)
    lab.record_results(
        *[make_result(p, SLOT + INTERVAL_MS, "fail" if p % 3 == 0 else "pass") for p in lab.database_ids]
    )
    return lab


def tell(lab: StoreHarness, now: int) -> None:
    held = lab.lease_notifications(now)
    assert held
    for one in held:
        with lab.database.read_transaction() as connection:
            assert lab.outbox.still_leased(one, connection)
            load_alert_context(connection, one.notification, now)
        lab.outbox.mark_sent(one, {}, now)


def exercise(lab: StoreHarness) -> None:
    """Every verb that a running service repeats."""
    now = SLOT + 2 * INTERVAL_MS
    lab.claim_slots(now)
    made = [RecordedResult(make_result(p, now, "pass"), state_updates={"x": 1}) for p in lab.database_ids]
    lab.recorder.record_results(made, now)
    lab.evaluate_deadlines(now + DAY)
    lab.slot_claimer.reschedule_sooner(dict.fromkeys(lab.database_ids, now + 1))
    lab.slot_claimer.record_lost_runs(now + DAY)
    told = [ProbeCheckIn(p, CheckIn("x", now, CheckInKind.FAIL)) for p in lab.database_ids]
    assert CheckInStore(lab.database, lab.registry).save_check_ins(told) == set(lab.database_ids)
    tell(lab, now + DAY)
    lab.outbox.expire_unknown_destinations(["oncall/slack"], now, now + DAY)
    roll_up_hours(lab.database, now + DAY)
    delete_expired_rows(lab.database, now + 3 * DAY, DAY, 90 * DAY)


def test_no_verb_scans_what_grows(lab: StoreHarness) -> None:
    with noted(lab.database) as statements:
        exercise(lab)
    scans = [(line, said) for line, said in plans(lab.database, statements) if line in {f"SCAN {t}" for t in GROWS}]
    allowed = ("(SELECT incidents.probe, incidents.since", "(SELECT outbox.incident", "incidents.resolved_at <")
    assert [(line, said) for line, said in scans if not any(part in said for part in allowed)] == []


@pytest.mark.parametrize("index", ["ix_schedule_next_due", "ix_evaluation_cursors_wake_at", "ix_outbox_due"])
def test_the_indexes_are_used(lab: StoreHarness, index: str) -> None:
    with noted(lab.database) as statements:
        exercise(lab)
    assert any(index in line for line, _ in plans(lab.database, statements))
