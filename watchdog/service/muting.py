"""Carries out decisions about muted and flapping alerts, and sends what is no longer held back."""

from __future__ import annotations

import structlog

from watchdog.service.clock import Clock
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.read.flapping import list_due_flapping_ends
from watchdog.store.read.muting import list_due_muting_decisions
from watchdog.store.write.flapping_ends import end_flapping_of_stable_alerts
from watchdog.store.write.muting_ends import (
    announce_muted_alerts,
    carry_out_due_muting_decisions,
    list_muting_incidents_with_unannounced_alerts,
)

log = structlog.get_logger()

MUTING_CHECK_INTERVAL_S = 1.0


async def decide_muting_and_send(store_executor: StoreExecutor, sender: NotificationSender, clock: Clock) -> None:
    """Decide about incidents that wait or are muted, and about alerts that flap, and send at once what follows. The
    next run takes those that are too many for one transaction."""
    database, is_sending_due = store_executor.database, False
    if await store_executor.run_read_query(lambda connection: list_due_muting_decisions(connection, clock())):
        changes = await store_executor.run_write_with_now(lambda now: carry_out_due_muting_decisions(database, now))
        for change in changes:
            log.info("incident_muting_changed", incident=change.incident, step=change.decision.describe())
        is_sending_due = bool(changes)
    if await store_executor.run_read_query(lambda connection: list_due_flapping_ends(connection, clock())):
        ended = await store_executor.run_write_with_now(lambda now: end_flapping_of_stable_alerts(database, now))
        for end in ended:
            log.info("flapping_ended", flapping=end.flapping, reason=end.decision.reason.value)
        is_sending_due |= bool(ended)
    if await store_executor.run_read_query(lambda c: list_muting_incidents_with_unannounced_alerts(c, clock())):
        await store_executor.run_write_with_now(lambda now: announce_muted_alerts(database, now))
        is_sending_due = True
    if is_sending_due:
        await sender.start_sending_due_notifications()
