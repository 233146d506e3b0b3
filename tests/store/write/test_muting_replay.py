"""The central property with muting: the fold decides as without it, and each destination gets what people must know.

Histories are generated: results of three probes that need one another, silences, pauses, acknowledgements, decisions
and deliveries, in any order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.acts import ANA, make_silence_request
from tests.support.muting import decide, make_probe
from tests.support.store import START_AT, DatabasePair, StoreHarness, delete_all_rows, make_result
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import IncidentTransition
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident, begin_silence, pause_probe, resume_probe
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.silence_ends import end_expired_silences

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
NEEDS: dict[str, tuple[str, ...]] = {"db": (), "api": ("db",), "search": ("api", "db")}
DESTINATIONS = ("oncall/email", "oncall/slack")
STEP_MS = 20_000
OUTCOMES = ["fail", "fail", "fail", "lost", "error", "pass", "pass"]
"""`error` opens an incident of another rule, which mutes nothing; those of several probes share a message."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("result"), st.sampled_from(list(NEEDS)), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("result"), st.sampled_from(list(NEEDS)), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("decide"), st.none(), st.none()),
        st.tuples(st.just("send"), st.sampled_from(["sent", "sent", "refused", "lost lease"]), st.none()),
        st.tuples(st.just("silence"), st.sampled_from(list(NEEDS)), st.integers(1, 4)),
        st.tuples(st.just("pause"), st.sampled_from(list(NEEDS)), st.none()),
        st.tuples(st.just("acknowledge"), st.integers(0, 4), st.none()),
        st.tuples(st.just("follow up"), st.none(), st.none()),
    ),
    min_size=12,
    max_size=40,
)


@dataclass
class LiveRun:
    """One process that does all the steps, STEP_MS apart, and notes what was sent."""

    harness: StoreHarness
    now: int = START_AT
    transitions: list[IncidentTransition] = field(default_factory=list)
    openings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each (incident, destination) was sent `opened`."""
    paused: set[str] = field(default_factory=set)

    def do(self, step: str, which: Any, how: Any) -> None:
        self.now += STEP_MS
        database = self.harness.database
        match step:
            case "result":
                reason: dict[str, Any] = {"reason": "canary.lost", "message": "lost"} if how == "lost" else {}
                result = make_result(
                    self.harness.database_id(which), self.now, "fail" if how == "lost" else how, **reason
                )
                self.transitions += self.harness.record_results(result, now=self.now)
            case "decide":
                decide(self.harness, self.now)
            case "send":
                self.send(which)
            case "silence":
                begin_silence(database, make_silence_request(self.now + how * STEP_MS, id=which), ANA, self.now)
            case "pause":
                self.pause_or_resume(which)
            case "acknowledge":
                self.acknowledge(which)
            case "follow up":
                end_expired_silences(database, self.now)
                enqueue_due_reminders_and_escalations(database, self.now)

    def acknowledge(self, which: int) -> None:
        rows = self.harness.select_rows(incidents)
        if which < len(rows):
            try:
                acknowledge_incident(self.harness.database, rows[which]["id"], ANA, "", self.now)
            except OperatorActRefusedError:
                return

    def pause_or_resume(self, probe: str) -> None:
        if probe in self.paused:
            resume_probe(self.harness.database, probe, ANA, "", self.now)
        else:
            pause_probe(self.harness.database, probe, None, ANA, "", now=self.now)
        self.paused ^= {probe}

    def settle(self) -> None:
        """Changes wait for each other, and a chain ends link by link."""
        for _ in range(4):
            self.now += HOUR_MS
            end_expired_silences(self.harness.database, self.now)
            decide(self.harness, self.now)
            self.send("sent")

    def send(self, how: str) -> None:
        """Send everything that is due; each row counts as what it reports."""
        while leased := self.harness.lease_notifications(self.now):
            for each in leased:
                destination = each.notification.destination
                rows = self.harness.select_rows(outbox, outbox.c.lease_token == each.lease_token)
                muted = {row["incident"] for row in self.harness.select_rows(muted_incidents)}
                for row in rows:
                    if row["incident"] in muted:
                        assert row["event"] in ("resolved", "reminder"), "only what the destination knows of"
                        assert self.openings[row["incident"], destination] == 1
                if how == "refused":
                    self.harness.outbox.schedule_notification_retry(each, self.now + 1, "HTTP 500", failed_at=self.now)
                    continue
                if how == "lost lease":  # the process was killed before it sent anything
                    self.harness.outbox.postpone_unattempted_notification(each, self.now + 1)
                    continue
                self.openings.update({(row["incident"], destination) for row in rows if row["event"] == "opened"})
                self.harness.outbox.mark_sent(each, {"ts": "1"}, self.now, "headline", "cause")


def check_history(pair: DatabasePair, steps: list[tuple[str, Any, Any]]) -> None:
    delete_all_rows(pair.first)
    probes = [make_probe(id, *needs, repeat_ms=3 * STEP_MS) for id, needs in NEEDS.items()]
    routes = NotificationRoutingTable({"oncall": DESTINATIONS})
    run = LiveRun(StoreHarness(pair.first, probes, routes=routes).without_downtime())
    for step in steps:
        run.do(*step)
    for probe in run.harness.database_ids:
        states, transitions = run.harness.replay_probe(probe, run.now)
        assert states == run.harness.load_alert_states(probe), "replay equals live"
        assert transitions == [each for each in run.transitions if each.probe == probe]
    run.settle()
    check_what_was_sent(run)
    for probe_id in sorted(run.paused):
        run.pause_or_resume(probe_id)
    run.settle()
    check_what_was_sent(run)


def check_what_was_sent(run: LiveRun) -> None:
    """Of paused probes, nothing is expected."""
    muted = {row["incident"] for row in run.harness.select_rows(muted_incidents)}
    open_rules = {id: set[str]() for id in NEEDS}
    for row in run.harness.select_rows(incidents, incidents.c.resolved_at.is_(None)):
        probe_id = run.harness.registry[row["probe"]].info.id
        open_rules[probe_id].add(row["rule"])
    for row in run.harness.select_rows(incidents):
        probe_id = run.harness.registry[row["probe"]].info.id
        needed = [id for id in NEEDS[probe_id] if id not in run.paused]
        is_muted = any("availability" in open_rules[id] for id in needed)
        is_reported = row["resolved_at"] is None and probe_id not in run.paused
        if is_reported:
            assert (row["id"] in muted) == is_muted, "exactly while a needed probe is down"
        for destination in DESTINATIONS:
            count = run.openings[row["id"], destination]
            assert count <= 1, "no destination is sent an incident twice"
            if is_reported and not is_muted:
                assert count == 1, "an open incident is sent once nothing holds it back any more"


@settings(max_examples=30, **COMMON)
@given(steps=STEPS)
def test_muting_changes_no_decision_and_loses_no_notification(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)


@settings(max_examples=10, **COMMON)
@given(steps=STEPS)
def test_the_same_on_postgresql(on_postgres: DatabasePair, steps: list[Any]) -> None:
    check_history(on_postgres, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [("result", "search", "fail"), ("result", "api", "fail"), ("result", "db", "fail"), ("send", "sent", None)],
        [("result", "db", "fail"), ("result", "search", "fail"), ("result", "search", "pass"), ("send", "sent", None)],
        [("result", "search", "fail"), ("send", "refused", None), ("result", "db", "fail"), ("result", "db", "pass")],
        [("result", "db", "fail"), ("result", "api", "fail"), ("silence", "api", 1), ("result", "db", "pass")],
        [("result", "db", "error"), ("result", "api", "error"), ("send", "sent", None)],
        [("result", "db", "fail"), ("result", "api", "fail"), ("pause", "db", None), ("send", "sent", None)],
        [("result", "db", "fail"), ("result", "api", "fail"), ("pause", "api", None), ("result", "db", "pass")],
    ],
)
def test_histories_by_hand(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)
