"""From the outbox to the people: claim, read the story, send, mark after the receiver has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from watchdog.model import Json
from watchdog.notifiers.base import Delivery, DeliveryError, Notifier
from watchdog.service.clock import Clock
from watchdog.service.storage import Storage
from watchdog.store.database import Unusable, away
from watchdog.store.outbox import Held, Outbox
from watchdog.store.story import story
from watchdog.wire import Mask, Wire
from watchdog.words import DAY

log = structlog.get_logger()

SEND = 20.0
"""Seconds a delivery may take."""
LEASE = 30_000
"""Ms that a claimed notification is ours: longer than a delivery may take, so that only a dead sender loses it."""
MARK = 1.0
"""Seconds between tries to store what a receiver has confirmed."""
FIRST, LONGEST = 1_000, 600_000
"""Ms before the second try, doubled each time up to the longest."""
GIVE_UP = 3 * DAY
"""What could not be told by then is a dead letter."""


def backoff(attempts: int) -> int:
    """Ms to wait after so many failed tries."""
    return int(min(FIRST * 2 ** (attempts - 1), LONGEST))


class Mailroom:
    def __init__(
        self,
        storage: Storage,
        outbox: Outbox,
        notifiers: Mapping[str, Notifier],
        wire: Wire,
        mask: Mask,
        clock: Clock,
        public_url: str = "",
    ):
        self.storage, self.outbox, self.notifiers, self.wire = storage, outbox, notifiers, wire
        self.mask, self.clock, self.public_url = mask, clock, public_url.rstrip("/")
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._claiming = asyncio.Lock()
        self._more: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def deliver(self) -> None:
        """Take what is due and send it, one notification at a time to each destination, destinations side by side."""
        async with self._claiming:  # two claims at once would not know of each other's destinations
            if self._stopping:
                return
            idle = [name for name in self.notifiers if name not in self._sending]
            for held in await self.storage.write(self.outbox.claim, self.clock(), LEASE, idle):
                destination = held.notification.destination
                task = asyncio.create_task(self._send(held), name=f"send {held.notification.key}")
                self._sending[destination] = task
                task.add_done_callback(self._next(destination))

    def _next(self, destination: str) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            del self._sending[destination]
            if task.cancelled():
                return
            if fault := task.exception():  # the database is away: the lease runs out, and it is sent again
                log.warning("not_marked", destination=destination, why=type(fault).__name__)
            elif not self._stopping:
                more = asyncio.create_task(self._deliver_more(), name=f"more for {destination}")
                self._more.add(more)
                more.add_done_callback(self._more.discard)

        return done

    async def _deliver_more(self) -> None:
        """What cannot be claimed now is claimed by the next tick, which tells why it could not."""
        with suppress(Exception):
            await self.deliver()

    async def _send(self, held: Held) -> None:
        n, now = held.notification, self.clock()
        try:
            told = await self.storage.read(lambda c: story(c, n, now, link=self.public_url, merged=held.merged))
            if not await self.storage.read(lambda c: self.outbox.still_held(held, c)):
                return
            async with asyncio.timeout(SEND):
                receipt = await self.notifiers[n.destination].send(
                    Delivery(n, told, held.receipt, self.wire, held.partly)
                )
        except asyncio.CancelledError:
            await self.storage.write(self.outbox.retry, held, now, "stopped while sending")
            raise
        except DeliveryError as e:
            await self._failed(held, e)
        except TimeoutError:
            await self._failed(held, DeliveryError("timeout.exceeded", f"no answer in {SEND:g} s"))
        except Exception as e:
            log.exception("notifier_failed_internally", destination=n.destination)
            await self._failed(held, DeliveryError("watchdog.internal_error", f"{type(e).__name__} inside Watchdog"))
        else:
            await self._mark(held, receipt)
            log.info("told", incident=n.incident, notified=n.event, destination=n.destination, tries=held.attempts + 1)

    async def _mark(self, held: Held, receipt: Mapping[str, Json]) -> None:
        """Store that the receiver has confirmed, however long the database is away: forgotten, it would hear it again.

        Nothing else goes there meanwhile.
        """
        warned = False
        while True:
            try:
                return await self.storage.write(self.outbox.sent, held, receipt, self.clock())
            except Unusable as e:
                if not away(e):
                    raise
                if not warned:
                    log.warning("not_marked", destination=held.notification.destination, why=type(e).__name__)
                warned = True
            await asyncio.sleep(MARK)

    async def _failed(self, held: Held, error: DeliveryError) -> None:
        n, tries, now = held.notification, held.attempts + 1, self.clock()
        detail = self.mask(str(error))
        facts = {"incident": n.incident, "destination": n.destination, "tries": tries, "why": detail}
        if max(now - held.created_at, 0) >= min(error.retry_for * 1_000, GIVE_UP):
            await self.storage.write(self.outbox.bury, held, detail, now)
            log.error("gave_up", **facts)
            return
        asked = round((error.retry_after or 0.0) * 1000)
        wait = max(asked, backoff(tries))  # "at once" is no reason to ask without a break
        resume = now + asked if asked else None
        await self.storage.write(self.outbox.retry, held, now + wait, detail, partly=error.partly, resume=resume)
        log.warning("not_delivered", retry_in_ms=wait, **facts)

    async def keep(self) -> None:
        """Give up what is for destinations that nobody has configured for long."""
        now = self.clock()
        given_up = await self.storage.write(self.outbox.abandon, list(self.notifiers), now - GIVE_UP, now)
        for incident, destination in given_up:
            why = "the destination is no longer configured"
            log.error("gave_up", incident=incident, destination=destination, why=why)

    async def stop(self, grace: float) -> None:
        """Let what is being sent finish within `grace` seconds; the rest waits in the outbox."""
        self._stopping = True
        async with self._claiming:  # what was being claimed is being sent by now
            tasks = list(self._sending.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
