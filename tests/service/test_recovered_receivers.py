"""A receiver that works again gets at once what waited for it, and acts of people are shown during a storm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.service.test_notifications import SenderHarness, SpyNotifier
from tests.support.acts import ANA
from tests.support.store import INTERVAL_MS, StoreHarness, make_registered_probes, make_result
from watchdog.domain.delivery_pace import MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest
from watchdog.service.acts import acknowledge_incident
from watchdog.store.tables import incidents, outbox

REFUSED = NotificationDeliveryError("connection.refused", "connection refused")


class EditingSpyNotifier(SpyNotifier):
    """Edits its messages."""

    @property
    def edits_messages(self) -> bool:
        return True


@contextmanager
def running_sender(folder: Path, probe_count: int) -> Iterator[SenderHarness]:
    probes = make_registered_probes(probe_count, failure_threshold=1, success_threshold=1)
    routes = NotificationRoutingTable({"oncall": ("oncall/spy",)})
    with StoreHarness(f"sqlite:///{folder}/watchdog.db", probes, routes=routes) as store:
        harness = SenderHarness(store.without_downtime())
        yield harness
        harness.store_executor.close()


def record(harness: SenderHarness, outcome: str, *probes: int) -> None:
    """`probes`: their numbers, from 0 on."""
    for number in probes:
        probe = harness.store.database_ids[number]
        harness.store.record_results(make_result(probe, harness.now, outcome), now=harness.now)


async def test_all_that_waited_is_sent_at_once_when_the_receiver_works_again(tmp_path: Path) -> None:
    with running_sender(tmp_path, 5) as harness:
        harness.responses = [lambda: REFUSED] * 200
        record(harness, "fail", 0, 1, 2)
        for _ in range(40):
            await harness.deliver()
            harness.now += INTERVAL_MS
        waiting = harness.store.select_rows(outbox)
        assert min(row["due_at"] for row in waiting) > harness.now, "each waits for its next attempt"
        harness.received.clear()
        harness.responses.clear()
        record(harness, "fail", 3)
        await harness.deliver()
        sent = [harness.store.database_ids.index(each.alert_context.incident.probe) for each in harness.received]
        assert (sent[0], sorted(sent)) == (3, [0, 1, 2, 3])
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}


async def test_a_notification_that_is_at_fault_itself_keeps_its_delays(tmp_path: Path) -> None:
    """The receiver confirms all others, one a minute."""
    with running_sender(tmp_path, 40) as harness:
        attempts: list[int] = []
        start = harness.now

        def respond(request: NotificationDeliveryRequest) -> Any:
            is_first = request.alert_context.incident.probe == harness.store.database_ids[0]
            attempts.extend([(harness.now - start) // INTERVAL_MS] * is_first)
            return REFUSED if is_first else {}

        harness.sender.change_destinations({"oncall/spy": SpyNotifier(script=respond)}, "")
        for number in range(40):
            record(harness, "fail", number)
            await harness.deliver()
            harness.now += INTERVAL_MS
        assert len(attempts) <= 15, f"{attempts}"
        later = [minute for minute in attempts if minute > 10]
        assert all(b - a > 5 for a, b in pairwise(later)), f"{attempts}"
        states = [row["state"] for row in harness.store.select_rows(outbox)]
        assert (states.count("sent"), states.count("waiting")) == (39, 1)


async def test_an_acknowledgement_is_shown_after_a_few_messages_with_news(tmp_path: Path) -> None:
    with running_sender(tmp_path, 8) as harness:
        editing = EditingSpyNotifier(script=harness.respond)
        harness.sender.change_destinations({"oncall/spy": editing}, "")
        record(harness, "fail", *range(8))
        await harness.deliver()
        harness.received.clear()
        harness.now += INTERVAL_MS
        record(harness, "pass", *range(2, 8))
        for probe in harness.store.database_ids[:2]:
            incident = harness.store.select_row(incidents, incidents.c.probe == probe)["id"]
            acknowledge_incident(harness.store.database, incident, ANA, "", harness.now)
        await harness.deliver()
        events = [each.notification.event.value for each in harness.received]
        news, edit = "resolved", "acknowledged"
        assert events == [edit, *[news] * MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, edit, news, news]
