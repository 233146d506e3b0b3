"""The central property with pauses, requested runs and incidents that people close: a replay decides as the live run
did, in two processes."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.acts import ANA, BEN
from tests.support.builders import failed_job, healthy_job, make_listings
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, DatabasePair, StoreHarness, make_registered_probe
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.domain.model import ClaimedSlot, IncidentTransition, Outcome, ProbeResult, ResultToRecord
from watchdog.service.acts import close_incident, pause_probe, request_run, resume_probe
from watchdog.store.tables import incidents
from watchdog.store.write.pauses import end_expired_pauses

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
LATENESS_MS = 100_000
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.none()),
        st.tuples(st.just("end_run"), st.sampled_from([Outcome.PASS, Outcome.FAIL, Outcome.FAIL, Outcome.ERROR])),
        st.tuples(st.just("end_newest_run"), st.sampled_from([Outcome.PASS, Outcome.FAIL, "job failed"])),
        st.tuples(st.just("pause"), st.sampled_from([None, 2, 5])),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("request"), st.none()),
        st.tuples(st.just("close"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from([1, 2, 8])),
        st.tuples(st.just("wake"), st.none()),
    ),
    min_size=15,
    max_size=50,
)


class PausedRun:
    """Two processes that take turns: they claim slots, end runs in any order, pause and resume the probe, and get
    requests to run it."""

    def __init__(self, pair: DatabasePair, failure_threshold: int):
        probe = make_registered_probe(
            failure_threshold=failure_threshold,
            success_threshold=2,
            lateness_ms=LATENESS_MS,
            staleness_threshold=420_000,
        )
        self.harnesses = [
            StoreHarness(database, [probe], create_schema=is_first).without_downtime()
            for database, is_first in ((pair.first, True), (pair.second, False))
        ]
        self.now = START_AT
        self.step_count = 0
        self.in_progress: list[ClaimedSlot] = []

    def do(self, step: str, how: Any) -> None:
        self.step_count += 1
        self.now += INTERVAL_MS // 3
        harness = self.harnesses[self.step_count % 2]
        end_expired_pauses(harness.database, LOCATION, self.now)
        match step:
            case "claim":
                self.in_progress += harness.claim_slots(self.now)
            case "end_run" | "end_newest_run" if self.in_progress:
                slot = self.in_progress.pop(0 if step == "end_run" else -1)
                outcome = Outcome.PASS if how == "job failed" else how
                reason = "" if outcome is Outcome.PASS else "http.503"
                measurements = {"manual": True} if slot.is_requested else {}
                jobs = {Outcome.PASS: [healthy_job("c", START_AT)], "job failed": [failed_job("c")]}.get(how)
                listings = make_listings(slot.slot, None, None, jobs)
                result = ProbeResult(
                    *slot[:3], outcome, reason, "x", None, {}, measurements, listings, slot.previous_slot
                )
                harness.recorder.record_results([ResultToRecord(result)], self.now)
            case "pause":
                ends_at = None if how is None else self.now + how * INTERVAL_MS
                pause_probe(harness.database, "api", ends_at, ANA, "", now=self.now)
            case "resume":
                try:
                    resume_probe(harness.database, "api", BEN, "", self.now)
                except OperatorActRefusedError:
                    return
            case "request":
                harness.advance_watermark(self.now)
                request_run(harness.database, "api", ANA, "", self.now)
            case "close":
                is_open = incidents.c.resolved_at.is_(None)
                for incident in [row["id"] for row in harness.select_rows(incidents, is_open)][how : how + 1]:
                    close_incident(harness.database, incident, ANA, "", self.now)
            case "wait":
                self.now += how * INTERVAL_MS
            case "wake":
                harness.evaluate_deadlines(self.now)

    def settle(self) -> None:
        """Nothing is awaited any more."""
        self.now += LATENESS_MS + INTERVAL_MS
        self.harnesses[0].evaluate_deadlines(self.now)


def check_history(pair: DatabasePair, steps: list[tuple[str, Any]], failure_threshold: int) -> None:
    run = PausedRun(pair, failure_threshold)
    for step in steps:
        run.do(*step)
    run.settle()
    harness = run.harnesses[0]
    (probe,) = harness.database_ids
    states, transitions = harness.replay_probe(probe, run.now)
    assert states == harness.load_alert_states(probe), "replay equals live"
    assert opened_and_resolved(transitions) == sorted(
        (row["id"], row["resolved_slot"]) for row in harness.select_rows(incidents)
    )


def opened_and_resolved(transitions: list[IncidentTransition]) -> list[tuple[str, int | None]]:
    """Incident, and the slot that resolved it."""
    resolved: dict[str, int | None] = {}
    for transition in transitions:
        resolved[transition.incident] = transition.slot if transition.event == "resolved" else None
    return sorted(resolved.items())


@settings(max_examples=60, **COMMON)
@given(steps=STEPS, failure_threshold=st.integers(1, 3))
def test_a_replay_decides_as_the_live_run_with_pauses_and_requests(
    on_sqlite: DatabasePair, steps: list[Any], failure_threshold: int
) -> None:
    check_history(on_sqlite, steps, failure_threshold)


@settings(max_examples=15, **COMMON)
@given(steps=STEPS, failure_threshold=st.integers(1, 3))
def test_a_replay_decides_as_the_live_run_with_pauses_and_requests_on_postgres(
    on_postgres: DatabasePair, steps: list[Any], failure_threshold: int
) -> None:
    check_history(on_postgres, steps, failure_threshold)
