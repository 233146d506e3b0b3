"""What may be wrong with a page in a browser: console messages, sideways scrolling, squeezed texts, accessibility."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

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
WIDE_TABLES = """
    [...document.querySelectorAll("table")].filter(table => table.checkVisibility()).flatMap(table => {
        const room = table.parentElement.clientWidth
        return table.scrollWidth > room + 1 ? [`${table.className}: ${table.scrollWidth} of ${room} px`] : []
    })
"""
"""Tables that are wider than the space that they have."""
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NO_PROBLEMS: dict[str, object] = {"complaints": [], "wider": 0, "squeezed": [], "overlapping": []}


def find_axe_script() -> Path | None:
    """The source of axe-core, from a Python package; None if it is not installed."""
    spec = find_spec("axe_playwright_python")
    return Path(spec.origin).parent / "axe.min.js" if spec and spec.origin else None


def collect_messages(page: Page) -> list[str]:
    """The errors and warnings of the browser about a page from now on."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    # A live page gives up its requests when another page is opened.
    page.on("requestfailed", lambda r: None if r.failure == "net::ERR_ABORTED" else messages.append(f"failed: {r.url}"))
    return messages


def find_layout_problems(page: Page) -> dict[str, object]:
    """Problems of a page with all its details opened."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    squeezed, overlapping = page.evaluate(SQUEEZED_TEXTS), page.evaluate(OVERLAPPING_CELLS)
    return {"wider": max(0, wider), "squeezed": squeezed, "overlapping": overlapping}


def page_problems(page: Page, address: str) -> dict[str, object]:
    """Open a page. Returns what the browser complains about, and problems of the layout."""
    messages = collect_messages(page)
    page.goto(address)
    complaints = [line for line in messages if "401" not in line and "404" not in line]
    return {"complaints": complaints, **find_layout_problems(page)}


def violations(page: Page, axe: str) -> list[str]:
    """`axe`: the source of axe-core."""
    page.evaluate(axe)
    return run_axe(page, AXE_RULES)


def run_axe(page: Page, rules: list[str]) -> list[str]:
    """The violations of rules, or of tags of rules, on a page that has axe-core."""
    options = {"runOnly": rules, "resultTypes": ["violations"], "iframes": False}
    violations_found = page.evaluate("async options => (await axe.run(document, options)).violations", options)
    return [f"{v['id']}: {node['html'][:120]}" for v in violations_found for node in v["nodes"]]
