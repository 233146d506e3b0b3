"""The list of probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import visible_text
from tests.support.web import filled_database
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.model import Outcome
from watchdog.web.pages.probe import ProbePageUrlQuery, load_probe_page
from watchdog.web.pages.probes import MAX_SPARKLINE_RUNS, ProbesPageFilter, ProbesPageRow, load_probes_page


def row_of_heartbeat(folder: Path, kinds: str, duration: int | None) -> ProbesPageRow:
    """The row of a heartbeat whose job has reported these ends, and which has been looked at every minute."""
    rows = FixtureRows()
    id = rows.add_probe("Nightly backup", "heartbeat", "Core")
    for ago, kind in enumerate(reversed(kinds.split()), 1):
        rows.add_check_in(id, NOW - ago * 60 * MINUTE_MS, kind, duration=duration if kind == "ok" else None)
    for minute in range(60):
        rows.add_result(id, NOW - minute * MINUTE_MS, duration_ms=None)
    with (
        filled_database(f"sqlite:///{folder / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        page = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
    [(_, _, [row])] = [(section.name, section.total, section.rows) for section in page.sections]
    return row


@pytest.mark.parametrize(
    ("kinds", "duration", "text"),
    [
        ("ok ok fail ok", 14 * MINUTE_MS, "1 of 4 failed, median 14\N{NO-BREAK SPACE}min"),
        ("ok fail fail", None, "2 of 3 failed"),
        ("ok ok", None, "none of 2 failed"),
        ("", None, "no runs"),
    ],
)
def test_the_sparkline_of_a_heartbeat_shows_the_runs_of_the_job(
    tmp_path: Path, kinds: str, duration: int | None, text: str
) -> None:
    row = row_of_heartbeat(tmp_path, kinds, duration)
    assert row.sparkline_text == text
    assert row.sparkline.count("l4 4m0-4l-4 4") == kinds.count("fail")
    assert ('class="none"' in row.sparkline) == (kinds == ""), "a run without duration is drawn on the baseline"


def test_the_list_is_current_after_a_run(tmp_path: Path) -> None:
    rows, later = FixtureRows(), FixtureRows()
    id = rows.add_probe("API")
    rows.add_passing_results(id, count=MAX_SPARKLINE_RUNS)
    later.add_result(id, NOW, Outcome.FAIL)
    with filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database:
        with database.open_read_transaction() as connection:
            before = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
        with database.open_write_transaction() as connection:
            later.insert_into(connection)
        with database.open_read_transaction() as connection:
            after = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
    texts = [page.sections[0].rows[0].sparkline_text for page in (before, after)]
    assert ["failed" in text for text in texts] == [False, True]
    assert texts[1].startswith(f"1 of {after.max_sparkline_runs} failed")
    assert 'class="x-mark"' in after.sections[0].rows[0].sparkline
    assert after.sections[0].rows[0].last_run_at == NOW


def test_a_paused_probe_is_listed_apart_with_its_open_incident(tmp_path: Path) -> None:
    rows = FixtureRows()
    for name in ("API", "Search"):
        id = rows.add_probe(name)
        rows.add_incident(id, "availability", "HTTP 503", NOW - 2 * HOUR_MS)
    rows.add_pause(1, NOW - HOUR_MS, ends_at=NOW + HOUR_MS, comment="moved")
    with (
        filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        page = load_probes_page(connection, ProbesPageFilter(), 1, NOW)
        only_paused = load_probes_page(connection, ProbesPageFilter(state="paused"), 1, NOW)
        probe = load_probe_page(connection, "api", ProbePageUrlQuery(), NOW)
    assert [(section.name, [row.name for row in section.rows]) for section in page.sections] == [
        ("Needs attention", ["Search"]),
        ("Paused", ["API"]),
    ]
    (row,) = only_paused.sections[0].rows
    assert visible_text(row.problem_text) == "paused until 03:29 UTC by Ana: moved · HTTP 503 · for 2 h"
    assert row.next_run_text == ""
    assert probe is not None
    assert (probe.state_label, probe.next_run_text) == ("Paused for 1\N{NO-BREAK SPACE}h", "")
    assert [visible_text(banner.title) for banner in probe.banners] == [
        "Paused until 03:29 UTC by Ana: moved",
        "HTTP 503",
    ]
    assert probe.can_resume
