"""Pages in a real browser: no horizontal scrolling, no console messages, no accessibility violations.

`./dev prove faces` looks at every page in every state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.page_checks import NO_PROBLEMS, page_problems, violations
from tests.support.web import create_test_app, filled_database, running_app
from watchdog.domain.model import Outcome
from watchdog.store.database import Database
from watchdog.web import ApiKey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INCIDENT = "/incidents/INCIDENT"
ACME_PATHS = (
    "/",
    "/probes",
    f"/probes/search-mcp?open={epoch_ms('01:54:52')}",
    "/probes/search-mcp?range=90d",
    INCIDENT,
    "/incidents",
    "/receivers",
    "/receivers/test?destination=oncall/slack",
    "/undelivered",
    "/silences",
    "/maintenance",
    "/service",
    "/nowhere",
)


@pytest.fixture(scope="module")
def site(acme_database: Database) -> Iterator[str]:
    with running_app(create_test_app(acme_database)) as address:
        yield address


@pytest.fixture
def small(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 320, "height": 640}, color_scheme="light")
    yield page
    page.close()


@pytest.fixture
def wide(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    yield page
    page.close()


@pytest.mark.parametrize("path", ACME_PATHS)
def test_a_page_of_the_fixtures(small: Page, wide: Page, site: str, acme: FixtureRows, axe: str, path: str) -> None:
    address = site + path.replace("INCIDENT", acme.incident_by_name["down"])
    assert page_problems(small, address) == NO_PROBLEMS
    assert page_problems(wide, address) == NO_PROBLEMS
    assert violations(wide, axe) == []


@pytest.mark.parametrize("width", [320, 480, 700, 1000, 1280])
def test_long_names_and_the_navigation_fit(browser: Browser, tmp_path: Path, width: int) -> None:
    rows = FixtureRows()
    for name in ("Checkout service with a rather long name of its own", "billing-reconciliation-" * 3, "短い" * 30):
        probe = rows.add_probe(name, group=name)
        rows.add_result(probe, NOW - 60_000, Outcome.FAIL, "HTTP 503, expected 2xx", "http.503")
        incident = rows.add_incident(probe, "availability", "HTTP 503, expected 2xx", NOW - 60_000, reason="http.503")
    with (
        filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database,
        running_app(create_test_app(database)) as address,
    ):
        page = browser.new_page(viewport={"width": width, "height": 800})
        for path in ("/", "/probes", "/incidents", f"/incidents/{incident}", "/silences", "/service"):
            assert page_problems(page, address + path) == NO_PROBLEMS, path
        links = page.get_by_label("Main").get_by_role("link").all()
        ends = [box["x"] + box["width"] for link in links if (box := link.bounding_box())]
        assert len(ends) == 8
        assert max(ends) <= width
        page.close()


def test_signing_in_and_out_without_javascript(browser: Browser, acme_database: Database) -> None:
    keys = (ApiKey("ops", "operator", "0123456789"),)
    with running_app(create_test_app(acme_database, api_keys=keys)) as address:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(f"{address}/probes/api?failed")
        page.get_by_label("Key").fill("0123456789")
        page.get_by_role("button", name="Sign in").click()
        assert page.url == f"{address}/probes/api?failed"
        assert page.get_by_role("heading", level=1).inner_text() == "API"
        page.get_by_role("button", name="Sign out ops").click()
        assert page.url == f"{address}/login"
        page.goto(f"{address}/probes")
        assert page.get_by_label("Key").is_visible()
        page.context.close()


def test_acknowledging_and_silencing_without_javascript(browser: Browser, acme: FixtureRows, tmp_path: Path) -> None:
    """With the keyboard alone."""
    incident = f"/incidents/{acme.incident_by_name['down']}"
    with (
        filled_database(f"sqlite:///{tmp_path}/watchdog.db", acme) as database,
        running_app(create_test_app(database)) as address,
    ):
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(address + incident)
        page.get_by_label("Comment", exact=True).fill("restarting the database")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Acknowledged by localhost").wait_for()
        assert page.url == address + incident
        page.get_by_role("button", name="Silence 4 h").press("Enter")
        page.get_by_role("heading", name="Silenced until").wait_for()
        page.goto(f"{address}/silences")
        page.get_by_label("Group").fill("Search")
        page.get_by_label("For how long").fill("2d")
        page.get_by_role("button", name="Silence", exact=True).press("Enter")
        page.get_by_role("button", name="End s-").first.press("Enter")
        page.get_by_role("heading", level=1, name="End the silence s-").wait_for()
        page.get_by_role("button", name="End it", exact=True).press("Enter")
        page.get_by_role("heading", level=1, name="1 silence in effect", exact=True).wait_for()
        page.goto(f"{address}/maintenance")
        for duration in ("2d", "1h"):
            page.get_by_label("Group").fill("Core")
            page.get_by_label("For how long").fill(duration)
            page.get_by_role("button", name="Begin", exact=True).press("Enter")
            page.get_by_role("heading", level=1, name="maintenance window").wait_for()
        page.get_by_role("button", name="End m-").first.press("Enter")
        page.get_by_role("heading", level=1, name="1 maintenance window in effect", exact=True).wait_for()
        page.context.close()
