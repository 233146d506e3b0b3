"""Edits that show acts of people are sent between messages with news, and do not wait until a storm is over."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.acts import ANA
from tests.support.store import INTERVAL_MS, LEASE_MS, START_AT, StoreHarness, make_registered_probes, make_result
from watchdog.domain.delivery_pace import MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS
from watchdog.domain.model import Outcome
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident
from watchdog.store.database import Database
from watchdog.store.tables import incidents

SLOT = START_AT + INTERVAL_MS
SLACK = "oncall/slack"
PROBE_COUNT = 8


def make_harness(database: Database) -> StoreHarness:
    probes = make_registered_probes(PROBE_COUNT, failure_threshold=1, success_threshold=1)
    routes = NotificationRoutingTable({"oncall": (SLACK,)})
    return StoreHarness(database, probes, routes=routes).without_downtime()


def record(harness: StoreHarness, outcome: Outcome, at: int, first_probe: int = 0) -> None:
    """One result of each probe from this one on, 1 ms apart."""
    for number, probe in enumerate(harness.database_ids[first_probe:]):
        harness.record_results(make_result(probe, at, outcome), now=at + number)


def send_all(harness: StoreHarness, now: int, *, counts_news: bool) -> list[str]:
    """As a process does. Returns the events."""
    events: list[str] = []
    news_since_edit: Counter[str] = Counter()
    while leased := harness.outbox.lease_due_notifications(
        now, LEASE_MS, [SLACK], [SLACK], news_since_edit=news_since_edit
    ):
        (each,) = leased
        events.append(each.notification.event.value)
        if counts_news:
            news_since_edit[SLACK] = 0 if each.states_no_news else news_since_edit[SLACK] + 1
        harness.outbox.mark_sent(each, {"ts": str(len(events))}, now, "headline", "cause")
    return events


@pytest.mark.parametrize("counts_news", [True, False])
def test_an_acknowledgement_is_sent_after_a_few_messages_with_news(database: Database, counts_news: bool) -> None:
    """Two acknowledgements are older than the news of the other incidents."""
    harness = make_harness(database)
    record(harness, Outcome.FAIL, SLOT)
    now = SLOT + INTERVAL_MS
    assert send_all(harness, now, counts_news=counts_news) == ["opened"] * PROBE_COUNT
    for probe in harness.database_ids[:2]:
        incident = harness.select_row(incidents, incidents.c.probe == probe)["id"]
        acknowledge_incident(database, incident, ANA, "", now)
    record(harness, Outcome.PASS, now, first_probe=2)
    news, edit = "resolved", "acknowledged"
    expected = [*[news] * MAX_NEWS_MESSAGES_SENT_WHILE_EDIT_WAITS, edit, news, news, edit]
    assert send_all(harness, now + INTERVAL_MS, counts_news=counts_news) == (
        expected if counts_news else [*[news] * 6, edit, edit]
    )
