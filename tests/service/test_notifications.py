"""From the outbox to the receiver: at least once, in order, with patience where asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_results
from watchdog.domain.model import IncidentEvent, Json
from watchdog.domain.routing import RoutingTable
from watchdog.net import Network, SecretMask
from watchdog.notifiers.base import DeliveryError, DeliveryRequest, Notifier
from watchdog.service import notifications
from watchdog.service.notifications import (
    FIRST_RETRY_DELAY_MS,
    MAX_NOTIFICATION_AGE_MS,
    MAX_RETRY_DELAY_MS,
    NOTIFICATION_LEASE_MS,
    NotificationSender,
    retry_delay_ms,
)
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import outbox


class Spy(Notifier):
    """Answers as it is told: an exception to raise, or a receipt."""

    kind: ClassVar[str] = "spy"
    script: Any

    @property
    def recipient(self) -> str:
        return "spy"

    async def send(self, delivery: DeliveryRequest) -> dict[str, Json]:
        answer = self.script(delivery)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer or {})


class Office:
    """A mailroom over a store, with a clock that the test turns."""

    def __init__(self, lab: StoreHarness):
        self.lab, self.now = lab, START_AT + 10 * INTERVAL_MS
        self.storage = StoreExecutor(lab.database)
        self.heard: list[DeliveryRequest] = []
        self.answers: list[Callable[[], Any]] = []
        self.mailroom = self.open()

    def open(self) -> NotificationSender:
        spies: dict[str, Notifier] = {"oncall/spy": Spy(script=self.answer)}
        mask = SecretMask(["hush-hush"])
        return NotificationSender(
            store_executor=self.storage,
            outbox=self.lab.outbox,
            notifiers=spies,
            network=Network(),
            mask=mask,
            clock=lambda: self.now,
            public_url="https://status.example",
        )

    def answer(self, told: DeliveryRequest) -> Any:
        self.heard.append(told)
        return self.answers.pop(0)() if self.answers else {"ts": str(len(self.heard))}

    async def deliver(self) -> None:
        await self.mailroom.send_due_notifications()
        while self.mailroom._tasks_by_destination:
            await asyncio.gather(*self.mailroom._tasks_by_destination.values(), return_exceptions=True)
            await asyncio.sleep(0)
            await self.mailroom.send_due_notifications()

    def rows(self) -> list[dict[str, Any]]:
        return self.lab.select_rows(outbox)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    routes = RoutingTable({"oncall": ("oncall/spy",)})
    with StoreHarness(
        f"sqlite:///{tmp_path / 'watchdog.db'}",
        [make_registered_probe(failure_threshold=2, success_threshold=1)],
        routes=routes,
    ) as lab:
        made = Office(lab.without_downtime())
        yield made
        made.storage.close()


def break_it(office: Office, outcomes: str = "pff") -> None:
    for seen in make_results(office.lab.database_ids[0], outcomes):
        office.lab.record_results(seen)


async def test_an_incident_is_told_once_and_its_end_with_the_receipt_of_its_opening(office: Office) -> None:
    break_it(office)
    await office.deliver()
    assert [d.notification.event for d in office.heard] == [IncidentEvent.OPENED]
    assert office.heard[0].alert_context.incident_url.startswith("https://status.example/incidents/")
    break_it(office, "pffp")
    await office.deliver()
    assert [d.notification.event for d in office.heard] == [IncidentEvent.OPENED, IncidentEvent.RESOLVED]
    assert office.heard[1].previous_receipt == {"ts": "1"}
    assert [row["state"] for row in office.rows()] == ["sent", "sent"]
    await office.deliver()
    assert len(office.heard) == 2


async def test_opened_and_resolved_while_unreachable_become_one_message(office: Office) -> None:
    office.answers = [lambda: DeliveryError("refused", "connection refused")]
    break_it(office)
    await office.deliver()
    break_it(office, "pffp")
    office.now += FIRST_RETRY_DELAY_MS
    await office.deliver()
    assert [(d.notification.event, d.alert_context.merged) for d in office.heard] == [
        (IncidentEvent.OPENED, False),
        (IncidentEvent.RESOLVED, True),
    ]
    assert [row["state"] for row in office.rows()] == ["merged", "sent"]


async def test_a_failed_delivery_waits_longer_each_time_and_is_given_up_visibly_after_days(office: Office) -> None:
    break_it(office)
    waits, began = [], office.rows()[0]["created_at"]
    for _ in range(500):
        office.answers = [lambda: DeliveryError("refused", "connection refused by hush-hush")]
        before = len(office.heard)
        await office.deliver()
        assert len(office.heard) == before + 1, "due again, and only then"
        row = office.rows()[0]
        if row["state"] == "dead":
            break
        assert office.now - began < MAX_NOTIFICATION_AGE_MS
        waits.append(row["due_at"] - office.now)
        office.now = row["due_at"]
    assert waits[:4] == [
        FIRST_RETRY_DELAY_MS,
        2 * FIRST_RETRY_DELAY_MS,
        4 * FIRST_RETRY_DELAY_MS,
        8 * FIRST_RETRY_DELAY_MS,
    ]
    assert max(waits) == waits[-1] == MAX_RETRY_DELAY_MS
    assert row["state"] == "dead"
    assert MAX_NOTIFICATION_AGE_MS <= row["finished_at"] - began <= MAX_NOTIFICATION_AGE_MS + MAX_RETRY_DELAY_MS
    assert row["attempts"] == len(waits) + 1
    assert row["detail"] == "connection refused by •••", "no secret reaches a page"


async def test_an_end_that_goes_on_trying_is_as_old_as_itself(office: Office) -> None:
    """Not as old as the opening that it tells, too."""
    break_it(office)
    began = office.rows()[0]["created_at"]
    office.now = began + MAX_NOTIFICATION_AGE_MS - 1
    office.answers = [lambda: DeliveryError("refused", "connection refused")] * 2
    await office.deliver()
    (seen,) = make_results(office.lab.database_ids[0], "p", start=office.now)
    office.lab.record_results(seen)
    office.now = seen.slot + INTERVAL_MS
    await office.deliver()
    assert len(office.heard) == 2
    assert {row["state"] for row in office.rows()} == {"waiting"}


async def test_a_permanent_error_is_a_dead_letter_at_once(office: Office) -> None:
    office.answers = [lambda: DeliveryError("gone", "410 Gone", retry_for_s=0)]
    break_it(office)
    await office.deliver()
    assert (office.rows()[0]["state"], office.rows()[0]["detail"]) == ("dead", "410 Gone")


async def test_what_somebody_may_be_mending_is_tried_again_for_as_long_as_that_takes(office: Office) -> None:
    break_it(office)
    began = office.rows()[0]["created_at"]
    for now, state in ((began + 3_599_999, "waiting"), (began + 5_000_000, "dead")):
        office.now = now
        office.answers = [lambda: DeliveryError("http_401", "HTTP 401", retry_for_s=3_600.0)]
        await office.deliver()
        assert office.rows()[0]["state"] == state


async def test_nothing_goes_to_a_destination_before_the_time_it_named(office: Office) -> None:
    office.answers = [lambda: DeliveryError("http.429", "429", retry_after_s=90.0)]
    break_it(office)
    await office.deliver()
    break_it(office, "pffp")  # a new notification, due at once, at the same destination
    office.now += 89_999
    await office.deliver()
    assert len(office.heard) == 1
    office.now += 1
    await office.deliver()
    assert len(office.heard) == 2


async def test_who_asks_to_be_asked_at_once_is_asked_later_and_later_all_the_same(office: Office) -> None:
    office.answers = [lambda: DeliveryError("http_503", "HTTP 503", retry_after_s=0.0)] * 3
    break_it(office)
    for heard, wait in ((1, 1_000), (2, 2_000), (3, 4_000)):
        await office.deliver()
        assert len(office.heard) == heard
        assert office.rows()[0]["due_at"] == office.now + wait
        office.now += wait


async def test_what_was_confirmed_while_the_database_is_away_is_not_told_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes."""
    monkeypatch.setattr(notifications, "ACKNOWLEDGE_RETRY_INTERVAL_S", 0.0)
    sent, faults = office.lab.outbox.mark_sent, [StoreUnavailableError("database is locked")] * 3

    def away(*values: Any) -> None:
        office.now += NOTIFICATION_LEASE_MS + 1
        if faults:
            raise faults.pop()
        sent(*values)

    monkeypatch.setattr(office.lab.outbox, "mark_sent", away)
    break_it(office)
    await office.deliver()
    await office.deliver()
    assert len(office.heard) == 1
    assert [row["state"] for row in office.rows()] == ["sent"]


async def test_a_bug_in_a_notifier_is_retried_and_names_no_internals(office: Office) -> None:
    office.answers = [lambda: KeyError("hush-hush")]
    break_it(office)
    await office.deliver()
    assert (office.rows()[0]["state"], office.rows()[0]["detail"]) == ("waiting", "KeyError inside Watchdog")


async def test_what_is_for_a_destination_that_is_not_configured_here_waits_and_is_given_up_in_the_end(
    office: Office,
) -> None:
    spies, office.mailroom.notifiers = office.mailroom.notifiers, {}
    break_it(office)
    await office.deliver()
    await office.mailroom.expire_orphans()
    assert [(row["state"], row["attempts"]) for row in office.rows()] == [("waiting", 0)]
    office.now += MAX_NOTIFICATION_AGE_MS
    office.mailroom.notifiers = spies
    await office.mailroom.expire_orphans()
    assert office.rows()[0]["state"] == "waiting", "who is configured is told, however late"
    office.mailroom.notifiers = {}
    with capture_logs() as log:
        await office.mailroom.expire_orphans()
    assert (office.rows()[0]["state"], office.rows()[0]["detail"]) == (
        "dead",
        "the destination is no longer configured",
    )
    assert [(line["event"], line["destination"]) for line in log] == [("notification_undelivered", "oncall/spy")]


async def test_a_receiver_that_never_answers_is_tried_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "SEND_TIMEOUT_S", 0.01)

    class Silent(Spy):
        async def send(self, delivery: DeliveryRequest) -> dict[str, Json]:
            await asyncio.Event().wait()
            return {}

    office.mailroom.notifiers = {"oncall/spy": Silent(script=None)}
    break_it(office)
    await office.mailroom.send_due_notifications()
    await asyncio.gather(*office.mailroom._tasks_by_destination.values())
    assert (office.rows()[0]["state"], office.rows()[0]["detail"]) == ("waiting", "no response within 0.01 s")


class Slow(Spy):
    """Answers when it is let go; counts how many deliveries it is busy with."""

    def model_post_init(self, _: Any) -> None:
        self._begun, self._let_go, self._busy, self._most = asyncio.Event(), asyncio.Event(), 0, 0

    async def send(self, delivery: DeliveryRequest) -> dict[str, Json]:
        self._begun.set()
        self._busy += 1
        self._most = max(self._most, self._busy)
        await self._let_go.wait()
        self._busy -= 1
        return {}


async def test_a_destination_hears_one_thing_at_a_time_however_many_ask_to_deliver(office: Office) -> None:
    slow = Slow(script=None)
    office.mailroom.notifiers = {"oncall/spy": slow}
    break_it(office, "pffpff")  # two incidents
    await asyncio.gather(*(office.mailroom.send_due_notifications() for _ in range(3)))
    slow._let_go.set()
    await office.deliver()
    assert {row["state"] for row in office.rows()} <= {"sent", "merged"}
    assert slow._most == 1


async def test_what_is_claimed_while_we_stop_is_sent_or_given_back(office: Office) -> None:
    office.mailroom.notifiers = {"oncall/spy": Slow(script=None)}
    break_it(office)
    claiming = asyncio.create_task(office.mailroom.send_due_notifications())
    await asyncio.sleep(0)  # it has begun
    await office.mailroom.stop(grace_s=0)
    await claiming
    assert [row["lease_token"] for row in office.rows()] == [None]


async def test_stopping_gives_the_lease_back_so_that_the_next_process_sends_at_once(office: Office) -> None:
    slow = Slow(script=None)
    office.mailroom.notifiers = {"oncall/spy": slow}
    break_it(office)
    await office.mailroom.send_due_notifications()
    await slow._begun.wait()
    await office.mailroom.stop(grace_s=0)
    office.mailroom = office.open()
    await office.deliver()
    assert [row["state"] for row in office.rows()] == ["sent"]


@pytest.mark.parametrize(("tries", "wait"), [(1, 1_000), (2, 2_000), (10, 512_000), (11, 600_000), (29, 600_000)])
def test_backoff(tries: int, wait: int) -> None:
    assert retry_delay_ms(tries) == wait
