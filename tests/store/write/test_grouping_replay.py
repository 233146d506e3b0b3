"""The central property of grouping: each incident is in exactly one opening message at each destination.

Histories are generated: results, silences, deliveries that succeed or fail, processes that are killed, and reloads with
other routes, in any order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.store import (
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probe,
    make_result,
)
from watchdog.domain.formatting import DAY_MS, MINUTE_MS
from watchdog.domain.model import IncidentTransition
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import begin_silence, end_silence
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.group_tables import incident_groups
from watchdog.store.tables import incidents, messages, outbox
from watchdog.store.write.outbox_lease import LeasedNotification
from watchdog.store.write.silence_ends import end_expired_silences

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
BOT, EMAIL = "bot/slack", "mail/email"
WAIT_MS, STEP_MS = 30_000, 10_000
SHARED_TARGET = "https://db.example/"
PROBES = {"a": ("Search", ""), "b": ("Search", SHARED_TARGET), "m": ("Media", SHARED_TARGET), "n": ("Media", "")}
"""Id -> group and target; by default, each is on a host of its own."""
BOTH = NotificationRoute(("bot", "mail"), group_by=("group",), group_wait_ms=WAIT_MS)
ROUTES = (
    (BOTH,),
    (replace(BOTH, group_by=(), group_wait_ms=3 * WAIT_MS),),
    (replace(BOTH, group_by=None, group_wait_ms=0),),
    (replace(BOTH, receivers=("bot",), continue_matching=True, group_by=None), replace(BOTH, receivers=("mail",))),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("result"), st.sampled_from([*PROBES]), st.sampled_from(["fail", "fail", "pass"])),
        st.tuples(st.just("silence"), st.sampled_from([*PROBES, ""]), st.integers(1, 9)),
        st.tuples(st.just("send"), st.sampled_from(["sent", "sent", "killed", "refused"]), st.none()),
        st.tuples(st.just("expire"), st.none(), st.none()),
        st.tuples(st.just("reload"), st.sampled_from(ROUTES), st.none()),
    ),
    min_size=10,
    max_size=24,
)


def make_probes() -> list[RegisteredProbe]:
    probes = []
    for id, (group, target) in PROBES.items():
        probe = make_registered_probe(id, failure_threshold=1, success_threshold=1, staleness_threshold=DAY_MS)
        info = replace(probe.info, group=group, target=target or f"https://{id}.example/")
        probes.append(replace(probe, policy=replace(probe.policy, probe=info)))
    return probes


@dataclass
class LiveRun:
    """One process at a time that does all the steps, ten seconds apart, and notes what was sent."""

    harness: StoreHarness
    now: int = START_AT
    transitions: list[IncidentTransition] = field(default_factory=list)
    openings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """In how many messages that a destination got each (incident, destination) was opened."""

    def do(self, step: str, which: Any, how: Any) -> None:
        self.now += STEP_MS
        database = self.harness.database
        match step:
            case "result":
                result = make_result(self.harness.database_id(which), self.now, how)
                self.transitions += self.harness.record_results(result, now=self.now)
            case "silence":
                begin_silence(database, make_silence_request(self.now + how * STEP_MS, id=which), ANA, self.now)
            case "send":
                self.send(which)
            case "expire":
                end_expired_silences(database, self.now)
            case "reload":
                self.reload(which)

    def reload(self, routes: tuple[NotificationRoute, ...]) -> None:
        table, previous = replace(self.harness.routes, routes=routes), self.harness
        self.harness = StoreHarness(previous.database, make_probes(), routes=table, now=self.now, create_schema=False)
        self.harness.without_downtime()
        previous.membership.leave(self.now)

    def send(self, how: str) -> None:
        """Send everything that is due."""
        while leased := self.harness.outbox.lease_due_notifications(self.now, STEP_MS // 2, (BOT, EMAIL), (BOT,)):
            for each in leased:
                self.check_first_message(each)
                if how == "killed":  # before anything was sent: the lease expires
                    continue
                if how == "refused":
                    self.harness.outbox.schedule_notification_retry(each, self.now + 1, "HTTP 500", failed_at=self.now)
                    continue
                opened = (outbox.c.lease_token == each.lease_token, outbox.c.event == "opened")
                for row in self.harness.select_rows(outbox, *opened):
                    self.openings[row["incident"], row["destination"]] += 1
                    assert row["incident"] in (each.named_incidents or (each.main_incident,)), "the message names it"
                self.harness.outbox.mark_sent(each, {"ts": "1"}, self.now, "headline", "cause")

    def check_first_message(self, leased: LeasedNotification) -> None:
        destination = leased.notification.destination
        for lead in leased.lead_incidents:
            is_own = (messages.c.incident == lead, messages.c.destination == destination)
            if not self.harness.select_rows(messages, *is_own):
                is_group = (incident_groups.c.lead_incident == lead, incident_groups.c.destination == destination)
                groups = self.harness.select_rows(incident_groups, *is_group)
                assert all(group["first_message_at"] <= self.now for group in groups), "it has waited"


def check_history(pair: DatabasePair, steps: list[tuple[str, Any, Any]]) -> None:
    delete_all_rows(pair.first)
    table = NotificationRoutingTable({"bot": (BOT,), "mail": (EMAIL,)}, ROUTES[0])
    run = LiveRun(StoreHarness(pair.first, make_probes(), routes=table).without_downtime())
    for step in steps:
        run.do(*step)
    for probe in run.harness.database_ids:
        states, transitions = run.harness.replay_probe(probe, run.now)
        assert states == run.harness.load_alert_states(probe), "replay equals live"
        assert transitions == [each for each in run.transitions if each.probe == probe]
    run.now += 10 * MINUTE_MS
    end_expired_silences(pair.first, run.now)
    for silence in run.harness.select_rows(silences, silence_is_in_effect):
        end_silence(pair.first, silence["id"], BEN, run.now)
    for _ in range(3):  # further messages wait for each other
        run.now += 10 * MINUTE_MS
        run.send("sent")
    silenced = {row["incident"] for row in run.harness.select_rows(silenced_incidents)}
    for row in run.harness.select_rows(incidents):
        for destination in (BOT, EMAIL):
            count = run.openings[row["id"], destination]
            assert count <= 1, "no destination is sent an incident twice"
            if row["resolved_at"] is None or row["id"] not in silenced:
                assert count == 1, "an incident is lost only if it was over before a silence ended"
    rows = run.harness.select_rows(outbox)
    open_incidents = {row["id"] for row in run.harness.select_rows(incidents, incidents.c.resolved_at.is_(None))}
    grouped = {row["lead_incident"] for row in rows if row["incident"] in open_incidents}
    waiting = [row for row in rows if row["state"] == "waiting" and row["lead_incident"] not in grouped]
    assert waiting == [], "nothing waits once all incidents of a message are over"


@settings(max_examples=12, **COMMON)
@given(steps=STEPS)
def test_each_incident_is_opened_in_one_message(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)


@settings(max_examples=4, **COMMON)
@given(steps=STEPS)
def test_the_same_on_postgresql(on_postgres: DatabasePair, steps: list[Any]) -> None:
    check_history(on_postgres, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [("result", "a", "fail"), ("silence", "a", 1), ("result", "b", "fail"), ("send", "sent", None)],
        [("result", "a", "fail"), ("send", "sent", None), ("reload", ROUTES[2], None), ("result", "b", "fail")],
        [("result", "b", "fail"), ("result", "m", "fail"), ("result", "a", "fail"), ("result", "b", "pass")],
        [("silence", "", 9), ("result", "a", "fail"), ("result", "b", "fail"), ("send", "sent", None)],
    ],
)
def test_histories_by_hand(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)
