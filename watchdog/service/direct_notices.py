"""Notifies receivers that the database is away, and that it is back, without using it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import structlog

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import MINUTE_MS, SECOND_MS, format_utc_timestamp
from watchdog.domain.model import Incident, IncidentEvent, Json, ProbeInfo, Severity
from watchdog.domain.notification import Notification
from watchdog.domain.rules import service
from watchdog.domain.text import truncate_at_word
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.service.absence_record import (
    SentStoreAbsenceNotice,
    StoreAbsenceRecord,
    StoreAbsenceRecordFile,
    encode_store_absence_records,
)
from watchdog.service.clock import Clock
from watchdog.service.notifications import NOTIFICATION_SEND_TIMEOUT_S, compute_notification_retry_delay_ms
from watchdog.service.store_watch import StoreAbsence

log = structlog.get_logger()

NOTICE_DELAY_MS, BACKUP_NOTICE_DELAY_MS = 20 * SECOND_MS, 40 * SECOND_MS
"""How long the database is away before the lowest member, and before the others, send notices."""
STORE_ABSENCE_NOTICE_REPEAT_INTERVAL_MS = 10 * MINUTE_MS
"""A notice is repeated if more targets fail, at most this often."""
STORE_BACK_NOTICE_DELAY_MS = 10 * SECOND_MS
"""The database is back once it has worked for this long; a shorter time is part of the absence."""
MAX_STORE_ABSENCE_NOTICE_RETRY_DELAY_MS = MINUTE_MS
MAX_REMEMBERED_STORE_ABSENCES = 16
"""Whose end is still reported to destinations that could not be reached."""
MAX_TARGETS_IN_NOTICE, MAX_ERROR_CHARS_IN_NOTICE = 10, 100


class StoreAbsenceNotifier:
    """Owns the notices of this process: for each absence and destination one, and one when the database is back.

    `update` must be called at an interval. `is_lowest_member`: whether this member is the lowest of those last known to
    be live. `may_notify`: whether a destination is not left to a process with a newer configuration.
    """

    def __init__(
        self,
        *,
        notifiers: Mapping[str, Notifier],
        network: NetworkAccess,
        mask: SecretMask,
        clock: Clock,
        member: str,
        record_file: StoreAbsenceRecordFile,
        is_lowest_member: Callable[[], bool],
        may_notify: Callable[[str], bool] = lambda _: True,
    ):
        self.notifiers, self.network, self.mask, self.clock = notifiers, network, mask, clock
        self.member, self._is_lowest_member, self._may_notify = member, is_lowest_member, may_notify
        self._record_file = record_file
        self._disk_executor = ThreadPoolExecutor(1, "absence-record")
        self._records: list[StoreAbsenceRecord] = []
        """Oldest first. Only the last may not have ended."""
        self._is_on_disk = False
        self._back_since: int | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, tuple[int, int]] = {}
        """Destination -> failed attempts, and when the next one is due."""

    async def load(self) -> None:
        """Read what an earlier process has left: the database is available now, so it is back."""
        self._records = await asyncio.get_running_loop().run_in_executor(
            self._disk_executor, self._record_file.load_records
        )
        self._is_on_disk = bool(self._records)

    def update(self, absence: StoreAbsence | None, failing_targets: Collection[str]) -> None:
        """Start to send what is due. Does not wait for receivers or for the disk.

        `failing_targets`: the names of the probes whose newest runs fail.
        """
        now = self.clock()
        if absence is None:
            self._mark_absence_ended_if_back_long_enough(now)
        else:
            self._back_since = None
            if not self._records or self._records[-1].ended_at is not None:
                self._records = [*self._records, StoreAbsenceRecord(absence.since, self.member)][
                    -MAX_REMEMBERED_STORE_ABSENCES:
                ]
            self._records[-1].error, self._records[-1].is_damaged = absence.error, absence.is_damaged
        self._start_sending_absence_end_notices(now)
        if absence is not None:
            self._start_sending_due_absence_notices(self._records[-1], sorted(failing_targets), now)

    def _mark_absence_ended_if_back_long_enough(self, now: int) -> None:
        if self._back_since is None or self._back_since > now:  # the clock was set back
            self._back_since = now
        has_ended = now - self._back_since >= STORE_BACK_NOTICE_DELAY_MS
        if has_ended and self._records and self._records[-1].ended_at is None:
            self._records[-1].ended_at = self._back_since

    def _start_sending_absence_end_notices(self, now: int) -> None:
        """The earlier ones first: a destination receives nothing of a later absence before."""
        for record in self._records:
            if record.ended_at is not None:
                for destination in list(record.notices):
                    if destination in self.notifiers:
                        self._start_sending_absence_notice(record, destination, IncidentEvent.RESOLVED, (), now)
                    else:
                        del record.notices[destination]  # it is no longer configured
        ongoing = [record for record in self._records if record.notices or record.ended_at is None]
        if len(ongoing) < len(self._records) and not self._tasks:
            self._records = ongoing
            if self._is_on_disk:
                self._save_absence_records()

    def _start_sending_due_absence_notices(self, record: StoreAbsenceRecord, failing: list[str], now: int) -> None:
        delay = NOTICE_DELAY_MS if self._is_lowest_member() else BACKUP_NOTICE_DELAY_MS
        if now - record.since < delay:
            return
        for destination in self.notifiers:
            notice = record.notices.get(destination)
            if any(destination in earlier.notices for earlier in self._records if earlier is not record):
                continue
            if notice is None:
                self._start_sending_absence_notice(record, destination, IncidentEvent.OPENED, failing, now)
            elif now - notice.sent_at >= STORE_ABSENCE_NOTICE_REPEAT_INTERVAL_MS and not set(failing) <= set(
                notice.named_targets
            ):
                self._start_sending_absence_notice(record, destination, IncidentEvent.CHANGED, failing, now)

    def _start_sending_absence_notice(
        self, record: StoreAbsenceRecord, destination: str, event: IncidentEvent, failing: Collection[str], now: int
    ) -> None:
        _, due_at = self._failures.get(destination, (0, 0))
        is_waiting = (
            now < due_at <= now + MAX_STORE_ABSENCE_NOTICE_RETRY_DELAY_MS
        )  # a later one: the clock was set back
        if destination in self._tasks or is_waiting or not self._may_notify(destination):
            return
        sending = self._send(record, destination, event, list(failing), now)
        task = asyncio.create_task(sending, name=f"direct notice to {destination}")
        self._tasks[destination] = task
        task.add_done_callback(lambda _: self._tasks.pop(destination, None))

    async def _send(
        self, record: StoreAbsenceRecord, destination: str, event: IncidentEvent, failing: list[str], now: int
    ) -> None:
        previous, notifier = record.notices.get(destination), self.notifiers.get(destination)
        if notifier is None:
            return  # a reload has just removed it
        context = self._build_absence_notice_context(record, event, failing, now)
        sequence = 0 if previous is None else previous.sequence + 1
        notification = Notification(context.incident.id, destination, sequence, event)
        receipt: dict[str, Json] = {} if previous is None else previous.receipt
        request = NotificationDeliveryRequest(notification, context, receipt, self.network)
        try:
            async with asyncio.timeout(NOTIFICATION_SEND_TIMEOUT_S):
                receipt = await notifier.send(request) or receipt
        except Exception as e:
            if not isinstance(e, NotificationDeliveryError | TimeoutError):
                log.exception("notifier_error", destination=destination)
            if not (isinstance(e, NotificationDeliveryError) and (e.maybe_delivered or not e.retry_for_s)):
                self._record_notice_failure(destination, self.mask(str(e)) or "no response in time")
                return
        self._failures.pop(destination, None)
        if event is IncidentEvent.RESOLVED:
            record.notices.pop(destination, None)
        else:
            record.notices[destination] = SentStoreAbsenceNotice(now, failing, sequence, receipt)
        log.info("direct_notice_sent", destination=destination, incident_event=event)
        self._save_absence_records()

    def _record_notice_failure(self, destination: str, error: str) -> None:
        failures = self._failures.get(destination, (0, 0))[0] + 1
        delay_ms = min(compute_notification_retry_delay_ms(failures), MAX_STORE_ABSENCE_NOTICE_RETRY_DELAY_MS)
        self._failures[destination] = failures, self.clock() + delay_ms
        if failures == 1:
            log.warning("direct_notice_failed", destination=destination, error=error)

    def _build_absence_notice_context(
        self, record: StoreAbsenceRecord, event: IncidentEvent, failing: list[str], now: int
    ) -> AlertMessageContext:
        is_over = event is IncidentEvent.RESOLVED
        incident = Incident(
            id=blake2b(f"{record.member}\0{record.since}".encode(), digest_size=12).hexdigest(),
            probe=0,
            rule=service.ALERT_RULE_NAME,
            subject=service.build_process_fault_finding_subject("database", record.member),
            severity=Severity.CRITICAL,
            since=record.since,
            opened_at=now,
            reason="watchdog.store_away",
            message=self._compose_absence_notice_message(record, failing, now, is_over=is_over),
            resolved_at=record.ended_at if is_over else None,
        )
        probe = ProbeInfo(0, service.WATCHDOG_SELF_PROBE_ID, "Watchdog", service.WATCHDOG_SELF_PROBE_KIND)
        return AlertMessageContext(event, incident, probe, now, bad_count=1, threshold=1)

    def _compose_absence_notice_message(
        self, record: StoreAbsenceRecord, failing: list[str], now: int, *, is_over: bool
    ) -> str:
        error = f" ({truncate_at_word(record.error, MAX_ERROR_CHARS_IN_NOTICE)})" if record.error else ""
        if is_over:
            return f"the database was unavailable{error}; alerts that were delayed follow"
        names = ", ".join(failing[:MAX_TARGETS_IN_NOTICE])
        more = f" and {len(failing) - MAX_TARGETS_IN_NOTICE} more" if len(failing) > MAX_TARGETS_IN_NOTICE else ""
        targets = f"; failing now: {names}{more}" if failing else ""
        since = format_utc_timestamp(record.since, now)
        if record.is_damaged:
            return f"the database has been unreliable since {since}{error}, and alerts may be lost{targets}"
        return f"the database has been unavailable since {since}{error}, so alerts are delayed{targets}"

    def _save_absence_records(self) -> None:
        """In a thread, because a disk may hang."""
        self._is_on_disk = bool(self._records)
        self._disk_executor.submit(self._record_file.write, encode_store_absence_records(self._records))

    async def stop(self) -> None:
        """Give up what is being sent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._disk_executor.submit(self._record_file.close)
        self._disk_executor.shutdown(wait=False)
