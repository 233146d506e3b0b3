"""Charts in a browser: values at the pointer, arrow keys, and zooming by dragging."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.fixtures import add_canary_probe
from tests.support.fixtures_queue import queue_backlog_rows
from tests.support.polling import HANG_S
from tests.support.web import create_test_app, filled_database, running_app
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.store.database import Database

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def site(acme_database: Database) -> Iterator[str]:
    with running_app(create_test_app(acme_database)) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(timezone_id="Asia/Kolkata", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(HANG_S * 1000)
    yield context.new_page()
    context.close()


def read(page: Page) -> str:
    return page.locator("#latency-readout").inner_text().replace("\u00a0", " ")


def read_period(page: Page) -> tuple[int, int]:
    parameters = parse_qs(urlsplit(page.url).query)
    return int(parameters["from"][0]), int(parameters["to"][0])


def test_the_pointer_reads_a_point_and_dragging_zooms(page: Page, site: str) -> None:
    page.goto(f"{site}/probes/search-mcp?all&range=6h")
    chart = page.locator("#latency-chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    assert page.locator("#latency-readout").is_hidden()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    assert read(page).startswith("04:5")  # three hours before 07:59 in Kolkata
    assert re.search(r" · p50 \d+ ms · p95 \d+ ms", read(page))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 300)
    assert page.locator("#latency-readout").is_hidden()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + 60)
    assert page.locator("#latency-cursor[data-selection]").is_visible()
    page.mouse.up()
    page.get_by_role("link", name="Newest").wait_for()
    start, stop = read_period(page)
    assert abs(stop - start - 90 * MINUTE_MS) <= 6 * MINUTE_MS
    assert "all" in parse_qs(urlsplit(page.url).query, keep_blank_values=True)
    assert page.get_by_role("heading", name="Latency, 04:").is_visible()
    page.get_by_role("link", name="Newest").click()
    page.get_by_role("heading", name="Latency, last").wait_for()


def test_arrow_keys_read_points_and_select_a_part(page: Page, site: str) -> None:
    page.goto(f"{site}/probes/search-mcp?range=6h")
    chart = page.locator("#latency-chart")
    chart.focus()
    page.keyboard.press("End")
    newest = read(page)
    page.keyboard.press("ArrowLeft")
    assert read(page) != newest
    page.keyboard.press("ArrowRight")
    assert read(page) == newest
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert page.locator("#latency-cursor[data-selection]").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#latency-readout").is_hidden()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Newest").wait_for()
    start, stop = read_period(page)
    assert stop - start == 4 * 2 * MINUTE_MS


def test_every_chart_zooms(page: Page, tmp_path: Path) -> None:
    rows = queue_backlog_rows()
    add_canary_probe(rows)
    with (
        filled_database(f"sqlite:///{tmp_path}/c.db", rows) as database,
        running_app(create_test_app(database)) as address,
    ):
        for probe, chart, newest_values in (
            ("email-backlog", "queue", " · Waiting 212"),
            ("email-pipeline", "stages", " · Waiting 214 · Message canary job not picked up"),
        ):
            page.goto(f"{address}/probes/{probe}?range=6h")
            page.locator(f"#{chart}-chart").focus()
            page.keyboard.press("End")
            assert newest_values in page.locator(f"#{chart}-readout").inner_text()
            for _ in range(3):
                page.keyboard.press("Shift+ArrowLeft")
            page.keyboard.press("Enter")
            page.get_by_role("link", name="Newest").wait_for()
            start, stop = read_period(page)
            assert 3 * MINUTE_MS < stop - start <= 20 * MINUTE_MS
            assert urlsplit(page.url).fragment == chart


def test_without_a_script_links_zoom(browser: Browser, site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(HANG_S * 1000)
    page = context.new_page()
    page.goto(f"{site}/probes/search-mcp")
    page.get_by_role("link", name="24\u00a0h", exact=True).click()
    page.get_by_text("Show as a table").first.click()
    page.locator("[aria-labelledby=latency] tbody a").nth(5).click()
    start, stop = read_period(page)
    assert stop - start == HOUR_MS  # the runs of only a part of the day are stored
    page.get_by_role("link", name="Earlier").click()
    assert read_period(page)[1] == start
    assert page.locator(".readout:visible, .cursor:visible").count() == 0
    context.close()
