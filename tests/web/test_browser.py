"""Pages in a real browser: no horizontal scrolling, no console messages, no accessibility violations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.fixtures import (
    acme_rows_after_recovery,
    new_probe_rows,
    scheduled_jobs_rows,
)
from tests.support.web import create_test_app, filled_database, running_app
from watchdog.domain.formatting import DAY_MS, SECOND_MS
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.store.database import Database
from watchdog.web import ApiKey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INCIDENT = "/incidents/INCIDENT"
ACME_PATHS = (
    "/",
    "/probes",
    f"/probes/search-mcp?open={epoch_ms('01:54:52')}",
    INCIDENT,
    "/incidents",
    "/receivers",
    "/undelivered",
    "/silences",
    "/maintenance",
    "/nowhere",
)
SQUEEZED_TEXTS = """
    [...document.querySelectorAll("div, p, li, dd, dt, td, th, h1, h2, h3")]
        .map(element => [element.innerText, element.getBoundingClientRect()])
        .filter(([text, box]) => text && text.length > 12 && box.width > 2 && box.width < 60 && box.height > 100)
        .map(([text]) => text.slice(0, 40))
"""
"""Texts in a column of a few letters."""
OVERLAPPING_CELLS = """
    [...document.querySelectorAll("tr")].flatMap(row => {
        const [name, state] = [row.querySelector(".c-name > a"), row.querySelector(".state")]
        if (!name || !state) return []
        const range = document.createRange()
        range.selectNodeContents(name)
        const box = state.getBoundingClientRect()
        const overlaps = [...range.getClientRects()].some(line =>
            line.left < box.right && box.left < line.right && line.top < box.bottom && box.top < line.bottom)
        return overlaps ? [name.innerText] : []
    })
"""
"""Names that lie under the state beside them."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def site(acme_database: Database) -> Iterator[str]:
    with running_app(create_test_app(acme_database)) as address:
        yield address


def waiting_job_rows() -> FixtureRows:
    """A job without a schedule that has never run: the longest label of a state, and nothing beside it."""
    rows = FixtureRows()
    id = rows.add_probe("Digest schedulers", "jobs", "Mail")
    rows.add_result(
        id, NOW - SECOND_MS, jobs=[ScheduledJobFacts("nightly-digest-of-a-tenant", expected_from=NOW - DAY_MS)]
    )
    return rows


@pytest.fixture(
    scope="module",
    params=[
        "resolved",
        "newborn",
        "empty",
        "sign-in",
        "stopped",
        "jobs",
        "heartbeat",
        "no-jobs",
        "several-days",
        "waiting-job",
    ],
)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page over a database of its own."""
    create_rows, path = {
        "resolved": (acme_rows_after_recovery, INCIDENT),
        "newborn": (new_probe_rows, "/probes/search-mcp"),
        "empty": (FixtureRows, "/"),
        "sign-in": (FixtureRows, "/probes"),
        "stopped": (FixtureRows, "/probes"),
        "jobs": (scheduled_jobs_rows, "/jobs"),
        "heartbeat": (scheduled_jobs_rows, "/probes/nightly-backup"),
        "no-jobs": (FixtureRows, "/jobs"),
        "waiting-job": (waiting_job_rows, "/jobs"),
        "several-days": (acme_rows_after_recovery, INCIDENT),
    }[request.param]
    acme = create_rows()
    keys = (ApiKey("ops", "operator", "0123456789"),) if request.param == "sign-in" else ()
    now = NOW + (3 * DAY_MS if request.param == "several-days" else 0)
    url = f"sqlite:///{tmp_path_factory.mktemp('other') / 'o.db'}"
    with (
        filled_database(url, acme) as database,
        running_app(create_test_app(database, api_keys=keys, clock=lambda: now)) as address,
    ):
        yield address + path.replace("INCIDENT", acme.incident_by_name.get("down", ""))


def visit(page: Page, address: str) -> list[str]:
    """Open a page. Returns the errors and warnings of the browser."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    # A live page gives up its requests when another page is opened.
    page.on("requestfailed", lambda r: None if r.failure == "net::ERR_ABORTED" else messages.append(f"failed: {r.url}"))
    page.goto(address)
    return [line for line in messages if "401" not in line and "404" not in line]


def page_problems(page: Page, address: str) -> dict[str, object]:
    """Problems of a page with all its details opened."""
    complaints = visit(page, address)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    squeezed, overlapping = page.evaluate(SQUEEZED_TEXTS), page.evaluate(OVERLAPPING_CELLS)
    return {"complaints": complaints, "wider": max(0, wider), "squeezed": squeezed, "overlapping": overlapping}


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    violations_found = page.evaluate("async only => (await axe.run(document, only)).violations", {"runOnly": RULES})
    return [f"{v['id']}: {node['html'][:120]}" for v in violations_found for node in v["nodes"]]


NO_PROBLEMS: dict[str, object] = {"complaints": [], "wider": 0, "squeezed": [], "overlapping": []}


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


def test_one_more_page(small: Page, wide: Page, other: str, axe: str) -> None:
    assert page_problems(wide, other) == NO_PROBLEMS
    assert page_problems(small, other) == NO_PROBLEMS
    assert violations(small, axe) == []


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


def test_acknowledging_and_silencing_without_javascript(
    browser: Browser, small: Page, wide: Page, axe: str, acme: FixtureRows, tmp_path: Path
) -> None:
    """With the keyboard alone; then the pages that show it have no problems."""
    incident = f"/incidents/{acme.incident_by_name['down']}"
    with (
        filled_database(f"sqlite:///{tmp_path}/watchdog.db", acme) as database,
        running_app(create_test_app(database)) as address,
    ):
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(address + incident)
        page.get_by_label("Comment").fill("restarting the database")
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
        for path in ("/silences", "/maintenance", "/", incident, "/incidents", "/probes"):
            assert page_problems(small, address + path) == NO_PROBLEMS, path
            assert page_problems(wide, address + path) == NO_PROBLEMS, path
            assert violations(small, axe) == [], path
            assert violations(wide, axe) == [], path
