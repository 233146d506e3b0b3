"""What results take on both databases, and how long retention keeps other writes waiting.

Results of HTTP probes that pass, one a minute, are recorded as the service does, rolled up and deleted again. What
other writes wait for is one call of roll-ups or of retention, between which the service does everything else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import sqlalchemy as sa

from benchmarks.check_budget import build_passing_result
from benchmarks.measurements import Measurement
from tests.support.postgres import running_postgres
from tests.support.store import START_AT, StoreHarness, make_registered_probes
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.store.database import Database
from watchdog.store.tables import evidence, results, rollups
from watchdog.store.write.retention import TABLES_WITH_EXPIRING_ROWS, delete_expired_rows_of_table, roll_up_hours

PROBES, HOURS = 1_000, 6
KEEP_RESULTS_DAYS, KEEP_ROLLUPS_DAYS = 30, 365
MAX_RESULT_BYTES_BY_STORE, MAX_WRITE_PAUSE_MS = {"SQLite": 120}, 250
"""None for PostgreSQL, where the header of a row, its key and the index of the key take about 100 bytes."""
MAX_CLAIMED_SLOTS = 500


def prove() -> Iterator[Measurement]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(running_postgres())
        for name, url in (
            ("SQLite", f"sqlite:///{folder}/watchdog.db"),
            ("PostgreSQL", stack.enter_context(server.temporary_database())),
        ):
            harness = StoreHarness(url, make_registered_probes(PROBES, MINUTE_MS)).without_downtime()
            yield from measure_store(name, harness)
            harness.close()


def measure_store(name: str, harness: StoreHarness) -> Iterator[Measurement]:
    database = harness.database
    now = record_hours(harness)
    result_count = count_rows(database, results)
    result_bytes = measure_table_bytes(database, results.name) / result_count
    longest_roll_up = measure_longest_call(lambda: roll_up_hours(database, now))
    rollup_bytes = measure_table_bytes(database, rollups.name) / count_rows(database, rollups)
    evidence_bytes = measure_table_bytes(database, evidence.name)
    later = now + 2 * DAY_MS
    longest_deletion = max(
        measure_longest_call(partial(delete_expired_rows_of_table, database, table, later, DAY_MS, 400 * DAY_MS))
        for table in TABLES_WITH_EXPIRING_ROWS
    )
    per_day = PROBES * DAY_MS / MINUTE_MS
    year = (
        result_bytes * per_day * KEEP_RESULTS_DAYS
        + rollup_bytes * PROBES * 24 * KEEP_ROLLUPS_DAYS
        + evidence_bytes / (HOURS / 24) * KEEP_RESULTS_DAYS
    )
    yield Measurement(f"{name}: a result, with its indexes", result_bytes, "bytes", MAX_RESULT_BYTES_BY_STORE.get(name))
    yield Measurement(f"{name}: an hour of a probe, rolled up", rollup_bytes, "bytes")
    yield Measurement(f"{name}: 1,000 probes @ 60 s after a year, 30 days of results", year / 1e9, "GB")
    yield Measurement(f"{name}: a year of their results, if all were kept", result_bytes * per_day * 365 / 1e9, "GB")
    yield Measurement(f"{name}: results deleted", result_count - count_rows(database, results))
    yield Measurement(f"{name}: longest write pause, roll-ups", longest_roll_up, "ms", MAX_WRITE_PAUSE_MS)
    yield Measurement(f"{name}: longest write pause, retention", longest_deletion, "ms", MAX_WRITE_PAUSE_MS)


def record_hours(harness: StoreHarness) -> int:
    """Returns the instant until which everything is recorded."""
    now = START_AT
    for _ in range(HOURS * 60 * 2):
        now += MINUTE_MS // 2
        claimed_count = MAX_CLAIMED_SLOTS
        while claimed_count == MAX_CLAIMED_SLOTS:
            slots, _ = harness.slot_claimer.claim_due_slots(now, MAX_CLAIMED_SLOTS)
            harness.recorder.record_results([build_passing_result(slot) for slot in slots], now)
            claimed_count = len(slots)
    return now // HOUR_MS * HOUR_MS


def measure_longest_call(call: Callable[[], int]) -> float:
    """In ms, until a call has nothing left to do."""
    longest_s, is_done = 0.0, False
    while not is_done:
        started = time.perf_counter()
        is_done = not call()
        longest_s = max(longest_s, time.perf_counter() - started)
    return longest_s * 1000


def count_rows(database: Database, table: sa.Table) -> int:
    with database.open_read_transaction() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def measure_table_bytes(database: Database, table: str) -> int:
    """With its indexes, as they are after writing, not compacted."""
    sqlite = "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = :table)"
    postgres = "SELECT pg_total_relation_size(CAST(:table AS text)::regclass)"
    with database.open_read_transaction() as connection:
        query = sa.text(postgres if database.is_postgres else sqlite)
        return int(connection.execute(query, {"table": table}).scalar_one())
