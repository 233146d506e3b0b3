"""Ends silences and pauses whose time has passed."""

from __future__ import annotations

import structlog

from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.service.clock import Clock
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write import pauses, silence_ends, silences

log = structlog.get_logger()

ACT_END_CHECK_INTERVAL_S = 1.0


async def end_expired_silences_and_send(
    store_executor: StoreExecutor, sender: NotificationSender, clock: Clock
) -> None:
    """Carry out the end of the silences that are over, and send at once what they held back."""
    database = store_executor.database
    if not await store_executor.run_read_query(
        lambda connection: silences.list_ids_of_expired_silences(connection, clock())
    ):
        return  # the usual case, without waiting for other writes
    if ended := await store_executor.run_write_with_now(lambda now: silence_ends.end_expired_silences(database, now)):
        log.info("silences_expired", silences=ended)
        await sender.start_sending_due_notifications()


async def end_expired_pauses(store_executor: StoreExecutor, clock: Clock) -> None:
    """Run the probes again whose pause is over."""
    database = store_executor.database
    if not await store_executor.run_read_query(
        lambda connection: pauses.list_probes_with_expired_pause(connection, clock())
    ):
        return  # the usual case, without waiting for other writes
    if resumed := await store_executor.run_write_with_now(
        lambda now: pauses.end_expired_pauses(database, LOCAL_LOCATION_NAME, now)
    ):
        log.info("pauses_expired", probes=resumed)
