"""An acknowledgement of an incident acknowledges its alert in PagerDuty: once, after the trigger."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.delivery import DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse, FakePagerDuty
from tests.support.store import INTERVAL_MS, make_registered_probe
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.notification import UNACKNOWLEDGED_MESSAGE_TEXT
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.notifiers.pagerduty import PagerDutyNotifier
from watchdog.service.acts import (
    acknowledge_incident,
    begin_silence,
    close_incident,
    end_silence,
    remove_acknowledgement,
)
from watchdog.service.expired_acts import end_expired_silences_and_send
from watchdog.store.outbox_filters import MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS
from watchdog.store.tables import incidents, outbox

PAGER = "oncall/pagerduty"
AWAY = CannedResponse(503)
REFUSAL = CannedResponse(400, json.dumps({"status": "invalid event", "message": "no", "errors": ["no"]}).encode())
TOGETHER = NotificationRoute(("oncall",), group_by=("group",))


class PagerDutyPlay:
    """Probes whose incidents PagerDuty is notified of."""

    def __init__(self, harness: DeliveryHarness, pagerduty: FakePagerDuty):
        self.harness, self.pagerduty, self.database = harness, pagerduty, harness.store.database

    @property
    def actions(self) -> list[str]:
        """What PagerDuty was asked for, answered or not, oldest first."""
        return [request.json["event_action"] for request in self.pagerduty.received]

    @property
    def alert_states(self) -> list[str]:
        return list(self.pagerduty.alerts.values())

    def find(self, id: str) -> str:
        is_of_probe = incidents.c.probe == self.harness.store.database_id(id)
        return str(max(self.harness.store.select_rows(incidents, is_of_probe), key=lambda row: row["opened_at"])["id"])

    def record(self, outcome: str, *ids: str, **fields: str) -> None:
        self.harness.now += 1_000
        self.harness.record([self.harness.store.database_id(id) for id in ids or ("api",)], outcome, **fields)

    async def fail(self, *ids: str, **fields: str) -> None:
        self.record("fail", *ids, **fields)
        await self.harness.settle()

    async def recover(self, *ids: str) -> None:
        self.record("pass", *ids)
        await self.harness.settle()

    def acknowledge(self, id: str = "api") -> None:
        self.harness.now += 1
        acknowledge_incident(self.database, self.find(id), ANA, "", self.harness.now)

    def unacknowledge(self) -> None:
        self.harness.now += 1
        assert remove_acknowledgement(self.database, self.find("api"), BEN, "", self.harness.now)

    async def close(self, id: str) -> None:
        self.harness.now += 1
        close_incident(self.database, self.find(id), BEN, "", self.harness.now)
        await self.harness.advance(MINUTE_MS)

    def begin_silence(self) -> str:
        request = make_silence_request(self.harness.now + HOUR_MS, id="api")
        return begin_silence(self.database, request, BEN, self.harness.now).silence.id

    async def end_silence(self, id: str) -> None:
        end_silence(self.database, id, BEN, self.harness.now)
        await end_expired_silences_and_send(self.harness.executor, self.harness.sender, lambda: self.harness.now)
        await self.harness.settle()


@pytest.fixture
def pagerduty() -> Iterator[FakePagerDuty]:
    with FakePagerDuty() as standin:
        yield standin


def make_probe(id: str) -> RegisteredProbe:
    return make_registered_probe(id, failure_threshold=1, success_threshold=1, staleness_threshold=HOUR_MS)


@asynccontextmanager
async def play_of(
    folder: Path, receivers: Receivers, pagerduty: FakePagerDuty, *ids: str, route: NotificationRoute | None = None,
    without_resolved: frozenset[str] = frozenset(),
) -> AsyncIterator[PagerDutyPlay]:  # fmt: skip
    routes = NotificationRoutingTable({"oncall": (PAGER,)}, (route,) if route else (), without_resolved)
    probes = [make_probe(id) for id in ids or ("api",)]
    async with DeliveryHarness(f"sqlite:///{folder}/watchdog.db", receivers, probes, (), routes) as harness:
        notifier = PagerDutyNotifier(routing_key=SecretStr(pagerduty.routing_key), api_url=pagerduty.url)
        harness.notifiers = {PAGER: notifier}
        harness.start_sender()
        yield PagerDutyPlay(harness, pagerduty)


async def test_it_is_sent_once_and_lasts_until_the_end(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        play.acknowledge()
        await play.harness.settle()
        assert play.actions == ["trigger", "acknowledge"]
        assert play.alert_states == ["acknowledged"]
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "acknowledge"], "the first acknowledgement stays"
        await play.recover()
        assert play.actions == ["trigger", "acknowledge", "resolve"]
        assert play.alert_states == ["resolved"]
        await play.fail()
        assert play.actions[3:] == ["trigger"], "another incident is another alert"
        assert play.alert_states == ["resolved", "triggered"]


async def test_it_follows_a_trigger_that_waits(tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        pagerduty.canned_responses.append(AWAY)
        await play.fail()
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "trigger", "acknowledge"]
        assert play.alert_states == ["acknowledged"]
        keys = {(row["event"], row["state"]) for row in play.harness.store.select_rows(outbox)}
        assert keys == {("opened", "sent"), ("acknowledged", "sent")}


async def test_it_is_retried(tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        pagerduty.canned_responses += [AWAY, AWAY]
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "acknowledge", "acknowledge", "acknowledge"]
        assert play.alert_states == ["acknowledged"]


async def test_it_is_not_sent_once_the_incident_is_over(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        play.acknowledge()
        await play.recover()
        assert play.actions == ["trigger", "resolve"]
        await play.fail()
        pagerduty.canned_responses.append(AWAY)
        play.acknowledge()
        await play.harness.settle()
        await play.recover()
        await play.harness.advance(MINUTE_MS)
        assert play.actions[2:] == ["trigger", "acknowledge", "resolve"], "what failed is not sent again"


async def test_it_is_not_sent_if_the_trigger_was_given_up(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        pagerduty.canned_responses.append(REFUSAL)
        await play.fail()
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger"]


async def test_it_is_not_sent_if_the_trigger_that_waited_was_given_up(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        pagerduty.canned_responses += [AWAY, REFUSAL]
        await play.fail()
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "trigger"]


async def test_its_removal_is_not_sent(tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        play.acknowledge()
        play.unacknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger"], "nothing is left to send"
        play.acknowledge()
        await play.harness.settle()
        play.unacknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "acknowledge"]
        play.acknowledge()
        await play.harness.settle()
        assert play.actions == ["trigger", "acknowledge", "acknowledge"]


async def test_during_a_silence_it_is_sent_if_the_trigger_was(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        play.begin_silence()
        play.acknowledge()
        await play.harness.settle()
        assert play.actions == ["trigger", "acknowledge"]


@pytest.mark.parametrize("is_leased_before", [False, True])
async def test_a_silence_that_holds_back_the_trigger_holds_it_back_as_well(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty, is_leased_before: bool
) -> None:
    """What is sent when the silence ends is a new alert: someone decided to be notified of it then."""
    async with play_of(tmp_path, receivers, pagerduty) as play:
        silence = play.begin_silence()
        play.record("fail")
        if is_leased_before:
            await play.harness.settle()
        play.acknowledge()
        await play.harness.advance(MINUTE_MS)
        assert play.actions == []
        await play.end_silence(silence)
        assert play.actions == ["trigger"]
        assert play.alert_states == ["triggered"]


async def test_a_cause_that_changes_meanwhile_is_sent(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        await play.fail()
        play.acknowledge()
        await play.fail(reason="canary.lost", message="canary job lost")
        await play.harness.settle()
        assert play.actions == ["trigger", "acknowledge", "trigger"]
        assert "canary job lost" in pagerduty.received[-1].json["payload"]["summary"]
        assert play.alert_states == ["acknowledged"]


async def test_in_a_storm_it_waits_for_few_others(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    ids = [f"p{number}" for number in range(12)]
    async with play_of(tmp_path, receivers, pagerduty, "api", *ids) as play:
        await play.fail("api")
        play.record("fail", *ids)
        play.acknowledge()
        await play.harness.settle()
        assert play.actions.count("acknowledge") == 1
        assert play.actions.index("acknowledge") <= 1 + 4
        assert play.actions.count("trigger") == 13
        assert sorted(play.alert_states) == ["acknowledged", *["triggered"] * 12]


async def test_a_group_is_acknowledged_with_its_last_open_incident(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty, "api", "shop", "docs", route=TOGETHER) as play:
        await play.fail("api", "shop", "docs")
        play.acknowledge("api")
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger"], "no one is handling the others"
        await play.recover("docs")
        play.acknowledge("shop")
        await play.harness.settle()
        assert play.actions == ["trigger", "acknowledge"]
        assert play.alert_states == ["acknowledged"]
        await play.harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, step_ms=MINUTE_MS)
        assert play.actions == ["trigger", "acknowledge", "trigger"], "one of three has recovered"
        await play.recover("api", "shop")
        assert play.actions[3:] == ["resolve"]
        assert play.alert_states == ["resolved"]


@pytest.mark.parametrize("without_resolved", [frozenset(), frozenset({PAGER})])
@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_group_is_acknowledged_when_the_incident_that_no_one_is_handling_is_over(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty, is_closed: bool, without_resolved: frozenset[str]
) -> None:
    async with play_of(
        tmp_path, receivers, pagerduty, "api", "shop", route=TOGETHER, without_resolved=without_resolved
    ) as play:
        await play.fail("api", "shop")
        play.acknowledge("api")
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger"]
        rows = play.harness.store.select_rows(outbox, outbox.c.event == "acknowledged")
        assert [(row["state"], row["detail"]) for row in rows] == [("merged", UNACKNOWLEDGED_MESSAGE_TEXT)]
        await (play.close("shop") if is_closed else play.recover("shop"))
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "acknowledge"]
        assert play.alert_states == ["acknowledged"]
        await play.harness.advance(2 * MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, step_ms=MINUTE_MS)
        assert play.actions.count("acknowledge") == 1, "once"


async def test_a_group_is_acknowledged_even_if_its_last_trigger_was_given_up(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty, "api", "shop", route=TOGETHER) as play:
        await play.fail("api")
        pagerduty.canned_responses.append(REFUSAL)
        await play.fail("shop")
        await play.harness.advance(MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS, step_ms=MINUTE_MS)
        play.acknowledge("api")
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "trigger"], "no one is handling the other one"
        play.acknowledge("shop")
        await play.harness.advance(MINUTE_MS)
        assert play.actions == ["trigger", "trigger", "acknowledge"]


async def test_a_replay_gives_the_same_incidents(
    tmp_path: Path, receivers: Receivers, pagerduty: FakePagerDuty
) -> None:
    async with play_of(tmp_path, receivers, pagerduty) as play:
        for _ in range(3):
            await play.fail()
            play.acknowledge()
            await play.harness.settle()
            play.harness.now += INTERVAL_MS
            await play.recover()
            play.harness.now += INTERVAL_MS
        store = play.harness.store
        _, transitions = store.replay_probe(store.database_ids[0], play.harness.now)
        assert [transition.event for transition in transitions] == ["opened", "resolved"] * 3
        live = sorted(store.select_rows(incidents), key=lambda row: row["opened_at"])
        opened = [transition.incident for transition in transitions if transition.event == "opened"]
        assert opened == [row["id"] for row in live]
