"""Evaluation after a step of the clock, when slots of the ended clock generation come again."""

from __future__ import annotations

from tests.store.write.test_clock_steps import SteppingProcess, replays
from tests.support.store import INTERVAL_MS, START_AT, make_registered_probe
from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import ClaimedSlot, Outcome, ProbeResult
from watchdog.domain.own_network import NetworkFaultDecision, apply_network_fault_decision_to_result
from watchdog.store.database import Database
from watchdog.store.read.alert_context import list_incident_cause_changes
from watchdog.store.tables import cause_changes, incidents, results
from watchdog.store.write.held_results import withdraw_recorded_failures


def fail_once(process: SteppingProcess) -> ProbeResult:
    process.failing_probes = {process.first}
    while not process.harness.load_alert_states(process.first):
        process.run(process.now + 1)
    process.failing_probes = ()
    rows = process.harness.select_rows(results, results.c.outcome == Outcome.FAIL)
    row = max(rows, key=lambda row: parse_clock_generation_of_timeline_id(row["location"]))
    return ProbeResult(process.first, row["slot"], row["location"], Outcome.FAIL, row["reason"])


def withdraw(process: SteppingProcess, failure: ProbeResult) -> bool:
    decided = apply_network_fault_decision_to_result(failure, NetworkFaultDecision.OWN)
    return bool(withdraw_recorded_failures(process.harness.recorder, [decided]))


def test_a_first_failure_is_withdrawn_after_a_step_as_before(database: Database) -> None:
    process = SteppingProcess(database, make_registered_probe(failure_threshold=2))
    process.run(START_AT + 250_000)
    process.run(process.step(-2 * HOUR_MS) + 2 * INTERVAL_MS)
    assert withdraw(process, fail_once(process))
    assert process.harness.load_alert_states(process.first) == {}
    process.run(process.now + 3 * INTERVAL_MS)
    assert replays(process)


def test_a_result_of_the_ended_generation_withdraws_no_failure_in_the_same_slot(database: Database) -> None:
    process = SteppingProcess(database, make_registered_probe(failure_threshold=2))
    process.run(START_AT + 250_000)
    ended = fail_once(process)
    process.run(process.now + 3 * INTERVAL_MS)
    process.run(process.step(ended.slot - process.now - INTERVAL_MS) + INTERVAL_MS // 2)
    failure = fail_once(process)
    assert (failure.slot, failure.location) == (ended.slot, process.harness.watermark.clock_timeline_id)
    assert not withdraw(process, ended)
    assert withdraw(process, failure)


class ProcessWithChangingCauses(SteppingProcess):
    """The probe fails for `reason`."""

    reason = "http.503"

    def make_result_of(self, slot: ClaimedSlot) -> ProbeResult:
        return super().make_result_of(slot)._replace(outcome=Outcome.FAIL, reason=self.reason)

    def change_cause(self) -> None:
        self.reason = "connection.refused" if self.reason == "http.503" else "http.503"
        count = len(self.harness.select_rows(cause_changes))
        while len(self.harness.select_rows(cause_changes)) == count:
            self.run(self.now + 1)


def test_the_cause_of_an_incident_changes_again_in_the_same_slot(database: Database) -> None:
    process = ProcessWithChangingCauses(database, make_registered_probe(failure_threshold=2))
    process.run(START_AT + 250_000)
    process.change_cause()
    process.change_cause()
    newest = max(row["slot"] for row in process.harness.select_rows(cause_changes))
    process.step(newest - process.now - INTERVAL_MS * 3 // 2)
    process.change_cause()
    rows = process.harness.select_rows(cause_changes)
    assert [row["generation"] for row in rows if row["slot"] == newest] == [0, 1]
    (incident,) = process.harness.select_rows(incidents)
    with database.open_read_transaction() as connection:
        changes = list_incident_cause_changes(connection, incident["id"])
    assert [change.reason for change in changes] == ["connection.refused", "http.503", "connection.refused"], "in order"
    assert [change.changed_at for change in changes] == sorted(change.changed_at for change in changes)
    assert incident["opened_at"] < changes[0].changed_at
    assert changes[-1].changed_at <= process.now
    assert all(change.since <= change.changed_at for change in changes)
    assert replays(process)
