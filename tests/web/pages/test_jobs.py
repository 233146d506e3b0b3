"""The list of all jobs, and the check-ins on the page of a heartbeat."""

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

from tests.support.acts import ANA, make_silence_request
from tests.support.builders import failed_job, healthy_job, stuck_job, task_aged
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures import scheduled_jobs_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from tests.web.pages.test_all_pages import HOSTILE, LINK
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import Outcome
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.service.acts import acknowledge_incident, begin_silence
from watchdog.store.read.jobs import list_jobs
from watchdog.web.cards.jobs import build_jobs_card_row
from watchdog.web.pages.list_page import LIST_ROWS_PER_PAGE


@contextmanager
def showing(folder: Path, rows: FixtureRows) -> Iterator[FastAPI]:
    with filled_database(f"sqlite:///{folder}/jobs.db", rows) as database:
        yield create_test_app(database)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    with showing(tmp_path_factory.mktemp("jobs"), scheduled_jobs_rows()) as app:
        yield app


def page_text(app: FastAPI, path: str) -> str:
    response = request_page(app, path)
    assert (response.status_code, find_html_problems(response.text)) == (200, []), path
    return visible_text(response.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")


def names(app: FastAPI, query: str = "") -> list[str]:
    return re.findall(r'class="rowlink"[^>]*>([^<]+)<', request_page(app, f"/jobs{query}").text)


def test_every_job_of_every_source_is_listed_worst_first(app: FastAPI) -> None:
    text = page_text(app, "/jobs")
    assert "15 jobs from 4 sources, 5 need attention Read 14 s ago 1 source cannot be read" in text
    assert "All 15 Failed 1 Stuck 1 Overdue 1 Never ran 1 Stale 1 On time 10" in text
    assert names(app) == [
        "export-ledger", "reconcile-ledger", "retry-payments", "trial-ending", "reindex",
        "nightly-invoices", "usage-rollup", "digest-daily", "Nightly backup",
        "crawl", "flush_metrics", "prune_sessions", "refresh_embeddings", "rotate_keys", "sync_permissions",
    ]  # fmt: skip
    assert "Needs attention · 5" in text
    assert "No problems · 10" in text


@pytest.mark.parametrize(
    "line",
    [
        "Stuck reconcile-ledger reconcile-ledger is stuck: running since 21 Nov 22:14 UTC on app-3, limit 2 h"
        " Billing jobs jobs 0 22 * * * UTC 21 Nov 22:14 - 22:00",
        "Never ran trial-ending trial-ending has never run: due 18 Nov 09:00 CET Digest schedulers"
        " not read since 01:12 jobs 0 9 * * * Europe/Berlin never - 08:00",
        "Stale reindex task reindex is stale: last run 01:31 UTC, limit 15 min Search MCP mcp at least every 15 min"
        " 01:31 - 01:46",
        "On time usage-rollup Billing jobs jobs every 10 min 02:20 18 s 02:30",
        "On time Nightly backup heartbeat 0 3 * * * Europe/Berlin 21 Nov 02:00 55 min 23 Nov 02:00",
    ],
)
def test_a_row_shows_everything_about_a_job(app: FastAPI, line: str) -> None:
    assert line in page_text(app, "/jobs")


def test_every_link_of_the_list_has_a_target(app: FastAPI) -> None:
    html = request_page(app, "/jobs").text
    links = {link for link in LINK.findall(html) if link.startswith("/probes/")}
    assert {link.partition("#")[0] for link in links} == {
        f"/probes/{key}" for key in ("billing-jobs", "digest-schedulers", "search-mcp", "nightly-backup")
    }
    for link in links:
        path, _, part = link.partition("#")
        assert not part or f'id="{part}"' in request_page(app, path).text, link


@pytest.mark.parametrize(
    ("sentence", "query", "expected"),
    [
        ("a word in the name", "?q=ledger", ["export-ledger", "reconcile-ledger"]),
        ("all words must be found", "?q=billing+usage", ["usage-rollup"]),
        ("a word in the source", "?q=digest+schedulers", ["trial-ending", "digest-daily"]),
        ("the kind", "?q=kind:heartbeat", ["Nightly backup"]),
        ("the verdict", "?verdict=Stale", ["reindex"]),
        ("a verdict among the matches", "?q=billing&verdict=On+time", ["nightly-invoices", "usage-rollup"]),
        ("a verdict without jobs", "?verdict=purple", []),
        ("a page after the last shows the last", "?q=ledger&page=9", ["export-ledger", "reconcile-ledger"]),
    ],
)
def test_the_list_is_filtered_by_links_and_a_form(app: FastAPI, sentence: str, query: str, expected: list[str]) -> None:
    assert names(app, query) == expected, sentence
    page_text(app, f"/jobs{query}")


def test_all_interfaces_agree(app: FastAPI) -> None:
    text = request_page(app, "/api/v1/jobs").json()["items"]
    assert sorted(job["job"] for job in text) == sorted(names(app))
    everywhere = page_text(app, "/jobs")
    for job in text:
        message = job["message"].replace("\N{NO-BREAK SPACE}", " ")
        assert f"{job['job']} {message}".strip() in everywhere
        if job["probe"] in ("billing-jobs", "digest-schedulers"):
            assert f"{job['job']} {message}".strip() in page_text(app, f"/probes/{job['probe']}")


def test_an_empty_list_explains_how_to_add_jobs(tmp_path: Path) -> None:
    with showing(tmp_path, FixtureRows()) as app:
        text = page_text(app, "/jobs")
        assert request_page(app, "/api/v1/jobs").json()["items"] == []
    assert "No jobs yet Add a jobs or heartbeat probe, or an MCP server that lists its tasks" in text
    assert "Search" not in text


def test_a_long_list_has_pages(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Many", "jobs")
    stuck = stuck_job(f"job-{LIST_ROWS_PER_PAGE:03}", NOW)
    rows.add_result(id, NOW, jobs=[*(healthy_job(f"job-{i:03}", NOW) for i in range(LIST_ROWS_PER_PAGE)), stuck])
    with showing(tmp_path, rows) as app:
        first, last = names(app), names(app, "?page=2")
        assert "No problems · 200" in page_text(app, "/jobs?page=2")
    assert (len(first), first[0], last) == (
        LIST_ROWS_PER_PAGE,
        f"job-{LIST_ROWS_PER_PAGE:03}",
        [f"job-{LIST_ROWS_PER_PAGE - 1:03}"],
    )


LISTED = task_aged(5 * MINUTE_MS, NOW)


@pytest.mark.parametrize(
    ("sentence", "task", "limits", "text"),
    [
        ("ran within its limit", LISTED, {"*": HOUR_MS}, ("up", "up", "On time", "")),
        ("has no limit", LISTED, {}, ("up", "up", "Ok", "")),
        (
            "has not run yet",
            McpScheduledTaskFacts(ok=True),
            {"t": HOUR_MS},
            ("unknown", "wait", "Waiting for the first run", ""),
        ),
        (
            "failed",
            McpScheduledTaskFacts(ok=False, error="no"),
            {},
            ("degraded", "degraded", "Failed", "task t failed: no"),
        ),
        ("is not listed", None, {"t": HOUR_MS}, ("down", "down", "Missing", "task t is not in the server's list")),
    ],
)
def test_the_verdict_on_a_task(
    tmp_path: Path, sentence: str, task: McpScheduledTaskFacts | None, limits: dict[str, int], text: tuple[str, ...]
) -> None:
    rows = FixtureRows()
    rows.add_result(rows.add_probe("Server", "mcp", max_task_ages=limits), NOW, tasks={"t": task} if task else {})
    with (
        filled_database(f"sqlite:///{tmp_path}/t.db", rows) as database,
        database.open_read_transaction() as connection,
    ):
        (job,) = list_jobs(connection)
    expected = build_jobs_card_row(job)
    assert (expected.state, expected.glyph, expected.label, job.message) == text, sentence


def test_a_job_that_its_source_expects_is_on_time_without_a_schedule(tmp_path: Path) -> None:
    rows = FixtureRows()
    table = rows.add_probe("Table", "jobs")
    expected = ScheduledJobFacts("expected", last_start=NOW, next_due=NOW + HOUR_MS)
    rows.add_result(table, NOW, jobs=[expected, ScheduledJobFacts("whenever", last_start=NOW)])
    with (
        filled_database(f"sqlite:///{tmp_path}/t.db", rows) as database,
        database.open_read_transaction() as connection,
    ):
        assert [(job.name, job.status_label) for job in list_jobs(connection)] == [
            ("expected", "On time"),
            ("whenever", "Ok"),
        ]


def test_check_ins_are_on_the_page_of_the_heartbeat(app: FastAPI) -> None:
    text = page_text(app, "/probes/nightly-backup")
    assert "Check-ins evaluated 20 s ago" in text
    assert "Status On time Next expected 23 Nov 02:00 Last success 21 Nov 02:55 Last duration 55 min" in text
    assert "18 Nov 02:58:07 Failed, exit code 28 58 min backup-4 offsite: No space left on device rotating" in text
    assert "18 Nov 02:57:07 Log backup-4 retrying offsite once 18 Nov 02:00:03 Started backup-4" in text
    assert "21 Nov 02:55:04 Succeeded 55 min backup-1 done: 214 GB, 0 errors rotating" in text
    assert text.index("21 Nov 02:55:04") < text.index("21 Nov 02:00:03") < text.index("15 Nov 02:00:03")
    assert "Latency" not in text
    assert "Check-ins" not in page_text(app, "/probes/billing-jobs")


def test_only_the_newest_check_ins_are_listed(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Beat", "heartbeat")
    for i in range(51):
        rows.add_check_in(id, NOW - i * HOUR_MS, "ok")
    with showing(tmp_path, rows) as app:
        html = request_page(app, "/probes/beat").text
    assert html.count("Succeeded") == 50
    assert "Newest 50 shown." in html


def test_a_heartbeat_without_check_ins_explains_how_to_send_them(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_probe("Beat", "heartbeat")
    with showing(tmp_path, rows) as app:
        text = page_text(app, "/probes/beat")
    assert "No check-ins yet. Each check-in is listed with the duration of its run and the end of its output." in text
    assert "Next expected" not in text


@pytest.mark.parametrize(
    ("sentence", "body", "line", "folded"),
    [
        ("no output", "", "", ""),
        ("only white space", " \n\n ", "", ""),
        ("one short line is not folded", "done\n", "done", ""),
        ("the summary is the last line", "one\ntwo\n\n", "two", "one\ntwo"),
        ("a long line is folded completely", "x" * 101, "x" * 99 + "…", "x" * 101),
        ("only the end of long output is kept", "a" * 8 + "\n" + "b" * 4_000, "b" * 99 + "…", "b" * 4_000),
    ],
)
def test_output_is_folded(tmp_path: Path, sentence: str, body: str, line: str, folded: str) -> None:
    rows = FixtureRows()
    rows.add_check_in(rows.add_probe("Beat", "heartbeat"), NOW, "ok", output=body)
    with showing(tmp_path, rows) as app:
        html = request_page(app, "/probes/beat").text
    cell = re.findall(r"<td[^>]*c-output[^>]*>(.*?)</td>", html, re.DOTALL)[0]
    assert re.findall("<code>(.*?)</code>", cell) == ([line] if line else []), sentence
    assert re.findall("<pre[^>]*>(.*?)</pre>", cell, re.DOTALL) == ([folded] if folded else []), sentence
    assert ("9 earlier characters omitted." in cell) is (len(body) > 4_000), sentence


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """One source and one heartbeat for each text, with the text in every place that a job controls."""
    rows = FixtureRows()
    for i, payload in enumerate(HOSTILE):
        source = rows.add_probe(f"s{i}", "jobs")
        rows.add_result(source, NOW - MINUTE_MS, jobs=[failed_job(payload, payload)])
        beat = rows.add_probe(f"b{i}", "heartbeat")
        rows.add_check_in(beat, NOW, "fail", run_id=payload, exit_code=1, output=f"{payload}\n{payload}")
        rows.add_check_in(beat, NOW - 1, "log", output=payload[:90])
        for named in rows.rows["probes"][-2:]:
            called = '"name":' + json.dumps(payload)
            named |= {"name": payload, "info": named["info"].replace(f'"name":"{named["name"]}"', called)}
    with showing(tmp_path_factory.mktemp("hostile"), rows) as app:
        yield app


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[repr(payload[:20]) for payload in HOSTILE])
def test_untrusted_text_of_jobs_is_escaped(hostile: FastAPI, number: int) -> None:
    payload = HOSTILE[number]
    for path in ("/jobs", f"/probes/s{number}", f"/probes/b{number}"):
        response = request_page(hostile, path)
        assert (response.status_code, find_html_problems(response.text)) == (200, []), path
        assert str(escape(payload))[:40] in response.text, path
        assert "<script" not in re.sub(r'<script src="/static/(times|live|chart|copy)\.', "", response.text)
        assert "alert(1)>" not in response.text
        assert "set-cookie" not in response.headers
    assert {job["job"] for job in request_page(hostile, "/api/v1/jobs").json()["items"]} == set(HOSTILE)


def _noted(statements: list[str], _connection: object, _cursor: object, statement: str, *_: object) -> None:
    statements.append(statement)


def test_the_number_of_queries_does_not_depend_on_the_number_of_sources(tmp_path: Path) -> None:
    query_counts = []
    for sources in (1, 30):
        rows = FixtureRows()
        for i in range(sources):
            rows.add_result(rows.add_probe(f"s{i}", "jobs"), NOW, jobs=[healthy_job("j", NOW)])
        with filled_database(f"sqlite:///{tmp_path}/{sources}.db", rows) as database:
            statements: list[str] = []
            note = partial(_noted, statements)
            sa.event.listen(database.reader, "before_cursor_execute", note)
            with database.open_read_transaction() as connection:
                assert len(list_jobs(connection)) == sources
        query_counts.append(len([page_text for page_text in statements if page_text.startswith("SELECT")]))
    assert query_counts == [1, 1]


def test_old_task_lists_are_not_loaded(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_probe("Long ago", "mcp")
    rows.add_probe("Of late", "mcp")
    for id, ago in ((1, 2 * DAY_MS + HOUR_MS), (2, 2 * DAY_MS - HOUR_MS)):
        rows.add_result(id, NOW - ago, tasks={"t": McpScheduledTaskFacts(ok=True)})
        rows.add_result(id, NOW)
    with (
        filled_database(f"sqlite:///{tmp_path}/l.db", rows) as database,
        database.open_read_transaction() as connection,
    ):
        assert [(job.probe.name, job.outdated) for job in list_jobs(connection)] == [("Of late", True)]


def test_a_source_that_was_not_read_for_days_is_marked(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Silent", "jobs")
    read_at = NOW - 2 * DAY_MS - HOUR_MS
    rows.add_result(id, read_at, Outcome.FAIL, jobs=[stuck_job("digest", read_at)])
    rows.add_result(id, NOW, Outcome.FAIL, "broker unreachable", "broker.unreachable")
    with showing(tmp_path, rows) as app:
        jobs, probe = page_text(app, "/jobs"), page_text(app, "/probes/silent")
    assert "Silent not read since 20 Nov 01:29" in jobs
    assert "1 listed · read 2 days ago" in probe


def test_a_row_states_who_takes_care_of_the_job_and_what_holds_it_back(tmp_path: Path) -> None:
    rows = FixtureRows()
    names_of_jobs = ("digest", "export", "reindex", "sync")
    source, other = rows.add_probe("Billing", "jobs"), rows.add_probe("Search", "jobs")
    for probe in (source, other):
        jobs = [healthy_job(name, NOW) if name == "sync" else failed_job(name) for name in names_of_jobs]
        rows.add_result(probe, NOW - 14_000, Outcome.FAIL, jobs=jobs)
    acknowledged = rows.add_incident(source, "job", "digest failed", NOW - HOUR_MS, subject="digest")
    rows.add_incident(source, "job", "export failed", NOW - HOUR_MS, subject="export")
    rows.add_incident(source, "job", "reindex failed", NOW - DAY_MS, subject="reindex", resolved_at=NOW - HOUR_MS)
    rows.add_maintenance([other], NOW - HOUR_MS, NOW + HOUR_MS)
    with filled_database(f"sqlite:///{tmp_path}/jobs.db", rows) as database:
        acknowledge_incident(database, acknowledged, ANA, "", NOW)
        begin_silence(database, make_silence_request(NOW + HOUR_MS, id="billing", subject="export"), ANA, NOW)
        response = request_page(create_test_app(database), "/jobs")
    html = response.text
    assert (response.status_code, find_html_problems(html)) == (200, [])
    marks = {}
    for row in re.findall(r'<tr role="row"><td.*?</tr>', html, re.DOTALL):
        text = visible_text(row).replace("\N{NO-BREAK SPACE}", " ")
        (name,) = (name for name in names_of_jobs if f" {name} " in text)
        row_marks = re.findall(r"acknowledged by \w+|silenced until [\d:]+ UTC|in maintenance until [\d:]+ UTC", text)
        marks["Search" if " Search " in text else "Billing", name] = row_marks
    assert marks == {
        ("Billing", "digest"): ["acknowledged by Ana"],
        ("Billing", "export"): ["silenced until 03:29 UTC"],
        ("Billing", "reindex"): [],
        ("Billing", "sync"): [],
        **{("Search", name): ["in maintenance until 03:29 UTC"] for name in names_of_jobs},
    }
