"""Remediations: each attempt starts once, within the limit, and only for a problem in the newest result."""

from __future__ import annotations

import pytest

from tests.support.builders import overdue_job, stuck_job
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.formatting import DAY_MS, HOUR_MS, NBSP
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.remediation_attempts import RemediationAttempt, RemediationAttemptState
from watchdog.store.database import Database
from watchdog.store.read.alert_context import list_remediation_attempts
from watchdog.store.tables import remediations
from watchdog.store.write.remediations import (
    PendingRemediation,
    ProbeRemediationPolicy,
    RemediationStore,
)
from watchdog.store.write.retention import delete_expired_rows

SLOT = START_AT + INTERVAL_MS


class RemediationHarness:
    """Two probes, `jobs` and `api`, and the remediations in `specs`."""

    def __init__(self, database: Database):
        self.harness = StoreHarness(
            database,
            [make_registered_probe("jobs", failure_threshold=1), make_registered_probe("api", failure_threshold=1)],
        ).without_downtime()
        self.jobs, self.api = self.harness.database_id("jobs"), self.harness.database_id("api")
        self.store = RemediationStore(database, self.harness.registry)
        self.specs = {self.jobs: ProbeRemediationPolicy("UPDATE jobs", frozenset({"job.stuck"}), 3, HOUR_MS)}

    def record_jobs(self, slot: int = SLOT, **problems: tuple[str, str]) -> None:
        """Record a result of `jobs`. `problems`: job -> reason and run id."""
        jobs = [
            stuck_job(name, slot, run_id) if reason == "job.stuck" else overdue_job(name, slot - HOUR_MS)
            for name, (reason, run_id) in problems.items()
        ]
        self.harness.record_results(make_result(self.jobs, slot, Outcome.FAIL if jobs else Outcome.PASS, jobs=jobs))

    def start_next(self, now: int = SLOT + 1_000, store: RemediationStore | None = None) -> PendingRemediation | None:
        """Start the next attempt, as the service does."""
        store = store or self.store
        started = (
            store.mark_next_remediation_started(probe, self.specs[probe], now)
            for probe in store.list_probes_to_remediate(self.specs, now)
        )
        return next(filter(None, started), None)

    def states(self) -> list[tuple[str, str]]:
        return [(row["run_id"], row["state"]) for row in self.harness.select_rows(remediations)]


@pytest.fixture
def service(database: Database) -> RemediationHarness:
    return RemediationHarness(database)


def test_each_run_is_remediated_once(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    pending = service.start_next()
    assert pending is not None
    assert (pending.reason, pending.run_id, pending.probe, pending.subject) == (
        "job.stuck",
        "7",
        service.jobs,
        "ledger",
    )
    assert service.start_next() is None
    service.store.store_remediation_result(pending, RemediationAttemptState.SUCCEEDED, "changed 1 row", SLOT + 2_000)
    service.record_jobs(SLOT + INTERVAL_MS, ledger=("job.stuck", "7"))
    assert service.start_next(SLOT + INTERVAL_MS) is None
    service.record_jobs(SLOT + 2 * INTERVAL_MS, ledger=("job.stuck", "8"))
    second = service.start_next(SLOT + 2 * INTERVAL_MS)
    assert second is not None
    assert (second.run_id, second.incident) == ("8", pending.incident)


def test_an_attempt_that_was_interrupted_is_not_repeated(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    pending = service.start_next()
    another = RemediationStore(service.harness.database, service.harness.registry)
    assert service.start_next(SLOT + 100_000, another) is None
    assert pending is not None
    with service.harness.database.open_read_transaction() as connection:
        [attempt] = list_remediation_attempts(connection, pending.incident)
    assert attempt == RemediationAttempt(
        "UPDATE jobs", "job.stuck", "7", RemediationAttemptState.STARTED, SLOT + 1_000, None, ""
    )


@pytest.mark.parametrize(
    ("problems", "why"),
    [
        ({}, "no problem"),
        ({"ledger": ("job.overdue", "7")}, "another reason"),
    ],
)
def test_nothing_is_started_for_other_results(
    service: RemediationHarness, problems: dict[str, tuple[str, str]], why: str
) -> None:
    service.record_jobs(SLOT, **problems)
    assert service.start_next() is None, why
    assert service.states() == []


def test_a_later_reason_counts(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.overdue", ""))
    assert service.start_next() is None
    service.record_jobs(SLOT + INTERVAL_MS, ledger=("job.stuck", "7"))
    pending = service.start_next(SLOT + INTERVAL_MS)
    assert pending is not None
    assert pending.reason == "job.stuck"


@pytest.mark.parametrize(
    "newest",
    [
        ProbeResult(0, SLOT + INTERVAL_MS, "local", Outcome.ERROR, "watchdog.internal_error"),
        ProbeResult(0, SLOT + INTERVAL_MS, "local", Outcome.MISSED, "missed.shutdown_before_run"),
    ],
)
def test_nothing_is_started_without_a_verdict(service: RemediationHarness, newest: ProbeResult) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    service.harness.record_results(newest._replace(probe=service.jobs))
    assert service.start_next(SLOT + INTERVAL_MS + 1_000) is None


def test_a_result_that_is_too_old_does_not_count(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    assert service.start_next(SLOT + 340_001) is None
    assert service.start_next(SLOT + 340_000) is not None


def test_nothing_is_started_for_a_resolved_incident(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    service.record_jobs(SLOT + INTERVAL_MS)
    assert service.start_next(SLOT + INTERVAL_MS) is None


def test_an_incident_of_another_rule_is_remediated(service: RemediationHarness) -> None:
    service.specs = {service.api: ProbeRemediationPolicy("POST", frozenset({"http.503"}), 3, HOUR_MS)}
    service.harness.record_results(make_result(service.api, SLOT, Outcome.FAIL))
    pending = service.start_next()
    assert pending is not None
    assert (pending.reason, pending.subject, pending.run_id) == ("http.503", "", "")


@pytest.mark.parametrize(
    ("pattern", "starts"), [("http", True), ("http.5xx", True), ("http.4xx", False), ("timeout", False)]
)
def test_a_family_of_reasons_is_remediated(service: RemediationHarness, pattern: str, starts: bool) -> None:
    service.specs = {service.api: ProbeRemediationPolicy("POST", frozenset({pattern}), 3, HOUR_MS)}
    service.harness.record_results(make_result(service.api, SLOT, Outcome.FAIL))
    pending = service.start_next()
    assert (pending is not None) is starts
    assert pending is None or pending.reason == "http.503"


def test_an_attempt_over_the_limit_starts_later(service: RemediationHarness) -> None:
    service.specs = {service.jobs: ProbeRemediationPolicy("UPDATE jobs", frozenset({"job.stuck"}), 2, HOUR_MS)}
    service.record_jobs(a=("job.stuck", "1"), b=("job.stuck", "2"), c=("job.stuck", "3"))
    attempts = [service.start_next(), service.start_next(), service.start_next()]
    assert [attempt.run_id if attempt else None for attempt in attempts] == ["1", "2", None]
    assert sorted(service.states()) == [("1", "started"), ("2", "started"), ("3", "rate_limited")]
    [limited] = service.harness.select_rows(remediations, remediations.c.state == "rate_limited")
    assert limited["detail"] == f"rate limit: 2{NBSP}runs per 1{NBSP}h"
    later = SLOT + HOUR_MS
    service.record_jobs(later, c=("job.stuck", "3"))
    assert service.start_next(later + 999) is None
    third = service.start_next(later + 1_000)
    assert third is not None
    assert third.run_id == "3"
    assert ("3", "started") in service.states()
    assert service.harness.select_rows(remediations, remediations.c.run_id == "3")[0]["detail"] == ""


def test_an_attempt_starts_once_it_is_no_longer_a_dry_run(service: RemediationHarness) -> None:
    spec = service.specs[service.jobs]._replace(max_runs=1)
    service.specs = {service.jobs: spec._replace(dry_run=True)}
    service.record_jobs(ledger=("job.stuck", "7"))
    pending = service.start_next()
    assert pending is not None
    service.store.store_remediation_result(pending, RemediationAttemptState.DRY_RUN, "would change 1 row", SLOT + 1_000)
    assert service.start_next(SLOT + 2_000) is None
    service.specs = {service.jobs: spec}
    assert service.start_next(SLOT + 3_000) == pending
    assert service.start_next(SLOT + 4_000) is None
    [row] = service.harness.select_rows(remediations)
    assert (row["state"], row["started_at"], row["ended_at"], row["detail"]) == ("started", SLOT + 3_000, None, "")


def test_a_spec_that_requires_a_run_id_skips_jobs_without_one(service: RemediationHarness) -> None:
    reasons = frozenset({"job.stuck", "job.overdue"})
    service.specs = {service.jobs: ProbeRemediationPolicy("UPDATE jobs", reasons, 1, HOUR_MS, requires_run_id=True)}
    service.record_jobs(a=("job.overdue", ""), b=("job.overdue", ""), c=("job.stuck", "3"))
    pending = service.start_next()
    assert pending is not None
    assert pending.run_id == "3"
    assert service.states() == [("3", "started")]


def test_probes_without_a_pending_attempt_need_no_write(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    assert service.store.list_probes_to_remediate(service.specs, SLOT + 1_000) == [service.jobs]
    assert service.start_next() is not None
    assert service.store.list_probes_to_remediate(service.specs, SLOT + 1_000) == []


def test_the_limit_applies_to_each_probe(service: RemediationHarness) -> None:
    service.specs = {
        service.jobs: ProbeRemediationPolicy("UPDATE jobs", frozenset({"job.stuck"}), 1, HOUR_MS),
        service.api: ProbeRemediationPolicy("POST", frozenset({"http.503"}), 1, HOUR_MS),
    }
    service.record_jobs(a=("job.stuck", "1"))
    service.harness.record_results(make_result(service.api, SLOT, Outcome.FAIL))
    attempts = [service.start_next(), service.start_next(), service.start_next()]
    assert {attempt.probe for attempt in attempts if attempt} == {service.jobs, service.api}
    assert attempts[2] is None


def test_only_a_started_attempt_is_finished(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    pending = service.start_next()
    assert pending is not None
    service.store.store_remediation_result(pending, RemediationAttemptState.FAILED, "no such column \0", SLOT + 2_000)
    service.store.store_remediation_result(pending, RemediationAttemptState.SUCCEEDED, "changed 1 row", SLOT + 3_000)
    [row] = service.harness.select_rows(remediations)
    assert (row["state"], row["detail"], row["ended_at"]) == ("failed", "no such column �", SLOT + 2_000)


def test_attempts_are_deleted_with_their_incident(service: RemediationHarness) -> None:
    service.record_jobs(ledger=("job.stuck", "7"))
    assert service.start_next() is not None
    service.record_jobs(SLOT + INTERVAL_MS)
    for _ in range(3):
        delete_expired_rows(service.harness.database, SLOT + 30 * DAY_MS, DAY_MS, 40 * DAY_MS)
    assert len(service.harness.select_rows(remediations)) == 1
    while delete_expired_rows(service.harness.database, SLOT + 60 * DAY_MS, DAY_MS, 40 * DAY_MS):
        pass
    assert service.harness.select_rows(remediations) == []
