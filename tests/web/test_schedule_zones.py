"""Times of a schedule with a time zone of its own: its zone is on hover, beside the visitor's and UTC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.html_checks import find_html_problems
from tests.support.web import create_test_app, filled_database, request_page, running_app
from watchdog.domain.formatting import MINUTE_MS, NBSP, SECOND_MS
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.schedule import CronSchedule
from watchdog.probes import HttpProbe
from watchdog.service.registration import build_registered_probe
from watchdog.store.database import Database
from watchdog.web.times import render_schedule_zone_attributes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NEXT, LAST = "22 Nov 2026 12:00:00 JST, Asia/Tokyo", "21 Nov 2026 12:00:03 JST, Asia/Tokyo"
NEXT_UTC = "22 Nov 2026 03:00:00 UTC"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    limits = {"*": ScheduledJobLimits(CronSchedule("0 12 * * *", "Asia/Tokyo"), grace=30 * MINUTE_MS)}
    last = epoch_ms("03:00:03", 1)
    for kind in ("heartbeat", "jobs"):
        probe = rows.add_probe(f"A {kind}", kind, job_limits=limits)
        facts = ScheduledJobFacts(f"A {kind}", last_start=last, last_end=last, last_ok=last, duration=SECOND_MS)
        rows.add_result(probe, NOW - SECOND_MS, jobs=[facts._replace(expected_from=last)])
    rows.add_probe("Warm", timezone="Asia/Tokyo", schedule_text="0 12 * * * Asia/Tokyo", next_due=epoch_ms("03:00:00"))
    rows.add_probe("Plain", next_due=epoch_ms("03:00:00"))
    with filled_database(f"sqlite:///{tmp_path}/test.db", rows) as database:
        yield database


def read_titles(database: Database, path: str) -> set[str]:
    """What a visitor without scripts sees on hover."""
    response = request_page(create_test_app(database), path)
    assert find_html_problems(response.text) == []
    return {title.replace(NBSP, " ") for title in re.findall(r'<time[^>]* title="([^"]*)"', response.text)}


@pytest.mark.parametrize(
    ("path", "titles"),
    [
        ("/jobs", {NEXT, LAST}),
        ("/probes/a-jobs", {NEXT, LAST}),
        ("/probes/a-heartbeat", {NEXT, LAST}),
        ("/probes/warm", {NEXT}),
        ("/probes", {NEXT}),
        ("/probes/plain", set()),
    ],
)
def test_runs_show_the_time_in_the_zone_of_their_schedule(database: Database, path: str, titles: set[str]) -> None:
    assert read_titles(database, path) == titles


def test_a_browser_shows_it_beside_local_time_and_utc(browser: Browser, database: Database) -> None:
    with running_app(create_test_app(database)) as site:
        page = browser.new_context(timezone_id="America/New_York").new_page()
        page.goto(f"{site}/jobs")
        times = page.evaluate("[...document.querySelectorAll('.c-next time')].map(e => [e.textContent, e.title])")
        assert [[text.replace(NBSP, " ") for text in time] for time in times] == [["22:00", f"{NEXT} · {NEXT_UTC}"]] * 2
        page.goto(f"{site}/probes/warm")
        title = str(page.locator("time[data-run='first run']").get_attribute("title")).replace(NBSP, " ")
        assert title == f"{NEXT} · 21 Nov 2026 22:00:00 EST · {NEXT_UTC}"
        page.context.close()


def test_the_zone_is_that_of_the_cron_schedule_and_survives_clock_changes() -> None:
    for schedule, zone in (("0 2 * * *", "Europe/Berlin"), (None, "UTC")):
        values = {"name": "A", "http": "http://127.0.0.1:9/", "schedule": schedule, "timezone": "Europe/Berlin"}
        probe = HttpProbe.model_validate({name: value for name, value in values.items() if value})
        assert build_registered_probe(probe, "").policy.probe.timezone == zone
    before, after = epoch_ms("00:30:00", 28), epoch_ms("01:30:00", 28)  # 25 October: clocks went back at 01:00 UTC
    assert "02:30:00 CEST" in render_schedule_zone_attributes(before, "Europe/Berlin")
    assert "02:30:00 CET" in render_schedule_zone_attributes(after, "Europe/Berlin")
