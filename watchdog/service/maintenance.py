"""Keeps the database small: hours are rolled up, and what has expired is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.ended_members import delete_ended_watchdog_processes
from watchdog.store.write.retention import TABLES_WITH_EXPIRING_ROWS, delete_expired_rows_of_table, roll_up_hours

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long rows are kept, in ms."""

    results_ms: int
    rollups_ms: int


async def maintain_store(store_executor: StoreExecutor, claims: SlotClaimer, retention: RetentionPolicy) -> None:
    """Roll up whole hours, record lost runs, and delete what has expired. Raises StoreUnavailableError."""
    database = store_executor.database
    await store_executor.run_write_with_now(partial(delete_ended_watchdog_processes, database))
    while await store_executor.run_write_with_now(
        lambda now: roll_up_hours(database, claims.record_lost_runs_and_get_settled_until(now))
    ):
        pass
    for table in TABLES_WITH_EXPIRING_ROWS:
        delete = partial(_delete_chunk, database, table, retention)
        while await store_executor.run_write_with_now(delete):
            pass


def _delete_chunk(database: Database, table: sa.Table, retention: RetentionPolicy, now: int) -> int:
    return delete_expired_rows_of_table(database, table, now, retention.results_ms, retention.rollups_ms)
