"""All charts on a probe's page show the part of the history that the URL names: queues, canaries, phases and states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures_queue import add_queue_probe
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.query_plans import plans, recorded_statements
from tests.support.web import create_test_app, filled_database, request_page
from tests.web.test_latency_ranges import OLD, add_hours
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Outcome
from watchdog.store.database import Database

NEWEST = NOW - 14 * SECOND_MS
INTERVAL_MS, RUN_COUNT = 20 * MINUTE_MS, 30 * 72
"""Of 30 days."""
OLD_HOURS = f"?from={OLD}&to={OLD + 2 * HOUR_MS}"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A queue and a canary with 30 days of runs and 90 days of roll-ups, and a queue with 5 hours of runs. Of an old
    incident of the canary, the first failed run is still stored."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    queue, canary = rows.add_probe("Orders", "queue"), rows.add_probe("Mail", "canary")
    add_queue_probe(rows)
    add_hours(rows, queue, runs_per_hour=3)
    add_hours(rows, canary, runs_per_hour=3)
    for i in range(RUN_COUNT):
        slot, waiting = NEWEST - i * INTERVAL_MS, 900 if i == 3 else 40 if i == 1_000 else i % 9
        rows.add_result(queue, slot, measurements={"waiting": waiting, "consumers": 2}, phases={"read": 5})
        rows.add_result(canary, slot, phases={"enqueue": 8, "pick_up": 200 + i % 3, "finish": 1_700})
    rows.add_incident(canary, "availability", "not picked up", OLD, resolved_at=OLD + 2 * HOUR_MS)
    rows.add_result(canary, OLD, Outcome.FAIL, "not picked up", phases={"enqueue": 7})
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('charts')}/c.db", rows) as database:
        yield database


def get_html(database: Database, path: str) -> str:
    response = request_page(create_test_app(database), f"/probes/{path}")
    assert response.status_code == 200
    assert find_html_problems(response.text) == []
    return response.text


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("email-backlog", ["Waiting jobs, last 6 h: maximum per 3 min. Show as a table", "State, last 6 h"]),
        ("email-backlog?range=1h", ["Waiting jobs, last 1 h: maximum per 1 min. Show", "State, last 1 h",
                                    "Time by phase, last 1 h", "Latency, last 1 h", "02:28:14 212 22 min"]),
        (f"email-backlog?from={NOW - 4 * HOUR_MS}&to={NOW - 2 * HOUR_MS}",
         ["Waiting jobs, 21 Nov 22:29 to 00:29: maximum per 1 min.", "State, 21 Nov 22:29 to 00:29",
          "Waiting 212 limit 200", "Time by phase, 21 Nov 22:29 to 00:29"]),
        ("orders?range=24h", ["Waiting jobs, last 24 h: maximum per 20 min. Show", "01:09:14 900"]),
        ("orders?range=30d",
         ["Waiting jobs, last 30 days: highest of the runs shown, per 6 h. "
          "Values come from at most one run per 45 min, and from runs with which incidents began. "
          "Shorter peaks are shown only if an incident began with them. Show",
          "Latency, last 30 days mean max", "Time by phase, last 24 h", "State, last 30 days", "Up the whole time"]),
        ("orders?range=90d",
         ["Waiting jobs, last 90 days: highest of the runs shown, per 12 h. "
          "Values come from at most one run per 1 h 30 min, and from runs with which incidents began. "
          "All runs are stored from 23 Oct 02:49 on. Shorter peaks", "read 14 s ago", "Consumers 2"]),
        (f"orders{OLD_HOURS}",
         ["Waiting jobs, 13 Oct 02:00 to 13 Oct 05:00: no stored run in this time read the queue.",
          "State, 13 Oct 02:00 to 13 Oct 05:00", "Up the whole time"]),
        ("mail", ["Stages, last 24 h", "Each column shows the medians of the runs in 20 min. Show",
                  "Up the whole time"]),
        ("mail?range=1h", ["Stages, last 1 h", "Latest run, 02:29:00", "8 ms 201 ms 1.7 s - -"]),
        ("mail?range=7d", ["Stages, last 7 days", "Each column shows the medians of the runs in 1 h. "
                           "Values come from at most one run per 7 min 30 s, and from runs with which incidents began. "
                           "Show"]),
        ("mail?range=90d", ["Stages, last 90 days", "All runs are stored from 23 Oct 02:49 on.",
                            "13 Oct 02:00:00 7 ms - - 7 - not picked up", "State, last 90 days",
                            "Down 13 Oct 02:29 to 13 Oct 04:29 · 2 h", "the rest · 89 days"]),
        (f"mail{OLD_HOURS}", ["Stages, 13 Oct 02:00 to 13 Oct 05:00", "13 Oct 02:00:00 7 ms - - 7 - not picked up",
                              "Down 13 Oct 02:29 to 13 Oct 04:29 · 2 h", "Up the rest · 1 h"]),
        (f"mail?from={OLD + 3 * HOUR_MS}&to={OLD + 4 * HOUR_MS}",
         ["No stored run in this time passed or failed.", "Up the whole time"]),
    ],
)  # fmt: skip
def test_each_chart_follows_the_url(database: Database, path: str, expected: list[str]) -> None:
    text = visible_text(get_html(database, path)).replace("\N{EN DASH}", "-")
    assert [part for part in expected if part not in text] == []


def test_one_selection_serves_all_charts(database: Database) -> None:
    html = get_html(database, "mail?all&range=7d")
    assert html.count('aria-label="Time range of the charts"') == 1
    links = [unescape(link) for link in re.findall(r'<a class="chip" href="(\?[^"]*#charts)"', html)]
    assert links == [f"?range={name}&all#charts" for name in ("1h", "6h", "24h", "7d", "30d", "90d")]
    assert re.findall(r'href="\?from=\d+&amp;to=\d+&amp;all#stages"', html)
    assert re.findall(r'href="\?from=\d+&amp;to=\d+#queue"', get_html(database, "orders?range=7d"))


def test_charts_can_be_read_by_keyboard_and_as_tables(database: Database) -> None:
    for path, names in (("orders?range=7d", ("queue", "latency")), ("mail?range=7d", ("stages",))):
        html = get_html(database, path)
        for name in names:
            _, _, canvas = html.partition(f'id="{name}-chart"')
            attributes, _, _ = canvas.partition(">")
            assert 'tabindex="0" role="group" aria-label="Chart. Use the arrow keys' in attributes
            counted = re.search(r'data-step="(\d+)" data-count="(\d+)"', attributes)
            assert counted
            assert int(counted[1]) * int(counted[2]) == 7 * DAY_MS + HOUR_MS, "from a whole hour on"
        assert html.count("<summary>Show as a table</summary>") == len(names)
    assert "Median time to pick-up between 200\N{NO-BREAK SPACE}ms and" in html
    assert 'aria-label="Up the whole time (UTC)"' in html


def test_a_failed_run_of_the_canary_is_counted_though_no_run_is_stored(database: Database) -> None:
    html = get_html(database, "mail?range=90d")
    assert "7\N{NO-BREAK SPACE}runs failed." in html
    chart = html.partition('id="stages-chart"')[2].partition("</div>")[0]
    assert chart.count('class="x-mark"') == 1
    assert 'class="fail"' not in chart, "most runs of these 12 hours passed"
    assert chart.count('class="work"') == 61, "of 30 days, in columns of 12 hours"


def test_a_sample_is_found_by_index_seeks(database: Database) -> None:
    app = create_test_app(database)
    with recorded_statements(database) as statements:
        for path in ("orders?range=90d", "mail?range=90d"):
            request_page(app, f"/probes/{path}")
    samples = [each for each in statements if "run_of_interval" in each[0]]
    assert len(samples) == 2
    with database.reader.connect() as connection:
        for statement, values in samples:
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            lines = [row[3] for row in cursor.fetchall()]
            assert "SEARCH results USING PRIMARY KEY (probe=? AND slot=?)" in lines
            assert "SEARCH results USING PRIMARY KEY (probe=? AND slot>? AND slot<?)" in lines
            assert [line for line in lines if line.startswith("SCAN results")] == []
    others = [each for each in statements if "run_of_interval" not in each[0]]
    plan_lines = {line for line, _ in plans(database, others)}
    assert {
        "SEARCH results USING PRIMARY KEY (probe=? AND slot>? AND slot<?)",
        "SEARCH incidents USING COVERING INDEX ix_incidents_probe_since (probe=? AND since>? AND since<?)",
    } <= plan_lines
    assert [line for line in plan_lines if line.startswith(("SCAN results", "SCAN rollups", "SCAN evidence"))] == []
    assert "SCAN incidents" not in plan_lines, "without an index"


def test_a_probe_that_no_longer_runs_keeps_its_charts(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for name, kind in (("Orders", "queue"), ("Mail", "canary")):
        id = rows.add_probe(name, kind)
        rows.add_result(id, NOW - 3 * DAY_MS, Outcome.FAIL, "x", measurements={"waiting": 3}, phases={"enqueue": 4})
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('ended')}/e.db", rows) as database:
        for path, part in (("orders", "Waiting jobs, last"), ("mail", "Stages, last")):
            assert part not in visible_text(get_html(database, path))
            text = visible_text(get_html(database, f"{path}?range=7d"))
            assert part in text
            assert "Latest run" not in text
            assert "Last result Failed : x · 180 ms · 19 Nov 02:29:14, 3 days ago" in text


def test_failed_runs_on_request_do_not_hide_the_queue(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    broken, unread, _new = (rows.add_probe(name, "queue") for name in ("Broken", "Unread", "New"))
    rows.add_result(broken, NOW - HOUR_MS, measurements={"waiting": 3})
    for i in range(9):
        for probe in (broken, unread):
            rows.add_result(probe, NOW - MINUTE_MS - i, Outcome.FAIL, "refused", measurements={"manual": True})
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('failed')}/f.db", rows) as database:
        assert "Queue read 1 h ago Waiting 3 " in visible_text(get_html(database, "broken"))
        assert "Queue read" not in visible_text(get_html(database, "unread"))
        text = visible_text(get_html(database, "unread?range=7d"))
        assert "Queue Waiting jobs, last 7 days: no stored run in this time read the queue." in text
        assert "Waiting jobs" not in visible_text(get_html(database, "new?range=7d"))
