"""Screenshots of every page: python -m tests.support.screenshots FOLDER (requires Playwright and Chromium).

Without FOLDER, it replaces docs/img/status.png, which README.md shows. Install the font Inter before (fonts-inter).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import ViewportSize

from tests.support.browser import running_browser
from tests.support.fixture_rows import FixtureRows, epoch_ms
from tests.support.fixtures import acme_rows, acme_rows_after_recovery, canary_rows, new_probe_rows, scheduled_jobs_rows
from tests.support.fixtures_queue import queue_backlog_rows
from tests.support.web import create_test_app, filled_database, running_app

ColorScheme = Literal["light", "dark"]
README_SCREENSHOT = Path(__file__).parents[2] / "docs/img/status.png"


def take_screenshots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    acme = acme_rows()
    incident = f"/incidents/{acme.incident_by_name['down']}"
    open_ = f"/probes/search-mcp?open={epoch_ms('01:54:52')}"
    pages: list[tuple[FixtureRows, str, str, tuple[int, ...], tuple[ColorScheme, ...]]] = [
        (acme, "status", "/", (1280, 320), ("light", "dark")),
        (acme, "probes", "/probes", (1280, 320), ("light", "dark")),
        (acme, "probe", open_, (1280, 320), ("light", "dark")),
        (acme, "incident", incident, (1280, 320), ("light", "dark")),
        (acme, "incidents", "/incidents", (1280, 320), ("light",)),
        (acme, "undelivered", "/undelivered", (1280, 320), ("light",)),
        (acme, "error", "/nowhere", (1280,), ("light",)),
        (acme_rows_after_recovery(), "incident-resolved", incident, (1280,), ("light", "dark")),
        (new_probe_rows(), "probe-first-minute", "/probes/search-mcp", (1280, 320), ("light",)),
        (canary_rows(), "canary", "/probes/email-pipeline", (1280, 320), ("light", "dark")),
        (scheduled_jobs_rows(), "jobs", "/jobs", (1280, 320), ("light", "dark")),
        (scheduled_jobs_rows(), "heartbeat", "/probes/nightly-backup", (1280, 320), ("light", "dark")),
        (FixtureRows(), "jobs-empty", "/jobs", (1280, 320), ("light",)),
        (queue_backlog_rows(), "queue", "/probes/email-backlog", (1280, 320), ("light", "dark")),
        (FixtureRows(), "status-empty", "/", (1280,), ("light",)),
    ]
    with running_browser() as browser, tempfile.TemporaryDirectory() as scratch:
        for number, (rows, name, path, widths, schemes) in enumerate(pages):
            with (
                filled_database(f"sqlite:///{scratch}/{number}.db", rows) as database,
                running_app(create_test_app(database)) as address,
            ):
                for width in widths:
                    for scheme in schemes:
                        size: ViewportSize = {"width": width, "height": 900}
                        page = browser.new_page(viewport=size, color_scheme=scheme)
                        page.goto(address + path)
                        page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=True)
                        page.close()


def take_readme_screenshot() -> None:
    with (
        running_browser() as browser,
        tempfile.TemporaryDirectory() as scratch,
        filled_database(f"sqlite:///{scratch}/status.db", acme_rows()) as database,
        running_app(create_test_app(database)) as address,
    ):
        page = browser.new_page(viewport={"width": 960, "height": 824}, color_scheme="light")
        page.goto(address)
        page.screenshot(path=README_SCREENSHOT)


if __name__ == "__main__":
    if sys.argv[1:]:
        take_screenshots(Path(sys.argv[1]))
    else:
        take_readme_screenshot()
