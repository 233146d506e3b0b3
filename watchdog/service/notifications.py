"""From the outbox to the people: claim, read the story, send, mark after the receiver has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.model import Json
from watchdog.net import Network, SecretMask
from watchdog.notifiers.base import DeliveryError, DeliveryRequest, Notifier
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.alert_context import load_alert_context
from watchdog.store.write.outbox import LeasedNotification, Outbox

log = structlog.get_logger()

SEND_TIMEOUT_S = 20.0
"""Seconds a delivery may take."""
NOTIFICATION_LEASE_MS = 30_000
"""Ms that a claimed notification is ours: longer than a delivery may take, so that only a dead sender loses it."""
ACKNOWLEDGE_RETRY_INTERVAL_S = 1.0
"""Seconds between tries to store what a receiver has confirmed."""
FIRST_RETRY_DELAY_MS, MAX_RETRY_DELAY_MS = 1_000, 600_000
"""Ms before the second try, doubled each time up to the longest."""
MAX_NOTIFICATION_AGE_MS = 3 * DAY_MS
"""What could not be told by then is a dead letter."""


def retry_delay_ms(attempts: int) -> int:
    """Ms to wait after so many failed tries."""
    return int(min(FIRST_RETRY_DELAY_MS * 2 ** (attempts - 1), MAX_RETRY_DELAY_MS))


class NotificationSender:
    def __init__(
        self,
        store_executor: StoreExecutor,
        outbox: Outbox,
        notifiers: Mapping[str, Notifier],
        network: Network,
        mask: SecretMask,
        clock: Clock,
        public_url: str = "",
    ):
        self.store_executor, self.outbox, self.notifiers, self.network = store_executor, outbox, notifiers, network
        self.mask, self.clock, self.public_url = mask, clock, public_url.rstrip("/")
        self._tasks_by_destination: dict[str, asyncio.Task[None]] = {}
        self._lease_lock = asyncio.Lock()
        self._followup_tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def send_due_notifications(self) -> None:
        """Take what is due and send it, one notification at a time to each destination, destinations side by side."""
        async with self._lease_lock:  # two claims at once would not know of each other's destinations
            if self._stopping:
                return
            idle = [name for name in self.notifiers if name not in self._tasks_by_destination]
            for held in await self.store_executor.run_write(
                self.outbox.lease_due_notifications, self.clock(), NOTIFICATION_LEASE_MS, idle
            ):
                destination = held.notification.destination
                task = asyncio.create_task(
                    self._send_notification(held), name=f"send {held.notification.idempotency_key}"
                )
                self._tasks_by_destination[destination] = task
                task.add_done_callback(self._make_done_callback(destination))

    def _make_done_callback(self, destination: str) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            del self._tasks_by_destination[destination]
            if task.cancelled():
                return
            if fault := task.exception():  # the database is away: the lease runs out, and it is sent again
                log.warning("not_marked", destination=destination, why=type(fault).__name__)
            elif not self._stopping:
                more = asyncio.create_task(self._try_send_more(), name=f"more for {destination}")
                self._followup_tasks.add(more)
                more.add_done_callback(self._followup_tasks.discard)

        return done

    async def _try_send_more(self) -> None:
        """What cannot be claimed now is claimed by the next tick, which tells why it could not."""
        with suppress(Exception):
            await self.send_due_notifications()

    async def _send_notification(self, leased: LeasedNotification) -> None:
        n, now = leased.notification, self.clock()
        try:
            told = await self.store_executor.run_read_query(
                lambda c: load_alert_context(c, n, now, public_url=self.public_url, merged=leased.merged)
            )
            if not await self.store_executor.run_read_query(lambda c: self.outbox.still_leased(leased, c)):
                return
            async with asyncio.timeout(SEND_TIMEOUT_S):
                receipt = await self.notifiers[n.destination].send(
                    DeliveryRequest(n, told, leased.opened_receipt, self.network, leased.partial_receipt)
                )
        except asyncio.CancelledError:
            await self.store_executor.run_write(self.outbox.schedule_retry, leased, now, "stopped while sending")
            raise
        except DeliveryError as e:
            await self._handle_failure(leased, e)
        except TimeoutError:
            await self._handle_failure(leased, DeliveryError("timeout.exceeded", f"no answer in {SEND_TIMEOUT_S:g} s"))
        except Exception as e:
            log.exception("notifier_failed_internally", destination=n.destination)
            await self._handle_failure(
                leased, DeliveryError("watchdog.internal_error", f"{type(e).__name__} inside Watchdog")
            )
        else:
            await self._acknowledge(leased, receipt)
            log.info(
                "told", incident=n.incident, notified=n.event, destination=n.destination, tries=leased.attempts + 1
            )

    async def _acknowledge(self, leased: LeasedNotification, receipt: Mapping[str, Json]) -> None:
        """Store that the receiver has confirmed, however long the database is away: forgotten, it would hear it again.

        Nothing else goes there meanwhile.
        """
        warned = False
        while True:
            try:
                return await self.store_executor.run_write(self.outbox.mark_sent, leased, receipt, self.clock())
            except StoreUnavailableError as e:
                if not warned:
                    log.warning("not_marked", destination=leased.notification.destination, why=type(e).__name__)
                warned = True
            await asyncio.sleep(ACKNOWLEDGE_RETRY_INTERVAL_S)

    async def _handle_failure(self, leased: LeasedNotification, error: DeliveryError) -> None:
        n, tries, now = leased.notification, leased.attempts + 1, self.clock()
        detail = self.mask(str(error))
        facts = {"incident": n.incident, "destination": n.destination, "tries": tries, "why": detail}
        if max(now - leased.created_at, 0) >= min(error.retry_for_s * 1_000, MAX_NOTIFICATION_AGE_MS):
            await self.store_executor.run_write(self.outbox.mark_dead, leased, detail, now)
            log.error("gave_up", **facts)
            return
        asked = round((error.retry_after_s or 0.0) * 1000)
        wait = max(asked, retry_delay_ms(tries))  # "at once" is no reason to ask without a break
        resume = now + asked if asked else None
        await self.store_executor.run_write(
            self.outbox.schedule_retry,
            leased,
            now + wait,
            detail,
            partial_receipt=error.partial_receipt,
            retry_at=resume,
        )
        log.warning("not_delivered", retry_in_ms=wait, **facts)

    async def expire_orphans(self) -> None:
        """Give up what is for destinations that nobody has configured for long."""
        now = self.clock()
        given_up = await self.store_executor.run_write(
            self.outbox.expire_unknown_destinations, list(self.notifiers), now - MAX_NOTIFICATION_AGE_MS, now
        )
        for incident, destination in given_up:
            why = "the destination is no longer configured"
            log.error("gave_up", incident=incident, destination=destination, why=why)

    async def stop(self, grace_s: float) -> None:
        """Let what is being sent finish within `grace` seconds; the rest waits in the outbox."""
        self._stopping = True
        async with self._lease_lock:  # what was being claimed is being sent by now
            tasks = list(self._tasks_by_destination.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
