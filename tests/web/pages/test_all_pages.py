"""Every page: valid HTML, security headers, and the content of the fixtures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fastapi import FastAPI
from markupsafe import escape

from tests.support.builders import overdue_job, stuck_job
from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.fixtures import acme_rows_after_recovery, new_probe_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Evidence, Outcome
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.web.templating import LIVE_PAGE_HEADERS, SECURITY_HEADERS

PATHS = (
    "/",
    "/probes",
    "/probes?q=group:core+kind:http&state=up&kind=http",
    "/probes?q=nothing-like-it",
    "/probes?sort=next",
    "/probes/api",
    "/probes/api?all",
    "/probes/api?failed",
    f"/probes/search-mcp?open={epoch_ms('01:54:52')}",
    "/probes/exports",
    "/probes/search-mcp?range=7d",
    "/incidents",
    "/incidents?state=open",
    "/incidents?q=http&severity=critical&probe=api",
    "/incidents?before=1-0",
    "/receivers",
    "/receivers/test?destination=chat/slack",
    "/undelivered",
    "/silences",
    "/maintenance",
    "/service",
    "/nowhere",
    "/probes/unknown",
    "/incidents/unknown",
    "/probes?page=x",
)


LINK = re.compile(r'(?:href|method="get" action)="([^"]+)"')


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_valid_html_with_security_headers(app: FastAPI, path: str) -> None:
    response = request_page(app, path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert find_html_problems(response.text) == []
    has_script = "<script" in response.text
    assert has_script == (response.status_code == 200)
    expected = SECURITY_HEADERS | LIVE_PAGE_HEADERS if has_script else SECURITY_HEADERS
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == expected


@pytest.mark.parametrize("path", PATHS)
def test_only_the_public_page_is_cached(app: FastAPI, path: str) -> None:
    assert request_page(app, path).headers["cache-control"] == ("public, max-age=5" if path == "/" else "no-store")


def test_every_link_has_a_target(app: FastAPI) -> None:
    links: set[str] = set()
    for path in PATHS:
        if path != "/nowhere":
            links_of_page = {unescape(link).partition("#")[0] for link in LINK.findall(request_page(app, path).text)}
            links |= {path.partition("?")[0] + link if link.startswith("?") else link for link in links_of_page}
    links = set({re.sub(r"\d+", "0", link): link for link in links}.values())  # one page of each kind is enough
    ours = sorted(
        link
        for link in links
        if link.startswith("/") and not link.startswith(("/probes/unknown", "/incidents/unknown"))
    )
    assert len(ours) > 25
    assert [link for link in ours if request_page(app, link).status_code != 200] == []


def test_the_list_is_worst_first_with_causes(app: FastAPI) -> None:
    text = visible_text(request_page(app, "/probes").text)
    assert "11 probes, 3 need attention" in text
    order = [
        text.index(name) for name in ("Needs attention", "API HTTP 503", "Search MCP", "Exports", "Up · 8", "Payments")
    ]
    assert order == sorted(order)
    assert "Last scheduled 2 s ago" in text
    assert "1 run late" in text


@pytest.mark.parametrize(
    ("sentence", "query", "expected"),
    [
        ("a word in the name", "q=sign", ["Sign-in"]),
        ("a tag", "q=tag:prod", ["API", "Search MCP"]),
        ("two terms that both match", "q=group:core+s", ["Payments", "Sign-in", "Website"]),
        ("the kind", "kind=mcp&q=group:search", ["Search MCP", "Document fetch", "Suggestions"]),
        ("the state", "state=unknown", ["Exports"]),
        ("a state without probes", "state=purple", []),
    ],
)
def test_the_list_is_filtered_by_links_and_a_form(app: FastAPI, sentence: str, query: str, expected: list[str]) -> None:
    rows = re.findall(r'class="rowlink" href="/probes/[^"]+">([^<]+)<', request_page(app, f"/probes?{query}").text)
    assert sorted(rows) == sorted(expected), sentence


def test_a_probe_page_shows_the_current_state(app: FastAPI) -> None:
    text = visible_text(request_page(app, "/probes/search-mcp").text)
    assert "Degraded for 42 min" in text
    assert "Task reindex is stale: last run 01:31 UTC, limit 15 min" in text
    assert "next run in 38 s" in text
    assert "Last result Passed · 182 ms · 02:28:52, 22 s ago" in text
    assert "1 431 of 1 437" in text
    assert "reindex Stale ok: true 01:31:40 57 min 15 min" in text
    assert "crawl On time ok: true" in text
    assert "Down 19:10 to 19:17 · 7 min" in text
    assert "No data 06:12 to 06:15 · 3 min" in text
    assert 'headers : {Authorization: "Bearer ${MCP_TOKEN}"}' in text


def test_results_show_changes_by_default(app: FastAPI) -> None:
    def slots(query: str) -> list[str]:
        return re.findall(
            r'scope="row"><a class="rowlink"[^>]*><time[^>]*>([^<]+)',
            request_page(app, f"/probes/search-mcp{query}").text,
        )

    changes = slots("")
    assert changes[:4] == ["02:28:52", "01:56:52", "01:54:52", "01:46:52"]
    assert len(slots("?all")) == 50
    assert [s.replace("\u00a0", " ") for s in slots("?failed")] == [
        "01:55:52", "01:54:52", "21 Nov 19:13:52", "21 Nov 19:12:52", "21 Nov 19:11:52", "21 Nov 19:10:52",
    ]  # fmt: skip
    assert slots(f"?all&before={epoch_ms('02:00')}")[0] == "01:59:52"


def test_evidence_opens_by_link_even_if_its_row_is_on_another_page(app: FastAPI) -> None:
    text = visible_text(request_page(app, f"/probes/search-mcp?open={epoch_ms('01:54:52')}").text)
    assert "Reached" not in text  # the stylesheet makes capitals
    assert "connect 4 ms, TLS 11 ms, negotiate 39 ms, list 22 ms, call 2.9 s" in text
    assert "health_check: database pool exhausted (100 of 100 in use), waited 2900 ms" in text
    quiet = visible_text(request_page(app, f"/probes/search-mcp?open={epoch_ms('02:20:52')}").text)
    assert "Not stored: evidence is stored for failures" in quiet
    gone = visible_text(request_page(app, "/probes/search-mcp?open=12345").text)
    assert "Kept" not in gone


def test_a_phase_that_never_ended_names_its_reason(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("Slow")
    rows.add_result(id, NOW - 2 * MINUTE_MS, duration_ms=100, phases={"connect": 5, "first_byte": 90, "body": 5})
    rows.add_result(
        id,
        NOW - MINUTE_MS,
        Outcome.FAIL,
        "timed out",
        "timeout.exceeded",
        10_000,
        phases={"connect": 5, "first_byte": 9_995},
    )
    with filled_database(f"sqlite:///{tmp_path}/p.db", rows) as database:
        html = request_page(create_test_app(database), "/probes/slow").text
    assert 'class="num word is-down">Timed out</td>' in html


def test_an_incident_shows_changes_notifications_and_routing(app: FastAPI, acme: FixtureRows) -> None:
    html = request_page(app, f"/incidents/{acme.incident_by_name['down']}").text
    text = visible_text(html)
    assert "API: HTTP 503 Down for 41 min" in text
    assert "pager/webhook was not notified: 410 Gone, 8 attempts" in text
    assert "oncall/email, oncall/slack were notified." in text
    assert '<span class="hl">"pool exhausted: 100 of 100 in use"</span>' in unescape(html)
    assert "<dd>61</dd>" in html  # 58 in the last good result: not marked
    assert "First bad 01:48:00 · local" in text
    assert "Last good 01:47:00 · local" in text
    assert "42nd bad result HTTP 503" in text
    assert "42 failed runs since it began" in text
    assert "oncall · slack #oncall opened Delivered 01:49:02 · 412 ms" in text
    assert "chat · slack #chat opened Queued attempt 2 at 02:29:40 · 429 rate limited" in text
    assert "8 attempts until 02:24:11 · 410 Gone" in text
    assert "Route 1 matches: notifies oncall, pager, chat" in text
    assert "2 bad results in a row alert.failure_threshold: 2" in text


def test_a_resolved_incident_has_a_banner(tmp_path: Path) -> None:
    rows = acme_rows_after_recovery()
    with filled_database(f"sqlite:///{tmp_path}/r.db", rows) as database:
        text = visible_text(request_page(create_test_app(database), f"/incidents/{rows.incident_by_name['down']}").text)
    assert "Resolved after 13 min" in text
    assert "Recovered at 02:01:00 Lasted 13 min: first bad result 01:48:00, opened 01:49:02." in text
    assert "chat · slack #chat opened Merged 02:01:00 · sent as one message with a later event" in text
    assert "bad result HTTP 503 · 2" not in text


def test_an_incident_without_notifications_has_a_banner(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("API")
    route = ("route 1 does not match: no tag prod", "no route matches: no one is notified")
    incident = rows.add_incident(id, "availability", "HTTP 503", NOW - 5 * MINUTE_MS, threshold=1, routing_log=route)
    with filled_database(f"sqlite:///{tmp_path}/n.db", rows) as database:
        text = visible_text(request_page(create_test_app(database), f"/incidents/{incident}").text)
    steps = "Route 1 does not match: no tag prod; no route matched when it opened: no one was notified"
    assert f"No notification was sent {steps}" in text
    assert "Results from that time are no longer stored" in text
    assert "This incident sent no notification" in text


def test_an_incident_of_a_job_shows_only_that_job(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Shop", "jobs")
    late = "cart_sweep is overdue: due 02:20 UTC, last run 1 Jan 1970 00:00 UTC"
    due, started = NOW // MINUTE_MS * MINUTE_MS - 9 * MINUTE_MS, NOW - 3 * HOUR_MS
    both = [overdue_job("cart_sweep", due), ScheduledJobFacts("export", running_since=started, worker="app-3")]
    facts = {"export": {"worker": "app-3", "duration": "2 min"}, "cart_sweep": {"worker": "app-4", "duration": "9 s"}}
    message = "2 of 2 jobs have problems: export, cart_sweep"
    since, evidence = NOW - 5 * MINUTE_MS, Evidence({"jobs": facts})
    rows.add_result(id, since - MINUTE_MS, evidence=evidence, jobs=[])
    rows.add_result(id, since, Outcome.FAIL, message, "job.overdue", evidence=evidence, jobs=both)
    incident = rows.add_incident(id, "job", late, since, subject="cart_sweep", opened_after_ms=0, threshold=1)
    with filled_database(f"sqlite:///{tmp_path}/j.db", rows) as database:
        pages = create_test_app(database)
        incident_text, probe = (
            visible_text(request_page(pages, path).text) for path in (f"/incidents/{incident}", "/probes/shop")
        )
    assert f"outcome fail message {late} run duration 180 ms worker app-4 duration 9 s" in incident_text
    assert "app-3" not in incident_text
    assert "1 bad run since it began" in incident_text
    assert f"First bad result {late}" in incident_text
    assert f"Why it opened, and which routes apply {late}" in incident_text
    assert "alert.failure_threshold" not in incident_text
    assert f"{late} Since" in probe


def test_an_incident_of_missing_results_shows_the_last_result(app: FastAPI, acme: FixtureRows) -> None:
    (incident,) = (row["id"] for row in acme.rows["incidents"] if row["rule"] == "stale")
    text = visible_text(request_page(app, f"/incidents/{incident}").text)
    assert "No later result This incident is about missing results." in text
    assert "Last result 20 Nov 04:10:00 · local" in text
    assert "First bad" not in text
    assert "No result for 46 h 19 min" in visible_text(request_page(app, "/probes/exports").text)


def test_an_incident_of_a_task_shows_the_reported_task(app: FastAPI, acme: FixtureRows) -> None:
    (incident,) = (row["id"] for row in acme.rows["incidents"] if row["subject"] == "reindex")
    html = request_page(app, f"/incidents/{incident}").text
    assert '<dt>last run</dt><dd class="hl">15\u00a0min before</dd>' in html
    assert "<dt>last run</dt><dd>14\u00a0min before</dd>" in html
    assert "Evidence from 01:00:52: only a sample of the passing results is stored." in visible_text(html)


def test_undelivered_notifications_are_listed_with_their_incident(app: FastAPI) -> None:
    text = visible_text(request_page(app, "/undelivered").text)
    assert "1 undelivered notification" in text
    assert "pager · webhook events.acme.example API: HTTP 503 opened 01:49:02 Undelivered 8 attempts" in text


@pytest.mark.parametrize("is_open", [True, False])
def test_an_incident_states_what_to_do(app: FastAPI, acme: FixtureRows, is_open: bool) -> None:
    """Also when it is over, for those who look for its cause."""
    row = next(row for row in acme.rows["incidents"] if (row["resolved_at"] is None) is is_open and row["reason"])
    text = visible_text(request_page(app, f"/incidents/{row['id']}").text)
    assert f"What to do {row['reason']}" in text


def test_receivers_are_listed_with_how_their_deliveries_go(app: FastAPI) -> None:
    html = request_page(app, "/receivers").text
    text = visible_text(html)
    assert "1 undelivered" in text
    assert "oncall · slack #oncall Working confirmed 01:49:02 0 waiting 0 undelivered" in text
    assert "pager · webhook events.acme.example Nothing delivered none 0 waiting 1 undelivered" in text
    assert 'aria-current="page">Receivers' in html
    assert 'aria-current="page">Receivers' in request_page(app, "/undelivered").text


def test_a_receiver_that_fails_shows_since_when_and_why(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.rows["failing_destinations"].append(
        {"destination": "oncall/slack", "failing_since": NOW - HOUR_MS, "given_up": False, "error": "<b>invalid_auth"}
    )
    with filled_database(f"sqlite:///{tmp_path}/f.db", rows) as database:
        text = visible_text(request_page(create_test_app(database), "/receivers").text)
        without = create_test_app(database, destination_addresses={})
        empty = visible_text(request_page(without, "/receivers").text)
    assert "oncall · slack #oncall Failing none 0 waiting 0 undelivered since 01:29:14: <b>invalid_auth" in text
    assert "chat · slack #chat Not used yet" in text
    assert "No receiver is configured, so no one is notified." in empty


def test_a_new_probe_shows_when_it_runs(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/f.db", new_probe_rows()) as database:
        text = visible_text(request_page(create_test_app(database), "/probes/search-mcp").text)
    assert "No data yet" in text
    assert "No run yet: first run in 12 s" in text
    assert "No results yet. Each run is listed" in text


def test_a_probe_with_one_result_has_a_page(tmp_path: Path) -> None:
    rows = new_probe_rows()
    rows.add_result(
        1, NOW - 20 * SECOND_MS, duration_ms=180, phases={"connect": 4}, tasks={"t": McpScheduledTaskFacts(ok=True)}
    )
    with filled_database(f"sqlite:///{tmp_path}/o.db", rows) as database:
        response = request_page(create_test_app(database), "/probes/search-mcp")
    assert find_html_problems(response.text) == []
    text = visible_text(response.text)
    assert "Latency, last 5 min" in text
    assert "State, last 5 min" in text
    assert "1 of 1" in text
    assert "t Waiting for the first run" in text


@pytest.fixture
def scheduled() -> FixtureRows:
    """A jobs probe: one job is overdue, one is stuck, one is on time, and one has not run yet."""
    rows = FixtureRows()
    rows.add_watermark(NOW - SECOND_MS)
    jobs = rows.add_probe("Billing jobs", "jobs")
    rows.add_probe("Other", "http")
    read_at, month_ago = NOW - MINUTE_MS, NOW - 30 * DAY_MS
    ran_at = NOW - 61 * SECOND_MS
    facts = [
        ScheduledJobFacts(
            "usage-rollup",
            every=10 * MINUTE_MS,
            last_start=ran_at,
            last_end=NOW - 2 * SECOND_MS,
            last_ok=NOW - 2 * SECOND_MS,
            duration=59_000,
            expected_from=month_ago,
        ),
        ScheduledJobFacts("retry", cron="0 * * * *", last_start=NOW - 4 * HOUR_MS, expected_from=month_ago),
        ScheduledJobFacts("<b>ledger</b>", running_since=NOW - 2 * HOUR_MS, last_start=NOW - 2 * HOUR_MS),
        ScheduledJobFacts("yearly", cron="0 0 1 1 *", expected_from=month_ago),
    ]
    rows.add_result(jobs, NOW - 2 * MINUTE_MS, jobs=[])
    rows.add_result(jobs, read_at, Outcome.FAIL, "retry is overdue", "job.overdue", jobs=facts)
    rows.add_result(jobs, NOW - SECOND_MS, Outcome.FAIL, "away", "broker.unreachable")
    return rows


def test_the_jobs_of_a_source_are_listed_worst_first(tmp_path: Path, scheduled: FixtureRows) -> None:
    with filled_database(f"sqlite:///{tmp_path}/j.db", scheduled) as database:
        response = request_page(create_test_app(database), "/probes/billing-jobs")
        elsewhere = visible_text(request_page(create_test_app(database), "/probes/other").text)
    assert find_html_problems(response.text) == []
    text = visible_text(response.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")
    assert "Jobs 4 listed · read 1 min ago" in text
    assert "<b>ledger</b> is stuck: running since 00:29 UTC, limit 1 h Stuck - 00:29 - - -" in text
    late = "retry is overdue: 4 runs missed, the first due 21 Nov 23:00 UTC, last run 21 Nov 22:29 UTC"
    assert f"retry {late} Overdue 0 * * * * UTC 21 Nov 22:29 - - 03:00" in text
    assert "usage-rollup On time every 10 min 02:28 02:29 59 s 02:38" in text
    assert "yearly Waiting for the first run 0 0 1 1 * UTC never - - 1 Jan 2027 00:00" in text
    assert text.index("ledger") < text.index("retry") < text.index("usage-rollup") < text.index("yearly")
    assert "listed ·" not in elsewhere


def test_an_incident_of_a_job_shows_the_evidence_of_that_job_only(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW - SECOND_MS)
    jobs, since = rows.add_probe("Billing jobs", "jobs"), NOW - 2 * MINUTE_MS
    problems = [overdue_job("retry", since - HOUR_MS), stuck_job("ledger", since, "7")]
    expected = {"retry": {"cron": "0 * * * *"}, "ledger": {"running_since": "2026-11-22T00:29:00.000Z", "run": "7"}}
    message = "2 of 3 jobs have problems: retry, ledger"
    measured = {"jobs": 3, "jobs_failing": 2}
    rows.add_result(
        jobs, since, Outcome.FAIL, message, "job.overdue", jobs=problems, measurements=measured,
        evidence=Evidence({"jobs": expected, "write_access": "app may write, too"}),
    )  # fmt: skip
    stuck = rows.add_incident(jobs, "job", "ledger is stuck", since, subject="ledger", reason="job.stuck", threshold=1)
    with filled_database(f"sqlite:///{tmp_path}/j.db", rows) as database:
        text = visible_text(request_page(create_test_app(database), f"/incidents/{stuck}").text)
    assert (
        "message ledger is stuck: running since 00:27 UTC, limit 1 h run duration 180 ms "
        "write access app may write, too running since 2026-11-22T00:29" in text
    )
    assert "run 7" in text
    assert "retry" not in text
    assert "in a row" not in text
    assert "alert.failure_threshold" not in text
    assert "Opened, warning ledger is stuck" in text
    assert "First bad result ledger is stuck" in text


def test_every_page_warns_if_no_probe_runs(tmp_path: Path) -> None:
    rows = new_probe_rows()
    rows.rows["watermarks"][0]["claimed_until"] = NOW - 5 * MINUTE_MS
    with filled_database(f"sqlite:///{tmp_path}/s.db", rows) as database:
        text = visible_text(request_page(create_test_app(database), "/probes").text)
    assert "Watchdog is not running its probes" in text
    assert "Last scheduled 5 min ago" in text


def test_the_json_api_agrees_with_the_pages(app: FastAPI, acme: FixtureRows) -> None:
    probes = {probe["probe"]: probe for probe in request_page(app, "/api/v1/probes").json()["items"]}
    assert (probes["api"]["state"], probes["api"]["incidents"]) == ("down", [acme.incident_by_name["down"]])
    assert probes["api"]["latest"]["message"] == "HTTP 503"
    (first, *_) = request_page(app, "/api/v1/incidents?state=open&limit=1").json()["items"]
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
    """One probe for each text, with the text in every place that a configuration or a target controls."""
    rows, addresses = FixtureRows(), {}
    rows.add_watermark(NOW)
    for i, payload in enumerate(HOSTILE):
        spec = f"name: {payload}\n{payload}: {payload}\n"
        id = rows.add_probe(
            f"x{i}",
            "http",
            payload,
            tags=(payload,),
            target=payload,
            runbook=payload,
            schedule_text=payload,
            config_yaml=spec,
        )
        row = rows.rows["probes"][-1]
        row |= {
            "name": payload,
            "info": row["info"].replace(f'"name":"x{i}"', '"name":' + json.dumps(payload)),
        }
        evidence = Evidence({payload: payload, "deep": {payload: [payload]}}, payload)
        rows.add_result(id, NOW - 2 * MINUTE_MS, evidence=Evidence({payload: "x"}, "x"), phases={payload: 1.0})
        rows.add_result(
            id, NOW - MINUTE_MS, Outcome.FAIL, payload, payload, evidence=evidence, phases={payload: 5.0},
            preferences={payload: payload},
            tasks={payload: McpScheduledTaskFacts(False, NOW - MINUTE_MS - 5, status=payload, error=payload)},
            measurements={payload: payload},
        )  # fmt: skip
        incident = rows.add_incident(
            id,
            "task",
            payload,
            NOW - MINUTE_MS,
            subject=payload,
            reason=payload,
            routing_log=(payload,),
            opened_after_ms=0,
        )
        rows.add_notification(
            incident, f"{payload}/{payload}", "undelivered", created_at=NOW - MINUTE_MS, finished_at=NOW, detail=payload
        )
        rows.rows["acts"].append(
            {
                "kind": "acknowledge", "occurred_at": NOW, "author": payload, "interface": "api", "incident": incident,
                "silence": "", "comment": payload, "probe": f"x{i}", "maintenance": "",
            }
        )  # fmt: skip
        addresses[f"{payload}/{payload}"] = payload
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'h.db'}", rows) as database:
        yield create_test_app(database, destination_addresses=addresses)


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[repr(payload[:20]) for payload in HOSTILE])
def test_untrusted_text_is_escaped(hostile: FastAPI, number: int) -> None:
    payload = HOSTILE[number]
    own = (f"/probes/x{number}?all&open={NOW - MINUTE_MS}", f"/incidents/{number + 1:024x}")
    for path in (*own, "/", "/probes", "/incidents", "/undelivered", "/receivers", "/service"):
        response = request_page(hostile, path)
        assert response.status_code == 200, path
        assert str(escape(payload))[:40] in response.text, path
        assert path not in own or find_html_problems(response.text) == [], path
        assert "<script" not in re.sub(r'<script src="/static/(times|live|chart|copy)\.', "", response.text)
        assert "&lt;time" not in response.text
        assert "alert(1)>" not in response.text
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ["/", "/probes", "/incidents", "/undelivered", "/receivers", "/service"])
def test_lists_of_hostile_text_are_valid(hostile: FastAPI, path: str) -> None:
    assert find_html_problems(request_page(hostile, path).text) == []


def test_evidence_is_cut_at_300_characters(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("x")
    rows.add_result(id, NOW - MINUTE_MS, Outcome.FAIL, "no", "no", evidence=Evidence({}, "b" * 5_000))
    with filled_database(f"sqlite:///{tmp_path}/c.db", rows) as database:
        html = request_page(create_test_app(database), f"/probes/x?open={NOW - MINUTE_MS}").text
    assert "b" * 299 + "…" in html
    assert "b" * 300 not in html


@pytest.mark.parametrize("path", ["/nowhere", "/probes/unknown", "/incidents/unknown"])
def test_an_unknown_address_has_an_error_page(app: FastAPI, path: str) -> None:
    response = request_page(app, path)
    assert response.status_code == 404
    assert "Not found" in response.text


def test_an_unsupported_method_is_refused_with_a_page(app: FastAPI) -> None:
    response = request_page(app, "/probes", "DELETE")
    assert response.status_code == 405
    assert find_html_problems(response.text) == []


def test_an_internal_error_shows_no_traceback(app: FastAPI) -> None:
    async def read(_: object) -> None:
        raise RuntimeError("secret inside")

    broken = create_test_app(None, run_read_query=read)  # type: ignore[arg-type]
    response = request_page(broken, "/probes")
    assert response.status_code == 500
    assert "Internal error" in response.text
    assert "secret inside" not in response.text
    assert "Traceback" not in response.text
    assert response.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]
