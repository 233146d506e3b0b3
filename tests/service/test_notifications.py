"""Delivery from the outbox to receivers: at least once, in order, and with the pauses that receivers request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_results
from watchdog.domain.membership import ENDED_WATCHDOG_PROCESS_RETENTION_MS, WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.model import IncidentEvent, Json
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.service import notifications
from watchdog.service.counters import DeliveryResultKind
from watchdog.service.notifications import (
    FIRST_NOTIFICATION_RETRY_DELAY_MS,
    MAX_NOTIFICATION_AGE_MS,
    MAX_NOTIFICATION_RETRY_DELAY_MS,
    NOTIFICATION_LEASE_MS,
    NotificationSender,
    compute_notification_retry_delay_ms,
)
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.tables import failing_destinations, outbox


class SpyNotifier(Notifier):
    """Raises or returns the next entry of its script: an exception or a receipt."""

    kind: ClassVar[str] = "spy"
    script: Any

    @property
    def recipient(self) -> str:
        return "spy"

    async def send(self, delivery: NotificationDeliveryRequest) -> dict[str, Json]:
        respond = self.script(delivery)
        if isinstance(respond, Exception):
            raise respond
        return dict(respond or {})


class SenderHarness:
    """A sender over a store, with a clock that the test sets."""

    def __init__(self, store: StoreHarness):
        self.store, self.now = store, START_AT + 10 * INTERVAL_MS
        self.store_executor = StoreExecutor(store.database, lambda: self.now)
        self.received: list[NotificationDeliveryRequest] = []
        self.responses: list[Callable[[], Any]] = []
        self.sender = self.make_sender()

    def make_sender(self) -> NotificationSender:
        notifiers: dict[str, Notifier] = {"oncall/spy": SpyNotifier(script=self.respond)}
        mask = SecretMask(["hush-hush"])
        return NotificationSender(
            store_executor=self.store_executor,
            outbox=self.store.outbox,
            notifiers=notifiers,
            network=NetworkAccess(),
            mask=mask,
            clock=lambda: self.now,
            public_url="https://status.example",
        )

    def respond(self, request: NotificationDeliveryRequest) -> Any:
        self.received.append(request)
        return self.responses.pop(0)() if self.responses else {"ts": str(len(self.received))}

    async def deliver(self) -> None:
        await self.sender.start_sending_due_notifications()
        while self.sender._tasks_by_destination:
            await asyncio.gather(*self.sender._tasks_by_destination.values(), return_exceptions=True)
            await asyncio.sleep(0)
            await self.sender.start_sending_due_notifications()

    def rows(self) -> list[dict[str, Any]]:
        return self.store.select_rows(outbox)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SenderHarness]:
    routes = NotificationRoutingTable({"oncall": ("oncall/spy",)})
    with StoreHarness(
        f"sqlite:///{tmp_path / 'watchdog.db'}",
        [make_registered_probe(failure_threshold=2, success_threshold=1)],
        routes=routes,
    ) as store:
        harness = SenderHarness(store.without_downtime())
        yield harness
        harness.store_executor.close()


def open_incident(harness: SenderHarness, outcomes: str = "pff") -> None:
    for result in make_results(harness.store.database_ids[0], outcomes):
        harness.store.record_results(result)


async def test_an_incident_is_sent_once_and_its_end_with_the_receipt_of_its_opening(harness: SenderHarness) -> None:
    open_incident(harness)
    await harness.deliver()
    assert [d.notification.event for d in harness.received] == [IncidentEvent.OPENED]
    assert harness.received[0].alert_context.incident_url.startswith("https://status.example/incidents/")
    open_incident(harness, "pffp")
    await harness.deliver()
    assert [d.notification.event for d in harness.received] == [IncidentEvent.OPENED, IncidentEvent.RESOLVED]
    assert harness.received[1].previous_receipt == {"ts": "1"}
    assert [row["state"] for row in harness.rows()] == ["sent", "sent"]
    await harness.deliver()
    assert len(harness.received) == 2


async def test_each_attempt_is_counted_by_its_result(harness: SenderHarness) -> None:
    refused = NotificationDeliveryError("refused", "connection refused")
    harness.responses = [lambda: refused, lambda: NotificationDeliveryError("gone", "410 Gone", retry_for_s=0)]
    open_incident(harness)
    for _ in range(2):
        await harness.deliver()
        harness.now += FIRST_NOTIFICATION_RETRY_DELAY_MS
    open_incident(harness, "pffp")
    await harness.deliver()
    assert harness.sender.delivery_counts == {
        ("oncall/spy", DeliveryResultKind.FAILED_WILL_RETRY): 1,
        ("oncall/spy", DeliveryResultKind.UNDELIVERED): 1,
        ("oncall/spy", DeliveryResultKind.SENT): 1,
    }


async def test_each_attempt_without_a_confirmation_is_counted(harness: SenderHarness) -> None:
    harness.responses = [lambda: UNKNOWN] * 3
    open_incident(harness)
    for _ in range(3):
        await harness.deliver()
        harness.now += 2_000
    assert harness.sender.delivery_counts == {
        ("oncall/spy", DeliveryResultKind.FAILED_WILL_RETRY): 2,
        ("oncall/spy", DeliveryResultKind.UNCONFIRMED): 1,
    }


async def test_opened_and_resolved_while_unreachable_become_one_message(harness: SenderHarness) -> None:
    harness.responses = [lambda: NotificationDeliveryError("refused", "connection refused")]
    open_incident(harness)
    await harness.deliver()
    open_incident(harness, "pffp")
    harness.now += FIRST_NOTIFICATION_RETRY_DELAY_MS
    await harness.deliver()
    assert [(d.notification.event, d.alert_context.merged) for d in harness.received] == [
        (IncidentEvent.OPENED, False),
        (IncidentEvent.RESOLVED, True),
    ]
    assert [row["state"] for row in harness.rows()] == ["merged", "sent"]


async def test_a_failed_delivery_is_retried_with_growing_delays_and_becomes_undelivered(
    harness: SenderHarness,
) -> None:
    open_incident(harness)
    delays, created_at = [], harness.rows()[0]["created_at"]
    for _ in range(500):
        harness.responses = [lambda: NotificationDeliveryError("refused", "connection refused by hush-hush")]
        before = len(harness.received)
        await harness.deliver()
        assert len(harness.received) == before + 1, "due again"
        row = harness.rows()[0]
        if row["state"] == "undelivered":
            break
        assert harness.now - created_at < MAX_NOTIFICATION_AGE_MS
        delays.append(row["due_at"] - harness.now)
        harness.now = row["due_at"]
    assert delays[:4] == [
        FIRST_NOTIFICATION_RETRY_DELAY_MS,
        2 * FIRST_NOTIFICATION_RETRY_DELAY_MS,
        4 * FIRST_NOTIFICATION_RETRY_DELAY_MS,
        8 * FIRST_NOTIFICATION_RETRY_DELAY_MS,
    ]
    assert max(delays) == delays[-1] == MAX_NOTIFICATION_RETRY_DELAY_MS
    assert row["state"] == "undelivered"
    assert (
        MAX_NOTIFICATION_AGE_MS
        <= row["finished_at"] - created_at
        <= MAX_NOTIFICATION_AGE_MS + MAX_NOTIFICATION_RETRY_DELAY_MS
    )
    assert row["attempts"] == len(delays) + 1
    assert row["detail"] == "connection refused by •••", "no secret reaches a page"


async def test_the_age_of_a_resolved_notification_is_its_own(harness: SenderHarness) -> None:
    """The age of the opening in the same message does not count."""
    open_incident(harness)
    created_at = harness.rows()[0]["created_at"]
    harness.now = created_at + MAX_NOTIFICATION_AGE_MS - 1
    harness.responses = [lambda: NotificationDeliveryError("refused", "connection refused")] * 2
    await harness.deliver()
    (result,) = make_results(harness.store.database_ids[0], "p", start=harness.now)
    harness.store.record_results(result)
    harness.now = result.slot + INTERVAL_MS
    await harness.deliver()
    assert len(harness.received) == 2
    assert {row["state"] for row in harness.rows()} == {"waiting"}


async def test_a_permanent_error_is_undelivered_at_once(harness: SenderHarness) -> None:
    harness.responses = [lambda: NotificationDeliveryError("gone", "410 Gone", retry_for_s=0)]
    open_incident(harness)
    await harness.deliver()
    assert (harness.rows()[0]["state"], harness.rows()[0]["detail"]) == ("undelivered", "410 Gone")


async def test_a_configuration_error_is_retried_for_an_hour(harness: SenderHarness) -> None:
    open_incident(harness)
    harness.now += 5 * 3_600_000  # the hour begins with the first refusal, however late that is
    first_refusal = harness.now
    for now, state in (
        (first_refusal, "waiting"),
        (first_refusal + 3_599_999, "waiting"),
        (first_refusal + 5_000_000, "undelivered"),
    ):
        harness.now = now
        harness.responses = [lambda: NotificationDeliveryError("http_401", "HTTP 401", retry_for_s=3_600.0)]
        await harness.deliver()
        assert harness.rows()[0]["state"] == state


async def test_an_outage_between_two_refusals_starts_another_hour(harness: SenderHarness) -> None:
    open_incident(harness)
    errors = [
        NotificationDeliveryError("http_401", "HTTP 401", retry_for_s=3_600.0),
        NotificationDeliveryError("connection.refused", "connection refused"),
        NotificationDeliveryError("http_401", "HTTP 401", retry_for_s=3_600.0),
    ]
    for error in errors:
        harness.responses = [lambda error=error: error]  # type: ignore[misc]
        await harness.deliver()
        assert harness.rows()[0]["state"] == "waiting"
        harness.now += 2 * 3_600_000


async def test_what_some_recipients_received_is_not_undelivered_after_the_hour(harness: SenderHarness) -> None:
    partial = {"completed": ["ann@acme.example"], "refused": {}, "message_id": "<1@acme.example>"}
    open_incident(harness)
    for _ in range(2):
        harness.responses = [
            lambda: NotificationDeliveryError(
                "smtp.recipients_refused", "mailbox full", retry_for_s=3_600.0, partial_receipt=partial
            )
        ]
        with capture_logs() as log:
            await harness.deliver()
        harness.now += 3_600_000
    assert harness.rows()[0]["state"] == "sent"
    assert [line["event"] for line in log] == ["notification_delivered_in_part"]
    open_incident(harness, "pffp")
    await harness.deliver()
    assert harness.received[-1].previous_receipt["message_id"] == "<1@acme.example>", "the recovery joins the thread"


async def test_what_some_recipients_received_is_not_undelivered_after_an_outage(harness: SenderHarness) -> None:
    partial = {"completed": ["ann@acme.example"], "refused": {}, "message_id": "<1@acme.example>"}
    open_incident(harness)
    harness.responses = [lambda: NotificationDeliveryError("smtp.421", "try later", partial_receipt=partial)]
    await harness.deliver()
    harness.now += MAX_NOTIFICATION_AGE_MS
    harness.responses = [lambda: NotificationDeliveryError("connection.refused", "connection refused")]
    with capture_logs() as log:
        await harness.deliver()
    assert harness.rows()[0]["state"] == "sent"
    assert [line["event"] for line in log] == ["notification_delivered_in_part"]
    open_incident(harness, "pffp")
    await harness.deliver()
    assert harness.received[-1].previous_receipt["message_id"] == "<1@acme.example>", "the recovery joins the thread"


UNKNOWN = NotificationDeliveryError(
    "delivery.unconfirmed", "HTTP 200 does not confirm", maybe_delivered=True, partial_receipt={"message_id": "<1@a>"}
)


async def test_an_unconfirmed_notification_is_sent_three_times_and_then_once_an_hour(harness: SenderHarness) -> None:
    open_incident(harness)
    sent_after: list[int] = []
    start = harness.now
    with capture_logs() as log:
        while harness.now - start < 4 * 3_600_000:
            harness.responses = [lambda: UNKNOWN]
            before = len(harness.received)
            await harness.deliver()
            sent_after += [harness.now - start] * (len(harness.received) - before)
            after_third = harness.now - start - 3_000
            is_just_before_copy = after_third % 3_600_000 >= 3_595_000
            harness.now += (
                1_000 if after_third < 0 or is_just_before_copy else 5_000 if after_third % 60_000 else 55_000
            )
    assert sent_after == [0, 1_000, 3_000, 3_603_000, 7_203_000, 10_803_000]
    assert len({d.notification.idempotency_key for d in harness.received}) == 1
    assert harness.rows()[0]["state"] == "unconfirmed"
    (failing,) = harness.store.select_rows(failing_destinations)
    assert (failing["destination"], failing["given_up"]) == ("oncall/spy", True), "a finding of Watchdog itself"
    events = [line["event"] for line in log]
    assert events[:3] == ["notification_retry_scheduled", "notification_retry_scheduled", "notification_unconfirmed"]


async def test_the_end_of_an_unconfirmed_incident_is_sent_as_usual_and_ends_its_copies(harness: SenderHarness) -> None:
    open_incident(harness)
    for _ in range(3):
        harness.responses = [lambda: UNKNOWN]
        await harness.deliver()
        harness.now += 2_000
    open_incident(harness, "pffp")
    await harness.deliver()
    last = harness.received[-1]
    assert (last.notification.event, last.alert_context.merged) == (IncidentEvent.RESOLVED, False)
    assert last.previous_receipt == {"message_id": "<1@a>"}
    harness.now += 3 * 3_600_000
    await harness.deliver()
    assert harness.received[-1] is last
    assert [row["state"] for row in harness.rows()] == ["unconfirmed", "sent"]


async def test_a_copy_that_is_confirmed_counts_as_sent(harness: SenderHarness) -> None:
    open_incident(harness)
    for _ in range(3):
        harness.responses = [lambda: UNKNOWN]
        await harness.deliver()
        harness.now += 2_000
    harness.now += 3_600_000
    await harness.deliver()
    assert [row["state"] for row in harness.rows()] == ["sent"]


async def test_an_unconfirmed_notification_delays_no_other(harness: SenderHarness) -> None:
    open_incident(harness)
    for _ in range(3):
        harness.responses = [lambda: UNKNOWN]
        await harness.deliver()
        harness.now += 2_000
    open_incident(harness, "pffpff")
    await harness.deliver()
    assert len({d.notification.incident for d in harness.received}) == 2


async def test_a_busy_database_is_no_attempt_of_the_notifier(
    harness: SenderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, errors = load_alert_message_context, [StoreUnavailableError("database is locked by hush-hush")] * 3

    def load_when_free(*values: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return load(*values, **named)

    monkeypatch.setattr(notifications, "load_alert_message_context", load_when_free)
    open_incident(harness)
    with capture_logs() as log:
        for _ in range(3):
            await harness.deliver()
            (row,) = harness.rows()
            assert (row["state"], row["attempts"], row["lease_token"], row["detail"]) == ("waiting", 0, None, "")
            harness.now = row["due_at"]
    assert harness.received == []
    assert {(line["event"], line["error"]) for line in log} == {("notification_postponed", "database is locked by •••")}
    await harness.deliver()
    assert [(row["state"], row["attempts"]) for row in harness.rows()] == [("sent", 1)]


async def test_a_database_that_is_busy_throughout_costs_no_attempt_either(
    harness: SenderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("database is locked")

    with monkeypatch.context() as busy:
        busy.setattr(notifications, "load_alert_message_context", unavailable)
        busy.setattr(harness.store.outbox, "postpone_unattempted_notification", unavailable)
        open_incident(harness)
        await harness.deliver()
    assert [(row["state"], row["attempts"]) for row in harness.rows()] == [("waiting", 0)]
    harness.now += NOTIFICATION_LEASE_MS + 1
    await harness.deliver()
    assert [(row["state"], row["attempts"]) for row in harness.rows()] == [("sent", 1)]


async def test_nothing_is_sent_to_a_destination_before_its_retry_after(harness: SenderHarness) -> None:
    harness.responses = [lambda: NotificationDeliveryError("http.429", "429", retry_after_s=90.0)]
    open_incident(harness)
    await harness.deliver()
    open_incident(harness, "pffp")  # a new notification, due at once, at the same destination
    harness.now += 89_999
    await harness.deliver()
    assert len(harness.received) == 1
    harness.now += 1
    await harness.deliver()
    assert len(harness.received) == 2


async def test_a_retry_after_of_zero_does_not_shorten_the_delays(harness: SenderHarness) -> None:
    harness.responses = [lambda: NotificationDeliveryError("http_503", "HTTP 503", retry_after_s=0.0)] * 3
    open_incident(harness)
    for received, wait in ((1, 1_000), (2, 2_000), (3, 4_000)):
        await harness.deliver()
        assert len(harness.received) == received
        assert harness.rows()[0]["due_at"] == harness.now + wait
        harness.now += wait


async def test_a_confirmed_notification_is_not_sent_again_while_the_database_is_unavailable(
    harness: SenderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "MARK_SENT_RETRY_INTERVAL_S", 0.0)
    sent, errors = harness.store.outbox.mark_sent, [StoreUnavailableError("database is locked")] * 3

    def unavailable(*values: Any) -> None:
        harness.now += NOTIFICATION_LEASE_MS + 1
        if errors:
            raise errors.pop()
        sent(*values)

    monkeypatch.setattr(harness.store.outbox, "mark_sent", unavailable)
    open_incident(harness)
    await harness.deliver()
    await harness.deliver()
    assert len(harness.received) == 1
    assert [row["state"] for row in harness.rows()] == ["sent"]


async def test_a_bug_in_a_notifier_is_retried_and_names_no_internals(harness: SenderHarness) -> None:
    harness.responses = [lambda: KeyError("hush-hush")]
    open_incident(harness)
    await harness.deliver()
    assert (harness.rows()[0]["state"], harness.rows()[0]["detail"]) == ("waiting", "KeyError inside Watchdog")


async def test_a_notification_for_an_unknown_destination_waits_and_becomes_undelivered(
    harness: SenderHarness,
) -> None:
    harness.sender.notifiers = {}
    open_incident(harness)
    await harness.deliver()
    await harness.sender.give_up_orphaned_notifications()
    assert [(row["state"], row["attempts"]) for row in harness.rows()] == [("waiting", 0)]
    harness.now += ENDED_WATCHDOG_PROCESS_RETENTION_MS
    harness.store.membership.renew_process_lease_and_update_probes(harness.now)
    await harness.sender.give_up_orphaned_notifications()
    assert harness.rows()[0]["state"] == "waiting", "a destination that a process has is notified, however late"
    harness.now += WATCHDOG_PROCESS_LEASE_MS + ENDED_WATCHDOG_PROCESS_RETENTION_MS
    with capture_logs() as log:
        await harness.sender.give_up_orphaned_notifications()
    assert (harness.rows()[0]["state"], harness.rows()[0]["detail"]) == (
        "undelivered",
        "the destination is no longer configured",
    )
    assert [(line["event"], line["destination"]) for line in log] == [("notification_undelivered", "oncall/spy")]


async def test_a_receiver_that_never_responds_is_retried(
    harness: SenderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "NOTIFICATION_SEND_TIMEOUT_S", 0.01)

    class HangingNotifier(SpyNotifier):
        async def send(self, delivery: NotificationDeliveryRequest) -> dict[str, Json]:
            await asyncio.Event().wait()
            return {}

    harness.sender.notifiers = {"oncall/spy": HangingNotifier(script=None)}
    open_incident(harness)
    await harness.sender.start_sending_due_notifications()
    await asyncio.gather(*harness.sender._tasks_by_destination.values())
    assert (harness.rows()[0]["state"], harness.rows()[0]["detail"]) == ("waiting", "no response within 0.01 s")


class SlowNotifier(SpyNotifier):
    """Confirms once `gate` is set; counts concurrent deliveries."""

    def model_post_init(self, _: Any) -> None:
        self._started, self._gate, self._concurrent, self._max_concurrent = asyncio.Event(), asyncio.Event(), 0, 0

    async def send(self, delivery: NotificationDeliveryRequest) -> dict[str, Json]:
        self._started.set()
        self._concurrent += 1
        self._max_concurrent = max(self._max_concurrent, self._concurrent)
        await self._gate.wait()
        self._concurrent -= 1
        return {}


async def test_a_destination_gets_one_notification_at_a_time(harness: SenderHarness) -> None:
    slow_notifier = SlowNotifier(script=None)
    harness.sender.notifiers = {"oncall/spy": slow_notifier}
    open_incident(harness, "pffpff")  # two incidents
    await asyncio.gather(*(harness.sender.start_sending_due_notifications() for _ in range(3)))
    slow_notifier._gate.set()
    await harness.deliver()
    assert {row["state"] for row in harness.rows()} <= {"sent", "merged"}
    assert slow_notifier._max_concurrent == 1


async def test_notifications_leased_during_a_shutdown_are_sent_or_released(harness: SenderHarness) -> None:
    harness.sender.notifiers = {"oncall/spy": SlowNotifier(script=None)}
    open_incident(harness)
    sending = asyncio.create_task(harness.sender.start_sending_due_notifications())
    await asyncio.sleep(0)  # it has started
    await harness.sender.stop(grace_s=0)
    await sending
    assert [row["lease_token"] for row in harness.rows()] == [None]


async def test_a_shutdown_releases_its_leases(harness: SenderHarness) -> None:
    slow_notifier = SlowNotifier(script=None)
    harness.sender.notifiers = {"oncall/spy": slow_notifier}
    open_incident(harness)
    await harness.sender.start_sending_due_notifications()
    await slow_notifier._started.wait()
    await harness.sender.stop(grace_s=0)
    harness.sender = harness.make_sender()
    await harness.deliver()
    assert [row["state"] for row in harness.rows()] == ["sent"]


@pytest.mark.parametrize(("attempts", "wait"), [(1, 1_000), (2, 2_000), (10, 512_000), (11, 600_000), (29, 600_000)])
def test_backoff(attempts: int, wait: int) -> None:
    assert compute_notification_retry_delay_ms(attempts) == wait


# ------------------------------------------------------------------------------- a cause that changes, and own faults


def record_failures(harness: SenderHarness, reasons: str) -> None:
    """A bad result a minute, each with a reason and a sentence."""
    probe, previous = harness.store.database_ids[0], None
    for number, reason in enumerate(reasons.split(), 1):
        (result,) = make_results(probe, "f", start=START_AT + (number - 1) * INTERVAL_MS)
        failed = result._replace(reason=reason, message=f"sentence of {reason}", previous_slot=previous)
        harness.store.record_results(failed)
        previous = failed.slot


async def test_a_change_states_the_cause_that_the_destination_was_last_sent(harness: SenderHarness) -> None:
    record_failures(harness, "dns.failed dns.failed")
    await harness.deliver()
    record_failures(harness, "dns.failed dns.failed http.503 http.503 connection.refused connection.refused")
    await harness.deliver()
    opened, changed = harness.received
    assert (opened.notification.event, changed.notification.event) == (IncidentEvent.OPENED, IncidentEvent.CHANGED)
    assert changed.alert_context.incident.message == "sentence of connection.refused"
    assert changed.alert_context.previous_cause == "sentence of dns.failed", "http.503 was never sent"
    assert changed.previous_receipt == {"ts": "1"}


async def test_a_change_back_to_the_cause_that_was_sent_is_not_sent(harness: SenderHarness) -> None:
    record_failures(harness, "dns.failed dns.failed")
    await harness.deliver()
    record_failures(harness, "dns.failed dns.failed http.503 http.503 dns.failed dns.failed")
    await harness.deliver()
    assert len(harness.received) == 1
    assert [row["state"] for row in harness.rows()] == ["sent", "merged"]


async def test_watchdog_observes_itself_at_once_when_a_receiver_fails_and_when_it_confirms_again(
    harness: SenderHarness,
) -> None:
    observed: list[str] = []

    async def observe() -> None:
        observed.append(",".join(row["state"] for row in harness.rows()))

    harness.sender._on_receiver_change = observe
    harness.responses = [lambda: NotificationDeliveryError("http.400", "HTTP 400", retry_for_s=0)]
    open_incident(harness)
    await harness.deliver()
    assert observed == ["undelivered"], "after the failure is stored"
    open_incident(harness, "pffp")
    await harness.deliver()
    assert observed == ["undelivered", "undelivered,sent"]
