"""Faults of a process become findings of the built-in probe, and end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.service.member_faults import (
    MAX_NETWORK_FAULT_EVIDENCE_AGE_MS,
    WATCHDOG_NETWORK_FAULT_ENDS_AFTER_MS,
    WATCHDOG_OVERLOAD_FAULT_ENDS_AFTER_MS,
    WATCHDOG_STORE_FAULT_ENDS_AFTER_MS,
    WatchdogProcessFaultReporter,
)
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.read.destinations import load_watchdog_fault_facts
from watchdog.store.tables import member_faults
from watchdog.store.write.absences import load_processes_with_unreported_store_absence


class FaultHarness:
    """A member, and what the built-in probe sees of it."""

    def __init__(self, url: str):
        self.now = START_AT
        self.store = StoreHarness(url, [make_registered_probe()])
        self.store_executor = StoreExecutor(self.store.database, lambda: self.now)
        self.changes, self.has_lease = 0, True
        self.member = self.store.membership.member_id
        self.reporter = WatchdogProcessFaultReporter(
            self.member, self.store_executor, lambda: self.now, self.count_change
        )

    async def count_change(self) -> None:
        self.changes += 1

    def facts(self) -> dict[str, WatchdogFaultFacts]:
        if self.has_lease:
            self.store.membership.renew_process_lease_and_update_probes(self.now)
        with self.store.database.open_read_transaction() as connection:
            return load_watchdog_fault_facts(connection, [], self.now)


@pytest.fixture
def harness(database_url: str) -> Any:
    harness = FaultHarness(database_url)
    yield harness
    harness.store_executor.close()


async def test_an_overload_begins_and_ends(harness: FaultHarness) -> None:
    subject = f"overload of {harness.member}"
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(None)
    harness.reporter.record_overload("100 runs against a:1")
    harness.now += 10_000
    harness.reporter.record_overload("100 runs against a:1")
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(START_AT, error="100 runs against a:1 were in progress")
    harness.now += WATCHDOG_OVERLOAD_FAULT_ENDS_AFTER_MS - 1
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject].failing_since == START_AT
    harness.now += 1
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(None)
    assert harness.changes == 2
    assert harness.store.select_rows(member_faults) == []


async def test_an_absence_of_the_store_is_a_fault_afterwards(harness: FaultHarness) -> None:
    subject = f"database of {harness.member}"
    harness.now += 240_000
    harness.reporter.record_store_absence(START_AT, "database is locked")
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(START_AT, error="back at 22:18 UTC; database is locked")
    harness.now += WATCHDOG_STORE_FAULT_ENDS_AFTER_MS - 1
    harness.reporter.record_store_absence(harness.now - 30_000, "disk full")
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(START_AT, error="back at 22:18 UTC; disk full"), "the same"
    harness.now += WATCHDOG_STORE_FAULT_ENDS_AFTER_MS
    await harness.reporter.write_changed_faults()
    assert harness.facts()[subject] == WatchdogFaultFacts(None)
    assert harness.changes == 2


async def test_other_processes_see_that_a_process_has_stored_what_it_ran_without_the_store(
    harness: FaultHarness,
) -> None:
    def load_unreported() -> set[str]:
        with harness.store.database.open_read_transaction() as connection:
            return load_processes_with_unreported_store_absence(connection, {harness.member})

    harness.reporter.record_overload("100 runs against a:1")
    await harness.reporter.write_changed_faults()
    assert load_unreported() == {harness.member}
    harness.reporter.record_store_absence(START_AT, "database is locked")
    await harness.reporter.write_changed_faults()
    assert load_unreported() == set()


NO_ROUTE = ProbeResult(
    1, START_AT, "local", Outcome.ERROR, WATCHDOG_NETWORK_FAULT_REASON, "no verdict: no default route"
)
OK = ProbeResult(1, START_AT, "local", Outcome.PASS)


async def list_network_facts(harness: FaultHarness) -> WatchdogFaultFacts:
    await harness.reporter.write_changed_faults()
    return harness.facts()[f"network of {harness.member}"]


async def test_the_network_has_failed_until_each_probe_reaches_its_target_again(harness: FaultHarness) -> None:
    failed = WatchdogFaultFacts(START_AT, error="no default route")
    harness.reporter.note_result(OK._replace(probe=3))
    assert await list_network_facts(harness) == WatchdogFaultFacts(None)
    harness.reporter.note_result(NO_ROUTE)
    harness.reporter.note_result(NO_ROUTE._replace(probe=2))
    assert await list_network_facts(harness) == failed
    harness.reporter.note_result(OK._replace(outcome=Outcome.FAIL, reason="http.503"))
    harness.now += WATCHDOG_NETWORK_FAULT_ENDS_AFTER_MS
    assert await list_network_facts(harness) == failed, "the other probe has reached nothing yet"
    harness.reporter.note_result(OK._replace(probe=2))
    assert await list_network_facts(harness) == WatchdogFaultFacts(None)
    assert harness.changes == 2


async def test_a_network_that_fails_again_and_again_is_one_fault(harness: FaultHarness) -> None:
    for _ in range(10):
        harness.reporter.note_result(NO_ROUTE)
        assert (await list_network_facts(harness)).failing_since == START_AT
        harness.now += WATCHDOG_NETWORK_FAULT_ENDS_AFTER_MS // 2
        harness.reporter.note_result(OK)
        assert (await list_network_facts(harness)).failing_since == START_AT
    assert harness.changes == 1


async def test_a_probe_that_does_not_run_again_does_not_prolong_the_fault(harness: FaultHarness) -> None:
    harness.reporter.note_result(NO_ROUTE)
    harness.reporter.note_result(OK._replace(outcome=Outcome.ERROR, reason="watchdog.loop_late"))
    harness.now += MAX_NETWORK_FAULT_EVIDENCE_AGE_MS - 1
    assert (await list_network_facts(harness)).failing_since == START_AT
    harness.now += 1
    assert await list_network_facts(harness) == WatchdogFaultFacts(None)


async def test_a_member_that_has_ended_has_no_faults(harness: FaultHarness) -> None:
    harness.reporter.record_overload("2,000 runs")
    await harness.reporter.write_changed_faults()
    harness.store.membership.leave(harness.now)
    harness.has_lease = False
    assert [subject for subject in harness.facts() if " of " in subject] == []


async def test_a_missing_connection_to_slack_begins_and_ends(harness: FaultHarness) -> None:
    subject = f"slack connection of {harness.member}"
    for problem, fact in (
        ("oncall/slack: connection refused", WatchdogFaultFacts(START_AT, error="oncall/slack: connection refused")),
        ("oncall/slack: HTTP 503", WatchdogFaultFacts(START_AT, error="oncall/slack: HTTP 503")),
        ("", WatchdogFaultFacts(None)),
    ):
        harness.reporter.set_slack_problem(problem)
        await harness.reporter.write_changed_faults()
        assert harness.facts()[subject] == fact
        harness.now += 1_000
    assert harness.changes == 2
