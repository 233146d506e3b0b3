"""The background tasks that deliver, and that carry out what is due without a new result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from watchdog.service.clock import Clock
from watchdog.service.expired_acts import ACT_END_CHECK_INTERVAL_S, end_expired_pauses, end_expired_silences_and_send
from watchdog.service.follow_ups import FOLLOW_UP_CHECK_INTERVAL_S, send_due_reminders_and_escalations
from watchdog.service.maintenance_windows import (
    MAINTENANCE_PLANNING_INTERVAL_S,
    PLAN_MAINTENANCE_TASK_NAME,
    plan_maintenance_windows,
)
from watchdog.service.muting import MUTING_CHECK_INTERVAL_S, decide_muting_and_send
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.members import WatchdogProcessMembership

NOTIFICATION_SEND_INTERVAL_S = 1.0
"""Notifications of a new transition are sent at once; the timer picks up retries."""


def list_incident_background_tasks(
    store_executor: StoreExecutor, sender: NotificationSender, membership: WatchdogProcessMembership, clock: Clock
) -> list[tuple[str, Callable[[], Awaitable[None]], float]]:
    """Name, what it runs, and its interval in seconds."""
    end_silences = partial(end_expired_silences_and_send, store_executor, sender, clock)
    end_pauses = partial(end_expired_pauses, store_executor, clock)
    decide_muting = partial(decide_muting_and_send, store_executor, sender, clock)
    remind_and_escalate = partial(send_due_reminders_and_escalations, store_executor, sender, clock)
    plan_maintenance = partial(plan_maintenance_windows, store_executor, membership, clock)
    return [
        ("deliver", sender.start_sending_due_notifications, NOTIFICATION_SEND_INTERVAL_S),
        ("end_silences", end_silences, ACT_END_CHECK_INTERVAL_S),
        ("end_pauses", end_pauses, ACT_END_CHECK_INTERVAL_S),
        ("decide_muting", decide_muting, MUTING_CHECK_INTERVAL_S),
        ("remind_and_escalate", remind_and_escalate, FOLLOW_UP_CHECK_INTERVAL_S),
        (PLAN_MAINTENANCE_TASK_NAME, plan_maintenance, MAINTENANCE_PLANNING_INTERVAL_S),
    ]
