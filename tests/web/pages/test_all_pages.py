"""Every page: in order as HTML, with the headers that keep it so, and saying what the story says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fastapi import FastAPI
from markupsafe import escape

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.fixtures import acme_rows_after_recovery, new_probe_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Evidence, Outcome, ReportedTask
from watchdog.web.templating import SECURITY_HEADERS

PATHS = (
    "/",
    "/probes",
    "/probes?q=group:core+kind:http&state=up&kind=http",
    "/probes?q=nothing-like-it",
    "/probes/api",
    "/probes/api?all",
    "/probes/api?failed",
    f"/probes/search-mcp?open={epoch_ms('01:54:52')}",
    "/probes/exports",
    "/incidents",
    "/incidents?state=open",
    "/dead-letters",
    "/nowhere",
    "/probes/nobody",
    "/incidents/nothing",
    "/probes?page=x",
)


LINK = re.compile(r'(?:href|action)="([^"]+)"')


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_in_order(app: FastAPI, path: str) -> None:
    response = request_page(app, path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert find_html_problems(response.text) == []
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_everybody_s_is_not_cached(app: FastAPI, path: str) -> None:
    assert request_page(app, path).headers["cache-control"] == ("public, max-age=5" if path == "/" else "no-store")


def test_every_link_leads_somewhere(app: FastAPI) -> None:
    links: set[str] = set()
    for path in PATHS:
        if path != "/nowhere":
            found = {unescape(link).partition("#")[0] for link in LINK.findall(request_page(app, path).text)}
            links |= {path.partition("?")[0] + link if link.startswith("?") else link for link in found}
    links = set({re.sub(r"\d+", "0", link): link for link in links}.values())  # one of a kind is enough
    ours = sorted(
        link for link in links if link.startswith("/") and not link.startswith(("/probes/nobody", "/incidents/nothing"))
    )
    assert len(ours) > 25
    assert [link for link in ours if request_page(app, link).status_code != 200] == []


def test_the_list_is_worst_first_and_says_why(app: FastAPI) -> None:
    said = visible_text(request_page(app, "/probes").text)
    assert "11 probes, 3 need attention" in said
    order = [
        said.index(name) for name in ("Needs attention", "API HTTP 503", "Search MCP", "Exports", "Up · 8", "Payments")
    ]
    assert order == sorted(order)
    assert "Last scheduled 2 s ago" in said
    assert "1 run late" in said


@pytest.mark.parametrize(
    ("sentence", "query", "shown"),
    [
        ("a word of the name", "q=sign", ["Sign-in"]),
        ("a tag", "q=tag:prod", ["API", "Search MCP"]),
        ("two terms must both match", "q=group:core+s", ["Payments", "Sign-in", "Website"]),
        ("the kind", "kind=mcp&q=group:search", ["Search MCP", "Document fetch", "Suggestions"]),
        ("the state", "state=unknown", ["Exports"]),
        ("a state there is none of", "state=purple", []),
    ],
)
def test_the_list_is_filtered_by_links_and_a_form(app: FastAPI, sentence: str, query: str, shown: list[str]) -> None:
    rows = re.findall(r'class="rowlink" href="/probes/[^"]+">([^<]+)<', request_page(app, f"/probes?{query}").text)
    assert sorted(rows) == sorted(shown), sentence


def test_a_probe_says_how_it_is_now(app: FastAPI) -> None:
    said = visible_text(request_page(app, "/probes/search-mcp").text)
    assert "Degraded for 42 min" in said
    assert "Task reindex is stale: last run 01:31 UTC, limit 15 min" in said
    assert "next run in 38 s" in said
    assert "1 431 of 1 437" in said
    assert "reindex Stale ok: true 01:31:40 57 min 15 min" in said
    assert "crawl On time ok: true" in said
    assert "Down 19:10 to 19:17 · 7 min" in said
    assert "No data 06:12 to 06:15 · 3 min" in said
    assert 'headers : {Authorization: "Bearer ${MCP_TOKEN}"}' in said


def test_results_show_changes_until_asked_for_more(app: FastAPI) -> None:
    def slots(query: str) -> list[str]:
        return re.findall(
            r'<th scope="row"><a class="rowlink"[^>]*><time[^>]*>([^<]+)',
            request_page(app, f"/probes/search-mcp{query}").text,
        )

    changes = slots("")
    assert changes[:4] == ["02:28:52", "01:56:52", "01:54:52", "01:46:52"]
    assert len(slots("?all")) == 50
    assert [s.replace("\u00a0", " ") for s in slots("?failed")] == [
        "01:55:52", "01:54:52", "21 Nov 19:13:52", "21 Nov 19:12:52", "21 Nov 19:11:52", "21 Nov 19:10:52",
    ]  # fmt: skip
    assert slots(f"?all&before={epoch_ms('02:00')}")[0] == "01:59:52"


def test_evidence_opens_by_link_also_when_its_row_was_not_shown(app: FastAPI) -> None:
    said = visible_text(request_page(app, f"/probes/search-mcp?open={epoch_ms('01:54:52')}").text)
    assert "Reached" not in said  # capitals are the stylesheet's
    assert "connect 4 ms, TLS 11 ms, negotiate 39 ms, list 22 ms, call 2.9 s" in said
    assert "health_check: database pool exhausted (100 of 100 in use), waited 2900 ms" in said
    quiet = visible_text(request_page(app, f"/probes/search-mcp?open={epoch_ms('02:20:52')}").text)
    assert "Not stored: evidence is stored for failures" in quiet
    gone = visible_text(request_page(app, "/probes/search-mcp?open=12345").text)
    assert "Kept" not in gone


def test_a_phase_that_never_ended_names_its_reason(tmp_path: Path) -> None:
    book = FixtureRows()
    book.add_watermark(NOW)
    id = book.add_probe("Slow")
    book.add_result(id, NOW - 2 * MINUTE_MS, duration_ms=100, phases={"connect": 5, "first_byte": 90, "body": 5})
    book.add_result(
        id,
        NOW - MINUTE_MS,
        Outcome.FAIL,
        "timed out",
        "timeout.exceeded",
        10_000,
        phases={"connect": 5, "first_byte": 9_995},
    )
    with filled_database(f"sqlite:///{tmp_path}/p.db", book) as database:
        html = request_page(create_test_app(database), "/probes/slow").text
    assert '<td class="num word is-down">Timed out</td>' in html


def test_an_incident_says_what_changed_who_was_told_and_why(app: FastAPI, story: FixtureRows) -> None:
    html = request_page(app, f"/incidents/{story.incident_by_name['down']}").text
    said = visible_text(html)
    assert "API: HTTP 503 Down for 41 min" in said
    assert "pager/webhook was not notified: 410 Gone, 8 attempts" in said
    assert "oncall/email, oncall/slack were notified." in said
    assert '<span class="hl">"pool exhausted: 100 of 100 in use"</span>' in unescape(html)
    assert "<dd>61</dd>" in html  # 58 before: not worth marking
    assert "First bad 01:48:00 · local" in said
    assert "Last good 01:47:00 · local" in said
    assert "42nd bad result HTTP 503" in said
    assert "42 failed runs since it began" in said
    assert "oncall · slack #oncall opened Delivered 01:49:02 · 412 ms" in said
    assert "chat · slack #chat opened Queued attempt 2 at 02:29:40 · 429 rate limited" in said
    assert "8 attempts until 02:24:11 · 410 Gone" in said
    assert "Route 1 matches: notifies oncall, pager, chat" in said
    assert "2 bad results in a row alert.failure_threshold: 2" in said


def test_a_resolved_incident_says_so_first(tmp_path: Path) -> None:
    book = acme_rows_after_recovery()
    with filled_database(f"sqlite:///{tmp_path}/r.db", book) as database:
        said = visible_text(request_page(create_test_app(database), f"/incidents/{book.incident_by_name['down']}").text)
    assert "Resolved after 13 min" in said
    assert "Recovered at 02:01:00 Lasted 13 min: first bad result 01:48:00, opened 01:49:02." in said
    assert "chat · slack #chat opened Merged 02:01:00 · sent as one message with the resolution" in said
    assert "bad result HTTP 503 · 2" not in said


def test_an_incident_that_nobody_heard_of_says_so(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("API")
    route = ("route 1 does not match: no tag prod", "no route matches: no one is notified")
    incident = book.add_incident(id, "availability", "HTTP 503", NOW - 5 * MINUTE_MS, threshold=1, routing_log=route)
    with filled_database(f"sqlite:///{tmp_path}/n.db", book) as database:
        said = visible_text(request_page(create_test_app(database), f"/incidents/{incident}").text)
    assert "No notification was sent Route 1 does not match: no tag prod; no route matches: no one is notified" in said
    assert "Results from that time are no longer stored" in said
    assert "This incident sent no notification" in said


def test_an_incident_of_a_job_tells_of_that_job_alone(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("Shop", "jobs")
    late, stuck = "cart_sweep is overdue: due 02:20 UTC", "export is stuck: running since 21 Nov 23:29 UTC, limit 2 h"
    both = {"cart_sweep": ("job.overdue", late), "export": ("job.stuck", stuck)}
    facts = {"export": {"worker": "app-3", "duration": "2 min"}, "cart_sweep": {"worker": "app-4", "duration": "9 s"}}
    message = "2 of 2 jobs have problems: export, cart_sweep"
    since, seen = NOW - 5 * MINUTE_MS, Evidence({"jobs": facts})
    book.add_result(id, since - MINUTE_MS, evidence=seen, jobs={})
    book.add_result(id, since, Outcome.FAIL, message, "job.overdue", evidence=seen, jobs=both)
    incident = book.add_incident(id, "job", late, since, subject="cart_sweep", opened_after_ms=0, threshold=1)
    with filled_database(f"sqlite:///{tmp_path}/j.db", book) as database:
        pages = create_test_app(database)
        told, probe = (
            visible_text(request_page(pages, path).text) for path in (f"/incidents/{incident}", "/probes/shop")
        )
    assert f"outcome fail message {late} run duration 180 ms worker app-4 duration 9 s" in told
    assert "app-3" not in told
    assert "1 bad run since it began" in told
    assert f"First bad result {late}" in told
    assert f"Why no notification was sent {late}" in told
    assert "alert.failure_threshold" not in told
    assert f"{late} Since" in probe


def test_an_incident_of_silence_shows_the_last_result_instead(app: FastAPI, story: FixtureRows) -> None:
    (incident,) = (row["id"] for row in story.rows["incidents"] if row["rule"] == "stale")
    said = visible_text(request_page(app, f"/incidents/{incident}").text)
    assert "No later result This incident is about missing results." in said
    assert "Last result 20 Nov 04:10:00 · local" in said
    assert "First bad" not in said
    assert "No result for 46 h 19 min" in visible_text(request_page(app, "/probes/exports").text)


def test_an_incident_of_a_task_says_how_the_task_stood(app: FastAPI, story: FixtureRows) -> None:
    (incident,) = (row["id"] for row in story.rows["incidents"] if row["subject"] == "reindex")
    html = request_page(app, f"/incidents/{incident}").text
    assert '<dt>last run</dt><dd class="hl">15\u00a0min before</dd>' in html
    assert "<dt>last run</dt><dd>14\u00a0min before</dd>" in html
    assert "Evidence from 01:00:52: of passes, only a sample is stored." in visible_text(html)


def test_dead_letters_are_listed_with_their_incident(app: FastAPI) -> None:
    said = visible_text(request_page(app, "/dead-letters").text)
    assert "1 undelivered notification" in said
    assert "pager · webhook events.acme.example API: HTTP 503 opened 01:49:02 Undelivered 8 attempts" in said


def test_the_first_minute_of_a_probe_says_when_it_runs(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/f.db", new_probe_rows()) as database:
        said = visible_text(request_page(create_test_app(database), "/probes/search-mcp").text)
    assert "No data yet" in said
    assert "No run yet: first run in 12 s" in said
    assert "No results yet. Each run is listed" in said


def test_one_result_is_a_page_too(tmp_path: Path) -> None:
    book = new_probe_rows()
    book.add_result(1, NOW - 20 * SECOND_MS, duration_ms=180, phases={"connect": 4}, tasks={"t": ReportedTask(ok=True)})
    with filled_database(f"sqlite:///{tmp_path}/o.db", book) as database:
        response = request_page(create_test_app(database), "/probes/search-mcp")
    assert find_html_problems(response.text) == []
    said = visible_text(response.text)
    assert "Latency, last 5 min" in said
    assert "State, last 5 min" in said
    assert "1 of 1" in said
    assert "t Not run yet" in said


@pytest.fixture
def scheduled() -> FixtureRows:
    """A probe of jobs: one that is late, one that is stuck, one that is well, and one that has never run."""
    book = FixtureRows()
    book.add_watermark(NOW - SECOND_MS)
    jobs = book.add_probe("Billing jobs", "jobs")
    other = book.add_probe("Other", "http")
    late = ("job.overdue", "retry is overdue: 3 runs missed")
    book.add_job_state(
        jobs,
        "usage-rollup",
        schedule_text="every 10 min",
        last_started_at=NOW - MINUTE_MS,
        last_succeeded_at=NOW - SECOND_MS,
        last_duration=59_000,
    )
    book.add_job_state(
        jobs,
        "retry",
        schedule_text="0 * * * * UTC",
        reason=late[0],
        last_started_at=NOW - 3 * HOUR_MS,
        next_expected_at=NOW + HOUR_MS,
    )
    book.add_job_state(jobs, "<b>ledger</b>", reason="job.stuck", last_started_at=NOW - 2 * HOUR_MS)
    book.add_job_state(jobs, "yearly", schedule_text="0 0 1 1 * UTC", next_expected_at=NOW + 40 * DAY_MS)
    book.add_job_state(other, "nobody")
    book.add_result(jobs, NOW - 2 * MINUTE_MS, jobs={})
    book.add_result(jobs, NOW - MINUTE_MS, Outcome.FAIL, late[1], late[0], jobs={"retry": late})
    book.add_result(jobs, NOW - SECOND_MS, Outcome.FAIL, "away", "broker.unreachable")
    return book


def test_the_jobs_of_a_source_are_listed_bad_ones_first(tmp_path: Path, scheduled: FixtureRows) -> None:
    with filled_database(f"sqlite:///{tmp_path}/j.db", scheduled) as database:
        response = request_page(create_test_app(database), "/probes/billing-jobs")
        elsewhere = visible_text(request_page(create_test_app(database), "/probes/other").text)
    assert find_html_problems(response.text) == []
    said = visible_text(response.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")
    assert "Jobs 4 listed · read 1 min ago" in said
    assert "<b>ledger</b> Stuck - 00:29 - - -" in said
    assert "retry retry is overdue: 3 runs missed Overdue 0 * * * * UTC 21 Nov 23:29 - - 03:29" in said
    assert "usage-rollup On time every 10 min 02:28 02:29 59 s -" in said
    assert "yearly Not run yet 0 0 1 1 * UTC never - - 1 Jan 2027 02:29" in said
    assert said.index("ledger") < said.index("retry") < said.index("usage-rollup") < said.index("yearly")
    assert "listed ·" not in elsewhere


def test_an_incident_of_a_job_is_about_that_job_alone(tmp_path: Path) -> None:
    book = FixtureRows()
    book.add_watermark(NOW - SECOND_MS)
    jobs, since = book.add_probe("Billing jobs", "jobs"), NOW - 2 * MINUTE_MS
    wrong = {"retry": ("job.overdue", "retry is overdue"), "ledger": ("job.stuck", "ledger is stuck")}
    shown = {"retry": {"cron": "0 * * * *"}, "ledger": {"running_since": "2026-11-22T00:29:00.000Z", "run": "7"}}
    says = "2 of 3 jobs have problems: retry, ledger"
    measured = {"jobs": 3, "jobs_failing": 2}
    book.add_result(
        jobs, since, Outcome.FAIL, says, "job.overdue", jobs=wrong, measurements=measured,
        evidence=Evidence({"jobs": shown, "write_access": "app may write, too"}),
    )  # fmt: skip
    stuck = book.add_incident(jobs, "job", "ledger is stuck", since, subject="ledger", reason="job.stuck", threshold=1)
    with filled_database(f"sqlite:///{tmp_path}/j.db", book) as database:
        said = visible_text(request_page(create_test_app(database), f"/incidents/{stuck}").text)
    assert (
        "message ledger is stuck run duration 180 ms write access app may write, too running since 2026-11-22T00:29"
        in said
    )
    assert "run 7" in said
    assert "retry" not in said
    assert "in a row" not in said
    assert "alert.failure_threshold" not in said
    assert "Opened, warning ledger is stuck" in said
    assert "First bad result ledger is stuck" in said


def test_a_watchdog_that_stands_still_says_so_on_every_page(tmp_path: Path) -> None:
    book = new_probe_rows()
    book.rows["watermarks"][0]["claimed_until"] = NOW - 5 * MINUTE_MS
    with filled_database(f"sqlite:///{tmp_path}/s.db", book) as database:
        said = visible_text(request_page(create_test_app(database), "/probes").text)
    assert "Watchdog is not running its probes" in said
    assert "Last scheduled 5 min ago" in said


def test_json_tells_the_same(app: FastAPI, story: FixtureRows) -> None:
    probes = {probe["probe"]: probe for probe in request_page(app, "/api/probes").json()}
    assert (probes["api"]["state"], probes["api"]["incidents"]) == ("down", [story.incident_by_name["down"]])
    assert probes["api"]["latest"]["message"] == "HTTP 503"
    (first, *_) = request_page(app, "/api/incidents?state=open&limit=1").json()
    assert (first["probe"], first["rule"], first["state"]) == ("api", "availability", "open")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["opened_at"])


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</pre></td></table><h1>owned</h1>",
    "{{ 7 * 7 }}{% for x in y %}",
    "&lt;b&gt;&amp;amp;",
    "<!-- <svg><style>@import 'x'</style>",
    "javascript:alert(1)",
    "]]><![CDATA[<x/>",
    "line\r\nSet-Cookie: a=b",
    "\u202emoc.live\u2066 \u200b\ufeff",
    "a" * 5_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """One probe for each text, which is everywhere a configuration or a target can put it."""
    book, addresses = FixtureRows(), {}
    book.add_watermark(NOW)
    for i, bad in enumerate(HOSTILE):
        spec = f"name: {bad}\n{bad}: {bad}\n"
        id = book.add_probe(f"x{i}", "http", bad, tags=(bad,), target=bad, runbook=bad, cadence=bad, config_yaml=spec)
        row = book.rows["probes"][-1]
        row |= {"name": bad, "info": row["info"].replace(f'"name":"x{i}"', '"name":' + json.dumps(bad))}
        evidence = Evidence({bad: bad, "deep": {bad: [bad]}}, bad)
        book.add_result(id, NOW - 2 * MINUTE_MS, evidence=Evidence({bad: "x"}, "x"), phases={bad: 1.0})
        book.add_result(
            id, NOW - MINUTE_MS, Outcome.FAIL, bad, bad, evidence=evidence, phases={bad: 5.0}, preferences={bad: bad},
            tasks={bad: ReportedTask(ok=False, last_run_age=5, status=bad, error=bad)}, measurements={bad: bad},
        )  # fmt: skip
        incident = book.add_incident(
            id, "task", bad, NOW - MINUTE_MS, subject=bad, reason=bad, routing_log=(bad,), opened_after_ms=0
        )
        book.add_notification(incident, f"{bad}/{bad}", "dead", created_at=NOW - MINUTE_MS, finished_at=NOW, detail=bad)
        addresses[f"{bad}/{bad}"] = bad
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'h.db'}", book) as database:
        yield create_test_app(database, destination_addresses=addresses)


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[repr(bad[:20]) for bad in HOSTILE])
def test_text_from_outside_is_text(hostile: FastAPI, number: int) -> None:
    bad = HOSTILE[number]
    own = (f"/probes/x{number}?all&open={NOW - MINUTE_MS}", f"/incidents/{number + 1:024x}")
    for path in (*own, "/", "/probes", "/incidents", "/dead-letters"):
        response = request_page(hostile, path)
        assert response.status_code == 200, path
        assert str(escape(bad))[:40] in response.text, path
        assert path not in own or find_html_problems(response.text) == [], path
        assert "<script" not in response.text
        assert "alert(1)>" not in response.text
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ["/", "/probes", "/incidents", "/dead-letters"])
def test_lists_of_hostile_text_are_in_order(hostile: FastAPI, path: str) -> None:
    assert find_html_problems(request_page(hostile, path).text) == []


def test_evidence_is_cut_at_300_characters(tmp_path: Path) -> None:
    book = FixtureRows()
    id = book.add_probe("x")
    book.add_result(id, NOW - MINUTE_MS, Outcome.FAIL, "no", "no", evidence=Evidence({}, "b" * 5_000))
    with filled_database(f"sqlite:///{tmp_path}/c.db", book) as database:
        html = request_page(create_test_app(database), f"/probes/x?open={NOW - MINUTE_MS}").text
    assert "b" * 299 + "…" in html
    assert "b" * 300 not in html


@pytest.mark.parametrize("path", ["/nowhere", "/probes/nobody", "/incidents/nothing"])
def test_nothing_here_is_a_page_of_its_own(app: FastAPI, path: str) -> None:
    response = request_page(app, path)
    assert response.status_code == 404
    assert "Not found" in response.text


def test_a_method_that_is_not_done_says_so(app: FastAPI) -> None:
    response = request_page(app, "/probes", "DELETE")
    assert response.status_code == 405
    assert find_html_problems(response.text) == []


def test_a_failure_of_ours_shows_no_traceback(app: FastAPI) -> None:
    async def read(_: object) -> None:
        raise RuntimeError("secret inside")

    broken = create_test_app(None, run_read_query=read)  # type: ignore[arg-type]
    response = request_page(broken, "/probes")
    assert response.status_code == 500
    assert "Internal error" in response.text
    assert "secret inside" not in response.text
    assert "Traceback" not in response.text
    assert response.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]
