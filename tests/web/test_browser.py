"""Pages in a real browser: nothing wider than the screen, nothing in the console, nothing that axe finds."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import find_chromium, running_browser
from tests.support.fixture_rows import FixtureRows, epoch_ms
from tests.support.fixtures import acme_rows_after_recovery, new_probe_rows, scheduled_jobs_rows
from tests.support.web import create_test_app, filled_database, running_app
from watchdog.store.database import Database
from watchdog.web import ApiKey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INCIDENT = "/incidents/INCIDENT"
STORY = (
    "/",
    "/probes",
    f"/probes/search-mcp?open={epoch_ms('01:54:52')}",
    INCIDENT,
    "/incidents",
    "/dead-letters",
    "/nowhere",
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("Chromium or Playwright is missing: apt install chromium, pip install playwright")
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, as a package brings it along."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is missing: pip install axe-playwright-python")
    return (Path(spec.origin).parent / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def site(told_story: Database) -> Iterator[str]:
    with running_app(create_test_app(told_story)) as address:
        yield address


@pytest.fixture(
    scope="module", params=["resolved", "newborn", "empty", "sign-in", "stopped", "jobs", "heartbeat", "no-jobs"]
)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one more page, over a database of its own."""
    book, path = {
        "resolved": (acme_rows_after_recovery, INCIDENT),
        "newborn": (new_probe_rows, "/probes/search-mcp"),
        "empty": (FixtureRows, "/"),
        "sign-in": (FixtureRows, "/probes"),
        "stopped": (FixtureRows, "/probes"),
        "jobs": (scheduled_jobs_rows, "/jobs"),
        "heartbeat": (scheduled_jobs_rows, "/probes/nightly-backup"),
        "no-jobs": (FixtureRows, "/jobs"),
    }[request.param]
    story = book()
    keys = (ApiKey("ops", "operator", "0123456789"),) if request.param == "sign-in" else ()
    url = f"sqlite:///{tmp_path_factory.mktemp('other') / 'o.db'}"
    with filled_database(url, story) as database, running_app(create_test_app(database, api_keys=keys)) as address:
        yield address + path.replace("INCIDENT", story.incident_by_name.get("down", ""))


def visit(page: Page, address: str) -> list[str]:
    """Go there; returns what the browser complained of."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.goto(address)
    return [line for line in said if "401" not in line and "404" not in line]


def seen(page: Page, address: str) -> dict[str, object]:
    """What is wrong with a page, everything that it hides opened."""
    complaints = visit(page, address)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return {"complaints": complaints, "wider": max(0, wider)}


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("async only => (await axe.run(document, only)).violations", {"runOnly": RULES})
    return [f"{v['id']}: {node['html'][:120]}" for v in found for node in v["nodes"]]


FINE = {"complaints": [], "wider": 0}


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


@pytest.mark.parametrize("path", STORY)
def test_a_page_of_the_story(small: Page, wide: Page, site: str, story: FixtureRows, axe: str, path: str) -> None:
    address = site + path.replace("INCIDENT", story.incident_by_name["down"])
    assert seen(small, address) == FINE
    assert seen(wide, address) == FINE
    assert violations(wide, axe) == []


def test_one_more_page(small: Page, wide: Page, other: str, axe: str) -> None:
    assert seen(wide, other) == FINE
    assert seen(small, other) == FINE
    assert violations(small, axe) == []


def test_signing_in_and_out_without_javascript(browser: Browser, told_story: Database) -> None:
    keys = (ApiKey("ops", "operator", "0123456789"),)
    with running_app(create_test_app(told_story, api_keys=keys)) as address:
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
