"""Uses pages with the keyboard alone: Tab reaches every control in order, and Enter sends every form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.faces_looks import PageFindings

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

NOTE_CONTROLS = """() => {
    document.querySelectorAll("details").forEach(details => details.open = true)
    const kinds = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
    const controls = [...document.querySelectorAll(kinds)].filter(e => !e.disabled && e.checkVisibility())
    window.stops = []
    const note = () => {
        const element = document.activeElement
        const [{outlineStyle, outlineWidth}, box] = [getComputedStyle(element), element.getBoundingClientRect()]
        const isOnScreen = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth
        const isVisible = isOnScreen && outlineStyle !== "none" && parseFloat(outlineWidth) >= 1
        stops.push({number: controls.indexOf(element), isVisible, html: element.outerHTML.slice(0, 100)})
    }
    addEventListener("keydown", () => { if (document.activeElement !== document.body) note() })
    return controls.map(e => e.outerHTML.slice(0, 100))
}"""
"""From now on, records after each key where the focus is and whether it is visible."""
FOCUS_FIRST_FIELD = """index => {
    const form = document.forms[index]
    if (!form.checkVisibility()) return null
    for (const field of form.elements) if (field.required && !field.value) field.value = "1h"
    const fields = "input[type=search], input[type=password], input:not([type]), button"
    form.querySelector(fields).focus()
    const path = form.querySelector("button").getAttribute("formaction") ?? form.getAttribute("action")
    return new URL(path, location).pathname
}"""
FOLLOWS_SKIP_LINK = """() => {
    const main = document.getElementById("main")
    return main.contains(document.activeElement) || !main.querySelector("a[href], button, summary, [tabindex]")
}"""
MAX_OTHER_STOPS = 10
SEND_TIMEOUT_MS = 30_000


def press_tab_through(page: Page, place: str, findings: PageFindings) -> int:
    """Move from the start of a page to its end and back to its start. Returns the number of its controls."""
    controls: list[str] = page.evaluate(NOTE_CONTROLS)
    for _ in range(len(controls) + 1):
        page.keyboard.press("Tab")
    for _ in range(MAX_OTHER_STOPS):  # such as areas that scroll
        page.keyboard.press("Tab")
        stops = page.evaluate("window.stops")
        starts = [index for index, stop in enumerate(stops) if stop["number"] == 0]
        if len(starts) > 1:
            stops = stops[: starts[1]]
            break
    else:
        findings.add("trap", place, ["the focus does not come back to the start"])
    reached = [stop["number"] for stop in stops if stop["number"] >= 0]
    findings.add("focus", place, [stop["html"] for stop in stops if not stop["isVisible"]])
    findings.add("unreached", place, [html for number, html in enumerate(controls) if number not in reached])
    findings.add("unreached", place, [] if reached == sorted(set(reached)) else [f"order: {reached}"])
    return len(controls)


def follow_skip_link(page: Page, place: str, findings: PageFindings) -> None:
    """The first control of a page that was just opened."""
    page.keyboard.press("Tab")
    link = page.locator("a.skip:focus")
    box = link.bounding_box() if link.count() else None
    if box is None or box["y"] < 0:
        findings.add("skip", place, ["the first Tab does not show the link"])
        return
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    if not page.evaluate(FOLLOWS_SKIP_LINK):
        findings.add("skip", place, ["it does not lead to the content"])


def send_forms_by_enter(page: Page, place: str, findings: PageFindings) -> int:
    """Send each form from its first field, or from its button; no request reaches the server. Returns their number."""
    sent: list[str] = []

    def hold_back(route: Route) -> None:
        if route.request.is_navigation_request():
            sent.append(route.request.url.partition("?")[0].partition("//")[2].partition("/")[2])
            route.fulfill(status=204)  # the page stays
        else:
            route.continue_()

    page.route("**/*", hold_back)
    count = 0
    for index in range(page.evaluate("document.forms.length")):
        path = page.evaluate(FOCUS_FIRST_FIELD, index)
        if path is None:
            continue
        count += 1
        sent.clear()
        with page.expect_response(lambda response: response.request.is_navigation_request(), timeout=SEND_TIMEOUT_MS):
            page.keyboard.press("Enter")
        findings.add("unsent", place, [] if sent == [path[1:]] else [f"{path}: sent {sent}"])
    page.unroute("**/*")
    return count
