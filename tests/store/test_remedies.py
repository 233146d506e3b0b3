"""What is done about incidents by itself is begun once, within limits, and only by what is known now."""

from __future__ import annotations

import pytest

from tests.store.lab import EVERY, T0, Lab, member, result
from watchdog.model import Outcome, Result, Tried, Trouble
from watchdog.store.database import Database
from watchdog.store.keep import expire
from watchdog.store.remedies import Need, Remedies, Wanted, tried
from watchdog.store.tables import remedies

HOUR, DAY = 3_600_000, 86_400_000
SLOT = T0 + EVERY
NBSP = "\N{NO-BREAK SPACE}"


class Ward:
    """A probe of jobs, one of a queue, and what is done about them."""

    def __init__(self, database: Database):
        self.lab = Lab(database, [member("jobs", after=1), member("api", after=1)]).without_gaps()
        self.jobs, self.api = self.lab.id("jobs"), self.lab.id("api")
        self.store = Remedies(database, self.lab.fleet)
        self.wanted = {self.jobs: Wanted("UPDATE jobs", frozenset({"job.stuck"}), 3, HOUR)}

    def look(self, at: int = SLOT, **wrong: tuple[str, str]) -> None:
        """A look at the jobs: each that is wrong, with its reason and its run."""
        jobs = {name: Trouble(reason, f"{name} is wrong", run) for name, (reason, run) in wrong.items()}
        self.lab.record(result(self.jobs, at, Outcome.FAIL if jobs else Outcome.PASS, jobs=jobs))

    def begin(self, now: int = SLOT + 1_000, store: Remedies | None = None) -> Need | None:
        """The next thing to be done, as a service comes to it."""
        store = store or self.store
        begun = (store.begin(probe, self.wanted[probe], now) for probe in store.waiting(self.wanted, now))
        return next(filter(None, begun), None)

    def states(self) -> list[tuple[str, str]]:
        return [(row["run"], row["state"]) for row in self.lab.rows(remedies)]


@pytest.fixture
def ward(database: Database) -> Ward:
    return Ward(database)


def test_each_run_is_seen_to_once(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    assert case is not None
    assert (case.reason, case.run, case.probe, case.subject) == ("job.stuck", "7", ward.jobs, "ledger")
    assert ward.begin() is None
    ward.store.end(case, "done", "changed 1 row", SLOT + 2_000)
    ward.look(SLOT + EVERY, ledger=("job.stuck", "7"))
    assert ward.begin(SLOT + EVERY) is None
    ward.look(SLOT + 2 * EVERY, ledger=("job.stuck", "8"))
    again = ward.begin(SLOT + 2 * EVERY)
    assert again is not None
    assert (again.run, again.incident) == ("8", case.incident)


def test_what_was_begun_is_never_begun_again_whoever_was_killed(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    another = Remedies(ward.lab.database, ward.lab.fleet)
    assert ward.begin(SLOT + 100_000, another) is None
    assert case is not None
    with ward.lab.database.read() as connection:
        [kept] = tried(connection, case.incident)
    assert kept == Tried("UPDATE jobs", "job.stuck", "7", "begun", SLOT + 1_000, None, "")


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
    ward.look(SLOT + EVERY, ledger=("job.stuck", "7"))
    case = ward.begin(SLOT + EVERY)
    assert case is not None
    assert case.reason == "job.stuck"


@pytest.mark.parametrize(
    "then",
    [
        Result(0, SLOT + EVERY, "local", Outcome.ERROR, "watchdog.internal_error"),
        Result(0, SLOT + EVERY, "local", Outcome.MISSED, "missed.overloaded"),
    ],
)
def test_nothing_is_done_while_nobody_knows_how_things_are(ward: Ward, then: Result) -> None:
    ward.look(ledger=("job.stuck", "7"))
    ward.lab.record(then._replace(probe=ward.jobs))
    assert ward.begin(SLOT + EVERY + 1_000) is None


def test_what_was_seen_too_long_ago_is_nothing_to_go_by(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.begin(SLOT + 340_001) is None
    assert ward.begin(SLOT + 340_000) is not None


def test_an_incident_that_is_over_needs_nothing(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    ward.look(SLOT + EVERY)
    assert ward.begin(SLOT + EVERY) is None


def test_a_probe_that_is_down_is_seen_to_like_a_job(ward: Ward) -> None:
    ward.wanted = {ward.api: Wanted("POST", frozenset({"http.status"}), 3, HOUR)}
    ward.lab.record(result(ward.api, SLOT, Outcome.FAIL))
    case = ward.begin()
    assert case is not None
    assert (case.reason, case.subject, case.run) == ("http.status", "", "")


def test_the_limit_holds_back_and_lets_go(ward: Ward) -> None:
    ward.wanted = {ward.jobs: Wanted("UPDATE jobs", frozenset({"job.stuck"}), 2, HOUR)}
    ward.look(a=("job.stuck", "1"), b=("job.stuck", "2"), c=("job.stuck", "3"))
    begun = [ward.begin(), ward.begin(), ward.begin()]
    assert [case.run if case else None for case in begun] == ["1", "2", None]
    assert sorted(ward.states()) == [("1", "begun"), ("2", "begun"), ("3", "held")]
    [held] = ward.lab.rows(remedies, remedies.c.state == "held")
    assert held["detail"] == f"2{NBSP}times within 1{NBSP}h is the most"
    later = SLOT + HOUR
    ward.look(later, c=("job.stuck", "3"))
    assert ward.begin(later + 999) is None
    freed = ward.begin(later + 1_000)
    assert freed is not None
    assert freed.run == "3"
    assert ("3", "begun") in ward.states()
    assert ward.lab.rows(remedies, remedies.c.run == "3")[0]["detail"] == ""


def test_what_was_a_dry_run_is_done_once_it_is_meant(ward: Ward) -> None:
    meant = ward.wanted[ward.jobs]._replace(most=1)
    ward.wanted = {ward.jobs: meant._replace(dry=True)}
    ward.look(ledger=("job.stuck", "7"))
    need = ward.begin()
    assert need is not None
    ward.store.end(need, "tried", "would change 1 row", SLOT + 1_000)
    assert ward.begin(SLOT + 2_000) is None
    ward.wanted = {ward.jobs: meant}
    assert ward.begin(SLOT + 3_000) == need
    assert ward.begin(SLOT + 4_000) is None
    [row] = ward.lab.rows(remedies)
    assert (row["state"], row["at"], row["ended_at"], row["detail"]) == ("begun", SLOT + 3_000, None, "")


def test_what_is_about_a_run_is_not_done_where_none_is_under_way(ward: Ward) -> None:
    reasons = frozenset({"job.stuck", "job.overdue"})
    ward.wanted = {ward.jobs: Wanted("UPDATE jobs", reasons, 1, HOUR, names_run=True)}
    ward.look(a=("job.overdue", ""), b=("job.overdue", ""), c=("job.stuck", "3"))
    need = ward.begin()
    assert need is not None
    assert need.run == "3"
    assert ward.states() == [("3", "begun")]


def test_nobody_waits_to_write_who_has_nothing_to_do(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.store.waiting(ward.wanted, SLOT + 1_000) == [ward.jobs]
    assert ward.begin() is not None
    assert ward.store.waiting(ward.wanted, SLOT + 1_000) == []


def test_the_limit_of_one_probe_is_not_that_of_another(ward: Ward) -> None:
    ward.wanted = {
        ward.jobs: Wanted("UPDATE jobs", frozenset({"job.stuck"}), 1, HOUR),
        ward.api: Wanted("POST", frozenset({"http.status"}), 1, HOUR),
    }
    ward.look(a=("job.stuck", "1"))
    ward.lab.record(result(ward.api, SLOT, Outcome.FAIL))
    found = [ward.begin(), ward.begin(), ward.begin()]
    assert {case.probe for case in found if case} == {ward.jobs, ward.api}
    assert found[2] is None


def test_the_end_is_told_by_who_began_it(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    case = ward.begin()
    assert case is not None
    ward.store.end(case, "failed", "no such column \0", SLOT + 2_000)
    ward.store.end(case, "done", "changed 1 row", SLOT + 3_000)
    [row] = ward.lab.rows(remedies)
    assert (row["state"], row["detail"], row["ended_at"]) == ("failed", "no such column �", SLOT + 2_000)


def test_what_was_done_goes_with_its_incident(ward: Ward) -> None:
    ward.look(ledger=("job.stuck", "7"))
    assert ward.begin() is not None
    ward.look(SLOT + EVERY)
    for _ in range(3):
        expire(ward.lab.database, SLOT + 30 * DAY, DAY, 40 * DAY)
    assert len(ward.lab.rows(remedies)) == 1
    while expire(ward.lab.database, SLOT + 60 * DAY, DAY, 40 * DAY):
        pass
    assert ward.lab.rows(remedies) == []
