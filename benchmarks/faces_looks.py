"""Looks at pages in a browser, with and without script: light and dark, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from benchmarks.faces_sites import KEY, PageSite
from tests.support.page_checks import AXE_RULES, WIDE_TABLES, collect_messages, find_layout_problems, run_axe

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ColorScheme = Literal["light", "dark"]
WIDE, NARROW = 1_280, 320
HEIGHT = 800
LOOKS: tuple[tuple[int, ColorScheme, Sequence[str]], ...] = (
    (WIDE, "light", AXE_RULES),
    (WIDE, "dark", ["color-contrast"]),
    (NARROW, "dark", AXE_RULES),
    (NARROW, "light", ["color-contrast"]),
)
"""Width, colours, and the rules of axe-core. Between light and dark nothing differs but colours."""
CHANGING_PARTS_PATTERN = re.compile(r'name="(csrf_token|request_id)" value="[^"]*"|class="count[^>]*>\d+')
"""Tokens, and the counts in the navigation."""
FORMS_WITHOUT_BUTTON = (
    "[...document.forms].filter(f => !f.querySelector('button:not([type=button])')).map(f => f.action)"
)
TIMEOUT_MS = 60_000


@dataclass
class PageFindings:
    """What was looked at, and the problems of each kind."""

    visits: int = 0
    """Pages in states, those included that are the same in several states."""
    rendered: int = 0
    """Different pages that were looked at."""
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str, texts: Sequence[str]) -> None:
        collected = self.problems.setdefault(kind, [])
        for text in texts:
            collected.append(f"{place}: {text}")
            print(f"  {kind}: {place}: {text}", flush=True)

    def count(self, kind: str) -> float:
        return float(len(self.problems.get(kind, [])))


class PageInspector:
    """Opens pages of a site as a person who is signed in, and looks at each that it has not looked at before.

    `axe`: the source of axe-core; empty: the browser runs no scripts of pages.
    """

    def __init__(self, browser: Browser, axe: str):
        self._browser, self._axe = browser, axe
        self.findings = PageFindings()
        self._visited: set[str] = set()

    @contextmanager
    def signed_in_page(self, site: PageSite) -> Iterator[Page]:
        context = self._browser.new_context(java_script_enabled=bool(self._axe), reduced_motion="reduce")
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        self._messages = collect_messages(page)
        try:
            page.goto(f"{site.url}/login")
            page.get_by_label("API key").fill(KEY.secret)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Sign out").wait_for()
            self._messages.clear()
            yield page
        finally:
            context.close()

    def visit(self, page: Page, site: PageSite, address: str) -> None:
        """Open a page, and look at it unless it is one that was looked at already."""
        response = page.goto(site.url + address)
        assert response is not None
        self.findings.visits += 1
        text = CHANGING_PARTS_PATTERN.sub("", response.text())
        if text not in self._visited:
            self._visited.add(text)
            self.look_at(page, f"{site.state} {address}", response.status)
        self._messages.clear()

    def look_at(self, page: Page, place: str, status: int = 200) -> None:
        """A page that is open. `status`: of its response."""
        self.findings.rendered += 1
        if self._axe and page.locator("script[data-interval-s]").count():
            page.locator("#live", has_text="Live").wait_for()
        if not page.locator("h1").count():
            self.findings.add("incomplete", place, ["no heading"])
        self.findings.add("incomplete", place, page.evaluate(FORMS_WITHOUT_BUTTON))
        if self._axe:
            page.evaluate(self._axe)
        for width, colors, rules in LOOKS:
            if self._axe or rules is AXE_RULES:
                page.set_viewport_size({"width": width, "height": HEIGHT})
                page.emulate_media(color_scheme=colors)
                self._look_once(page, f"{place} ({colors}, {width} px)", rules)
        # The browser itself logs the status of a page that is not found, or cannot be shown.
        messages = [text for text in self._messages if f"status of {status} " not in text]
        self.findings.add("messages", place, messages)
        self._messages.clear()

    def _look_once(self, page: Page, place: str, rules: Sequence[str]) -> None:
        if rules is AXE_RULES:
            layout = find_layout_problems(page)
            wider, squeezed, overlapping = layout["wider"], layout["squeezed"], layout["overlapping"]
            assert isinstance(squeezed, list)
            assert isinstance(overlapping, list)
            self.findings.add("sideways", place, [f"{wider} px"] if wider else [])
            self.findings.add("squeezed", place, squeezed + overlapping)
            if page.viewport_size and page.viewport_size["width"] == NARROW:
                self.findings.add("tables", place, page.evaluate(WIDE_TABLES))
        if self._axe:
            self.findings.add("axe", place, run_axe(page, list(rules)))
