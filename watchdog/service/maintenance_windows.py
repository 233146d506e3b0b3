"""Keeps the stored maintenance in step with the configuration, the calendar and the probes."""

from __future__ import annotations

import structlog

from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.maintenance_messages import enqueue_maintenance_message_edits, list_unannounced_maintenance
from watchdog.store.write.maintenance_windows import (
    MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION,
    ConfiguredMaintenanceWindowsAndProbes,
    compare_stored_maintenance_with_plan,
    plan_maintenance,
)
from watchdog.store.write.members import WatchdogProcessMembership

log = structlog.get_logger()

PLAN_MAINTENANCE_TASK_NAME = "plan_maintenance"
MAINTENANCE_PLANNING_INTERVAL_S = 5.0


async def plan_maintenance_windows(
    store_executor: StoreExecutor, membership: WatchdogProcessMembership, clock: Clock
) -> None:
    """Store which probes are in the windows in effect and in the next ones, and enqueue edits of the messages about
    open incidents where maintenance began or ended. Raises StoreUnavailableError."""
    infos = {id: registered.info for id, registered in dict(membership.registry).items()}
    plan = ConfiguredMaintenanceWindowsAndProbes(
        membership.configuration.maintenance_windows, membership.revision, infos
    )
    changes = await store_executor.run_read_query(
        lambda connection: compare_stored_maintenance_with_plan(connection, plan, clock())
    )
    database = store_executor.database
    if not changes.is_empty:
        log.info("maintenance_planned", added=len(changes.added), ended=len(changes.ended))
        for _ in range(0, max(1, len(infos)), MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION):
            await store_executor.run_write_with_now(lambda now: plan_maintenance(database, plan, now))
    if await store_executor.run_read_query(lambda connection: list_unannounced_maintenance(connection, clock())):
        await store_executor.run_write_with_now(lambda now: enqueue_maintenance_message_edits(database, now))
