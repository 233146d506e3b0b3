"""The background tasks that send what became due without a new result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from watchdog.service.acts import SILENCE_END_CHECK_INTERVAL_S, end_expired_silences_and_send
from watchdog.service.clock import Clock
from watchdog.service.follow_ups import FOLLOW_UP_CHECK_INTERVAL_S, send_due_reminders_and_escalations
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor


def list_incident_tasks(
    store_executor: StoreExecutor, sender: NotificationSender, clock: Clock
) -> list[tuple[str, Callable[[], Awaitable[None]], float]]:
    """Name, what it runs, and its interval in seconds."""
    return [
        (name, partial(run, store_executor, sender, clock), interval_s)
        for name, run, interval_s in (
            ("end_silences", end_expired_silences_and_send, SILENCE_END_CHECK_INTERVAL_S),
            ("remind_and_escalate", send_due_reminders_and_escalations, FOLLOW_UP_CHECK_INTERVAL_S),
        )
    ]
