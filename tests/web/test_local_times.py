"""Times on pages in browsers of several time zones, with and without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, running_app
from watchdog.domain.formatting import format_date, format_time_of_day, format_utc_timestamp_without_zone
from watchdog.store.database import Database

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

READ_TIMES = """() => [...document.querySelectorAll("[data-as]")].map(element => {
    const title = element instanceof SVGElement ? element.querySelector("title") : null
    const at = element.getAttribute("datetime") ?? new Date(+element.dataset.at).toISOString()
    const text = [...element.childNodes].filter(node => node !== title).map(node => node.textContent).join("")
    return {at, style: element.dataset.as, text, title: title ? title.textContent : element.title,
            isZoneNamed: "zone" in element.dataset}
})"""
ZONES = [  # (zone, its short name at NOW, the offset in hours): behind UTC it is still the day before
    ("America/New_York", "EST"),
    ("Asia/Kolkata", "GMT+5:30"),
    ("Pacific/Kiritimati", "GMT+14"),
    ("UTC", "UTC"),
]


@pytest.fixture(scope="module")
def site(acme_database: Database) -> Iterator[str]:
    with running_app(create_test_app(acme_database)) as address:
        yield address


@pytest.fixture
def paths(acme: FixtureRows) -> tuple[str, ...]:
    incident = f"/incidents/{acme.incident_by_name['down']}"
    probe_pages = ("/probes/api", "/probes/exports", "/probes/search-mcp")
    return ("/", "/probes", *probe_pages, incident, "/incidents", "/receivers", "/undelivered", "/service")


def expect_text(style: str, at: int, timezone: str) -> str:
    """As the server would write it if its times were in this zone."""
    zone = ZoneInfo(timezone)

    def shift(instant: int) -> int:
        offset = datetime.fromtimestamp(instant / 1000, zone).utcoffset()
        assert offset is not None
        return instant + round(offset.total_seconds() * 1000)

    local, now, has_seconds = shift(at), shift(NOW), style.endswith("-seconds")
    if style.startswith("stamp"):
        return format_utc_timestamp_without_zone(local, now, seconds=has_seconds)
    is_today = format_date(local, now) == format_date(now, now)
    if style == "date" or (style == "time-or-date" and not is_today):
        return format_date(local, now)
    return format_time_of_day(local, seconds=has_seconds)


def parse_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def read_times(context: BrowserContext, address: str) -> list[dict[str, Any]]:
    page = context.new_page()
    page.goto(address)
    times: list[dict[str, Any]] = page.evaluate(READ_TIMES)
    page.close()
    return times


@pytest.mark.parametrize(("timezone", "short_name"), ZONES)
def test_times_are_local_with_utc_on_hover(
    browser: Browser, site: str, paths: tuple[str, ...], timezone: str, short_name: str
) -> None:
    context = browser.new_context(timezone_id=timezone)
    styles = set()
    for path in paths:
        for time in read_times(context, site + path):
            at = parse_ms(time["at"])
            zone = f" {short_name}" if time["isZoneNamed"] and abs(at - NOW) < 86_400_000 else ""
            assert time["text"].startswith(expect_text(time["style"], at, timezone) + zone), (path, time)
            assert time["isZoneNamed"] or " " + short_name not in time["text"]
            utc = datetime.fromtimestamp(at / 1000, UTC)
            assert time["title"] == f"{utc.day}\u00a0{utc:%b %Y %H:%M:%S} UTC"
            styles.add(time["style"])
    context.close()
    assert styles >= {"stamp", "stamp-seconds", "time", "time-seconds", "date", "time-or-date"}


def test_without_a_script_times_are_in_utc(browser: Browser, site: str, paths: tuple[str, ...]) -> None:
    context = browser.new_context(timezone_id="Asia/Kolkata", java_script_enabled=False)
    page = context.new_page()
    for path in paths:
        page.goto(site + path)
        zone_names = page.locator("[data-zone-name]")
        assert set(zone_names.all_text_contents()) <= {"UTC"}
        for element in page.locator("time[data-as]").all()[:30]:
            at = parse_ms(element.get_attribute("datetime") or "")
            suffix = "" if element.get_attribute("data-zone") is None else " UTC"
            expected = expect_text(element.get_attribute("data-as") or "", at, "UTC") + suffix
            assert element.text_content() == expected, path
    context.close()


def test_labels_state_the_zone(browser: Browser, site: str, acme: FixtureRows) -> None:
    texts = {
        "/": ("All times America/New York", "all times America/New York · each bar is a day in UTC"),
        "/incidents": ("As of 21:29:14 EST", "Newest first, all times America/New York"),
        f"/incidents/{acme.incident_by_name['down']}": ("America/New York, newest first", "since 20:48:00 EST"),
        "/receivers": ("confirmed 20:49:02", "All times America/New York"),
        "/probes/search-mcp": ("Since 20:46:52",),
        "/service": ("Newest first, all times America/New York",),
    }
    for is_script_enabled in (True, False):
        context = browser.new_context(timezone_id="America/New_York", java_script_enabled=is_script_enabled)
        page = context.new_page()
        for path, expected in texts.items():
            page.goto(site + path)
            text = page.locator("body").inner_text().replace("\u00a0", " ")
            assert [each for each in expected if (each in text) != is_script_enabled] == [], path
            assert ("UTC, newest first" in text or "ll times UTC" in text) != is_script_enabled or "probes" in path
        context.close()


def test_a_form_sends_the_zone_that_its_label_names(browser: Browser, site: str) -> None:
    for is_script_enabled, zone in ((True, "Europe/Berlin"), (False, "UTC")):
        context = browser.new_context(timezone_id="Europe/Berlin", java_script_enabled=is_script_enabled)
        page = context.new_page()
        page.goto(f"{site}/silences")
        (label,) = page.locator("label[for=end]").all_inner_texts()
        assert page.locator("input[name=timezone]").get_attribute("value") == zone
        assert label == f"For how long, or until when ({zone})"
        context.close()


def test_relative_times_state_the_instant_on_hover(browser: Browser, site: str) -> None:
    context = browser.new_context(timezone_id="Asia/Kolkata")
    page = context.new_page()
    page.goto(f"{site}/probes")
    title = page.locator("time[data-age=ago]").first.get_attribute("title") or ""
    local, utc = title.replace("\u00a0", " ").split(" · ")
    assert re.fullmatch(r"22 Nov 2026 07:..:.. GMT\+5:30", local)
    assert re.fullmatch(r"22 Nov 2026 02:..:.. UTC", utc)
    context.close()
