"""The status page of an installation with more services than one page lists."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS
from watchdog.web import StatusPageConfig
from watchdog.web.pages.list_page import LIST_ROWS_PER_PAGE
from watchdog.web.pages.status import MAX_OPEN_INCIDENTS_ON_STATUS_PAGE

DOWN_COUNT = 70
GROUP_COUNT = LIST_ROWS_PER_PAGE + 10
COUNT_BY_GROUP = {"A & B": 250, "": 30, **{f"Small {number:03}": 1 for number in range(GROUP_COUNT - 2)}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for group, count in COUNT_BY_GROUP.items():
        for number in range(count):
            probe = rows.add_probe(f"{group or 'Loose'} {number:03}", "http", group)
            rows.add_passing_results(probe, count=1)
            if group == "A & B" and number < DOWN_COUNT:
                rows.add_incident(probe, "availability", "", NOW - MINUTE_MS)
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('large')}/w.db", rows) as database:
        yield create_test_app(database, status_page=StatusPageConfig("Acme", group_order=("A & B",)))


def count_bars(html: str) -> int:
    return html.count('class="bars"')


def test_all_groups_are_summarised_and_only_services_that_are_not_up_are_listed(app: FastAPI) -> None:
    html = request_page(app, "/").text
    assert find_html_problems(html) == []
    text = visible_text(html)
    total = sum(COUNT_BY_GROUP.values())
    assert f"{DOWN_COUNT} of {total} services are down" in text
    assert f"A & B {DOWN_COUNT} of 250 down" in text
    assert "All 250 services of A & B" in text
    assert count_bars(html) == DOWN_COUNT
    assert html.count("<article") == MAX_OPEN_INCIDENTS_ON_STATUS_PAGE
    assert f"{DOWN_COUNT - MAX_OPEN_INCIDENTS_ON_STATUS_PAGE} more services have open incidents." in text
    assert f"{GROUP_COUNT} groups · page 1 of 2 · next" in text
    assert html.count("<h3>Small") == LIST_ROWS_PER_PAGE - 1


def test_each_service_is_listed_in_its_group(app: FastAPI) -> None:
    first = request_page(app, "/?group=A+%26+B").text
    assert find_html_problems(first) == []
    assert count_bars(first) == LIST_ROWS_PER_PAGE
    assert "250 services · page 1 of 2 · next" in visible_text(first)
    assert "/?group=A+%26+B&page=2" in unescape(first)
    second = request_page(app, "/?group=A+%26+B&page=2").text
    assert count_bars(second) == 250 - LIST_ROWS_PER_PAGE
    assert "A & B 249" in visible_text(second)
    assert count_bars(request_page(app, "/?group=").text) == 30, "services without a group"
    assert "Small 205" in visible_text(request_page(app, "/?page=2").text)


@pytest.mark.parametrize(
    "query", ["?group=nowhere", "?page=x", "?page=0", "?page=-1", "?page=" + "9" * 30, "?group=%00"]
)
def test_a_view_that_does_not_exist_is_that_of_all_groups(app: FastAPI, query: str) -> None:
    assert request_page(app, f"/{query}").text == request_page(app, "/").text


def test_a_page_beyond_the_last_is_the_last(app: FastAPI) -> None:
    assert request_page(app, "/?page=999").text == request_page(app, "/?page=2").text


def test_a_small_installation_has_one_view(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for number in range(LIST_ROWS_PER_PAGE):
        rows.add_passing_results(rows.add_probe(f"P{number}", "http", f"G{number % 2}"), count=1)
    with filled_database(f"sqlite:///{tmp_path}/w.db", rows) as database:
        small = create_test_app(database)
        html = request_page(small, "/").text
        assert count_bars(html) == LIST_ROWS_PER_PAGE
        assert "All 100 services" not in html
        assert request_page(small, "/?group=G1").text == html


def test_pages_are_compressed_for_clients_that_accept_it(app: FastAPI) -> None:
    for path in ("/", "/?group=A+%26+B", "/probes", "/jobs", "/incidents", "/api/v1/probes", "/api/v1/incidents"):
        for accepted, is_compressed in (
            ("gzip", True),
            ("br, gzip;q=0.5", True),
            ("*", True),
            ("identity", False),
            ("gzip;q=0", False),
            ("gzip;q=0.0, br", False),
        ):
            response = request_page(app, path, headers={"Accept-Encoding": accepted})
            is_large = len(response.content) >= 1_024
            assert (response.headers.get("content-encoding") == "gzip") is (is_compressed and is_large), (
                path,
                accepted,
            )
            vary = "Accept-Encoding, Authorization, Cookie" if path.startswith("/api/") else "Accept-Encoding"
            assert response.headers["vary"] == vary
            assert response.text == request_page(app, path, headers={"Accept-Encoding": "identity"}).text


def test_the_two_encodings_have_tags_of_their_own(app: FastAPI) -> None:
    tags = {}
    for encoding in ("gzip", "identity"):
        headers = {"Accept-Encoding": encoding}
        tags[encoding] = request_page(app, "/", headers=headers).headers["etag"]
        assert request_page(app, "/", headers=headers | {"If-None-Match": tags[encoding]}).status_code == 304
    assert tags["gzip"] != tags["identity"]
    assert (
        request_page(app, "/", headers={"If-None-Match": tags["gzip"], "Accept-Encoding": "identity"}).status_code
        == 200
    )


def test_open_incidents_fill_several_pages(tmp_path: Path) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for number in range(LIST_ROWS_PER_PAGE + 5):
        rows.add_incident(rows.add_probe(f"P{number:03}", "http"), "availability", "", NOW - number * MINUTE_MS)
    with filled_database(f"sqlite:///{tmp_path}/w.db", rows) as database:
        large = create_test_app(database)
        first, second = (request_page(large, f"/incidents{query}").text for query in ("", "?page=2"))
    assert first.count('class="rowlink"') == LIST_ROWS_PER_PAGE
    assert second.count('class="rowlink"') == 5
    assert "page 1 of 2" in visible_text(first)
    assert f"Open · {LIST_ROWS_PER_PAGE + 5}" in visible_text(second)
