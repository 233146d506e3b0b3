"""Measures how long it takes until two people who handle one incident see each other's acts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.watchdog_process import run_watchdog

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ACT_COUNT = 20
PAUSE_MS = 3_000
"""Between acts: people read before they act."""
CONFIG = """\
server: {listen: "127.0.0.1:0"}
storage: {url: "sqlite:///watchdog.db"}
probes:
  - {name: API, every: 10s, http: "http://127.0.0.1:9/", alert: {failure_threshold: 1}}
"""
START_TIMEOUT_S = 60


def measure_acts(browser: Browser) -> list[float]:
    """Seconds from each click to the moment at which the other page shows it, without a reload."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "watchdog.yaml"
        config.write_text(CONFIG)
        with run_watchdog(config) as process:
            address = process.base_url + wait_for_incident(browser, process.base_url)
            pages = [browser.new_context().new_page() for _ in range(2)]
            for page in pages:
                page.goto(address)
                wait_until_live(page)
            samples = [act(pages, number) for number in range(ACT_COUNT)]
            for page in pages:
                page.context.close()
            return samples


def act(pages: list[Page], number: int) -> float:
    """Ana and Ben take turns: one acknowledges, then the other does, and so on."""
    actor, observer = pages[number // 2 % 2], pages[1 - number // 2 % 2]
    acknowledges = number % 2 == 0
    actor.wait_for_timeout(PAUSE_MS)
    wait_until_live(actor)
    button = actor.get_by_role("button", name="Acknowledge" if acknowledges else "Remove acknowledgement", exact=True)
    button.wait_for()
    started = time.perf_counter()
    button.click(no_wait_after=True)
    change = observer.get_by_role("heading", name="Acknowledged by localhost")
    change.wait_for(state="visible" if acknowledges else "detached")
    return time.perf_counter() - started


def wait_for_incident(browser: Browser, address: str) -> str:
    """The path of the only incident."""
    page = browser.new_page()
    page.goto(f"{address}incidents")
    link = page.locator("a.rowlink")
    link.wait_for(timeout=START_TIMEOUT_S * 1000)
    path = link.get_attribute("href") or ""
    page.close()
    return path.removeprefix("/")


def wait_until_live(page: Page) -> None:
    page.locator("#live", has_text="Live").wait_for()
