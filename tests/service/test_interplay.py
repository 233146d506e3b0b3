"""What people get if closing by hand, groups of routes, flapping, silences, muting, maintenance, escalation and resends
meet: each row is one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.delivery import DeliveryHarness, Receivers
from tests.support.flapping import FLAP_INTERVAL_MS
from tests.support.store import DatabasePair, delete_all_rows, make_registered_probe
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.flapping import STABLE_AFTER_MS
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, NBSP
from watchdog.domain.model import Json
from watchdog.domain.muting import MutingProbe
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.notifiers.alertmanager import build_alertmanager_payload
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.pagerduty import build_pagerduty_event
from watchdog.service.acts import (
    MaintenanceRequest,
    begin_maintenance,
    begin_silence,
    close_incident,
    end_silence,
    resend_undelivered_notifications,
    silence_until_resolved,
)
from watchdog.service.expired_acts import end_expired_silences_and_send
from watchdog.service.follow_ups import send_due_reminders_and_escalations
from watchdog.service.maintenance_windows import plan_maintenance_windows
from watchdog.service.muting import decide_muting_and_send
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.outbox_filters import MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS
from watchdog.store.tables import incidents

WAIT_MS, AFTER_MS = 30_000, 15 * MINUTE_MS
BY_GROUP = NotificationRoute(("all",), group_by=("group",))
WAITING = replace(BY_GROUP, group_wait_ms=WAIT_MS)
ESCALATING = replace(
    BY_GROUP, receivers=("chat",), escalation_steps=(EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True),)
)
ALONE = NotificationRoute(("all",))
SAME_HOST = "https://same.example/"


class RecordingNotifier(Notifier):
    """Keeps what a receiver without edits gets, in the words of a message, for PagerDuty and for Alertmanager."""

    kind: ClassVar[str] = "recording"
    edits: bool = False
    requests: list[Any]
    refusals: list[str]

    @property
    def recipient(self) -> str:
        return "recording"

    @property
    def edits_messages(self) -> bool:
        return self.edits

    @property
    def accepts_merged_messages(self) -> bool:
        return False

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        if self.refusals:
            raise NotificationDeliveryError("delivery.refused", self.refusals[0], retry_for_s=0)
        self.requests.append(request)
        return {"ts": "1"}

    def list_messages(self) -> list[str]:
        """The event and the first line of each."""
        return [
            f"{request.alert_context.event}: {compose_alert_message(request.alert_context).change_text_or_headline}"
            for request in self.requests
        ]

    def check_that_nothing_stays_open(self) -> None:
        """At PagerDuty and Alertmanager, once all incidents are over."""
        alerts: dict[str, str] = {}
        firing: dict[tuple[str, str, str], str] = {}
        for request in self.requests:
            event: Any = build_pagerduty_event("k", request.notification, request.alert_context)
            alerts[event["dedup_key"]] = event["event_action"]
            payload: Any = build_alertmanager_payload(request.notification, request.alert_context)
            for alert in payload["alerts"]:
                firing[payload["groupKey"], alert["fingerprint"], alert["startsAt"]] = alert["status"]
        assert set(alerts.values()) <= {"resolve"}
        open_alerts = {(key, fingerprint) for (key, fingerprint, _), status in firing.items() if status == "firing"}
        over = {(key, fingerprint) for (key, fingerprint, _), status in firing.items() if status == "resolved"}
        assert open_alerts <= over


class Play:
    """A receiver that cannot edit messages (pager), and one that can (chat)."""

    def __init__(self, harness: DeliveryHarness, pager: RecordingNotifier, chat: RecordingNotifier):
        self.harness, self.pager, self.chat = harness, pager, chat
        self.database, self._taken_count = harness.store.database, 0

    async def fail(self, *ids: str) -> None:
        await self._record("fail", *ids)

    async def recover(self, *ids: str) -> None:
        await self._record("pass", *ids)

    async def _record(self, outcome: str, *ids: str) -> None:
        self.harness.now += 1_000
        self.harness.record([self.harness.store.database_id(id) for id in ids], outcome)
        await self.harness.settle()

    async def flap(self, id: str, outcomes: str, interval_ms: int = FLAP_INTERVAL_MS) -> None:
        """ "fp": a bad and a good result, and the time after each."""
        for outcome in outcomes:
            await self._record("fail" if outcome == "f" else "pass", id)
            self.harness.now += interval_ms - 1_000

    def find(self, id: str) -> str:
        """The newest incident of a probe."""
        is_of_probe = incidents.c.probe == self.harness.store.database_id(id)
        rows = self.harness.store.select_rows(incidents, is_of_probe)
        return str(max(rows, key=lambda row: row["opened_at"])["id"])

    async def close(self, id: str) -> None:
        self.harness.now += 1_000
        close_incident(self.database, self.find(id), ANA, "host removed", self.harness.now)
        await self.wait(0)

    def silence(self, id: str) -> str:
        request = make_silence_request(self.harness.now + HOUR_MS, id=id)
        return begin_silence(self.database, request, BEN, self.harness.now).silence.id

    async def wait(self, ms: int) -> None:
        """And carry out what silences, muting and flapping lead to then."""
        self.harness.now += ms
        await end_expired_silences_and_send(*self._service)
        await decide_muting_and_send(*self._service)
        await self.harness.settle()

    async def escalate(self) -> None:
        await send_due_reminders_and_escalations(*self._service)
        await self.harness.settle()

    async def maintain(self, id: str) -> None:
        request = MaintenanceRequest(ProbeMatcher(probe=id), self.harness.now + HOUR_MS, "move")
        begin_maintenance(self.database, request, BEN, self.harness.now)
        await plan_maintenance_windows(self.harness.executor, self.harness.store.membership, lambda: self.harness.now)
        await self.harness.settle()

    @property
    def _service(self) -> tuple[StoreExecutor, NotificationSender, Callable[[], int]]:
        return self.harness.executor, self.harness.sender, lambda: self.harness.now

    async def expect(self, *messages: str) -> None:
        """The pager has got these since the last call, without how long it took."""
        assert await self._take() == list(messages)

    async def expect_last(self, message: str) -> None:
        assert (await self._take())[-1] == message

    async def _take(self) -> list[str]:
        await self.harness.settle()
        taken = self.pager.list_messages()[self._taken_count :]
        self._taken_count += len(taken)
        return [text.replace(NBSP, " ").partition(" · ")[0] for text in taken]


def make_probe(id: str, *needs: str, target: str = "") -> RegisteredProbe:
    probe = make_registered_probe(id, failure_threshold=1, success_threshold=1, staleness_threshold=HOUR_MS)
    info = replace(probe.info, group="Search", target=target or f"https://{id}.example/")
    return replace(probe, policy=replace(probe.policy, probe=info), muting_probes=tuple(map(MutingProbe, needs)))


# --- rows

OPENED_A, OPENED_B = "opened: Down: A: HTTP 503", "opened: Down: B: HTTP 503"
CLOSED_A, CLOSED_B = (f"resolved: {name}: closed by Ana: host removed" for name in "AB")


async def close_what_flaps(play: Play) -> None:
    """Nothing is sent at once. Once the alert is stable, the end is that of the newest incident."""
    await play.flap("a", "fpfpfpf")
    await play.close("a")
    await play.expect_last("opened: A is flapping: 3 incidents in 8 min, last cause: HTTP 503")
    await play.wait(STABLE_AFTER_MS - 1)
    await play.expect()
    await play.wait(1)
    await play.expect(CLOSED_A)


async def go_on_flapping_after_a_close(play: Play) -> None:
    """What opens after a close is not sent, and the end is that of the newest incident."""
    await play.flap("a", "fpfpf")
    await play.close("a")
    await play.flap("a", "fp")
    await play.wait(STABLE_AFTER_MS)
    assert [text.partition(" since ")[0] for text in play.pager.list_messages()[5:]] == ["resolved: A has been stable"]


async def close_one_of_a_label_group(play: Play) -> None:
    """The message names it as closed, and the others as before; the last one ends the message."""
    await play.fail("a", "b")
    await play.expect("opened: Down: 2 probes (group Search): A: HTTP 503, and 1 more")
    await play.close("a")
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    await play.expect("changed: Down: 1 of 2 probes (group Search): B: HTTP 503")
    await play.close("b")
    await play.expect("resolved: 2 probes (group Search) were closed")


async def close_one_of_a_cause_group(play: Play) -> None:
    """Only a message that can be edited shows it before all are over."""
    await play.fail("a", "b")
    await play.expect("opened: Down: 2 probes (same.example:443): HTTP 503")
    await play.close("a")
    await play.wait(HOUR_MS)
    await play.expect()
    assert len(play.chat.requests) == 2
    await play.recover("b")
    await play.expect("resolved: 2 probes (same.example:443) recovered")


async def close_all_while_the_message_waits(play: Play) -> None:
    """One message reports what was wrong and its end; PagerDuty is not triggered."""
    await play.fail("a")
    await play.close("a")
    await play.expect()
    await play.wait(WAIT_MS)
    await play.expect(CLOSED_A)
    assert play.pager.requests[0].alert_context.merged


async def close_one_while_the_message_waits(play: Play) -> None:
    """The first message states it."""
    await play.fail("a", "b")
    await play.close("a")
    await play.wait(WAIT_MS)
    await play.expect("opened: Down: 1 of 2 probes (group Search): B: HTTP 503")
    await play.close("b")
    await play.expect("resolved: 2 probes (group Search) were closed")


async def silence_and_close_while_the_message_waits(play: Play) -> None:
    """Nothing is sent about it, neither now nor when the silence ends; the others are sent in their time."""
    await play.fail("a", "b")
    silence = play.silence("a")
    await play.close("a")
    await play.wait(WAIT_MS)
    await play.expect(OPENED_B)
    end_silence(play.database, silence, BEN, play.harness.now)
    await play.wait(HOUR_MS)
    await play.expect()
    await play.close("b")
    await play.expect(CLOSED_B)


async def close_what_was_sent_before_it_was_silenced(play: Play) -> None:
    """Its end is sent, and a silence until it is resolved ends."""
    await play.fail("a")
    silence_until_resolved(play.database, play.find("a"), BEN, "", play.harness.now)
    await play.close("a")
    await play.expect(OPENED_A, CLOSED_A)
    await play.fail("a")
    await play.expect(OPENED_A)
    await play.close("a")


async def a_silence_ends_after_the_message_was_over(play: Play) -> None:
    """What it held back is another message, although it opened in the group: no one would look at the former one."""
    silence = play.silence("a")
    await play.fail("a")
    await play.fail("b")
    await play.close("b")
    await play.expect(OPENED_B, CLOSED_B)
    end_silence(play.database, silence, BEN, play.harness.now)
    await play.expect(OPENED_A)
    assert [bool(request.previous_receipt) for request in play.chat.requests] == [False, True, False]
    await play.fail("c")
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    await play.expect("changed: Down: 2 probes (group Search): A: HTTP 503, and 1 more")
    await play.recover("a", "c")
    await play.expect("resolved: 2 probes (group Search) recovered")
    assert [bool(request.previous_receipt) for request in play.chat.requests[3:]] == [True, True]


async def close_what_mutes_in_the_same_group(play: Play) -> None:
    """The alert that it muted is sent, in the message that it then shares."""
    await play.fail("a")
    await play.fail("s")
    await play.expect(OPENED_A)
    await play.close("a")
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    await play.expect("changed: Down: 1 of 2 probes (group Search): S: HTTP 503")
    await play.close("s")
    await play.expect("resolved: 2 probes (group Search) were closed")


async def flap_in_a_label_group(play: Play) -> None:
    """The message goes on while a member flaps, takes further incidents, and ends once all are over."""
    await play.fail("b")
    await play.flap("a", "fpfpfp")
    await play.close("b")
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    await play.expect_last("changed: Down: 1 of 4 incidents (group Search): A: HTTP 503")
    await play.fail("c")
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    await play.expect_last("changed: Down: 2 of 5 incidents (group Search): A: HTTP 503, and 1 more")
    await play.wait(STABLE_AFTER_MS)
    await play.expect("changed: Down: 1 of 5 incidents (group Search): C: HTTP 503")
    await play.recover("c")
    await play.expect("resolved: 5 incidents (group Search) recovered")


async def stay_open_after_flapping_in_a_label_group(play: Play) -> None:
    """It stays the message of the group, although all other incidents were over before."""
    await play.fail("b")
    await play.flap("a", "fpfpfpf")
    await play.close("b")
    await play.wait(STABLE_AFTER_MS)
    await play.wait(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    assert all(request.previous_receipt for request in play.chat.requests[1:])
    await play.expect_last("changed: Down: 1 of 4 incidents (group Search): A: HTTP 503")
    await play.recover("a")


async def flap_while_the_message_waits(play: Play) -> None:
    """One message for all of it, and another one when the alert is stable."""
    await play.flap("a", "fpfpfp", 1_000)
    await play.wait(WAIT_MS)
    await play.expect("opened: Down: 1 of 3 incidents (A): HTTP 503")
    await play.wait(STABLE_AFTER_MS)
    await play.expect("resolved: 3 incidents (A) recovered")


async def maintenance_begins_while_the_message_waits(play: Play) -> None:
    """It is sent in its time, because the incidents opened before, and states the maintenance."""
    await play.fail("a", "b")
    await play.maintain("a")
    await play.expect()
    await play.wait(WAIT_MS)
    await play.expect("opened: Down: 2 probes (group Search): A: HTTP 503, and 1 more")
    assert [hold.incident for hold in play.chat.requests[0].alert_context.holds] == [play.find("a")]
    await play.close("a")
    await play.close("b")


async def send_again_after_a_close(play: Play) -> None:
    """What was undelivered of a group is sent with what is closed since."""
    play.pager.refusals.append("gone")
    await play.fail("a", "b")
    await play.close("a")
    play.pager.refusals.clear()
    resend_undelivered_notifications(play.database, play.find("a"), "", ANA, "", now=play.harness.now)
    await play.expect("opened: Down: 1 of 2 probes (group Search): B: HTTP 503")
    await play.close("b")
    await play.expect("resolved: 2 probes (group Search) were closed")


async def escalate_what_is_not_closed(play: Play) -> None:
    """Further receivers are notified of the incidents of a group that are still open, and of their end."""
    await play.fail("a", "b")
    await play.close("a")
    await play.wait(AFTER_MS)
    await play.escalate()
    await play.expect(OPENED_B)
    await play.close("b")
    await play.expect(CLOSED_B)


ROWS: list[tuple[Callable[[Play], Awaitable[None]], NotificationRoute]] = [
    (close_what_flaps, ALONE),
    (go_on_flapping_after_a_close, ALONE),
    (close_one_of_a_label_group, BY_GROUP),
    (close_one_of_a_cause_group, ALONE),
    (close_all_while_the_message_waits, WAITING),
    (close_one_while_the_message_waits, WAITING),
    (silence_and_close_while_the_message_waits, WAITING),
    (close_what_was_sent_before_it_was_silenced, ALONE),
    (close_what_mutes_in_the_same_group, BY_GROUP),
    (flap_in_a_label_group, BY_GROUP),
    (stay_open_after_flapping_in_a_label_group, BY_GROUP),
    (flap_while_the_message_waits, WAITING),
    (maintenance_begins_while_the_message_waits, WAITING),
    (send_again_after_a_close, BY_GROUP),
    (escalate_what_is_not_closed, ESCALATING),
]


async def run_row(
    database: Database,
    receivers: Receivers,
    row: Callable[[Play], Awaitable[None]],
    route: NotificationRoute,
) -> None:
    target = SAME_HOST if row is close_one_of_a_cause_group else ""
    probes = [*(make_probe(id, target=target) for id in ("a", "b", "c")), make_probe("s", "a")]
    names = ("pager/webhook", "bot/slack")
    table = NotificationRoutingTable({"all": names, "chat": names[1:], "pager": names[:1]}, (route,))
    async with DeliveryHarness(database, receivers, probes, names, table) as harness:
        pager, chat = (RecordingNotifier(edits=edits, requests=[], refusals=[]) for edits in (False, True))
        harness.notifiers = {"pager/webhook": pager, "bot/slack": chat}
        harness.start_sender()
        await row(Play(harness, pager, chat))
        pager.check_that_nothing_stays_open()


@pytest.mark.parametrize(("row", "route"), ROWS, ids=[row.__name__ for row, _ in ROWS])
async def test_row(
    on_sqlite: DatabasePair, receivers: Receivers, row: Callable[[Play], Awaitable[None]], route: NotificationRoute
) -> None:
    delete_all_rows(on_sqlite.first)
    await run_row(on_sqlite.first, receivers, row, route)


async def test_a_silence_that_ends_after_the_message_was_over(database: Database, receivers: Receivers) -> None:
    await run_row(database, receivers, a_silence_ends_after_the_message_was_over, BY_GROUP)
