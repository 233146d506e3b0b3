"""Keeps the database small: hours are rolled up, and what has expired is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.ended_members import delete_ended_watchdog_processes
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours


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
    while await store_executor.run_write_with_now(
        lambda now: delete_expired_rows(database, now, retention.results_ms, retention.rollups_ms)
    ):
        pass
