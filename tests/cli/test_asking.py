"""`watchdog status` and `watchdog incidents`: what the database knows, for people and for programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import typed
from tests.store.lab import Lab, member, series
from tests.web.book import Book
from watchdog.assets import asset
from watchdog.model import Outcome, Task
from watchdog.service.clock import wall
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade
from watchdog.words import DAY, iso, moment

Write = Callable[..., Path]
MINUTE = 60_000


@pytest.fixture
def lab(write: Write) -> Iterator[Lab]:
    """Three probes that began an hour ago, and a Watchdog whose last tick was just now."""
    write()
    now = wall()
    database = Database("sqlite:///watchdog.db")
    upgrade(database, asset("migrations"))
    members = [member(key, after=2, recover=1) for key in ("api", "shop", "new")]
    with Lab(database, members, now=now - 60 * MINUTE, new=False) as made:
        made.without_gaps()
        made.mark(now)
        yield made
        database.close()


def see(lab: Lab, key: str, outcomes: str) -> None:
    """Results of the last minutes, a minute apart."""
    lab.feed(*series(lab.id(key), outcomes, wall() - (len(outcomes) + 1) * MINUTE))


def test_where_everything_stands(lab: Lab) -> None:
    see(lab, "api", "ppff")
    see(lab, "shop", "pppp")
    ran = typed("status")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows == [
        ["state", "probe", "last", "result", "open", "incidents"],
        ["down", "Api", "fail", "1", "min", "ago", "got", "503"],
        ["unknown", "New", "none", "yet"],
        ["up", "Shop", "pass", "1", "min", "ago"],
    ]
    assert (ran.code, ran.err) == (1, "")


def test_where_everything_stands_for_programs(lab: Lab) -> None:
    see(lab, "api", "ppff")
    ran = typed("status", "-o", "json")
    told = {row["probe"]: row for row in ran.json}
    last = told["api"]["last"]
    assert (told["api"]["state"], last["outcome"], last["message"]) == ("down", "fail", "got 503")
    assert len(told["api"]["incidents"]) == 1
    assert last["slot"].endswith("Z")
    assert (told["new"]["state"], told["new"]["last"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("seen", "code"),
    [({"api": "pp", "shop": "pp", "new": "pp"}, 0), ({"api": "pp", "shop": "pp"}, 3), ({"api": "ff", "shop": "pp"}, 1)],
    ids=["all is up", "one was never judged", "one is down, another never judged"],
)
def test_the_exit_code_is_the_worst(lab: Lab, seen: dict[str, str], code: int) -> None:
    for key, outcomes in seen.items():
        see(lab, key, outcomes)
    assert typed("status").code == typed("status", "-o", "json").code == code


def test_a_watchdog_that_does_not_run_vouches_for_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("api", "shop", "new"):
        see(lab, key, "pp")
    now = wall()
    monkeypatch.setattr("watchdog.service.clock.wall", lambda: now + 3 * 60 * MINUTE)
    ran = typed("status", "-o", "json")
    assert (ran.code, len(ran.json)) == (3, 3)
    assert ran.err.replace("\N{NO-BREAK SPACE}", " ") == (
        "watchdog: nothing was probed for 3 h: is `watchdog run` running?\n"
    )


def test_what_was_down_when_watchdog_stopped_counts_as_down(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    see(lab, "api", "ff")
    now = wall()
    monkeypatch.setattr("watchdog.service.clock.wall", lambda: now + 3 * 60 * MINUTE)
    ran = typed("status")
    assert (ran.code, "nothing was probed" in ran.err) == (1, True)


def test_a_database_that_nobody_has_used(write: Write) -> None:
    write(probes=[{"name": "API", "http": "http://127.0.0.1:1/"}])
    assert typed("db", "upgrade").code == 0
    ran = typed("status")
    assert (ran.code, ran.out, ran.err) == (
        3, "no probes are known\n", "watchdog: nothing was ever probed: start `watchdog run`\n",
    )  # fmt: skip
    ran = typed("incidents")
    assert (ran.code, ran.out, ran.err) == (0, "no incidents\n", "")


def test_incidents_newest_first(lab: Lab) -> None:
    see(lab, "api", "ffp")
    see(lab, "shop", "pff")
    ran = typed("incidents", "-o", "json")
    assert ran.code == 0
    shop, api = ran.json
    assert api.keys() >= {"id", "probe", "rule", "subject", "state", "opened_at", "resolved_at"}
    assert (api["probe"], api["rule"], api["subject"], api["state"]) == ("api", "availability", "", "resolved")
    assert (shop["probe"], shop["state"], shop["resolved_at"]) == ("shop", "open", None)
    assert api["opened_at"] < api["resolved_at"] < shop["opened_at"]
    assert typed("incidents", "--open", "-o", "json").json == [shop]
    assert typed("incidents", "--limit", "1", "-o", "json").json == [shop]
    for_people = typed("incidents").out
    assert shop["id"] in for_people, "no id is cut, however narrow the terminal"
    assert [line.split()[0] for line in for_people.splitlines()] == ["state", "open", "resolved"]


def test_every_job_with_its_verdict(write: Write) -> None:
    write()
    database = Database("sqlite:///watchdog.db")
    upgrade(database, asset("migrations"))
    assert (typed("jobs").code, typed("jobs").out) == (0, "no jobs are known\n")
    now, late = wall(), "digest is overdue: due 03:00, 9 h ago"
    book = Book()
    probe = book.probe("Schedules", "jobs")
    book.job(probe, "nightly", plan="0 3 * * * UTC", last_start=now - MINUTE, expected=now + MINUTE)
    book.job(probe, "[red]digest", plan="", reason="job.overdue")
    book.result(probe, now - MINUTE, Outcome.FAIL, late, "job.overdue", jobs={"[red]digest": ("job.overdue", late)})
    away = book.probe("Tools", "mcp")
    book.result(away, now - MINUTE, tasks={"sweep": Task(ok=True, age=MINUTE)})
    book.result(away, now, Outcome.FAIL, "got 503")
    silent = book.probe("Vault", "jobs")
    book.job(silent, "purge", last_start=now - 3 * DAY)
    book.result(silent, now - 3 * DAY, jobs={})
    book.result(silent, now, Outcome.FAIL, "got 503")
    with database.write() as connection:
        book.write(connection)
    ran = typed("jobs")
    rows = [re.split(" {2,}", line.strip()) for line in ran.out.replace("\N{NO-BREAK SPACE}", " ").splitlines()]
    assert ran.code == 1
    assert rows[0] == ["verdict", "job", "probe", "schedule", "last run", "next expected", "what"]
    assert rows[1] == ["Overdue", "[red]digest", "Schedules", "never", late]
    assert rows[2][:5] == ["On time", "nightly", "Schedules", "0 3 * * * UTC", "1 min ago"]
    assert rows[3] == ["Ok", "sweep", "Tools", "2 min ago", f"not read since {moment(now - MINUTE, now)}"]
    assert rows[4] == ["Ok", "purge", "Vault", "3 days ago", "not read for over 2 days"]
    told = {job["job"]: job for job in typed("jobs", "-o", "json").json}
    assert told["[red]digest"] == {
        "probe": "schedules", "job": "[red]digest", "reason": "job.overdue", "message": late, "schedule": "",
        "duration": None, "last_start": None, "last_end": None, "last_ok": None, "expected": None,
        "read_at": iso(now - MINUTE),
    }  # fmt: skip
    assert (told["nightly"]["reason"], told["nightly"]["expected"]) == ("", iso(now + MINUTE))
    database.close()


def test_names_are_no_markup(write: Write) -> None:
    write()
    database = Database("sqlite:///watchdog.db")
    upgrade(database, asset("migrations"))
    with Lab(database, [member("[red]x[/] :smile:")], new=False):
        assert "[Red]X[/] :Smile:" in typed("status").out
    database.close()
