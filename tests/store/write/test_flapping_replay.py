"""The central property with flapping: few messages, each opening has an end, and the last message states how it is.

Histories are generated: results of a probe, deliveries that fail, silences, acknowledgements and decisions, minutes
apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.acts import ANA, end_expired, make_silence_request
from tests.support.flapping import decide_end
from tests.support.muting import make_probe
from tests.support.store import START_AT, DatabasePair, StoreHarness, delete_all_rows, make_result
from watchdog.domain.flapping import FLAPPING_WINDOW_MS, STABLE_AFTER_MS, decide_flapping_of_opened_incident
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.model import IncidentTransition
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.service.acts import begin_silence
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.tables import incidents, outbox

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
DESTINATIONS = ("oncall/email", "oncall/slack")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fail", "fail", "fail", "pass", "pass", "pass", "lost", "silence", "refuse"]),
        st.sampled_from([1, 1, 2, 3, 5, 16]),
    ),
    min_size=8,
    max_size=24,
)
"""What happens, and how many minutes pass before it."""


@dataclass
class LiveRun:
    """One process. Decides and sends before each step; notes what each destination was sent."""

    harness: StoreHarness
    now: int = START_AT
    transitions: list[IncidentTransition] = field(default_factory=list)
    sent: dict[str, list[tuple[str, str, str]]] = field(default_factory=lambda: {name: [] for name in DESTINATIONS})
    """By destination: first incident of the message, the incident that it is about, and the event."""
    refuses_until: int = 0

    def do(self, step: str, minutes: int) -> None:
        self.wait(minutes * MINUTE_MS)
        if step == "silence":
            begin_silence(
                self.harness.database, make_silence_request(self.now + 9 * MINUTE_MS, id="api"), ANA, self.now
            )
        elif step == "refuse":
            self.refuses_until = self.now + 7 * MINUTE_MS
        else:
            fields: dict[str, Any] = {"reason": "canary.lost", "message": "lost"} if step == "lost" else {}
            (probe,) = self.harness.database_ids
            result = make_result(probe, self.now, "fail" if step == "lost" else step, **fields)
            self.transitions += self.harness.record_results(result, now=self.now)

    def wait(self, ms: int) -> None:
        self.now += ms
        end_expired(self.harness, self.now)
        decide_end(self.harness, self.now)
        while leased := self.harness.lease_notifications(self.now):
            for each in leased:
                if self.now < self.refuses_until:
                    at = self.now + MINUTE_MS
                    self.harness.outbox.schedule_notification_retry(each, at, "HTTP 500", failed_at=self.now)
                    continue
                note = each.notification.incident, each.main_incident, each.notification.event.value
                self.sent[each.notification.destination].append(note)
                self.harness.outbox.mark_sent(each, {"ts": "1"}, self.now, "headline", "cause")


def check_history(pair: DatabasePair, steps: list[tuple[str, int]]) -> None:
    delete_all_rows(pair.first)
    routes = NotificationRoutingTable({"oncall": DESTINATIONS})
    run = LiveRun(StoreHarness(pair.first, [make_probe("api")], routes=routes).without_downtime())
    for step in steps:
        run.do(*step)
    check_flapping_follows_from_incidents(run)
    (probe,) = run.harness.database_ids
    states, transitions = run.harness.replay_probe(probe, run.now)
    assert (states, transitions) == (run.harness.load_alert_states(probe), run.transitions), "the fold reads none of it"
    for _ in range(3):
        run.wait(STABLE_AFTER_MS)
    check_what_was_sent(run)


def check_flapping_follows_from_incidents(run: LiveRun) -> None:
    """The pure decisions about the stored incidents are those that are stored."""
    ended = sorted(row["ended_at"] for row in run.harness.select_rows(flapping_alerts) if row["ended_at"] is not None)
    openings: list[int] = []
    expected = set()
    is_flapping = False
    for row in sorted(run.harness.select_rows(incidents), key=lambda row: row["opened_at"]):
        opened_at = row["opened_at"]
        is_flapping = is_flapping and not any(openings[-1] < end <= opened_at for end in ended)
        is_flapping = decide_flapping_of_opened_incident(openings, is_flapping=is_flapping, now=opened_at).is_flapping
        expected |= {row["id"]} if is_flapping else set()
        openings.append(opened_at)
    assert {row["incident"] for row in run.harness.select_rows(flapping_incidents)} == expected


def check_what_was_sent(run: LiveRun) -> None:
    elapsed_ms = run.now - START_AT
    open_ids = {row["id"] for row in run.harness.select_rows(incidents, incidents.c.resolved_at.is_(None))}
    assert run.harness.select_rows(outbox, outbox.c.state == "waiting") == []
    for messages in run.sent.values():
        # Within each window, two incidents that do not flap yet; within each rest, one notice, and how it ended.
        max_count = 4 * (elapsed_ms // FLAPPING_WINDOW_MS + 1) + 4 * (elapsed_ms // STABLE_AFTER_MS + 1)
        assert sum(event != "changed" for _, _, event in messages) <= max_count
        is_open_by_lead: dict[str, bool] = {}
        for lead, _, event in messages:
            if event == "resolved" and lead not in is_open_by_lead:
                is_open_by_lead[lead] = False  # it reports the opening as well
                continue
            assert event == "opened" or is_open_by_lead[lead], "nothing about a message that is over"
            is_open_by_lead[lead] = event != "resolved"
        expected = [messages[-1][1] in open_ids] if open_ids else []
        assert [is_open for is_open in is_open_by_lead.values() if is_open] == expected, "as it is"
        if open_ids:
            assert messages[-1][1] in open_ids, "the last message is about the open incident"


@settings(max_examples=8, **COMMON)
@given(steps=STEPS)
def test_messages_are_few_and_the_last_one_states_how_it_is(on_sqlite: DatabasePair, steps: list[Any]) -> None:
    check_history(on_sqlite, steps)


@settings(max_examples=2, **COMMON)
@given(steps=STEPS)
def test_the_same_on_postgresql(on_postgres: DatabasePair, steps: list[Any]) -> None:
    check_history(on_postgres, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [("fail", 1), ("pass", 1)] * 6,
        [*[("fail", 1), ("pass", 1)] * 5, ("fail", 1), ("fail", 16)],
        [*[("fail", 5), ("pass", 5)] * 8, ("refuse", 1), ("fail", 1), ("pass", 1)],
        [("silence", 1), *[("fail", 1), ("pass", 1)] * 4, ("fail", 3), ("pass", 1)],
        [("fail", 1), ("pass", 1), ("fail", 1), ("pass", 1), ("refuse", 1), ("fail", 1), ("pass", 1), ("fail", 1)],
    ],
)
def test_histories_by_hand(on_sqlite: DatabasePair, steps: list[tuple[str, int]]) -> None:
    check_history(on_sqlite, steps)
