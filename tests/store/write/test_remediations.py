"""What is done about incidents by itself is begun once, within limits, and only by what is known now."""

from __future__ import annotations

import pytest

from tests.support.builders import overdue_job, stuck_job
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import Outcome, RemediationAttempt, Result
from watchdog.store.database import Database
from watchdog.store.read.alert_context import list_remediation_attempts
from watchdog.store.tables import remediations
from watchdog.store.write.remediations import (
    PendingRemediation,
    RemediationSpec,
    RemediationStore,
)
from watchdog.store.write.retention import delete_expired_rows

HOUR, DAY = 3_600_000, 86_400_000
SLOT = START_AT + INTERVAL_MS
NBSP = "\N{NO-BREAK SPACE}"


class Ward:
    """A probe of jobs, one of a queue, and what is done about them."""

    def __init__(self, database: Database):
        self.lab = StoreHarness(
            database,
            [make_registered_probe("jobs", failure_threshold=1), make_registered_probe("api", failure_threshold=1)],
        ).without_downtime()
        self.jobs, self.api = self.lab.database_id("jobs"), self.lab.database_id("api")
        self.store = RemediationStore(database, self.lab.registry)
        self.wanted = {self.jobs: RemediationSpec("UPDATE jobs", frozenset({"job.stuck"}), 3, HOUR)}

    def look(self, at: int = SLOT, **wrong: tuple[str, str]) -> None:
        """A look at the jobs: each that is wrong, with its reason and its run."""
        jobs = [
            stuck_job(name, at, run) if reason == "job.stuck" else overdue_job(name, at - HOUR)
            for name, (reason, run) in wrong.items()
        ]
        self.lab.record_results(make_result(self.jobs, at, Outcome.FAIL if jobs else Outcome.PASS, jobs=jobs))

    def begin(self, now: int = SLOT + 1_000, store: RemediationStore | None = None) -> PendingRemediation | None:
        """The next thing to be done, as a service comes to it."""
        store = store or self.store
        begun = (
            store.start_next_remediation(probe, self.wanted[probe], now)
            for probe in store.list_probes_to_remediate(self.wanted, now)
        )
        return next(filter(None, begun), None)

    def states(self) -> list[tuple[str, str]]:
        return [(row["run_id"], row["state"]) for row in self.lab.select_rows(remediations)]


@pytest.fixture
def ward(database: Database) -> Ward:
    return Ward(database)


def test_each_run_is_seen_to_once(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    assert case is not None
    assert (case.reason, case.run_id, case.probe, case.subject) == ("job.stuck", "7", ward.jobs, "ledger")
    assert ward.begin() is None
    ward.store.finish_remediation(case, "succeeded", "changed 1 row", SLOT + 2_000)
    ward.look(SLOT + INTERVAL_MS, ledger=("job.stuck", "7"))
    assert ward.begin(SLOT + INTERVAL_MS) is None
    ward.look(SLOT + 2 * INTERVAL_MS, ledger=("job.stuck", "8"))
    again = ward.begin(SLOT + 2 * INTERVAL_MS)
    assert again is not None
    assert (again.run_id, again.incident) == ("8", case.incident)


def test_what_was_begun_is_never_begun_again_whoever_was_killed(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    another = RemediationStore(ward.lab.database, ward.lab.registry)
    assert ward.begin(SLOT + 100_000, another) is None
    assert case is not None
    with ward.lab.database.read_transaction() as connection:
        [kept] = list_remediation_attempts(connection, case.incident)
    assert kept == RemediationAttempt("UPDATE jobs", "job.stuck", "7", "started", SLOT + 1_000, None, "")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "all is well"),
        ({"ledger": ("job.overdue", "7")}, "the reason is another"),
    ],
)
def test_nothing_else_is_done(ward: Ward, wrong: dict[str, tuple[str, str]], why: str) -> None:
    ward.look(SLOT, **wrong)
    assert ward.begin() is None, why
    assert ward.states() == []


def test_a_reason_that_comes_later_counts_too(ward: Ward) -> None:
    ward.look(ledger=("job.overdue", ""))
    assert ward.begin() is None
    ward.look(SLOT + INTERVAL_MS, ledger=("job.stuck", "7"))
    case = ward.begin(SLOT + INTERVAL_MS)
    assert case is not None
    assert case.reason == "job.stuck"


@pytest.mark.parametrize(
    "then",
    [
        Result(0, SLOT + INTERVAL_MS, "local", Outcome.ERROR, "watchdog.internal_error"),
        Result(0, SLOT + INTERVAL_MS, "local", Outcome.MISSED, "missed.overloaded"),
    ],
)
def test_nothing_is_done_while_nobody_knows_how_things_are(ward: Ward, then: Result) -> None:
    ward.look(ledger=("job.stuck", "7"))
    ward.lab.record_results(then._replace(probe=ward.jobs))
    assert ward.begin(SLOT + INTERVAL_MS + 1_000) is None


def test_what_was_seen_too_long_ago_is_nothing_to_go_by(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.begin(SLOT + 340_001) is None
    assert ward.begin(SLOT + 340_000) is not None


def test_an_incident_that_is_over_needs_nothing(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    ward.look(SLOT + INTERVAL_MS)
    assert ward.begin(SLOT + INTERVAL_MS) is None


def test_a_probe_that_is_down_is_seen_to_like_a_job(ward: Ward) -> None:
    ward.wanted = {ward.api: RemediationSpec("POST", frozenset({"http.status"}), 3, HOUR)}
    ward.lab.record_results(make_result(ward.api, SLOT, Outcome.FAIL))
    case = ward.begin()
    assert case is not None
    assert (case.reason, case.subject, case.run_id) == ("http.status", "", "")


def test_the_limit_holds_back_and_lets_go(ward: Ward) -> None:
    ward.wanted = {ward.jobs: RemediationSpec("UPDATE jobs", frozenset({"job.stuck"}), 2, HOUR)}
    ward.look(a=("job.stuck", "1"), b=("job.stuck", "2"), c=("job.stuck", "3"))
    begun = [ward.begin(), ward.begin(), ward.begin()]
    assert [case.run_id if case else None for case in begun] == ["1", "2", None]
    assert sorted(ward.states()) == [("1", "started"), ("2", "started"), ("3", "rate_limited")]
    [held] = ward.lab.select_rows(remediations, remediations.c.state == "rate_limited")
    assert held["detail"] == f"2{NBSP}times within 1{NBSP}h is the most"
    later = SLOT + HOUR
    ward.look(later, c=("job.stuck", "3"))
    assert ward.begin(later + 999) is None
    freed = ward.begin(later + 1_000)
    assert freed is not None
    assert freed.run_id == "3"
    assert ("3", "started") in ward.states()
    assert ward.lab.select_rows(remediations, remediations.c.run_id == "3")[0]["detail"] == ""


def test_what_was_a_dry_run_is_done_once_it_is_meant(ward: Ward) -> None:
    meant = ward.wanted[ward.jobs]._replace(max_runs=1)
    ward.wanted = {ward.jobs: meant._replace(dry_run=True)}
    ward.look(ledger=("job.stuck", "7"))
    need = ward.begin()
    assert need is not None
    ward.store.finish_remediation(need, "dry_run", "would change 1 row", SLOT + 1_000)
    assert ward.begin(SLOT + 2_000) is None
    ward.wanted = {ward.jobs: meant}
    assert ward.begin(SLOT + 3_000) == need
    assert ward.begin(SLOT + 4_000) is None
    [row] = ward.lab.select_rows(remediations)
    assert (row["state"], row["started_at"], row["ended_at"], row["detail"]) == ("started", SLOT + 3_000, None, "")


def test_what_is_about_a_run_is_not_done_where_none_is_under_way(ward: Ward) -> None:
    reasons = frozenset({"job.stuck", "job.overdue"})
    ward.wanted = {ward.jobs: RemediationSpec("UPDATE jobs", reasons, 1, HOUR, requires_run_id=True)}
    ward.look(a=("job.overdue", ""), b=("job.overdue", ""), c=("job.stuck", "3"))
    need = ward.begin()
    assert need is not None
    assert need.run_id == "3"
    assert ward.states() == [("3", "started")]


def test_nobody_waits_to_write_who_has_nothing_to_do(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.store.list_probes_to_remediate(ward.wanted, SLOT + 1_000) == [ward.jobs]
    assert ward.begin() is not None
    assert ward.store.list_probes_to_remediate(ward.wanted, SLOT + 1_000) == []


def test_the_limit_of_one_probe_is_not_that_of_another(ward: Ward) -> None:
    ward.wanted = {
        ward.jobs: RemediationSpec("UPDATE jobs", frozenset({"job.stuck"}), 1, HOUR),
        ward.api: RemediationSpec("POST", frozenset({"http.status"}), 1, HOUR),
    }
    ward.look(a=("job.stuck", "1"))
    ward.lab.record_results(make_result(ward.api, SLOT, Outcome.FAIL))
    found = [ward.begin(), ward.begin(), ward.begin()]
    assert {case.probe for case in found if case} == {ward.jobs, ward.api}
    assert found[2] is None


def test_the_end_is_told_by_who_began_it(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    assert case is not None
    ward.store.finish_remediation(case, "failed", "no such column \0", SLOT + 2_000)
    ward.store.finish_remediation(case, "succeeded", "changed 1 row", SLOT + 3_000)
    [row] = ward.lab.select_rows(remediations)
    assert (row["state"], row["detail"], row["ended_at"]) == ("failed", "no such column �", SLOT + 2_000)


def test_what_was_done_goes_with_its_incident(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.begin() is not None
    ward.look(SLOT + INTERVAL_MS)
    for _ in range(3):
        delete_expired_rows(ward.lab.database, SLOT + 30 * DAY, DAY, 40 * DAY)
    assert len(ward.lab.select_rows(remediations)) == 1
    while delete_expired_rows(ward.lab.database, SLOT + 60 * DAY, DAY, 40 * DAY):
        pass
    assert ward.lab.select_rows(remediations) == []
