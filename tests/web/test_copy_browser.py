"""Copying the check-in URL in a real browser, from a process that a command with it then reaches."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.page_checks import NO_PROBLEMS, page_problems, violations
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN = "t0ken-0123456789"
PATH = "/probes/backup"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchdogProcess]:
    folder = tmp_path_factory.mktemp("copy")
    (folder / "watchdog.yaml").write_text(
        f"server: {{listen: '127.0.0.1:{find_free_port()}'}}\nstorage: {{url: 'sqlite:///watchdog.db'}}\n"
        "receivers: {journal: {log: {}}}\n"
        f"probes:\n  - {{name: Backup, heartbeat: {{token: {TOKEN}, every: 15m}}}}\n"
    )
    with run_watchdog(folder / "watchdog.yaml") as process:
        yield process


def test_what_is_copied_checks_in(browser: Browser, process: WatchdogProcess, axe: str) -> None:
    site = process.base_url.rstrip("/")
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    assert page_problems(page, site + PATH) == NO_PROBLEMS
    assert violations(page, axe) == []
    page.get_by_role("button", name="Copy Check-in URL").click()
    page.get_by_role("status").get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{site}/in/{TOKEN}"
    page.get_by_role("button", name="Copy A run succeeded").click()
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    subprocess.run(command, check=True, timeout=20)
    wait_until(lambda: "Succeeded" in process.get(PATH.lstrip("/")).text)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    page.get_by_role("cell", name="Succeeded").first.wait_for()  # the page has taken it over, and keeps the buttons
    assert page.get_by_role("button", name="Copy Check-in URL").is_visible()
    context.close()
    assert TOKEN not in "".join(process.stderr_lines)


def test_without_a_clipboard_the_text_is_selected(browser: Browser, process: WatchdogProcess) -> None:
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined}); document.execCommand = () => false"
    )
    page = context.new_page()
    page.goto(process.base_url.rstrip("/") + PATH)
    page.get_by_role("button", name="Copy Check-in URL").click()
    page.get_by_role("status").get_by_text("Selected: copy it with the keyboard").wait_for()
    assert str(page.evaluate("getSelection().toString()")).endswith(f"/in/{TOKEN}")
    context.close()


def test_without_a_script_there_is_no_button(browser: Browser, process: WatchdogProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(process.base_url.rstrip("/") + PATH)
    assert page.get_by_label("Check-in URL", exact=True).last.is_visible()
    assert page.get_by_role("button", name="Copy Check-in URL").count() == 0
    context.close()
