"""The public status page: content, confidentiality, caching, and an unavailable database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from markupsafe import Markup, escape

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, make_read_query_runner, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Evidence, HealthState, Outcome, ProbeInfo, Severity
from watchdog.domain.rules.service import ALERT_RULE_NAME, WATCHDOG_SELF_PROBE_KIND
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import failing_destinations
from watchdog.web import StatusPageConfig
from watchdog.web.auth.session import ApiKey
from watchdog.web.pages.status import MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE, build_status_page
from watchdog.web.pages.status_services import (
    StatusPageServiceStatus,
    find_overall_status_page_state,
    format_status_headline,
)
from watchdog.web.pages.status_snapshot import load_status_page_snapshot

UP, DEGRADED, UNKNOWN, DOWN, PAUSED = HealthState
NONE = "\N{EN DASH}"


def test_the_page_shows_states_and_incidents(app: FastAPI) -> None:
    text = visible_text(request_page(app, "/").text)
    assert "API is down, Search MCP is degraded 8 of 11 services are up. 1 has no data. Checked 11 s ago." in text
    assert "API is down Down since 01:48 · 41 min API is not working." in text
    assert (
        "Search MCP is degraded Degraded since 01:46 · 42 min Search MCP is working, but some features are impaired."
        in text
    )
    order = [
        text.index(f" {name} ") for name in ("Core 1 of 4 down", "Search 1 of 3 degraded", "Jobs 1 of 4 without data")
    ]
    assert order == sorted(order)
    assert "Exports No data since 20 Nov" in text
    assert "100 % uptime 34 of 90 days" in text
    assert "13 Nov API was down 14 min, 09:02 to 09:16." in text
    assert "23 Oct Document fetch was down 13 min, 23:48 to 00:01." in text
    assert "90 days ago 60 days ago 30 days ago today" in text


def test_bars_have_titles_for_days_with_problems(app: FastAPI) -> None:
    html = request_page(app, "/").text
    assert "<title>22\u00a0Nov: down 41\u00a0min so far</title>" in html
    assert "<title>13\u00a0Nov: down 14\u00a0min</title>" in html
    label = 'aria-label="API, last 90 days: 86 days up, 1 day degraded, 3 days with downtime"'
    assert label in html.replace("\N{NO-BREAK SPACE}", " ")
    text = visible_text(html)
    assert f"21 Nov to 22 Nov Exports No data {NONE} {NONE}" in text
    assert f"13 Nov API Down 14 min {NONE}" in text


SECRETS = (
    "internal-host",
    "10.1.2.3",
    "X-Secret",
    "hunter2",
    "ECONNREFUSED",
    "HTTP 503",
    "runbook.internal",
    "sk-live",
)


def test_the_public_page_has_nothing_confidential(tmp_path: Path) -> None:
    """No target, tag, runbook, spec, message, reason, subject, evidence, route or receiver is public."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    planted = " ".join(SECRETS)
    id = rows.add_probe(
        "API",
        "http",
        "Core",
        tags=(planted,),
        target=planted,
        runbook=planted,
        schedule_text=planted,
        config_yaml=planted,
    )
    evidence = Evidence({planted: planted}, planted)
    rows.add_result(
        id, NOW - MINUTE_MS, Outcome.FAIL, planted, planted, evidence=evidence, measurements={planted: planted}
    )
    for rule, until in (("availability", None), ("task", None), ("preference", NOW - HOUR_MS)):
        start = NOW - MINUTE_MS if until is None else NOW - 2 * HOUR_MS
        incident = rows.add_incident(
            id, rule, planted, start, subject=planted, reason=planted, routing_log=(planted,), resolved_at=until
        )
        rows.add_notification(incident, planted, "undelivered", created_at=start, finished_at=NOW, detail=planted)
    with filled_database(f"sqlite:///{tmp_path}/l.db", rows) as database:
        app = create_test_app(database, destination_addresses={planted: planted})
        for path in ("/", "/healthz", "/readyz", "/nowhere", "/login"):
            response = request_page(app, path)
            for secret in SECRETS:
                assert secret not in response.text, path
                assert secret not in str(response.headers), path
        assert "hunter2" in request_page(app, "/probes").text  # visible to operators


def service(name: str, state: HealthState, group: str = "") -> StatusPageServiceStatus:
    return StatusPageServiceStatus(name, state, "", group, (), Markup(), "", "")


@pytest.mark.parametrize(
    ("services", "state", "line"),
    [
        ([("A", UP), ("B", UP)], UP, "All systems operational"),
        ([("A", DOWN), ("B", UP)], DOWN, "A is down"),
        ([("A", DOWN), ("B", DEGRADED), ("C", UP)], DOWN, "A is down, B is degraded"),
        ([("A", DEGRADED), ("B", DEGRADED), ("C", UP)], DEGRADED, "A and B are degraded"),
        ([("A", DOWN), ("B", DOWN), ("C", DOWN), ("D", UP)], DOWN, "3 of 4 services are down"),
        ([("A", UNKNOWN), ("B", UP)], UNKNOWN, "No data from A"),
        ([("A", UNKNOWN), ("B", UNKNOWN), ("C", UNKNOWN), ("D", UP)], UNKNOWN, "No data from 3 services"),
        ([("A", DOWN), ("B", UNKNOWN)], DOWN, "A is down"),
        ([("A", UNKNOWN)], UNKNOWN, "No data yet"),
        ([("A", PAUSED), ("B", UP)], UP, "All systems operational"),
        ([("A", PAUSED), ("B", DOWN)], DOWN, "B is down"),
        ([("A", PAUSED), ("B", PAUSED)], PAUSED, "Monitoring is paused"),
    ],
)
def test_the_headline_names_services_that_are_not_up(
    services: list[tuple[str, HealthState]], state: HealthState, line: str
) -> None:
    expected = [service(*s) for s in services]
    assert (find_overall_status_page_state(expected), format_status_headline(expected)) == (state, line)


def page_of(tmp_path: Path, rows: FixtureRows, site: StatusPageConfig | None = None) -> Any:
    with (
        filled_database(f"sqlite:///{tmp_path}/p.db", rows) as database,
        database.open_read_transaction() as connection,
    ):
        site = site or StatusPageConfig()
        return build_status_page(load_status_page_snapshot(connection, site, NOW), site)


def test_two_findings_of_one_probe_are_one_entry_with_both_steps(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("API")
    rows.add_passing_results(id)
    rows.add_incident(id, "task", "task a is stale", NOW - 30 * MINUTE_MS, subject="a")
    rows.add_incident(id, "task", "task b is stale", NOW - 20 * MINUTE_MS, subject="b")
    rows.add_incident(id, "availability", "HTTP 503", NOW - 10 * MINUTE_MS)
    (entry,) = page_of(tmp_path, rows).open_incidents
    assert (entry.title, entry.since) == ("API is down", NOW - 10 * MINUTE_MS)
    assert [(state, at_) for state, at_, _ in entry.state_changes] == [
        (DOWN, NOW - 10 * MINUTE_MS),
        (DEGRADED, NOW - 30 * MINUTE_MS),
    ]


def test_incidents_that_overlap_are_one_past_entry(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("API")
    rows.add_incident(id, "task", "a", epoch_ms("10:00", 1), resolved_at=epoch_ms("10:20", 1), subject="a")
    rows.add_incident(id, "availability", "b", epoch_ms("10:10", 1), resolved_at=epoch_ms("10:30", 1))
    assert [(entry.title, visible_text(entry.duration_text)) for entry in page_of(tmp_path, rows).past_incidents] == [
        ("API was down", "30 min, 10:00 to 10:30")
    ]


def test_a_short_incident_has_seconds(tmp_path: Path) -> None:
    rows, start = FixtureRows(), epoch_ms("10:00", 1) + 8_000
    rows.add_incident(rows.add_probe("API"), "availability", "a", start, resolved_at=start + 48_000)
    assert visible_text(page_of(tmp_path, rows).past_incidents[0].duration_text) == "48 s, 10:00:08 to 10:00:56"


def test_a_long_incident_has_dates(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_incident(rows.add_probe("API"), "task", "a", epoch_ms("10:00", 4), resolved_at=epoch_ms("11:00", 1))
    text = visible_text(page_of(tmp_path, rows).past_incidents[0].duration_text)
    assert text == "3 days 1 h, 18 Nov 10:00 to 21 Nov 11:00"


def test_a_probe_that_never_ran_has_no_data(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    rows.add_probe("API", created_at=NOW - SECOND_MS)
    page = page_of(tmp_path, rows)
    assert (page.state, page.headline, page.checked_at) == (UNKNOWN, "No data yet", None)
    assert page.groups[0].services[0].label == "No data yet"
    assert page.groups[0].services[0].uptime == ""


def test_a_paused_service_is_shown_so_and_its_time_does_not_count(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    paused, up = rows.add_probe("API"), rows.add_probe("Search")
    for probe in (paused, up):
        rows.add_result(probe, NOW - 3 * HOUR_MS)
    rows.add_incident(paused, "availability", "HTTP 503", NOW - 2 * HOUR_MS)
    rows.add_pause(paused, NOW - 2 * HOUR_MS, comment="hunter2")
    with filled_database(f"sqlite:///{tmp_path}/l.db", rows) as database:
        html = request_page(create_test_app(database), "/").text
    text = visible_text(html)
    assert "All systems operational Search is up. 1 is paused." in text
    assert "API Paused" in text
    assert "down" not in text.partition("API Paused")[2].partition("Search")[0]
    assert "hunter2" not in html, "who paused it, and why, is not public"
    assert "Ana" not in html


@pytest.mark.parametrize(
    ("in_maintenance", "line"),
    [
        ("A", "A is in maintenance"),
        ("AB", "A and B are in maintenance"),
        ("ABC", "3 of 4 services are in maintenance"),
    ],
)
def test_the_headline_names_services_in_maintenance(in_maintenance: str, line: str) -> None:
    services = [service(name, UP)._replace(is_in_maintenance=name in in_maintenance) for name in "ABCD"]
    assert (find_overall_status_page_state(services), format_status_headline(services)) == (UP, line)
    services.append(service("E", DOWN))
    assert format_status_headline(services) == "E is down"


def test_maintenance_now_and_next_is_shown_and_its_time_does_not_count(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    api, search, down = (rows.add_probe(name, group="Core") for name in ("API", "Search", "Web"))
    for probe in (api, search, down):
        rows.add_result(probe, NOW - 2 * HOUR_MS)
    rows.add_incident(down, "availability", "HTTP 503", NOW - HOUR_MS)
    rows.add_incident(api, "availability", "HTTP 503", NOW - 2 * HOUR_MS, resolved_at=NOW - HOUR_MS)
    rows.add_maintenance([api, down], NOW - 2 * HOUR_MS, NOW + HOUR_MS, comment="hunter2")
    rows.add_maintenance([api, search, down], NOW + 2 * DAY_MS, NOW + 2 * DAY_MS + HOUR_MS, name="Database upgrade")
    rows.add_maintenance([api], NOW - 3 * HOUR_MS, NOW - 2 * HOUR_MS, name="Over")
    with filled_database(f"sqlite:///{tmp_path}/l.db", rows) as database:
        html = request_page(create_test_app(database), "/").text
    assert find_html_problems(html) == []
    text = visible_text(html)
    assert "Web is down 1 of 2 services is up. 1 is in maintenance." in text
    assert "Maintenance All times UTC 00:29 Maintenance In progress until 03:29 · API, Web" in text
    assert "24 Nov 02:29 Database upgrade Starts in 2 days, until 24 Nov 03:29 · API, Search, Web" in text
    assert "API In maintenance" in text
    assert "Web Down, in maintenance" in text
    assert "Over" not in text
    assert "hunter2" not in html, "who began it, and why, is not public"
    assert "Ana" not in html
    page = page_of(tmp_path, rows)
    today = {service.name: service.days[-1] for group in page.groups for service in group.services}
    assert (today["API"].state, today["API"].down_ms) == (UP, 0)
    assert today["API"].measured_ms == 0, "the whole night"
    assert today["Search"].measured_ms == NOW % DAY_MS


def test_without_a_problem_the_banner_states_maintenance(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    rows.add_passing_results(rows.add_probe("API", group="Core"))
    rows.add_passing_results(rows.add_probe("Search", group="Core"))
    rows.add_maintenance([1], NOW - HOUR_MS, NOW + HOUR_MS, name="Move")
    page = page_of(tmp_path, rows)
    assert (page.state, page.is_in_maintenance, page.headline) == (UP, True, "API is in maintenance")
    assert page.subtitle == "Search is up. 1 is in maintenance."
    assert page.groups[0].summary == "1 of 2 in maintenance"


def test_maintenance_of_probes_that_the_page_does_not_show_is_left_out(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    public, hidden = rows.add_probe("API"), rows.add_probe("Internal")
    rows.add_maintenance([hidden], NOW, NOW + HOUR_MS, name="Secret move")
    for number in range(MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE + 1):
        rows.add_maintenance([public, hidden], NOW + number, NOW + HOUR_MS, name=f"Move {number}")
    page = page_of(tmp_path, rows, StatusPageConfig(includes_probe=lambda probe: probe.name == "API"))
    assert [window.title for window in page.maintenance] == [
        f"Move {number}" for number in range(MAX_MAINTENANCE_WINDOWS_ON_STATUS_PAGE)
    ]
    assert {window.services_text for window in page.maintenance} == {"API"}


def test_many_services_in_one_window_are_counted(tmp_path: Path) -> None:
    rows = FixtureRows()
    probes = [rows.add_probe(f"P{number}") for number in range(4)]
    rows.add_maintenance(probes, NOW - 1, NOW + HOUR_MS)
    (window,) = page_of(tmp_path, rows).maintenance
    assert (window.title, window.services_text) == ("Maintenance", "4 services")


def test_nothing_is_up_while_no_probe_runs(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW - 2 * MINUTE_MS)
    rows.add_passing_results(rows.add_probe("API"), newest_ago_s=125)
    rows.add_incident(rows.add_probe("Web"), "availability", "down", NOW - HOUR_MS)
    page = page_of(tmp_path, rows)
    assert (page.state, page.headline) == (UNKNOWN, "No current data")
    assert [visible_text(s.label) for g in page.groups for s in g.services] == ["No data since 02:27", "No data yet"]
    assert page.open_incidents == ()


def test_the_configuration_selects_and_orders_services(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for name, group, tag in (
        ("B", "Jobs", "prod"),
        ("A", "Jobs", "prod"),
        ("C", "Zoo", "prod"),
        ("D", "", "prod"),
        ("E", "Core", ""),
    ):
        rows.add_passing_results(rows.add_probe(name, "http", group, tags=(tag,)))

    def expected(info: ProbeInfo) -> bool:
        return "prod" in info.tags

    page = page_of(
        tmp_path,
        rows,
        StatusPageConfig(
            includes_probe=expected, group_order=("Zoo", "Jobs", "Core"), probe_order=("b", "a", "c", "d", "e")
        ),
    )
    assert [(g.name, [s.name for s in g.services]) for g in page.groups] == [
        ("Zoo", ["C"]),
        ("Jobs", ["B", "A"]),
        ("Other", ["D"]),
    ]
    assert page.subtitle == "All 4 services are up."


def test_an_empty_page_explains_the_setup(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/e.db", FixtureRows()) as database:
        response = request_page(create_test_app(database), "/")
    assert response.status_code == 200
    assert "No probes yet" in response.text


def test_a_short_history_has_its_own_axis(acme_database: Database) -> None:
    text = visible_text(
        request_page(
            create_test_app(acme_database, status_page=StatusPageConfig("Acme", history_ms=30 * DAY_MS)), "/"
        ).text
    )
    assert "30 days ago 20 days ago 10 days ago today" in text


@pytest.mark.parametrize("path", ["/", "/probes", "/nowhere"])
def test_a_notice_is_at_the_top_of_every_page(acme_database: Database, path: str) -> None:
    notice = 'On Sunday <the database> is "moved".'
    app = create_test_app(acme_database, get_site_notice=lambda: notice)
    page = request_page(app, path).text
    assert escape(notice) in page
    assert page.index(escape(notice)) < page.index("<h1")
    assert 'aria-label="Notice"' not in request_page(create_test_app(acme_database), path).text


# --- caching, and an unavailable database


class Flaky:
    """Runs queries, counts them, and fails on request."""

    def __init__(self, database: Database):
        self._read, self.reads = make_read_query_runner(database), 0
        self.error: Exception | None = None

    async def __call__(self, query: Callable[[sa.Connection], Any]) -> Any:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return await self._read(query)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def flaky(acme_database: Database) -> Flaky:
    return Flaky(acme_database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(acme_database: Database, flaky: Flaky, clock: Clock) -> FastAPI:
    return create_test_app(acme_database, run_read_query=flaky, clock=clock)


def test_an_unchanged_page_is_not_sent_again(watched: FastAPI) -> None:
    first = request_page(watched, "/")
    again = request_page(watched, "/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert request_page(watched, "/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_many_visitors_cause_one_query(watched: FastAPI, flaky: Flaky, clock: Clock) -> None:
    for _ in range(3):
        request_page(watched, "/")
    assert flaky.reads == 1
    clock.now += 5 * SECOND_MS
    first, later = request_page(watched, "/"), request_page(watched, "/")
    assert flaky.reads == 2
    assert "16\u00a0s ago" in first.text
    assert first.headers["etag"] == later.headers["etag"]


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), TimeoutError()])
def test_the_last_snapshot_is_shown_with_its_age(
    watched: FastAPI, flaky: Flaky, clock: Clock, error: Exception
) -> None:
    request_page(watched, "/")
    flaky.error = error
    clock.now += 3 * MINUTE_MS
    response = request_page(watched, "/")
    text = visible_text(response.text)
    assert response.status_code == 200
    assert "Data from 3 min ago" in text
    assert "The states below are as of 02:29" in text
    assert "API is down, Search MCP is degraded" in text
    assert "Checked 3 min ago" in text
    flaky.error = None
    clock.now += 5 * SECOND_MS
    assert "Data from" not in request_page(watched, "/").text


def test_without_a_snapshot_the_page_is_unavailable(watched: FastAPI, flaky: Flaky) -> None:
    flaky.error = StoreUnavailableError("password authentication failed for user hunter2")
    response = request_page(watched, "/")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "10"
    assert "Database unavailable" in response.text
    assert "hunter2" not in response.text


def test_operators_pages_are_unavailable_without_the_database(watched: FastAPI, flaky: Flaky) -> None:
    flaky.error = StoreUnavailableError("gone")
    assert request_page(watched, "/probes").status_code == 503
    assert request_page(watched, "/api/v1/probes").json()["status"] == 503


@pytest.mark.parametrize("path", ["/", "/readyz"])
def test_visitors_at_once_share_one_query(acme_database: Database, flaky: Flaky, path: str) -> None:
    app = create_test_app(acme_database, run_read_query=flaky)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            requests: list[Awaitable[httpx.Response]] = [http.get(path) for _ in range(8)]
            return [response.status_code for response in await asyncio.gather(*requests)]

    assert asyncio.run(crowd()) == [200] * 8
    assert flaky.reads == 1


def test_health_and_readiness(acme_database: Database, flaky: Flaky) -> None:
    ready = create_test_app(acme_database, run_read_query=flaky)
    assert request_page(ready, "/healthz").json() == {"status": "ok"}
    assert request_page(ready, "/readyz").json() == {"status": "ready"}
    late = create_test_app(
        acme_database, run_read_query=flaky, not_ready_reason=lambda: "no run has been scheduled for 12 s"
    )
    assert (request_page(late, "/readyz").status_code, request_page(late, "/readyz").json()["reason"]) == (
        503,
        "no run has been scheduled for 12 s",
    )
    flaky.error = StoreUnavailableError("gone")
    assert request_page(ready, "/healthz").status_code == 200
    assert (request_page(ready, "/readyz").status_code, request_page(ready, "/readyz").json()["reason"]) == (
        503,
        "the database is unavailable",
    )


def test_the_stylesheet_is_cached_for_a_year_under_the_hash_of_its_content(app: FastAPI) -> None:
    html = request_page(app, "/").text
    path = html.partition('rel="stylesheet" href="')[2].partition('"')[0]
    response = request_page(app, path)
    assert response.headers["content-type"] == "text/css; charset=utf-8"
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert request_page(app, "/static/watchdog.css").status_code == 404
    assert request_page(app, "/static/..%2f..%2fpyproject.toml").status_code == 404


def test_a_head_request_is_answered_without_a_body(app: FastAPI) -> None:
    response = request_page(app, "/", "HEAD")
    assert response.status_code == 200
    assert response.headers["etag"]


OWN_FINDING = "receiver oncall/slack has not confirmed any notification since 01:20 UTC: HTTP 500"


def test_what_is_wrong_with_watchdog_itself_is_one_list(tmp_path: Path) -> None:
    rows = FixtureRows()
    own = rows.add_probe("Watchdog", WATCHDOG_SELF_PROBE_KIND)
    api = rows.add_probe("API")
    rows.add_incident(api, "availability", "HTTP 503", NOW - HOUR_MS)
    overload = rows.add_incident(
        own, ALERT_RULE_NAME, "too many runs at once on host-1", NOW - HOUR_MS, subject="overload of host-1",
        reason="watchdog.overloaded",
    )  # fmt: skip
    receiver = rows.add_incident(
        own, ALERT_RULE_NAME, OWN_FINDING, NOW - MINUTE_MS, subject="receiver oncall/slack",
        reason="watchdog.delivery_failing", severity=Severity.CRITICAL,
    )  # fmt: skip
    rows.add_incident(own, ALERT_RULE_NAME, "over", NOW - 2 * HOUR_MS, resolved_at=NOW - HOUR_MS)
    keys = [ApiKey("ops", "operator", "operator-key"), ApiKey("tv", "reader", "reader-key")]
    with filled_database(f"sqlite:///{tmp_path}/own.db", rows) as database:
        app = create_test_app(database, api_keys=keys)
        operator = {"Authorization": "Bearer operator-key"}
        listed = request_page(app, "/readyz", headers=operator).json()
        public = {"reason": "watchdog.delivery_failing", "severity": "critical", "since": "2026-11-22T02:28:14.000Z"}
        details = {"subject": "receiver oncall/slack", "message": OWN_FINDING, "incident": receiver}
        assert listed["status"] == "ready"
        assert [finding["incident"] for finding in listed["findings"]] == [receiver, overload], "critical ones first"
        assert listed["findings"][0] == public | details
        for headers in ({}, {"Authorization": "Bearer reader-key"}, {"Authorization": "Bearer wrong"}):
            response = request_page(app, "/readyz", headers=headers)
            assert [finding["reason"] for finding in response.json()["findings"]] == [
                "watchdog.delivery_failing", "watchdog.overloaded"
            ]  # fmt: skip
            assert response.json()["findings"][0] == public
            assert "host-1" not in response.text
        for path in ("/probes", "/incidents", "/jobs", "/undelivered", "/probes/api"):
            page = request_page(app, path, headers=operator).text
            assert "Watchdog itself has 2 problems" in page, path
            assert page.index(f"Receiver{OWN_FINDING[8:]}</a>") < page.index("Too many runs at once on host-1</a>"), (
                path
            )
            assert f'href="/incidents/{overload}"' in page
        assert "host-1" not in request_page(app, "/").text, "the public page shows nothing of it"


def test_a_service_whose_receivers_all_fail_is_not_ready(acme_database: Database) -> None:
    names = ("oncall/slack", "ops/email")
    app = create_test_app(acme_database, destination_addresses=dict.fromkeys(names, ""))

    def set_failing(**since_by_name: int) -> None:
        rows = [
            {
                "destination": f"{name.replace('_', '/')}",
                "failing_since": NOW - ms,
                "given_up": False,
                "error": "secret",
            }
            for name, ms in since_by_name.items()
        ]
        with acme_database.open_write_transaction() as connection:
            connection.execute(sa.delete(failing_destinations))
            connection.execute(sa.insert(failing_destinations), rows)

    try:
        for rows in ({"oncall_slack": 300_000, "old_receiver": 10**8}, {"oncall_slack": 300_000, "ops_email": 299_999}):
            set_failing(**rows)
            assert request_page(app, "/readyz").json() == {"status": "ready"}, "not all, or not for long enough"
        set_failing(oncall_slack=300_000, ops_email=300_000)
        response = request_page(app, "/readyz")
        assert (response.status_code, response.json()["reason"]) == (503, "no receiver confirms notifications")
        assert "secret" not in response.text
    finally:
        with acme_database.open_write_transaction() as connection:
            connection.execute(sa.delete(failing_destinations))


NOTES = {
    True: ["2 probes of this process are run by processes with the newer revision 7: api, shop", "host-1 has <b>"],
    False: ["2 probes of this process are run by processes with the newer revision 7"],
}


def test_different_configurations_are_shown_to_operators_on_every_page_and_to_no_one_else(
    acme_database: Database,
) -> None:
    keys = [ApiKey("ops", "operator", "operator-key"), ApiKey("tv", "reader", "reader-key")]
    app = create_test_app(acme_database, list_notes=NOTES.__getitem__, api_keys=keys)
    title = "Processes on one database have different configurations"
    for path in ("/probes", "/incidents", "/jobs", "/undelivered", "/probes/website"):
        page = request_page(app, path, headers={"Authorization": "Bearer operator-key"}).text
        assert title in page, path
        assert "newer revision 7: api, shop." in page
        assert "Host-1 has &lt;b&gt;." in page, "escaped"
        page = request_page(app, path, headers={"Authorization": "Bearer reader-key"}).text
        assert title in page, path
        assert "revision 7." in page
        assert "host-1" not in page.lower(), "readers see no names"
    for headers, names in (("operator-key", True), ("reader-key", False), ("wrong", False)):
        readiness = request_page(app, "/readyz", headers={"Authorization": f"Bearer {headers}"}).json()
        assert readiness["notes"] == NOTES[names], headers
    public = request_page(app, "/").text
    assert title not in public
    assert "revision" not in public
    assert title not in request_page(create_test_app(acme_database), "/probes").text, "nothing differs"
