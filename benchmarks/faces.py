"""Every page in every state in a browser: accessibility, narrow screens, no script, the keyboard alone; two responders.

The pages come from the routes of the application: a new page without an address here fails the run. A page that is the
same in several states, but for tokens and counts in the navigation, is looked at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faces_keyboard import follow_skip_link, press_tab_through, send_forms_by_enter
from benchmarks.faces_looks import HEIGHT, NARROW, WIDE, PageFindings, PageInspector
from benchmarks.faces_responders import ACT_COUNT, measure_acts
from benchmarks.faces_sites import STATES, PageSite, SiteBuilder
from benchmarks.measurements import Measurement, percentile
from tests.support.browser import find_chromium, running_browser
from tests.support.page_checks import find_axe_script

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MAX_RESPONDER_S = 2.0
PAGE_PROBLEMS = {
    "axe": "accessibility violations (axe-core)",
    "sideways": "pages that scroll sideways",
    "tables": "tables wider than a phone",
    "squeezed": "squeezed or overlapping texts",
    "messages": "messages of the browser's console",
    "incomplete": "headings and buttons that are missing",
}
KEYBOARD_PROBLEMS = {
    "unreached": "controls that Tab does not reach, or not in order",
    "focus": "controls whose focus is not visible",
    "trap": "pages that keep the focus",
    "skip": "skip links that do not work",
    "unsent": "forms that Enter does not send",
}
KEYBOARD_STATES = {"every kind": (), "silenced": ("/silences",), "in maintenance": ("/maintenance",), "empty": ("/",)}
"""The pages that are used with the keyboard, by path of the route; none: all. The first of each on a phone, too."""


def prove() -> Iterator[Measurement]:
    axe = find_axe_script()
    if find_chromium() is None or axe is None:
        raise RuntimeError("Chromium, Playwright or axe-core is missing")
    with running_browser() as browser:
        tour = PageTour(browser, axe.read_text())
        with tempfile.TemporaryDirectory() as folder:
            builder = SiteBuilder(Path(folder))
            for state in STATES:
                print(f"  {state}", flush=True)
                with builder.open_site(state) as site:
                    tour.go_through(site)
        yield from tour.measure()
        samples = measure_acts(browser)
    yield Measurement(f"another responder sees an act, median of {ACT_COUNT}", percentile(samples, 50), "s")
    yield Measurement("another responder sees an act, slowest", max(samples), "s", MAX_RESPONDER_S)


class PageTour:
    """Goes through the pages of sites, with a browser that runs scripts and one that does not."""

    def __init__(self, browser: Browser, axe: str):
        self._with_script, self._without_script = PageInspector(browser, axe), PageInspector(browser, "")
        self._keyboard = PageFindings()
        self._routes_without_pages: set[str] = set()
        self._control_count = self._form_count = 0

    def go_through(self, site: PageSite) -> None:
        self._routes_without_pages |= {route for route, addresses in site.pages.items() if not addresses}
        for inspector in (self._with_script, self._without_script):
            site.set_database_away(False)
            with inspector.signed_in_page(site) as page:
                if site.state == "database away":
                    page.goto(site.url)  # what was read last is still shown
                    site.set_database_away(True)
                for address in site.addresses:
                    inspector.visit(page, site, address)
                if site.state == "every kind":
                    look_at_answers(inspector, page, site)
        if site.state in KEYBOARD_STATES:
            self._use_keyboard(site)

    def _use_keyboard(self, site: PageSite) -> None:
        pages = [site.pages[route] for route in KEYBOARD_STATES[site.state] or site.pages]
        first_addresses = {addresses[0] for addresses in pages if addresses}
        addresses = [address for addresses in pages for address in addresses]
        with self._with_script.signed_in_page(site) as page:
            for address in addresses:
                for width in (WIDE, NARROW) if address in first_addresses else (WIDE,):
                    page.set_viewport_size({"width": width, "height": HEIGHT})
                    place = f"{site.state} {address} ({width} px)"
                    page.goto(site.url + address)
                    self._control_count += press_tab_through(page, place, self._keyboard)
                page.goto(site.url + address)
                follow_skip_link(page, f"{site.state} {address}", self._keyboard)
        with self._without_script.signed_in_page(site) as page:
            for address in addresses:
                page.goto(site.url + address)
                self._form_count += send_forms_by_enter(page, f"{site.state} {address}", self._keyboard)

    def measure(self) -> Iterator[Measurement]:
        yield Measurement("routes of pages without an address here", float(len(self._routes_without_pages)), "", 0)
        for label, inspector in (("", self._with_script), ("without script: ", self._without_script)):
            findings = inspector.findings
            yield Measurement(f"{label}pages in {len(STATES)} states", float(findings.visits))
            yield Measurement(
                f"{label}different pages, light and dark, {WIDE} and {NARROW} px", float(findings.rendered)
            )
            for kind, name in PAGE_PROBLEMS.items():
                if kind != "axe" or inspector is self._with_script:
                    yield Measurement(f"{label}{name}", findings.count(kind), "", 0)
        yield Measurement("keyboard: controls", float(self._control_count))
        yield Measurement("keyboard: forms", float(self._form_count))
        for kind, name in KEYBOARD_PROBLEMS.items():
            yield Measurement(f"keyboard: {name}", self._keyboard.count(kind), "", 0)


def look_at_answers(inspector: PageInspector, page: Page, site: PageSite) -> None:
    """The pages that answer forms: refusals, questions, a change, a try, and a conflict with another editor."""
    page.goto(f"{site.url}/config/probes/shop")
    for url, button, answer, status in (
        (f"ftp://a.test/{'long' * 50} x", "Save", "Nothing was stored", 422),
        ("http://127.0.0.1:9/new", "Show the change", "The change, which is not stored yet", 200),
        ("http://127.0.0.1:9/new", "Try once", "Tried once", 200),
    ):
        page.get_by_label("URL").fill(url)
        page.get_by_role("button", name=button, exact=True).press("Enter")
        page.get_by_role("heading", name=answer).wait_for()
        inspector.look_at(page, f"answer: {answer}", status)
    text = site.managed_file.read_text()
    site.managed_file.write_text(text.replace("POST", "PUT"))
    page.get_by_role("button", name="Save", exact=True).press("Enter")
    page.get_by_role("heading", name="The file has changed").wait_for()
    inspector.look_at(page, "answer: a conflict", 409)
    site.managed_file.write_text(text)
    page.goto(f"{site.url}/silences")
    page.get_by_label("For how long").fill("soon")
    page.get_by_label("Group").fill("Core")
    page.keyboard.press("Enter")
    page.locator("[aria-invalid=true]").wait_for()
    inspector.look_at(page, "answer: an act is refused", 422)
    page.goto(f"{site.url}/silences")
    page.get_by_label("Every incident").check()
    page.get_by_label("For how long").fill("1h")
    page.get_by_role("button", name="Silence", exact=True).press("Enter")
    page.get_by_role("heading", name="Silence every incident?").wait_for()
    inspector.look_at(page, "answer: a question before an act", 200)
    page.context.clear_cookies()
    page.goto(f"{site.url}/incidents")
    page.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The API key is not valid").wait_for()
    inspector.look_at(page, "answer: a key is not valid", 401)
