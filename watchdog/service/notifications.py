"""Sends notifications from the outbox: lease, load the context, send, and mark once the receiver has confirmed."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import structlog

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.model import IncidentEvent, Json
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.notifiers.message import compose_alert_message
from watchdog.service.clock import Clock
from watchdog.service.counters import DeliveryResultKind
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.outbox_lease import LeasedNotification

log = structlog.get_logger()

NOTIFICATION_SEND_TIMEOUT_S = 20.0
NOTIFICATION_LEASE_MS = 30_000
"""Longer than a delivery may take, so that only a sender that has died loses its lease."""
MARK_SENT_RETRY_INTERVAL_S = 1.0
FIRST_NOTIFICATION_RETRY_DELAY_MS, MAX_NOTIFICATION_RETRY_DELAY_MS = 1_000, 600_000
"""Delay before the second attempt, doubled for each further attempt up to the maximum."""
NOTIFICATION_DATABASE_BUSY_DELAY_MS = 1_000
"""Delay after an attempt that failed because Watchdog's own database was busy."""
MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED = 3
"""A notification is sent this often before it counts as unconfirmed: once, and two extra copies."""
UNCONFIRMED_NOTIFICATION_RESEND_INTERVAL_MS = HOUR_MS
MAX_NOTIFICATION_AGE_MS = 3 * DAY_MS
"""An older notification that cannot be delivered is given up and listed as undelivered."""


def compute_notification_retry_delay_ms(attempts: int) -> int:
    """Delay after this many failed attempts."""
    return int(min(FIRST_NOTIFICATION_RETRY_DELAY_MS * 2 ** (attempts - 1), MAX_NOTIFICATION_RETRY_DELAY_MS))


class _NotificationContextAndHeadline(NamedTuple):
    """What is sent, and its first line."""

    context: AlertMessageContext
    headline: str

    @property
    def headline_and_cause(self) -> tuple[str, str]:
        """Headline and cause of the message that the destination then has."""
        return self.headline, self.context.incident.message


class NotificationSender:
    """Owns the deliveries in progress: at most one for each destination, so that a slow receiver delays no other.

    A notification is marked as sent only after its receiver has confirmed it. A crash in between sends it again: at
    least once, with at most one extra copy. Failures are retried with growing delays until the notification is too old.
    If no response shows whether it arrived, it is sent up to MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED times, and
    then once an hour while its incident is open.
    """

    def __init__(
        self,
        *,
        store_executor: StoreExecutor,
        outbox: NotificationOutbox,
        notifiers: Mapping[str, Notifier],
        network: NetworkAccess,
        mask: SecretMask,
        clock: Clock,
        public_url: str = "",
        on_receiver_change: Callable[[], Awaitable[None]] | None = None,
        may_notify: Callable[[str], bool] = lambda _: True,
    ):
        """`on_receiver_change`: called when a notification was given up, and when a failing destination confirms.
        `may_notify`: whether a destination of this process is not left to one with a newer configuration."""
        self.store_executor, self.outbox, self.notifiers, self.network = store_executor, outbox, notifiers, network
        self.mask, self.clock, self.public_url = mask, clock, public_url.rstrip("/")
        self._on_receiver_change, self._may_notify = on_receiver_change, may_notify
        self.on_destination_change: Callable[[], None] | None = None
        """Called after a reload has changed `notifiers`."""
        self.delivery_counts: Counter[tuple[str, DeliveryResultKind]] = Counter()
        """By destination and result of the attempt."""
        self._failing_destinations: set[str] = set()
        self._news_since_edit: Counter[str] = Counter()
        """By destination: the messages with news since the last edit without news."""
        self._tasks_by_destination: dict[str, asyncio.Task[None]] = {}
        self._lease_lock = asyncio.Lock()
        self._followup_tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def change_destinations(self, notifiers: Mapping[str, Notifier], public_url: str) -> None:
        """Send to these destinations from now on. Deliveries in progress end with the notifier that they have."""
        self.notifiers, self.public_url = notifiers, public_url.rstrip("/")
        self._failing_destinations &= notifiers.keys()
        for removed in self._news_since_edit.keys() - notifiers.keys():
            del self._news_since_edit[removed]
        if self.on_destination_change is not None:
            self.on_destination_change()

    async def start_sending_due_notifications(self) -> None:
        """Lease what is due and start to send it: one notification at a time for each destination."""
        async with self._lease_lock:  # concurrent leases would not see each other's destinations
            if self._stopping:
                return
            notifiers = self.notifiers
            idle = [name for name in notifiers if name not in self._tasks_by_destination and self._may_notify(name)]
            editing = [name for name in idle if notifiers[name].edits_messages]
            unmerged = [name for name in idle if not notifiers[name].accepts_merged_messages]
            acknowledging = [name for name in idle if notifiers[name].tracks_acknowledgements]
            for leased in await self.store_executor.run_write_with_now(
                lambda now: self.outbox.lease_due_notifications(
                    now,
                    NOTIFICATION_LEASE_MS,
                    idle,
                    editing,
                    unmerged,
                    acknowledging_destinations=acknowledging,
                    news_since_edit=self._news_since_edit,
                )
            ):
                destination, key = leased.notification.destination, leased.notification.idempotency_key
                self._news_since_edit[destination] = (
                    0 if leased.states_no_news else self._news_since_edit[destination] + 1
                )
                task = asyncio.create_task(self._send_notification(leased, notifiers[destination]), name=f"send {key}")
                self._tasks_by_destination[destination] = task
                task.add_done_callback(self._create_send_done_callback(destination))

    def _create_send_done_callback(self, destination: str) -> Callable[[asyncio.Task[None]], None]:
        def handle_finished_destination_task(task: asyncio.Task[None]) -> None:
            del self._tasks_by_destination[destination]
            if task.cancelled():
                return
            if error := task.exception():  # the database is unavailable: the lease expires, and it is sent again
                self._log_not_marked_sent(destination, error)
            elif not self._stopping:
                self.send_due_soon(f"next for {destination}")

        return handle_finished_destination_task

    def send_due_soon(self, task_name: str) -> None:
        """Start to send what is due, in a task of its own."""
        followup = asyncio.create_task(self._send_due_ignoring_errors(), name=task_name)
        self._followup_tasks.add(followup)
        followup.add_done_callback(self._followup_tasks.discard)

    async def _send_due_ignoring_errors(self) -> None:
        """What cannot be leased now is leased by the next tick, which logs the error."""
        with suppress(Exception):
            await self.start_sending_due_notifications()

    async def _send_notification(self, leased: LeasedNotification, notifier: Notifier) -> None:
        n, now, prepared = leased.notification, self.clock(), None
        try:
            prepared = await self._prepare_notification(leased, now)
            if prepared is None:
                return
            async with asyncio.timeout(NOTIFICATION_SEND_TIMEOUT_S):
                receipt = await notifier.send(
                    NotificationDeliveryRequest(
                        n, prepared.context, leased.previous_receipt, self.network, leased.partial_receipt
                    )
                )
        except asyncio.CancelledError:
            await self.store_executor.run_write_with_now(
                lambda now: self.outbox.postpone_unattempted_notification(leased, now)
            )
            raise
        except NotificationDeliveryError as e:
            await self._record_delivery_failure(leased, e, prepared)
        except TimeoutError:
            await self._record_delivery_failure(
                leased,
                NotificationDeliveryError("timeout.exceeded", f"no response within {NOTIFICATION_SEND_TIMEOUT_S:g} s"),
            )
        except Exception as e:
            log.exception("notifier_error", destination=n.destination)
            await self._record_delivery_failure(
                leased, NotificationDeliveryError("watchdog.internal_error", f"{type(e).__name__} inside Watchdog")
            )
        else:
            self.delivery_counts[n.destination, DeliveryResultKind.SENT] += 1
            await self._mark_sent_with_retries(leased, receipt, prepared)
            if n.destination in self._failing_destinations:
                self._failing_destinations.discard(n.destination)
                await self._run_receiver_health_change_callback()
            log.info(
                "notification_sent",
                incident=n.incident,
                incident_event=n.event,
                destination=n.destination,
                attempts=leased.attempts + 1,
            )

    async def _prepare_notification(
        self, leased: LeasedNotification, now: int
    ) -> _NotificationContextAndHeadline | None:
        """None if nothing is to be sent now: the destination's message states it already, the lease was lost, or the
        database does not respond. The last is no attempt of the notifier's: the notification is due again soon, or once
        its lease ends."""
        n, run_read_query = leased.notification, self.store_executor.run_read_query
        try:
            context = await run_read_query(
                lambda c: load_alert_message_context(
                    c,
                    n,
                    now,
                    public_url=self.public_url,
                    merged=leased.merged,
                    previous_cause=leased.previous_cause,
                    named_incidents=leased.named_incidents,
                    raises_severity=leased.raises_severity,
                    main_incident=leased.main_incident,
                )
            )
            headline = compose_alert_message(context).headline
            is_single_change = n.event is IncidentEvent.CHANGED and not context.members
            if is_single_change and headline == leased.previous_headline:
                await self.store_executor.run_write_with_now(lambda now: self.outbox.mark_merged(leased, now))
                return None
            is_leased = await run_read_query(lambda c: self.outbox.is_still_leased(leased, c))
            return _NotificationContextAndHeadline(context, headline) if is_leased else None
        except (StoreUnavailableError, WatchdogDatabaseSchemaError) as e:
            log.warning("notification_postponed", destination=n.destination, error=self.mask(str(e)))
            with suppress(StoreUnavailableError, WatchdogDatabaseSchemaError):
                await self.store_executor.run_write_with_now(
                    lambda now: self.outbox.postpone_unattempted_notification(
                        leased, now + NOTIFICATION_DATABASE_BUSY_DELAY_MS
                    )
                )
            return None

    async def _mark_sent_with_retries(
        self, leased: LeasedNotification, receipt: Mapping[str, Json], message: _NotificationContextAndHeadline | None
    ) -> None:
        """Store that the receiver has confirmed, however long the database is unavailable.

        Otherwise the notification would be sent again. Nothing else is sent to this destination until it is stored.
        """
        logged, texts = False, message.headline_and_cause if message else ("", "")
        while True:
            try:
                return await self.store_executor.run_write_with_now(
                    lambda now: self.outbox.mark_sent(leased, receipt, now, *texts)
                )
            except StoreUnavailableError as e:
                if not logged:
                    self._log_not_marked_sent(leased.notification.destination, e)
                logged = True
            await asyncio.sleep(MARK_SENT_RETRY_INTERVAL_S)

    def _log_not_marked_sent(self, destination: str, error: BaseException) -> None:
        log.warning("notification_not_acknowledged", destination=destination, error=type(error).__name__)

    async def _record_delivery_failure(
        self,
        leased: LeasedNotification,
        error: NotificationDeliveryError,
        message: _NotificationContextAndHeadline | None = None,
    ) -> None:
        n, attempts, now = leased.notification, leased.attempts + 1, self.clock()
        detail = self.mask(str(error))
        fields = {"incident": n.incident, "destination": n.destination, "attempts": attempts, "error": detail}
        unconfirmed_copies = leased.unconfirmed_copies + error.maybe_delivered
        if unconfirmed_copies >= MAX_SENDS_BEFORE_NOTIFICATION_IS_UNCONFIRMED:
            self.delivery_counts[n.destination, DeliveryResultKind.UNCONFIRMED] += 1
            await self._mark_unconfirmed(leased, error, message, detail)
            log.error("notification_unconfirmed", **fields)
            self._failing_destinations.add(n.destination)
            await self._run_receiver_health_change_callback()
            return
        refused_since = None if math.isinf(error.retry_for_s) else leased.refused_since or now
        if self._should_give_up_notification(leased, error, refused_since, now):
            delivered = {**leased.partial_receipt, **error.partial_receipt}
            if delivered.get("completed"):  # others received it: only these recipients did not
                self.delivery_counts[n.destination, DeliveryResultKind.SENT] += 1
                await self._mark_sent_with_retries(leased, delivered, message)
                log.error("notification_delivered_in_part", **fields)
                return
            self.delivery_counts[n.destination, DeliveryResultKind.UNDELIVERED] += 1
            await self.store_executor.run_write_with_now(lambda now: self.outbox.mark_undelivered(leased, detail, now))
            log.error("notification_undelivered", **fields)
            self._failing_destinations.add(n.destination)
            await self._run_receiver_health_change_callback()
            return
        self.delivery_counts[n.destination, DeliveryResultKind.FAILED_WILL_RETRY] += 1
        self._failing_destinations.add(n.destination)
        delay_ms = await self._choose_notification_retry_delay_ms(n.destination, error, attempts)
        await self.store_executor.run_write_with_now(
            lambda now: self.outbox.schedule_notification_retry(
                leased,
                now + delay_ms,
                detail,
                failed_at=now,
                partial_receipt=error.partial_receipt,
                retry_at=now + round(error.retry_after_s * 1000) if error.retry_after_s else None,
                refused_since=refused_since,
                unconfirmed_copies=unconfirmed_copies,
            )
        )
        log.warning("notification_retry_scheduled", retry_in_ms=delay_ms, **fields)

    async def _choose_notification_retry_delay_ms(
        self, destination: str, error: NotificationDeliveryError, attempts: int
    ) -> int:
        """In ms. A short `Retry-After` does not shorten the delay; a destination that gets too many messages decides it
        alone, because the notification has no fault."""
        requested_ms = round((error.retry_after_s or 0.0) * 1000)
        if not error.is_rate_limited:
            return max(requested_ms, compute_notification_retry_delay_ms(attempts))
        return await self.store_executor.run_write_with_now(
            lambda now: self.outbox.slow_destination_down(destination, now, requested_ms) - now
        )

    async def _mark_unconfirmed(
        self,
        leased: LeasedNotification,
        error: NotificationDeliveryError,
        message: _NotificationContextAndHeadline | None,
        detail: str,
    ) -> None:
        receipt = {**leased.previous_receipt, **error.partial_receipt}
        texts = message.headline_and_cause if message else (leased.previous_headline, leased.previous_cause)
        await self.store_executor.run_write_with_now(
            lambda now: self.outbox.mark_unconfirmed(
                leased,
                receipt,
                now,
                *texts,
                detail=detail,
                next_copy_at=now + UNCONFIRMED_NOTIFICATION_RESEND_INTERVAL_MS,
            )
        )

    def _should_give_up_notification(
        self, leased: LeasedNotification, error: NotificationDeliveryError, refused_since: int | None, now: int
    ) -> bool:
        """Whether the notification is too old, or has been refused for as long as such an error is retried."""
        if max(now - leased.created_at, 0) >= MAX_NOTIFICATION_AGE_MS:
            return True
        return refused_since is not None and max(now - refused_since, 0) >= error.retry_for_s * 1_000

    async def _run_receiver_health_change_callback(self) -> None:
        """The caller's delivery is stored: an error here must not look like one of it."""
        if self._on_receiver_change is not None:
            with suppress(StoreUnavailableError):  # the next regular run observes the change
                await self._on_receiver_change()

    async def give_up_orphaned_notifications(self) -> None:
        """Mark notifications as undelivered whose destination no process has had for a day."""
        expired = await self.store_executor.run_write_with_now(self.outbox.give_up_orphaned_notifications)
        for incident, destination in expired:
            error = "the destination is no longer configured"
            log.error("notification_undelivered", incident=incident, destination=destination, error=error)

    async def stop(self, grace_s: float) -> None:
        """Let deliveries in progress finish within `grace_s` seconds; all others wait in the outbox."""
        self._stopping = True
        async with self._lease_lock:  # what was being leased is being sent by now
            tasks = list(self._tasks_by_destination.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
