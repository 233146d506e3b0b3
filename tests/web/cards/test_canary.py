"""The card of a canary: which stage failed, and which stages are not observable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import canary_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.store.read.measured_runs import MeasuredRun
from watchdog.web.cards.canary import (
    JudgedRunCountsByChartPoint,
    build_canary_latest_run,
    compute_canary_chart_points,
    render_canary_chart_of_points,
)
from watchdog.web.chart_window import ChartUrlQuery, ChartWindow

FULL: dict[str, Any] = {"connect": 1.0, "enqueue": 8.0, "pick_up": 200.0, "finish": 1_700.0}


def run(slot: int = 0, outcome: Outcome = Outcome.PASS, reason: str = "", **phases: float) -> ProbeResult:
    return ProbeResult(1, slot * MINUTE_MS, "local", outcome, reason, phases=phases)


@pytest.mark.parametrize(
    ("sentence", "newest", "expected"),
    [
        ("it passes", run(1, **FULL), ["up 8 ms", "up 200 ms", "up 1.7 s"]),
        ("it is not picked up", run(1, Outcome.FAIL, "canary.not_picked_up", connect=1, enqueue=8),
         ["up 8 ms", "down Not picked up", "unknown Not reached"]),
        ("it is not finished", run(1, Outcome.FAIL, "canary.not_finished", enqueue=8, pick_up=200),
         ["up 8 ms", "up 200 ms", "down Not finished in time"]),
        ("it fails", run(1, Outcome.FAIL, "job.failed", **FULL), ["up 8 ms", "up 200 ms", "down 1.7 s"]),
        ("an earlier sentinel is not picked up", run(1, Outcome.FAIL, "canary.not_picked_up", connect=1),
         ["up By an earlier run", "down Not picked up", "unknown Not reached"]),
        ("an earlier sentinel is not finished", run(1, Outcome.FAIL, "canary.not_finished", connect=1, pick_up=200),
         ["up By an earlier run", "up 200 ms", "down Not finished in time"]),
        ("an earlier sentinel cannot be polled", run(1, Outcome.FAIL, "canary.poll_failed"),
         ["up By an earlier run", "down Canary job not observable", "unknown Not reached"]),
        ("the broker is unreachable", run(1, Outcome.FAIL, "broker.unreachable", connect=3),
         ["down Broker unreachable", "unknown Not reached", "unknown Not reached"]),
        ("it fails in a system that does not show pick-ups", run(1, Outcome.FAIL, "job.failed", enqueue=8),
         ["up 8 ms", "unknown Not observable", "down Failed"]),
        ("a system that does not show pick-ups", run(1, enqueue=8, finish=1_900),
         ["up 8 ms", "unknown Not observable", "up 1.9 s"]),
    ],
)  # fmt: skip
def test_the_newest_run_stage_by_stage(sentence: str, newest: ProbeResult, expected: list[str]) -> None:
    latest = build_canary_latest_run([run(0, **FULL), newest])
    assert latest is not None
    assert [f"{stage.state} {stage.text.replace(NBSP, ' ')}" for stage in latest.stages] == expected, sentence


def test_the_median_excludes_the_newest_run() -> None:
    latest = build_canary_latest_run([run(0, **FULL), run(1, enqueue=900, pick_up=900, finish=900)])
    assert latest is not None
    assert latest.stages[1].detail == f"median 200{NBSP}ms"


def test_a_missed_slot_is_no_run() -> None:
    assert build_canary_latest_run([run(0, Outcome.MISSED, "missed.skipped")]) is None


def measured(slot: int, outcome: Outcome = Outcome.PASS, message: str = "", **stages: float) -> MeasuredRun:
    waiting = json.dumps({"waiting": 7 * slot}) if outcome is Outcome.FAIL else None
    return MeasuredRun(slot * MINUTE_MS, outcome, message, json.dumps(stages), waiting)


@pytest.mark.parametrize(
    ("sentence", "runs", "counts", "expected", "is_hatched"),
    [
        ("no run", [], (0, 0), [], False),
        ("one run", [measured(1, **FULL)], (1, 0), [(8.0, 200.0, 1_700.0, 0, None, "")], False),
        ("several runs have their medians", [measured(i, pick_up=ms) for i, ms in enumerate((100, 900, 200))],
         (3, 0), [(None, 200, None, 0, None, "")], False),
        ("failed runs do not count beside others", [measured(1, pick_up=5), measured(2, Outcome.FAIL, "a", pick_up=99)],
         (1, 1), [(None, 5, None, 1, 14, "a")], False),
        ("only failed runs", [measured(1, Outcome.FAIL, "a", enqueue=5), measured(2, Outcome.FAIL, "b", enqueue=7)],
         (0, 2), [(6.0, None, None, 2, 14, "b")], True),
        ("only failed runs in the sample", [measured(1, Outcome.FAIL, "a", enqueue=5)], (719, 1),
         [(5.0, None, None, 1, 7, "a")], False),
        ("a run without a verdict is no data", [measured(1, Outcome.ERROR, enqueue=5)], (0, 0), [], False),
        ("failures that are not in the sample", [], (0, 3), [(None, None, None, 3, None, "")], True),
        ("failures beside others, none in the sample", [], (9, 3), [(None, None, None, 3, None, "")], False),
        ("a failure that is not counted yet", [measured(1, Outcome.FAIL, "a")], (0, 0),
         [(None, None, None, 1, 7, "a")], True),
    ],
)  # fmt: skip
def test_a_point_of_the_chart(
    sentence: str, runs: list[MeasuredRun], counts: tuple[int, int], expected: list[tuple[Any, ...]], is_hatched: bool
) -> None:
    window = ChartWindow(0, 20 * MINUTE_MS, 10 * MINUTE_MS, 2)
    counts_by_point = JudgedRunCountsByChartPoint([counts[0], 0], [counts[1], 0])
    points = compute_canary_chart_points(runs, counts_by_point, window, ChartUrlQuery())
    assert [(*p.stages, p.failed_count, p.waiting, p.message) for p in points] == expected, sentence
    assert all((p.start, p.zoom_query_string) == (0, f"?from=0&to={10 * MINUTE_MS}") for p in points)
    chart = render_canary_chart_of_points(points, window, window.stop)
    assert chart.count('class="fail"') == is_hatched
    assert chart.count('class="x-mark"') == any(point.failed_count for point in points)
    assert bool(chart) == bool(points)


def test_the_page_shows_the_stages(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/p.db", canary_rows()) as database:
        response: Any = request_page(create_test_app(database), "/probes/email-pipeline")
    assert find_html_problems(response.text) == []
    text = visible_text(response.text)
    assert "Latest run, 02:25:00" in text
    assert "Picked up Not picked up median" in text
    assert "Finished Not reached" in text
    assert "Stages, last 6 h" in text
    assert "Each column shows the medians of the runs in 5 min. Show as a table" in text
    assert "02:24:14 8 ms - - 1 214 canary job not picked up within 10 s" in text.replace("\N{EN DASH}", "-")
    assert "Latency" not in text
    assert response.text.count('class="x-mark" d="M-3.5') == 3
    assert "canary runs over 6 h. Median time to pick-up between" in response.text.replace(NBSP, " ")
