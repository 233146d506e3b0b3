"""Sends reminders of open incidents, escalates them to further receivers, and sends incidents of which no one was
notified, once changed routes lead to a destination."""

from __future__ import annotations

import structlog

from watchdog.domain.model import IncidentEvent
from watchdog.service.clock import Clock
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.read.follow_ups import list_incidents_with_due_follow_ups
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations

log = structlog.get_logger()

FOLLOW_UP_CHECK_INTERVAL_S = 5.0


async def send_due_reminders_and_escalations(
    store_executor: StoreExecutor, sender: NotificationSender, clock: Clock
) -> None:
    """Decide about incidents whose time has come, and send at once what follows. The next run takes those that are too
    many for one transaction."""
    database = store_executor.database
    if not await store_executor.run_read_query(
        lambda connection: list_incidents_with_due_follow_ups(connection, clock())
    ):
        return  # the usual case, without waiting for other writes
    enqueued = await store_executor.run_write_with_now(lambda now: enqueue_due_reminders_and_escalations(database, now))
    for each in enqueued:
        name = "incident_reminder_due"
        if each.event is IncidentEvent.OPENED:
            name = "incident_escalated" if each.is_escalation else "incident_sent_after_route_change"
        log.info(name, incident=each.incident, destination=each.destination)
    if enqueued:
        await sender.start_sending_due_notifications()
