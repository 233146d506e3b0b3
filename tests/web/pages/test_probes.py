"""The list of probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import filled_database
from watchdog.domain.formatting import MINUTE_MS
from watchdog.web.pages.probes import ProbesPageFilter, ProbesPageRow, load_probes_page


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
