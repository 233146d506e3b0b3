"""The central property with acts: the fold decides as without them, and each destination gets what people must know.

Histories are generated: results, acknowledgements, silences that start, end or expire, reminders, escalations, and
deliveries, in any order.
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
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.model import IncidentTransition
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import (
    acknowledge_incident,
    begin_silence,
    end_silence,
    remove_acknowledgement,
    silence_until_resolved,
)
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.tables import incidents
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.silence_ends import end_expired_silences

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
PROBE_IDS = ("a", "b")
DESTINATIONS = ("oncall/email", "oncall/slack")
REPEAT_MS, AFTER_MS, PAGER = 3 * INTERVAL_MS, 2 * INTERVAL_MS, "pager/webhook"
ESCALATION = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("result"), st.sampled_from(PROBE_IDS), st.sampled_from(["fail", "fail", "lost", "pass"])),
        st.tuples(st.just("silence"), st.sampled_from([*PROBE_IDS, ""]), st.integers(1, 5)),
        st.tuples(st.just("silence until resolved"), st.integers(0, 5), st.none()),
        st.tuples(st.just("unsilence"), st.integers(0, 5), st.none()),
        st.tuples(st.sampled_from(["acknowledge", "unacknowledge"]), st.integers(0, 5), st.none()),
        st.tuples(st.just("send"), st.sampled_from(["sent", "sent", "lost lease", "refused"]), st.none()),
        st.tuples(st.just("expire"), st.none(), st.none()),
        st.tuples(st.just("follow up"), st.none(), st.none()),
    ),
    min_size=12,
    max_size=30,
)


@dataclass
class LiveRun:
    """One process that does all the steps, a minute apart, and notes what was sent."""

    harness: StoreHarness
    now: int = START_AT
    transitions: list[IncidentTransition] = field(default_factory=list)
    openings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each (incident, destination) was sent `opened`."""
    last_sent_at: dict[tuple[str, str], int] = field(default_factory=dict)
    """When each (incident, destination) was last sent anything."""

    def do(self, step: str, which: Any, how: Any) -> None:
        self.now += INTERVAL_MS
        database = self.harness.database
        match step:
            case "result":
                reason: dict[str, Any] = {"reason": "canary.lost", "message": "lost"} if how == "lost" else {}
                outcome = "pass" if how == "pass" else "fail"
                result = make_result(self.harness.database_id(which), self.now, outcome, **reason)
                self.transitions += self.harness.record_results(result, now=self.now)
            case "silence":
                request = make_silence_request(self.now + how * INTERVAL_MS, id=which)
                begin_silence(database, request, ANA, self.now)
            case "silence until resolved":
                self.act_on(incidents, which, lambda key: silence_until_resolved(database, key, ANA, "", self.now))
            case "unsilence":
                self.act_on(silences, which, lambda key: end_silence(database, key, BEN, self.now))
            case "acknowledge":
                self.act_on(incidents, which, lambda key: acknowledge_incident(database, key, ANA, "", self.now))
            case "unacknowledge":
                self.act_on(incidents, which, lambda key: remove_acknowledgement(database, key, BEN, "", self.now))
            case "send":
                self.send(which)
            case "expire":
                end_expired_silences(database, self.now)
            case "follow up":
                enqueue_due_reminders_and_escalations(database, self.now)

    def act_on(self, table: Any, which: int, act: Any) -> None:
        rows = self.harness.select_rows(table)
        if which < len(rows):
            try:
                act(rows[which]["id"])
            except OperatorActRefusedError:
                return

    def send(self, how: str) -> None:
        """Send everything that is due; each row counts as what it reports."""
        while leased := self.harness.lease_notifications(self.now):
            for each in leased:
                self.check_not_silenced(each.main_incident, each.notification.destination, each.notification.event)
                if each.notification.event == "reminder":
                    self.check_reminder(each.main_incident, each.notification.destination)
                if how == "refused":
                    self.harness.outbox.schedule_notification_retry(each, self.now + 1, "HTTP 500", failed_at=self.now)
                    continue
                if how == "lost lease":  # the process was killed before it sent anything
                    self.harness.outbox.postpone_unattempted_notification(each, self.now + 1)
                    continue
                if each.notification.event == "opened" or each.merged:
                    self.openings[each.main_incident, each.notification.destination] += 1
                self.last_sent_at[each.main_incident, each.notification.destination] = self.now
                self.harness.outbox.mark_sent(each, {"ts": "1"}, self.now, "headline", "cause")

    def check_reminder(self, incident: str, destination: str) -> None:
        row = self.harness.select_row(incidents, incidents.c.id == incident)
        assert (row["resolved_at"], row["acknowledged_at"]) == (None, None), "no one needs it"
        assert self.openings[incident, destination] == 1, "the destination knows of the incident"
        assert self.now - self.last_sent_at[incident, destination] >= REPEAT_MS

    def check_not_silenced(self, incident: str, destination: str, event: str) -> None:
        """Only the end of what the destination knows of is sent during a silence."""
        selecting = {
            row["silence"]
            for row in self.harness.select_rows(silenced_incidents, silenced_incidents.c.incident == incident)
        }
        in_effect = {row["id"] for row in self.harness.select_rows(silences, silence_is_in_effect)}
        if selecting & in_effect:
            assert event == "resolved"
            assert self.openings[incident, destination] == 1


def check_history(pair: DatabasePair, steps: list[tuple[str, Any, Any]]) -> None:
    delete_all_rows(pair.first)
    probes = [make_registered_probe(id, failure_threshold=1, success_threshold=1) for id in PROBE_IDS]
    probes = [replace(probe, repeat_interval_ms=REPEAT_MS) for probe in probes]
    routes = NotificationRoutingTable(
        {"oncall": DESTINATIONS, "pager": (PAGER,)}, (NotificationRoute(("oncall",), escalation_steps=(ESCALATION,)),)
    )
    run = LiveRun(StoreHarness(pair.first, probes, routes=routes).without_downtime())
    for step in steps:
        run.do(*step)
    for probe in run.harness.database_ids:
        states, transitions = run.harness.replay_probe(probe, run.now)
        assert states == run.harness.load_alert_states(probe), "replay equals live"
        assert transitions == [each for each in run.transitions if each.probe == probe]
    run.now += 10 * INTERVAL_MS
    end_expired_silences(pair.first, run.now)
    for silence in run.harness.select_rows(silences, silence_is_in_effect):
        incident = run.harness.select_row(incidents, incidents.c.id == silence["incident"])
        assert incident["resolved_at"] is None, "a silence until an incident is resolved ends with it"
        end_silence(pair.first, silence["id"], BEN, run.now)
    for _ in range(3):  # changes wait for each other
        enqueue_due_reminders_and_escalations(pair.first, run.now)
        run.send("sent")
        run.now += 10 * INTERVAL_MS
    for row in run.harness.select_rows(incidents):
        for destination in DESTINATIONS:
            count = run.openings[row["id"], destination]
            assert count <= 1, "no destination is sent an incident twice"
            if row["resolved_at"] is None:
                assert count == 1, "an open incident is sent once no silence selects it any more"
        escalated = run.openings[row["id"], PAGER]
        assert escalated <= 1
        if row["resolved_at"] is None and row["acknowledged_at"] is None:
            assert escalated == 1, "an open incident that no one has acknowledged is escalated once"


@settings(max_examples=20, **COMMON)
@given(steps=STEPS)
def test_acts_change_no_decision_and_lose_no_notification(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)


@settings(max_examples=8, **COMMON)
@given(steps=STEPS)
def test_the_same_on_postgresql(on_postgres: DatabasePair, steps: list[Any]) -> None:
    check_history(on_postgres, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [("silence", "", 5), ("result", "a", "fail"), ("result", "b", "fail"), ("send", "sent", None)],
        [("result", "a", "fail"), ("silence", "a", 1), ("result", "a", "lost"), ("send", "sent", None)],
        [("result", "a", "fail"), ("send", "sent", None), ("silence", "a", 1), ("send", "sent", None)],
        [("result", "a", "fail"), ("send", "refused", None), ("silence", "a", 1), ("result", "a", "pass")],
        [("result", "a", "fail"), ("silence until resolved", 0, None), ("send", "sent", None), ("result", "a", "lost")],
        [
            *(("result", "a", "fail"), ("silence until resolved", 0, None), ("result", "a", "pass")),
            *(("expire", None, None), ("send", "sent", None), ("result", "a", "fail"), ("send", "sent", None)),
        ],
    ],
)
def test_histories_by_hand(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)
