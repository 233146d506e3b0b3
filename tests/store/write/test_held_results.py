"""A result that the network of this machine may explain opens nothing until it is decided whose fault it is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import IncidentEvent, IncidentTransition, ProbeResult
from watchdog.domain.own_network import (
    MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS,
    WATCHDOG_NETWORK_FAULT_REASON,
    NetworkFaultDecision,
    apply_network_fault_decision_to_result,
)
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox, results
from watchdog.store.write.held_results import (
    UnrecordedHeldResultsAndTransitions,
    store_decided_held_results,
    withdraw_recorded_failures,
)

OPENED, RESOLVED = IncidentEvent.OPENED, IncidentEvent.RESOLVED
OWN, TARGET, UNDECIDED = NetworkFaultDecision
DEMO_SLOT_TO_RECORDING_DELAY_MS = 300


@pytest.fixture
def store(database: Database) -> Iterator[StoreHarness]:
    with StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)]) as store:
        yield store


def slot_of(number: int) -> int:
    return START_AT + number * INTERVAL_MS


def result_of(store: StoreHarness, number: int, outcome: str = "pass") -> ProbeResult:
    return make_result(store.database_ids[0], slot_of(number), outcome, previous_slot=slot_of(number - 1))


def held(store: StoreHarness, number: int) -> ProbeResult:
    """A failure that is held from when it is recorded."""
    held_until = slot_of(number) + DEMO_SLOT_TO_RECORDING_DELAY_MS + MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS
    failure = result_of(store, number, "fail")._replace(reason="connection.unreachable", message="no route to the host")
    return failure._replace(held_until=held_until)


def decide(
    store: StoreHarness, result: ProbeResult, decision: NetworkFaultDecision, after_ms: int = 2_000
) -> UnrecordedHeldResultsAndTransitions:
    decided = [apply_network_fault_decision_to_result(result, decision)]
    return store_decided_held_results(store.recorder, decided, result.slot + DEMO_SLOT_TO_RECORDING_DELAY_MS + after_ms)


def events(transitions: list[IncidentTransition]) -> list[IncidentEvent]:
    return [transition.event for transition in transitions]


def assert_replay_equals(store: StoreHarness, live: list[IncidentTransition], now: int) -> None:
    (probe,) = store.database_ids
    states, replayed = store.replay_probe(probe, now)
    assert (states, replayed) == (store.load_alert_states(probe), live)


def test_a_failure_opens_its_incident_once_it_is_known_to_be_the_targets(store: StoreHarness) -> None:
    failure = held(store, 2)
    assert store.record_each(result_of(store, 1), failure) == []
    assert store.evaluate_deadlines(failure.slot + MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS) == [], "it is held"
    assert store.select_rows(outbox) == []
    unrecorded, transitions = decide(store, failure, TARGET)
    assert (unrecorded, events(transitions)) == (set(), [OPENED])
    assert {row["due_at"] for row in store.select_rows(outbox)} == {
        failure.slot + DEMO_SLOT_TO_RECORDING_DELAY_MS + 2_000
    }
    transitions += store.record_results(result_of(store, 3))
    assert events(transitions) == [OPENED, RESOLVED]
    assert_replay_equals(store, transitions, slot_of(4))


def test_a_failure_of_the_own_network_is_no_failure_of_the_target(store: StoreHarness) -> None:
    failure = held(store, 2)
    live = store.record_each(result_of(store, 1), failure)
    live += decide(store, failure, OWN).transitions
    live += store.record_each(result_of(store, 3))
    assert live == []
    row = store.select_row(results, results.c.slot == failure.slot)
    assert (row["outcome"], row["reason"], row["held_until"]) == ("error", WATCHDOG_NETWORK_FAULT_REASON, None)
    assert row["message"].endswith(failure.message), "it quotes what was observed"
    assert (store.select_rows(incidents), store.select_rows(outbox)) == ([], [])
    assert_replay_equals(store, live, slot_of(4))


def test_without_a_decision_in_time_it_counts_as_the_targets(store: StoreHarness) -> None:
    """Also if the process was killed: any process evaluates it."""
    failure = held(store, 2)
    store.record_each(result_of(store, 1), failure)
    with StoreHarness(store.database, store.registry.values(), create_schema=False) as other:
        assert failure.held_until is not None
        assert other.evaluate_deadlines(failure.held_until - 1) == []
        live = other.evaluate_deadlines(failure.held_until)
    assert events(live) == [OPENED]
    assert decide(store, failure, OWN, MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS) == (set(), []), (
        "the decision comes too late"
    )
    assert store.select_row(results, results.c.slot == failure.slot)["outcome"] == "fail"
    assert_replay_equals(store, live, slot_of(4))


def test_an_incident_that_is_open_stays_as_it_is(store: StoreHarness) -> None:
    live = store.record_each(result_of(store, 1), result_of(store, 2, "fail"))
    failure = held(store, 3)
    live += store.record_each(failure)
    live += decide(store, failure, OWN).transitions
    assert events(live) == [OPENED]
    assert store.select_row(incidents)["reason"] == "http.503", "the cause has not changed"
    live += store.record_each(result_of(store, 4))
    assert events(live) == [OPENED, RESOLVED]
    assert_replay_equals(store, live, slot_of(5))


def test_a_recovery_during_a_hold_waits_for_the_decision(store: StoreHarness) -> None:
    """A probe that runs every second may pass before it is decided about its failure."""
    failure = held(store, 2)
    later = make_result(failure.probe, failure.slot + 1_000, previous_slot=failure.slot)
    assert store.record_each(result_of(store, 1), failure, later) == []
    live = decide(store, failure, TARGET).transitions
    assert events(live) == [OPENED, RESOLVED]
    assert_replay_equals(store, live, slot_of(3))


def test_failures_of_the_own_network_do_not_count_towards_the_threshold(database: Database) -> None:
    with StoreHarness(database, [make_registered_probe(failure_threshold=3)]) as store:
        live = store.record_each(result_of(store, 1))
        for number in range(2, 6):
            failure = held(store, number)
            live += store.record_each(failure)
            live += decide(store, failure, OWN).transitions
        live += store.record_each(result_of(store, 6, "fail"), result_of(store, 7, "fail"))
        assert live == []
        live += store.record_each(result_of(store, 8, "fail"))
        assert [(t.event, t.first_bad_slot) for t in live] == [(OPENED, slot_of(6))]
        assert_replay_equals(store, live, slot_of(9))


def test_a_decision_about_a_result_that_is_not_recorded_yet_has_to_be_repeated(store: StoreHarness) -> None:
    failure = held(store, 1)
    assert decide(store, failure, OWN) == ({failure[:3]}, [])
    store.record_each(failure)
    assert decide(store, failure, OWN) == (set(), [])
    assert store.select_row(results)["reason"] == WATCHDOG_NETWORK_FAULT_REASON


def test_a_result_that_comes_too_late_to_be_evaluated_is_not_held(store: StoreHarness) -> None:
    failure = held(store, 1)
    store.without_downtime().record_results(failure, now=slot_of(1) + 3_600_000)
    row = store.select_row(results)
    assert (row["late"], row["held_until"]) == (True, None)


# --- failures that were evaluated before they were known to belong to a mass failure


def withdraw(store: StoreHarness, result: ProbeResult) -> bool:
    decided = apply_network_fault_decision_to_result(result, OWN)
    return withdraw_recorded_failures(store.recorder, [decided]) == {result[:3]}


@pytest.mark.parametrize("outcomes", ["p", "fp", ""])
def test_a_first_failure_is_withdrawn_without_a_trace(database: Database, outcomes: str) -> None:
    letters = {"p": "pass", "f": "fail"}
    with StoreHarness(database, [make_registered_probe(failure_threshold=2, success_threshold=1)]) as store:
        before = [result_of(store, number, letters[letter]) for number, letter in enumerate(outcomes, 1)]
        failure = result_of(store, 3, "fail")._replace(previous_slot=before[-1].slot if before else None)
        live = store.record_each(*before, failure)
        assert withdraw(store, failure)
        row = store.select_row(results, results.c.slot == failure.slot)
        assert (row["outcome"], row["reason"]) == ("error", WATCHDOG_NETWORK_FAULT_REASON)
        assert store.load_alert_states(failure.probe) == {}
        live += store.record_each(result_of(store, 4, "fail"), result_of(store, 5))
        assert live == [], "the threshold counts from here"
        assert_replay_equals(store, live, slot_of(6))


@pytest.mark.parametrize("outcomes", ["pffp", "pff", "pfp"])
def test_a_failure_that_has_led_to_more_stays_as_it_is(database: Database, outcomes: str) -> None:
    """It opened an incident, or later results were evaluated."""
    letters = {"p": "pass", "f": "fail"}
    with StoreHarness(database, [make_registered_probe(failure_threshold=2, success_threshold=1)]) as store:
        stored = [result_of(store, number, letters[letter]) for number, letter in enumerate(outcomes, 1)]
        live = store.record_each(*stored)
        assert not any(withdraw(store, result) for result in stored if result.outcome == "fail")
        assert_replay_equals(store, live, slot_of(6))


def test_a_failure_that_ended_an_incident_stays_as_it_is(store: StoreHarness) -> None:
    """A failure is a verdict, and therefore ends an incident about missing verdicts."""
    with StoreHarness(store.database, [make_registered_probe(failure_threshold=2)]) as other:
        stored = [result_of(other, number, kind) for number, kind in enumerate(("error", "error", "pass", "fail"), 1)]
        live = other.record_each(*stored)
        assert events(live) == [OPENED, RESOLVED]
        assert not withdraw(other, stored[-1])
        assert_replay_equals(other, live, slot_of(5))


@pytest.mark.parametrize("seed", range(12))
def test_replay_equals_live_with_random_decisions(database: Database, seed: int) -> None:
    """Random outcomes in two processes; each held result is decided in time, too late, or never."""
    rnd = random.Random(seed)
    probe = make_registered_probe(failure_threshold=rnd.randint(1, 3), success_threshold=rnd.randint(1, 2))
    with (
        StoreHarness(database, [probe]).without_downtime() as store,
        StoreHarness(store.database, [probe], create_schema=False).without_downtime() as other,
    ):
        live: list[IncidentTransition] = []
        for number in range(1, 40):
            harness, decider = rnd.choices((store, other), k=2)
            kind = rnd.choice(("pass", "pass", "fail", "held", "held"))
            result = held(store, number) if kind == "held" else result_of(store, number, kind)
            live += harness.record_results(result)
            if kind == "held" and rnd.random() < 0.8:
                after = rnd.choice((100, 2_000, MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS, 15_000))
                if after > MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS:
                    live += store.evaluate_deadlines(result.slot + DEMO_SLOT_TO_RECORDING_DELAY_MS + after)
                live += decide(decider, result, rnd.choice((OWN, OWN, TARGET, UNDECIDED)), after).transitions
            live += rnd.choice((store, other)).evaluate_deadlines(slot_of(number) + 20_000)
        assert {row["held_until"] for row in store.select_rows(results)} == {None}
        assert_replay_equals(store, live, slot_of(40))
