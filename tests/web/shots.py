"""Pictures of every page: python -m tests.web.shots FOLDER (needs Playwright and Chromium)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import ViewportSize

from tests.web.backlog import backlog
from tests.web.book import Book, at
from tests.web.browser import browsing
from tests.web.serving import app_of, filled, serving
from tests.web.story import acme, newborn, pipeline, resolved, scheduled

Scheme = Literal["light", "dark"]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    story = acme()
    incident = f"/incidents/{story.named['down']}"
    open_ = f"/probes/search-mcp?open={at('01:54:52')}"
    pages: list[tuple[Book, str, str, tuple[int, ...], tuple[Scheme, ...]]] = [
        (story, "status", "/", (1280, 320), ("light", "dark")),
        (story, "probes", "/probes", (1280, 320), ("light", "dark")),
        (story, "probe", open_, (1280, 320), ("light", "dark")),
        (story, "incident", incident, (1280, 320), ("light", "dark")),
        (story, "incidents", "/incidents", (1280, 320), ("light",)),
        (story, "dead-letters", "/dead-letters", (1280, 320), ("light",)),
        (story, "error", "/nowhere", (1280,), ("light",)),
        (resolved(), "incident-resolved", incident, (1280,), ("light", "dark")),
        (newborn(), "probe-first-minute", "/probes/search-mcp", (1280, 320), ("light",)),
        (pipeline(), "canary", "/probes/email-pipeline", (1280, 320), ("light", "dark")),
        (scheduled(), "jobs", "/jobs", (1280, 320), ("light", "dark")),
        (scheduled(), "heartbeat", "/probes/nightly-backup", (1280, 320), ("light", "dark")),
        (Book(), "jobs-empty", "/jobs", (1280, 320), ("light",)),
        (backlog(), "queue", "/probes/email-backlog", (1280, 320), ("light", "dark")),
        (Book(), "status-empty", "/", (1280,), ("light",)),
    ]
    with browsing() as browser, tempfile.TemporaryDirectory() as scratch:
        for number, (book, name, path, widths, schemes) in enumerate(pages):
            with filled(f"sqlite:///{scratch}/{number}.db", book) as database, serving(app_of(database)) as address:
                for width in widths:
                    for scheme in schemes:
                        size: ViewportSize = {"width": width, "height": 900}
                        page = browser.new_page(viewport=size, color_scheme=scheme)
                        page.goto(address + path)
                        page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=True)
                        page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
