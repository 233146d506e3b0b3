"""The forms of probes in a real browser, over a process that reloads: what they write is valid, and comments stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fakes import FakeHttpReceiver
from tests.support.managed_files import ENV, MAIN_TEXT, MANAGED_TEXT
from tests.support.watchdog_process import run_watchdog
from watchdog.config.load import load_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

COMMENTS = ("# Ours; see the wiki", "# The first", "# keep this name", "# Second", "# The end")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The managed file, beside the main file that names it."""
    text = MAIN_TEXT.replace("managed:", "server: {listen: '127.0.0.1:0'}\nmanaged:")
    (tmp_path / "watchdog.yaml").write_text(text)
    (tmp_path / "managed.yaml").write_text(MANAGED_TEXT)
    return tmp_path / "managed.yaml"


@pytest.fixture
def site(file: Path) -> Iterator[str]:
    with run_watchdog(file.parent / "watchdog.yaml", ENV) as process:
        yield process.base_url.rstrip("/")


def open_page(browser: Browser, address: str, *, with_script: bool = False) -> Page:
    page = browser.new_context(java_script_enabled=with_script).new_page()
    page.goto(address)
    return page


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).press("Enter")


def list_probe_ids(file: Path) -> list[str]:
    """The file is valid, and has its comments."""
    text = file.read_text()
    assert [text.count(comment) for comment in COMMENTS] == [1] * len(COMMENTS)
    loaded = load_config(file.parent / "watchdog.yaml", env=ENV)
    return [probe.id for probe in loaded.config.probes if probe.id in loaded.managed_probe_ids]


@pytest.mark.parametrize("with_script", [False, True])
def test_a_probe_from_the_first_field_to_its_end(
    browser: Browser, site: str, file: Path, *, with_script: bool
) -> None:  # fmt: skip
    page = open_page(browser, f"{site}/probes", with_script=with_script)
    page.get_by_role("link", name="New probe").click()
    with FakeHttpReceiver() as server:
        page.get_by_label("Name", exact=True).fill("Warm the cache")
        page.get_by_label("URL").fill("no address")
        page.get_by_label("Method").select_option("POST")
        page.get_by_label("Cron schedule", exact=True).fill("*/5 * * * *")
        press(page, "Save")
        invalid = page.get_by_label("URL")
        assert invalid.get_attribute("aria-invalid") == "true"
        assert page.locator("#http-url-problems").inner_text().startswith("expected a URL that starts with http://")
        assert page.get_by_label("Name", exact=True).input_value() == "Warm the cache"
        page.get_by_label("URL").fill(server.url)
        press(page, "Try once")
        page.get_by_role("heading", name="Tried once: pass").wait_for()
        assert server.received[0].path == "/"
    press(page, "Show the change")
    assert '+schedule: "*/5 * * * *"' in page.get_by_role("group", name="The change").inner_text()
    assert file.read_text() == MANAGED_TEXT
    press(page, "Save")
    page.get_by_role("heading", level=1, name="Warm the cache").wait_for()
    assert page.url == f"{site}/probes/warm-the-cache"
    assert list_probe_ids(file) == ["shop", "blog", "warm-the-cache"]
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_text("More fields").click()
    page.get_by_label("Group", exact=True).fill("Jobs")
    press(page, "Save")
    page.get_by_role("link", name="Jobs").first.wait_for()
    page.get_by_role("link", name="Delete", exact=True).click()
    press(page, "Delete")
    assert page.url == f"{site}/probes"
    assert file.read_text() == MANAGED_TEXT
    page.context.close()


def test_two_editors_and_a_change_by_hand(browser: Browser, site: str, file: Path) -> None:
    ana, ben = (open_page(browser, f"{site}/config/probes/shop") for _ in range(2))
    for page, group in ((ana, "Ana"), (ben, "Ben")):
        page.get_by_label("Group", exact=True).fill(group)
        press(page, "Save")
    ana.get_by_role("heading", level=1, name="Shop").wait_for()
    ben.get_by_role("heading", name="The file has changed since you opened this form").wait_for()
    difference = ben.get_by_role("group", name="Difference").inner_text()
    assert "-group: Ana" in difference
    assert "+group: Ben" in difference
    file.write_text(file.read_text().replace("# The end", "# The end\n# by hand"))
    press(ben, "Save")
    ben.get_by_role("heading", name="The file has changed since you opened this form").wait_for()
    assert "Ben" not in file.read_text()
    press(ben, "Save")
    ben.get_by_role("heading", level=1, name="Shop").wait_for()
    assert list_probe_ids(file) == ["shop", "blog"]
    assert "group: Ben" in file.read_text()
    assert file.read_text().endswith("# The end\n# by hand\n")
    for page in (ana, ben):
        page.context.close()


def test_a_heartbeat_is_created_with_its_schedule(browser: Browser, site: str, file: Path) -> None:
    page = open_page(browser, f"{site}/config/new-probe")
    page.get_by_role("navigation", name="Kind").get_by_role("link", name="canary").click()
    page.get_by_role("navigation", name="Queue system").get_by_role("link", name="pg-boss").click()
    assert page.get_by_label("Database URL").is_visible()
    page.get_by_role("navigation", name="Kind").get_by_role("link", name="heartbeat").click()
    page.get_by_label("Name", exact=True).fill("Nightly backup")
    page.get_by_label("When its job runs").fill("0 3 * *")
    page.get_by_label("Time zone of the schedule").fill("Europe/Berlin")
    press(page, "Save")
    assert page.get_by_label("When its job runs").get_attribute("aria-invalid") == "true"
    page.get_by_label("When its job runs").fill("0 3 * * *")
    press(page, "Save")
    page.get_by_role("heading", level=1, name="Nightly backup").wait_for()
    assert page.get_by_role("heading", name="Check-in URL").is_visible()
    assert list_probe_ids(file) == ["shop", "blog", "nightly-backup"]
    page.context.close()
