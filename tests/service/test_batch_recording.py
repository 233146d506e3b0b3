"""When the probes of a recorded batch run next."""

from __future__ import annotations

from tests.support.service import scripted_probe
from tests.support.store import LOCATION, START_AT, make_result
from watchdog.domain.clock_steps import build_clock_timeline_id
from watchdog.domain.formatting import HOUR_MS, SECOND_MS
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.service.batch_recording import compute_latest_next_run_time_by_probe


def test_results_of_an_ended_timeline_reschedule_nothing() -> None:
    """After a step back they have the later slots, and a run time that lies hours ahead."""
    probes = {id: scripted_probe(f"p{id}", retry_interval="10s") for id in (1, 2)}
    restarted = build_clock_timeline_id(LOCATION, 1)
    batch = [
        ResultToRecord(make_result(1, START_AT, Outcome.FAIL)),
        ResultToRecord(make_result(2, START_AT, Outcome.PASS), rerun_at=START_AT + SECOND_MS),
        ResultToRecord(make_result(1, START_AT - HOUR_MS, Outcome.FAIL, location=restarted)),
    ]
    assert compute_latest_next_run_time_by_probe(batch, probes, restarted) == {1: START_AT - HOUR_MS + 10 * SECOND_MS}


def test_a_failure_of_a_requested_run_reschedules_nothing() -> None:
    probes = {1: scripted_probe("p1", retry_interval="10s")}
    requested = make_result(1, START_AT + 1, Outcome.FAIL, measurements={"manual": True})
    assert compute_latest_next_run_time_by_probe([ResultToRecord(requested)], probes, LOCATION) == {}
