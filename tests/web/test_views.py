"""What pages read, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.web.book import NOW, Book, at
from tests.web.serving import filled
from tests.web.story import acme
from watchdog.beat import CheckIn, Kind
from watchdog.model import Evidence, Outcome, State, Task
from watchdog.store import history, views
from watchdog.store.database import Database
from watchdog.store.jobs import jobs
from watchdog.words import DAY, HOUR, MINUTE, SECOND, span


@pytest.fixture
def book() -> Book:
    """Three probes: one that failed, one that has never run, one that is gone from the configuration."""
    book = Book()
    book.mark(NOW - SECOND)
    api = book.probe("API", "http", "Core", tags=("prod",), task_limits={"*": HOUR})
    book.probe("New", "mcp", since=NOW - SECOND, next_due=NOW + 12 * SECOND)
    gone = book.probe("Gone")
    book.rows["probes"][-1]["removed_at"] = NOW - DAY
    for i in range(5):
        book.result(
            api, NOW - (10 - i) * MINUTE, took=100 + i, phases={"connect": 1.5}, tasks={"t": Task(ok=True, age=5)}
        )
    book.result(
        api,
        NOW - 4 * MINUTE,
        Outcome.FAIL,
        "got 503",
        "expectation.failed",
        20,
        evidence=Evidence({"status": 503}, "no"),
    )
    book.result(api, NOW - 3 * MINUTE, Outcome.ERROR, "loop late", "watchdog.loop_late", None)
    book.result(api, NOW - 2 * MINUTE, Outcome.MISSED, "", "missed.skipped", None, n=2)
    book.incident(api, "preference", "slow", NOW - HOUR, until=NOW - HOUR + MINUTE)
    book.named["down"] = book.incident(api, "availability", "got 503", NOW - 4 * MINUTE, after=0, needed=1)
    book.incident(api, "preference", "slow", NOW - 5 * MINUTE, after=0)
    book.incident(gone, "availability", "got 500", NOW - 2 * DAY, until=NOW - DAY, resolution="probe.removed")
    book.told(book.named["down"], "chat/log", created=NOW - 4 * MINUTE, done=NOW - 4 * MINUTE + 20)
    book.told(book.named["down"], "pager/webhook", "dead", created=NOW - 4 * MINUTE, done=NOW, attempts=8, detail="410")
    return book


@pytest.fixture
def database(database_url: str, book: Book) -> Iterator[Database]:
    with filled(database_url, book) as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.read() as connection:
        yield connection


def test_standings_tell_state_newest_result_and_next_run(connection: sa.Connection) -> None:
    api, new = views.standings(connection)
    assert (api.probe.name, api.probe.tags, api.probe.task_limits) == ("API", ("prod",), {"*": HOUR})
    assert api.state is State.DOWN
    assert [i.rule for i in api.incidents] == ["availability", "preference"]
    assert api.last is not None
    assert (api.last.outcome, api.last.n, api.last.reason) == (Outcome.MISSED, 2, "missed.skipped")
    assert api.judged_at == NOW - 4 * MINUTE
    assert (new.probe.name, new.state, new.last, new.judged_at) == ("New", State.UNKNOWN, None, None)
    assert new.next_due == NOW + 12 * SECOND


def test_one_standing_by_key(connection: sa.Connection) -> None:
    assert [s.probe.name for s in views.standings(connection, "new")] == ["New"]
    assert [len(s.incidents) for s in views.standings(connection, "api")] == [2]
    assert views.standings(connection, "gone") == []
    assert views.standings(connection, "no-such") == []


def test_the_pulse_counts_what_is_open_and_what_is_dead(connection: sa.Connection) -> None:
    assert views.pulse(connection) == views.Pulse(NOW - SECOND, 2, 1)


@pytest.mark.parametrize(
    ("sentence", "asked", "messages"),
    [
        ("all of them, newest first", {}, ["got 503", "slow", "slow", "got 500"]),
        ("open ones", {"is_open": True}, ["got 503", "slow"]),
        ("resolved ones", {"is_open": False}, ["slow", "got 500"]),
        ("of one probe", {"probe": 3}, ["got 500"]),
        ("since an instant", {"since": NOW - 30 * MINUTE}, ["got 503", "slow"]),
        ("not more than asked", {"limit": 1}, ["got 503"]),
        ("an unknown one", {"incident": "no-such"}, []),
    ],
)
def test_cases(connection: sa.Connection, sentence: str, asked: dict[str, int], messages: list[str]) -> None:
    assert [case.incident.message for case in views.cases(connection, **asked)] == messages, sentence  # type: ignore[arg-type]


def test_who_was_told_and_what_died(connection: sa.Connection, book: Book) -> None:
    told = views.told(connection, book.named["down"])
    assert [(t.destination, t.state, t.attempts) for t in told] == [
        ("chat/log", "sent", 1),
        ("pager/webhook", "dead", 8),
    ]
    ((letter, case),) = views.dead_letters(connection)
    assert (letter.detail, case.probe.name, case.incident.id) == ("410", "API", book.named["down"])


def test_incidents_are_counted_by_probe(connection: sa.Connection) -> None:
    assert views.incident_counts(connection, NOW - HOUR) == {1: 3}


def test_the_last_runs_come_oldest_first_and_no_more_than_asked(connection: sa.Connection) -> None:
    runs = history.latest(connection, [1, 2], 3)
    assert [run.outcome for run in runs[1]] == [Outcome.FAIL, Outcome.ERROR, Outcome.MISSED]
    assert runs[2] == []
    assert len(history.latest(connection, [1], 40)[1]) == 8


def test_results_page_by_slot_and_by_outcome(connection: sa.Connection) -> None:
    newest = history.before(connection, 1, limit=2)
    assert [run.slot for run in newest] == [NOW - 2 * MINUTE, NOW - 3 * MINUTE]
    assert history.before(connection, 1, newest[-1].slot, limit=1)[0].slot == NOW - 4 * MINUTE
    assert [run.message for run in history.before(connection, 1, only=Outcome.FAIL)] == ["got 503"]
    assert len(history.between(connection, 1, NOW - 8 * MINUTE, NOW - 3 * MINUTE)) == 4


def test_details_carry_evidence_where_some_was_kept(connection: sa.Connection) -> None:
    found = history.details(connection, 1, [NOW - 4 * MINUTE, NOW - 10 * MINUTE, 5])
    assert sorted(found) == [NOW - 10 * MINUTE, NOW - 4 * MINUTE]
    assert found[NOW - 4 * MINUTE].evidence == Evidence({"status": 503}, "no")
    assert found[NOW - 10 * MINUTE].evidence is None
    assert found[NOW - 10 * MINUTE].result.phases == {"connect": 1.5}


def test_the_last_good_results(connection: sa.Connection) -> None:
    assert history.last_good(connection, 1, NOW - 4 * MINUTE) == NOW - 6 * MINUTE
    assert history.last_good(connection, 1, NOW - 10 * MINUTE) is None
    assert history.last_good_evidence(connection, 1, NOW) is None


def test_jobs_of_the_probes_that_are_there(database: Database) -> None:
    book = Book()
    book.probes = {"API": 1, "New": 2, "Gone": 3}
    shop, gone = book.probe("Shop jobs", "jobs"), book.probe("Gone jobs", "jobs")
    book.rows["probes"][-1]["removed_at"] = NOW
    backup, tools = book.probe("Backup", "heartbeat"), book.probe("Tools", "mcp", task_limits={"t": HOUR, "u": HOUR})
    book.job(shop, "b", last_start=NOW - MINUTE)
    book.job(shop, "a", reason="job.stuck")
    book.job(gone, "c")
    book.job(backup, "Backup")
    book.rows["memory"].append({"probe": shop, "key": "flight", "value": "[1]"})
    book.result(shop, NOW - MINUTE, Outcome.FAIL, jobs={"a": ("job.stuck", "a is stuck")})
    book.result(shop, NOW - SECOND, Outcome.FAIL)
    book.result(tools, NOW - MINUTE, tasks={"t": Task(ok=True, age=2 * HOUR)})
    with database.write() as connection:
        book.write(connection)
    with database.read() as connection:
        found = jobs(connection)
        assert jobs(connection, 1) == []
        assert jobs(connection, shop) == [job for job in found if job.probe.id == shop]
        assert jobs(connection, tools) == [job for job in found if job.probe.id == tools]
    assert [(job.name, job.word, job.message, job.at, job.unread) for job in found] == [
        ("a", "Stuck", "a is stuck", NOW - MINUTE, True),
        ("u", "Missing", "task u is not in the server's list", NOW - MINUTE, False),
        ("t", "Stale", f"task t is stale: last run {span(2 * HOUR)} ago, limit {span(HOUR)}", NOW - MINUTE, False),
        ("Backup", "Not run yet", "", None, False),
        ("b", "Ok", "", NOW - MINUTE, True),
    ]  # fmt: skip
    stale = next(job for job in found if job.name == "t")
    assert (stale.last_start, stale.expected) == (NOW - MINUTE - 2 * HOUR, NOW - MINUTE - HOUR)
    assert stale.state is State.DEGRADED


def test_what_a_job_told_us_newest_first(database: Database) -> None:
    book = Book()
    for i, kind in enumerate(("start", "log", "fail")):
        book.check_in(1, NOW + i, kind, run="r", code=3 if kind == "fail" else None, duration=2 if i == 2 else None)
    book.check_in(2, NOW, "ok")
    with database.write() as connection:
        book.write(connection)
    with database.read() as connection:
        (failed, took), (logged, _) = history.last_check_ins(connection, 1, 2)
    assert (failed, took) == (CheckIn("2", NOW + 2, Kind.FAIL, "r", 3), 2)
    assert logged.kind is Kind.LOG


def test_days_with_data_come_from_roll_ups_and_the_last_two_from_results(database: Database) -> None:
    today = NOW // DAY
    book = Book()
    book.probes = {"API": 1, "New": 2, "Gone": 3}
    book.history(2, days=4, skip=(2,))
    book.result(2, at("23:50", 1))
    book.result(2, at("00:01", 3), Outcome.FAIL)
    with database.write() as connection:
        book.write(connection)
    with database.read() as connection:
        found = history.days_measured(connection, [1, 2], (today - 89) * DAY, NOW)
    assert found == {1: {today}, 2: {today - 3, today - 1}}


def test_an_hour_that_nothing_was_judged_in_is_no_data(database: Database) -> None:
    book = Book()
    book.rolled(2, at("05:00", 5))
    book.rows["rollups"][0] |= {"passed": 0, "unjudged": 30, "missed": 30}
    with database.write() as connection:
        book.write(connection)
    with database.read() as connection:
        assert history.days_measured(connection, [2], NOW - 90 * DAY, NOW) == {2: set()}


def test_past_incidents_reach_in_from_before(connection: sa.Connection) -> None:
    assert {p.since for p in history.past(connection, NOW - HOUR)} == {NOW - HOUR, NOW - 5 * MINUTE, NOW - 4 * MINUTE}
    assert len(history.past(connection, NOW - DAY - HOUR)) == 4


def test_the_story_stands_alike_on_both_databases(database_url: str) -> None:
    with filled(database_url, acme()) as database, database.read() as connection:
        states = {s.probe.name: s.state for s in views.standings(connection)}
        assert {name: state for name, state in states.items() if state is not State.UP} == {
            "API": State.DOWN, "Search MCP": State.DEGRADED, "Exports": State.UNKNOWN,
        }  # fmt: skip
