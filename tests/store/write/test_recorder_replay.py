"""The central property: replaying the stored results gives the same transitions as the live run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.builders import failed_job, healthy_job, make_listings
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, DatabasePair, StoreHarness, make_registered_probe
from watchdog.domain.model import IncidentEvent, IncidentTransition, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import AlertPolicy, AlertStates, UptimeClock, stale
from watchdog.domain.rules.engine import advance_alert_state_in_place, fold_result_into_alert_states_in_place
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.tables import (
    RESULT_COLUMNS,
    cause_changes,
    evaluation_cursors,
    incidents,
    outbox,
    results,
    staleness_events,
)

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
SQLITE = settings(max_examples=100, **COMMON)
ORDERS = settings(max_examples=40, **COMMON)
POSTGRES = settings(max_examples=20, **COMMON)

LOST = healthy_job("a", START_AT)._replace(lost_since=START_AT, lost_failures=1)
JOBS = [healthy_job("a", START_AT), failed_job("a", "boom"), healthy_job("b", START_AT), failed_job("c"), LOST]


@dataclass(frozen=True)
class History:
    """A generated history: the arrivals of results, some twice, some late, some never; and gaps."""

    probe: RegisteredProbe
    arrivals: list[tuple[int, ProbeResult]]
    seed: int
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def uptime_clock_at(self, now: int) -> UptimeClock:
        """With the gaps that are known at `now`: a gap is detected when it ends."""
        return UptimeClock(gap for gap in self.gaps if gap[1] <= now)


@st.composite
def gaps_in_history(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Up to two gaps, in order."""
    gaps: list[tuple[int, int]] = []
    start = START_AT
    for _ in range(draw(st.integers(0, 2))):
        start += draw(st.integers(1, 10 * INTERVAL_MS))
        gaps.append((start, stop := start + draw(st.sampled_from([6_000, 50_000, 400_000, 3_600_000]))))
        start = stop + 1_000
    return gaps


@st.composite
def histories(draw: st.DrawFn) -> History:
    limits = draw(st.sampled_from([{}, {"a": 10_000, "*": 10_000}]))
    lateness = draw(st.sampled_from([40_000, 100_000, 200_000]))
    probe = make_registered_probe(
        failure_threshold=draw(st.integers(1, 3)),
        success_threshold=draw(st.integers(1, 3)),
        lateness_ms=lateness,
        max_task_ages=limits,
        staleness_threshold=draw(st.sampled_from([lateness + 20_000, 420_000])),
    )
    gaps = draw(gaps_in_history())
    clock = UptimeClock(gaps)
    arrivals: list[tuple[int, ProbeResult]] = []
    previous_slot = None
    for k in range(1, draw(st.integers(5, 25))):
        slot = START_AT + k * INTERVAL_MS
        if clock.find_downtime_gap_at(slot):
            continue
        outcome = draw(
            st.sampled_from([Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.FAIL, Outcome.ERROR, None, None])
        )
        before, previous_slot = previous_slot, slot
        if outcome is None:  # lost: recorded as missed once its max_lateness has passed, or never
            if draw(st.booleans()):
                lost = ProbeResult(1, slot, LOCATION, Outcome.MISSED, "missed.result_lost")
                arrivals.append(
                    (
                        clock.compute_deadline_excluding_downtime(
                            slot, lateness + draw(st.integers(0, 2 * INTERVAL_MS))
                        ),
                        lost,
                    )
                )
            continue
        tasks = None
        if limits and outcome is not Outcome.ERROR:
            tasks = {
                n: McpScheduledTaskFacts(draw(st.booleans()), slot - 5_000)
                for n in draw(st.sampled_from(["ab", "a", ""]))
            }
        preferences = draw(st.sampled_from([None, {"x": ""}, {"x": "x is false"}])) if outcome is Outcome.PASS else None
        jobs = draw(st.none() | st.lists(st.sampled_from(JOBS), unique_by=lambda facts: facts.name))
        if outcome is Outcome.ERROR:
            jobs = None
        listings = make_listings(slot, tasks, preferences, jobs)
        reason = (
            draw(st.sampled_from(["mcp.tool_error", "http.503", "http.401", "timeout.exceeded"]))
            if outcome is not Outcome.PASS
            else ""
        )
        result = ProbeResult(1, slot, LOCATION, outcome, reason, "x", 100, listings=listings, previous_slot=before)
        at = clock.compute_deadline_excluding_downtime(slot, draw(st.integers(0, int(lateness * 1.2))))  # some are late
        arrivals += [(at, result)] + [(at + draw(st.integers(0, 2 * INTERVAL_MS)), result)] * draw(st.integers(0, 1))
    arrivals.sort(key=lambda arrival: arrival[0])
    return History(probe, arrivals, draw(st.integers(0, 2**30)), gaps)


def run_history(
    databases: DatabasePair, history: History, *, skew: int = 0, crashes: bool = True, max_batch: int = 4
) -> tuple[StoreHarness, list[IncidentTransition], int]:
    """Record a history in two processes with different clocks, with rolled-back transactions, deadlines and gaps.

    Returns the first process, the transitions, and the end of the history.
    """
    rnd = random.Random(history.seed)
    first = StoreHarness(databases.first, [history.probe]).without_downtime()
    harnesses = [first, StoreHarness(databases.second, [history.probe], create_schema=False).without_downtime()]
    out: list[IncidentTransition] = []
    todo = [(at, result._replace(probe=first.database_ids[0])) for at, result in history.arrivals]
    while todo:
        n = rnd.randint(1, max_batch)
        chunk, todo = todo[:n], todo[n:]
        which = rnd.randrange(2)
        now = chunk[-1][0] + (skew if which else 0)
        harness, recorded = harnesses[which], [ResultToRecord(result) for _, result in chunk]
        first.watermark.uptime_clock = harnesses[1].watermark.uptime_clock = history.uptime_clock_at(chunk[-1][0])
        if crashes and rnd.random() < 0.2:  # nothing of a rolled-back transaction may remain
            with harness.database.writer.connect() as connection:
                transaction = connection.begin()
                harness.recorder.record_results_in_transaction(connection, recorded, now)
                transaction.rollback()
        out += harness.recorder.record_results(recorded, now)
        if rnd.random() < 0.3:
            first.advance_watermark(now)
            out += harnesses[rnd.randrange(2)].recorder.evaluate_deadlines(now)[1]
    last = max([START_AT, *[at for at, _ in history.arrivals[-1:]], *[stop for _, stop in history.gaps]])
    end = last + history.probe.policy.max_lateness + max(skew, 0) + 1
    first.watermark.uptime_clock = history.uptime_clock_at(end)
    first.advance_watermark(end)
    out += first.recorder.evaluate_deadlines(end)[1]
    return first, out, end


def evaluate_naively(harness: StoreHarness, policy: AlertPolicy) -> tuple[AlertStates, list[IncidentTransition]]:
    """Evaluate all rows in slot order, without awaited slots, cursors or deadlines: the expected result of the fold."""
    with harness.database.open_read_transaction() as connection:
        query = sa.select(*RESULT_COLUMNS).where(~results.c.late).order_by(results.c.slot)
        rows = {
            result.slot: result
            for result in build_results_with_listings_from_rows(connection, connection.execute(query).all())
        }
        stale_after = {
            slot + 0.5: threshold
            for slot, threshold in connection.execute(
                sa.select(staleness_events.c.last_result_slot, staleness_events.c.threshold_ms)
            )
        }
    states: AlertStates = {}
    out: list[IncidentTransition] = []
    for at in sorted({*rows, *stale_after}):
        if at in stale_after:
            advance_alert_state_in_place(policy, states, int(at), stale.build_stale_finding(stale_after[at]), out)
        else:
            fold_result_into_alert_states_in_place(policy, states, rows[int(at)], out)
    return states, out


def sort_by_finding(transitions: list[IncidentTransition]) -> list[IncidentTransition]:
    return sorted(transitions, key=lambda transition: (transition.rule, transition.subject))


def check_replay(databases: DatabasePair, history: History, skew: int) -> None:
    harness, live, end = run_history(databases, history, skew=skew)
    probe = harness.database_ids[0]
    states, replayed = harness.replay_probe(probe, end)
    assert harness.load_alert_states(probe) == states
    assert sort_by_finding(live) == sort_by_finding(replayed)
    naive = evaluate_naively(harness, harness.registry[probe].policy)
    assert (naive[0], sort_by_finding(naive[1])) == (states, sort_by_finding(replayed))
    assert [row["awaiting_slot"] for row in harness.select_rows(evaluation_cursors)] == [False], (
        "no slot is still awaited"
    )
    opened = [transition for transition in replayed if transition.event is IncidentEvent.OPENED]
    assert {row["id"] for row in harness.select_rows(incidents)} == {transition.incident for transition in opened}
    changed = [transition for transition in replayed if transition.event is IncidentEvent.CHANGED]
    assert len(harness.select_rows(outbox)) == 2 * (len(replayed) - len(changed)), (
        "each of two destinations gets every transition once; a change becomes part of what is waiting"
    )
    causes = {t.incident: (t.reason, t.message) for t in replayed if t.event is not IncidentEvent.RESOLVED}
    first_causes = {t.incident: t.reason for t in opened if t.incident in {change.incident for change in changed}}
    rows = harness.select_rows(incidents)
    assert {row["id"]: (row["reason"], row["message"]) for row in rows} == causes, "the current cause"
    assert {row["id"]: row["first_reason"] for row in rows if row["first_reason"]} == first_causes
    assert {(row["incident"], row["slot"], row["reason"]) for row in harness.select_rows(cause_changes)} == {
        (t.incident, t.slot, t.reason) for t in changed
    }
    open_now: dict[tuple[str, str], str] = {}
    for transition in live:
        key = (transition.rule, transition.subject)
        if transition.event is IncidentEvent.OPENED:
            assert key not in open_now
            open_now[key] = transition.incident
        elif transition.event is IncidentEvent.CHANGED:
            assert open_now[key] == transition.incident
        else:
            assert open_now.pop(key) == transition.incident


skews = st.sampled_from([0, 0, 5_000, -20_000, 70_000])


@SQLITE
@given(histories(), skews)
def test_live_equals_replay_on_sqlite(on_sqlite: DatabasePair, history: History, skew: int) -> None:
    check_replay(on_sqlite, history, skew)


@POSTGRES
@given(histories(), skews)
def test_live_equals_replay_on_postgres(on_postgres: DatabasePair, history: History, skew: int) -> None:
    check_replay(on_postgres, history, skew)


@ORDERS
@given(histories(), st.integers(0, 2**30))
def test_the_order_of_arrival_does_not_matter_within_max_lateness(
    on_sqlite: DatabasePair, history: History, seed: int
) -> None:
    lateness = history.probe.policy.max_lateness
    first: dict[int, tuple[int, ProbeResult]] = {}
    for at, result in history.arrivals:
        first.setdefault(result.slot, (at, result))
    on_time = [(at, r) for at, r in first.values() if at < r.slot + lateness and r.outcome is not Outcome.MISSED]
    rnd = random.Random(seed)
    shuffled = [(r.slot + rnd.randrange(lateness - 1), r) for _, r in on_time]
    transitions_by_order = []
    for arrivals in (on_time, shuffled):
        ordered = History(history.probe, sorted(arrivals, key=lambda arrival: arrival[0]), history.seed)
        _, out, _ = run_history(on_sqlite, ordered, crashes=False, max_batch=1)
        transitions_by_order.append(
            sort_by_finding([transition for transition in out if transition.rule != stale.ALERT_RULE_NAME])
        )
    assert transitions_by_order[0] == transitions_by_order[1]
