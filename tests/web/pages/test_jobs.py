"""The page of all jobs, and what a job told us on the page of its heartbeat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from markupsafe import escape

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures import scheduled_jobs_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from tests.web.pages.test_all_pages import HOSTILE, LINK
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import Outcome, ReportedTask
from watchdog.store.read.jobs import list_jobs
from watchdog.web.cards.jobs import build_job_row
from watchdog.web.pages.jobs import JOBS_PER_PAGE


@contextmanager
def showing(folder: Path, book: FixtureRows) -> Iterator[FastAPI]:
    with filled_database(f"sqlite:///{folder}/jobs.db", book) as database:
        yield create_test_app(database)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    with showing(tmp_path_factory.mktemp("jobs"), scheduled_jobs_rows()) as app:
        yield app


def said(app: FastAPI, path: str) -> str:
    response = request_page(app, path)
    assert (response.status_code, find_html_problems(response.text)) == (200, []), path
    return visible_text(response.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")


def names(app: FastAPI, query: str = "") -> list[str]:
    return re.findall(r'class="rowlink"[^>]*>([^<]+)<', request_page(app, f"/jobs{query}").text)


def test_every_job_of_every_source_is_listed_worst_first(app: FastAPI) -> None:
    told = said(app, "/jobs")
    assert "15 jobs from 4 sources, 5 need attention Read 14 s ago 1 source cannot be read" in told
    assert "All 15 Failed 1 Stuck 1 Overdue 1 Never ran 1 Stale 1 On time 10" in told
    assert names(app) == [
        "export-ledger", "reconcile-ledger", "retry-payments", "trial-ending", "reindex",
        "nightly-invoices", "usage-rollup", "digest-daily", "Nightly backup",
        "crawl", "flush_metrics", "prune_sessions", "refresh_embeddings", "rotate_keys", "sync_permissions",
    ]  # fmt: skip
    assert "Needs attention · 5" in told
    assert "No problems · 10" in told


@pytest.mark.parametrize(
    "line",
    [
        "Stuck reconcile-ledger reconcile-ledger is stuck: running since 21 Nov 22:14 UTC on app-3, limit 2 h"
        " Billing jobs jobs 0 22 * * * UTC 21 Nov 22:14 - 22:00",
        "Never ran trial-ending trial-ending has never run: due 18 Nov 08:00 UTC Digest schedulers"
        " not read since 01:12 jobs 0 9 * * * Europe/Berlin never - 08:00",
        "Stale reindex task reindex is stale: last run 01:31 UTC, limit 15 min Search MCP mcp at least every 15 min"
        " 01:31 - 01:46",
        "On time usage-rollup Billing jobs jobs every 10 min 02:20 18 s 02:30",
        "On time Nightly backup heartbeat 0 3 * * * Europe/Berlin 21 Nov 02:00 55 min 23 Nov 02:00",
    ],
)
def test_a_line_has_all_that_is_known_of_a_job(app: FastAPI, line: str) -> None:
    assert line in said(app, "/jobs")


def test_every_link_of_the_list_leads_somewhere(app: FastAPI) -> None:
    html = request_page(app, "/jobs").text
    links = {link for link in LINK.findall(html) if link.startswith("/probes/")}
    assert {link.partition("#")[0] for link in links} == {
        f"/probes/{key}" for key in ("billing-jobs", "digest-schedulers", "search-mcp", "nightly-backup")
    }
    for link in links:
        path, _, part = link.partition("#")
        assert not part or f'id="{part}"' in request_page(app, path).text, link


@pytest.mark.parametrize(
    ("sentence", "query", "shown"),
    [
        ("a word of the name", "?q=ledger", ["export-ledger", "reconcile-ledger"]),
        ("all words must be found", "?q=billing+usage", ["usage-rollup"]),
        ("a word of the source", "?q=digest+schedulers", ["trial-ending", "digest-daily"]),
        ("the kind", "?q=kind:heartbeat", ["Nightly backup"]),
        ("the verdict", "?verdict=Stale", ["reindex"]),
        ("the verdict of what is found", "?q=billing&verdict=On+time", ["nightly-invoices", "usage-rollup"]),
        ("a verdict there is none of", "?verdict=purple", []),
        ("a page there is none of is the last", "?q=ledger&page=9", ["export-ledger", "reconcile-ledger"]),
    ],
)
def test_the_list_is_narrowed_by_links_and_a_form(app: FastAPI, sentence: str, query: str, shown: list[str]) -> None:
    assert names(app, query) == shown, sentence
    said(app, f"/jobs{query}")


def test_every_face_says_the_same(app: FastAPI) -> None:
    told = request_page(app, "/api/jobs").json()
    assert [job["job"] for job in told] == names(app)
    everywhere = said(app, "/jobs")
    for job in told:
        message = job["message"].replace("\N{NO-BREAK SPACE}", " ")
        assert f"{job['job']} {message}".strip() in everywhere
        if job["probe"] in ("billing-jobs", "digest-schedulers"):
            assert f"{job['job']} {message}".strip() in said(app, f"/probes/{job['probe']}")


def test_without_any_job_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with showing(tmp_path, FixtureRows()) as app:
        told = said(app, "/jobs")
        assert request_page(app, "/api/jobs").json() == []
    assert "No jobs yet Add a jobs or heartbeat probe, or an MCP server that lists its tasks" in told
    assert "Search" not in told


def test_a_long_list_has_pages(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("Many", "jobs")
    for i in range(JOBS_PER_PAGE + 1):
        book.add_job_state(id, f"job-{i:03}", reason="job.stuck" if i == JOBS_PER_PAGE else "")
    with showing(tmp_path, book) as app:
        first, last = names(app), names(app, "?page=2")
        assert "No problems · 200" in said(app, "/jobs?page=2")
    assert (len(first), first[0], last) == (JOBS_PER_PAGE, f"job-{JOBS_PER_PAGE:03}", [f"job-{JOBS_PER_PAGE - 1:03}"])


LISTED = ReportedTask(ok=True, last_run_age=5 * MINUTE_MS)


@pytest.mark.parametrize(
    ("sentence", "task", "limits", "told"),
    [
        ("ran within its limit", LISTED, {"*": HOUR_MS}, ("up", "up", "On time", "")),
        ("has no limit", LISTED, {}, ("up", "up", "Ok", "")),
        ("has not run yet", ReportedTask(ok=True), {"t": HOUR_MS}, ("unknown", "wait", "Not run yet", "")),
        ("failed", ReportedTask(ok=False, error="no"), {}, ("degraded", "degraded", "Failed", "task t failed: no")),
        ("is not listed", None, {"t": HOUR_MS}, ("down", "down", "Missing", "task t is not in the server's list")),
    ],
)
def test_a_task_is_a_job_that(
    tmp_path: Path, sentence: str, task: ReportedTask | None, limits: dict[str, int], told: tuple[str, ...]
) -> None:
    book = FixtureRows()
    book.add_result(book.add_probe("Server", "mcp", task_limits=limits), NOW, tasks={"t": task} if task else {})
    with filled_database(f"sqlite:///{tmp_path}/t.db", book) as database, database.read_transaction() as connection:
        (job,) = list_jobs(connection)
    shown = build_job_row(job)
    assert (shown.state, shown.glyph, shown.label, job.message) == told, sentence


def test_a_job_that_its_source_expects_is_on_time_without_a_schedule(tmp_path: Path) -> None:
    book = FixtureRows()
    table = book.add_probe("Table", "jobs")
    book.add_result(table, NOW, jobs={})
    book.add_job_state(table, "expected", schedule_text="", last_started_at=NOW, next_expected_at=NOW + HOUR_MS)
    book.add_job_state(table, "whenever", schedule_text="", last_started_at=NOW, next_expected_at=None)
    with filled_database(f"sqlite:///{tmp_path}/t.db", book) as database, database.read_transaction() as connection:
        assert [(job.name, job.status_label) for job in list_jobs(connection)] == [
            ("expected", "On time"),
            ("whenever", "Ok"),
        ]


def test_what_a_job_told_us_is_on_the_page_of_its_heartbeat(app: FastAPI) -> None:
    told = said(app, "/probes/nightly-backup")
    assert "Check-ins evaluated 20 s ago" in told
    assert "Status On time Next expected 23 Nov 02:00 Last success 21 Nov 02:55 Last duration 55 min" in told
    assert "18 Nov 02:58:07 Failed, exit code 28 58 min backup-4 offsite: No space left on device rotating" in told
    assert "18 Nov 02:57:07 Log backup-4 retrying offsite once 18 Nov 02:00:03 Started backup-4" in told
    assert "21 Nov 02:55:04 Succeeded 55 min backup-1 done: 214 GB, 0 errors rotating" in told
    assert told.index("21 Nov 02:55:04") < told.index("21 Nov 02:00:03") < told.index("15 Nov 02:00:03")
    assert "Latency" not in told
    assert "Check-ins" not in said(app, "/probes/billing-jobs")


def test_the_newest_check_ins_are_shown(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("Beat", "heartbeat")
    for i in range(51):
        book.add_check_in(id, NOW - i * HOUR_MS, "ok")
    with showing(tmp_path, book) as app:
        html = request_page(app, "/probes/beat").text
    assert html.count("Succeeded") == 50
    assert "Newest 50 shown." in html


def test_a_heartbeat_that_nobody_called_says_how_to(tmp_path: Path) -> None:
    book = FixtureRows()
    book.add_probe("Beat", "heartbeat")
    with showing(tmp_path, book) as app:
        told = said(app, "/probes/beat")
    assert "No check-ins yet. Each check-in is listed with the duration of its run and the end of its output." in told
    assert "Next expected" not in told


@pytest.mark.parametrize(
    ("sentence", "body", "line", "folded"),
    [
        ("nothing said", "", "", ""),
        ("nothing but space", " \n\n ", "", ""),
        ("one short line stands for itself", "done\n", "done", ""),
        ("the last line stands for more", "one\ntwo\n\n", "two", "one\ntwo"),
        ("a long line is folded whole", "x" * 101, "x" * 99 + "…", "x" * 101),
        ("of much output the end is kept", "a" * 8 + "\n" + "b" * 4_000, "b" * 99 + "…", "b" * 4_000),
    ],
)
def test_output_is_folded(tmp_path: Path, sentence: str, body: str, line: str, folded: str) -> None:
    book = FixtureRows()
    book.add_check_in(book.add_probe("Beat", "heartbeat"), NOW, "ok", output=body)
    with showing(tmp_path, book) as app:
        html = request_page(app, "/probes/beat").text
    cell = re.findall(r"<td[^>]*c-output[^>]*>(.*?)</td>", html, re.DOTALL)[0]
    assert re.findall("<code>(.*?)</code>", cell) == ([line] if line else []), sentence
    assert re.findall("<pre[^>]*>(.*?)</pre>", cell, re.DOTALL) == ([folded] if folded else []), sentence
    assert ("9 earlier characters omitted." in cell) is (len(body) > 4_000), sentence


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """One source and one heartbeat for each text, which is everywhere a job can put it."""
    book = FixtureRows()
    for i, bad in enumerate(HOSTILE):
        source = book.add_probe(f"s{i}", "jobs")
        book.add_job_state(source, bad, schedule_text=bad, reason="job.failed", last_started_at=NOW)
        book.add_result(source, NOW - MINUTE_MS, jobs={bad: ("job.failed", f"{bad} failed: {bad}")})
        beat = book.add_probe(f"b{i}", "heartbeat")
        book.add_check_in(beat, NOW, "fail", run_id=bad, exit_code=1, output=f"{bad}\n{bad}")
        book.add_check_in(beat, NOW - 1, "log", output=bad[:90])
        for named in book.rows["probes"][-2:]:
            called = '"name":' + json.dumps(bad)
            named |= {"name": bad, "info": named["info"].replace(f'"name":"{named["name"]}"', called)}
    with showing(tmp_path_factory.mktemp("hostile"), book) as app:
        yield app


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[repr(bad[:20]) for bad in HOSTILE])
def test_text_of_jobs_is_text(hostile: FastAPI, number: int) -> None:
    bad = HOSTILE[number]
    for path in ("/jobs", f"/probes/s{number}", f"/probes/b{number}"):
        response = request_page(hostile, path)
        assert (response.status_code, find_html_problems(response.text)) == (200, []), path
        assert str(escape(bad))[:40] in response.text, path
        assert "<script" not in response.text
        assert "alert(1)>" not in response.text
        assert "set-cookie" not in response.headers
    assert {job["job"] for job in request_page(hostile, "/api/jobs").json()} == set(HOSTILE)


def _noted(statements: list[str], _connection: object, _cursor: object, statement: str, *_: object) -> None:
    statements.append(statement)


def test_jobs_of_many_sources_are_read_as_those_of_one(tmp_path: Path) -> None:
    asked = []
    for sources in (1, 30):
        book = FixtureRows()
        for i in range(sources):
            book.add_job_state(book.add_probe(f"s{i}", "jobs"), "j")
            book.add_result(i + 1, NOW, jobs={})
        with filled_database(f"sqlite:///{tmp_path}/{sources}.db", book) as database:
            statements: list[str] = []
            note = partial(_noted, statements)
            sa.event.listen(database.reader, "before_cursor_execute", note)
            with database.read_transaction() as connection:
                assert len(list_jobs(connection)) == sources
        asked.append(len([said for said in statements if said.startswith("SELECT")]))
    assert asked == [2, 2]


def test_a_server_without_tasks_is_not_searched_for_ever(tmp_path: Path) -> None:
    book = FixtureRows()
    book.add_probe("Long ago", "mcp")
    book.add_probe("Of late", "mcp")
    for id, ago in ((1, 2 * DAY_MS + HOUR_MS), (2, 2 * DAY_MS - HOUR_MS)):
        book.add_result(id, NOW - ago, tasks={"t": ReportedTask(ok=True)})
        book.add_result(id, NOW)
    with filled_database(f"sqlite:///{tmp_path}/l.db", book) as database, database.read_transaction() as connection:
        assert [(job.probe.name, job.outdated) for job in list_jobs(connection)] == [("Of late", True)]


def test_a_source_that_is_silent_for_days_is_said_to_be(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("Silent", "jobs")
    book.add_job_state(id, "digest", schedule_text="every 1 h", last_started_at=NOW - 3 * DAY_MS, reason="job.stuck")
    book.add_result(id, NOW - 2 * DAY_MS - HOUR_MS, Outcome.FAIL, jobs={"digest": ("job.stuck", "digest is stuck")})
    book.add_result(id, NOW, Outcome.FAIL, "broker unreachable", "broker.unreachable")
    with showing(tmp_path, book) as app:
        assert "Stuck digest Silent not read for over 2 days" in said(app, "/jobs")
        assert "1 listed · not read for over 2 days" in said(app, "/probes/silent")
