"""Charts are valid SVG for any numbers and any text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from watchdog.domain.model import HealthState
from watchdog.web import charts, row_charts
from watchdog.web.charts import ChartFailedRunCluster, ChartValue, LimitLine
from watchdog.web.row_charts import SparklineValue
from watchdog.web.times import TimeAxisLabel

HOSTILE = "\"><script>alert(1)</script>&amp;'<b>"

LABELS = [TimeAxisLabel(HOSTILE, 0), TimeAxisLabel("now")]
points = st.lists(st.none() | st.floats(0, 1e9), max_size=50)


def drawn(svg: Markup) -> ElementTree.Element:
    """Well-formed, with valid numbers and escaped text."""
    assert not re.search(r"\bnan\b|\binf\b|e[+-]\d", svg)
    root = ElementTree.fromstring(svg)
    assert "script" not in {element.tag for element in root.iter()}
    return root


@given(points, st.none() | st.floats(0.1, 1e9))
def test_latency_is_valid_for_any_numbers(values: list[ChartValue], limit: float | None) -> None:
    higher = [None if v is None else v * 1.5 for v in values]
    failures = [ChartFailedRunCluster(0, 0, 1), ChartFailedRunCluster(0.5, 0.9, 7), ChartFailedRunCluster(1, 1, 2)]
    drawn(
        charts.render_latency_chart(
            (values, higher),
            ("p50", HOSTILE),
            failures=failures,
            limit=LimitLine(limit, HOSTILE) if limit else None,
            time_labels=LABELS,
            label=HOSTILE,
        )
    )


@given(points, st.none() | st.floats(0, 1e9))
def test_counts_are_valid_for_any_numbers(values: list[ChartValue], limit: float | None) -> None:
    drawn(charts.render_count_chart(values, None if limit is None else LimitLine(limit, HOSTILE), LABELS, HOSTILE))


@given(st.lists(st.none() | st.just("x") | st.floats(0, 1e9), max_size=50))
def test_sparklines_are_valid_for_any_runs(values: list[SparklineValue]) -> None:
    drawn(row_charts.render_sparkline(values))


@given(st.lists(st.tuples(st.sampled_from(HealthState), st.text(st.characters(exclude_categories=["C"])))))
def test_bars_are_valid_for_any_days(days: list[tuple[HealthState, str]]) -> None:
    root = drawn(row_charts.render_day_bars(days, HOSTILE))
    assert root.get("aria-label") == HOSTILE


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1e6))), st.floats(0, 1e6), st.booleans())
def test_phases_are_valid_and_stay_inside(parts: list[tuple[int, float]], full: float, lost: bool) -> None:
    for rect in drawn(charts.render_phase_bar(parts, full, incomplete=lost)):
        assert float(rect.get("x", "").rstrip("%")) <= 102


def test_hostile_titles_are_text() -> None:
    root = drawn(row_charts.render_day_bars([(HealthState.DOWN, HOSTILE)], "x"))
    assert [e.text for e in root.iter() if e.tag.endswith("title")] == [HOSTILE]


def path(svg: Markup, name: str) -> str:
    return next(e.get("d", "") for e in drawn(svg).iter() if e.get("class") == name)


@pytest.mark.parametrize(
    ("sentence", "values", "strokes"),
    [
        ("a line without gaps is one stroke", [1.0, 2.0, 3.0], 1),
        ("a gap in data is a gap in the line", [1.0, 2.0, None, 3.0, 4.0], 2),
        ("a trailing gap ends the line", [1.0, 2.0, None], 1),
        ("one value is a dot", [5.0], 1),
        ("no value, no line", [None, None], 0),
    ],
)
def test_gaps(sentence: str, values: Sequence[ChartValue], strokes: int) -> None:
    svg = charts.render_latency_chart(
        (values, values), ("p50", "p95"), failures=[], limit=None, time_labels=LABELS, label="x"
    )
    assert path(svg, "p50").count("M") == strokes, sentence


def test_names_at_line_ends_do_not_overlap() -> None:
    svg = charts.render_latency_chart(
        ([10.0, None], [10.5, None]), ("p50", "p95"), failures=[], limit=None, time_labels=[], label="x"
    )
    names = {e.text: e for e in drawn(svg).iter() if e.get("class") == "t-data"}
    assert names["p50"].get("x") == names["p95"].get("x") == "25%"
    assert float(names["p50"].get("y", "0")) - float(names["p95"].get("y", "0")) >= 12


def test_a_grid_line_near_the_limit_is_omitted() -> None:
    limit = LimitLine(800, "degraded over 800 ms")
    svg = charts.render_latency_chart(
        ([500.0], [560.0]), ("p50", "p95"), failures=[], limit=limit, time_labels=[], label="x"
    )
    text = [e.text for e in drawn(svg).iter() if e.tag.endswith("text")]
    assert "degraded over 800 ms" in text
    assert "800\u00a0ms" not in text
    assert text[:3] == ["0", "200\u00a0ms", "400\u00a0ms"]


def test_noise_is_never_stretched_to_full_height() -> None:
    heights = [
        float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", row_charts.render_sparkline([100.0, 104.0, 98.0, 101.0]))
    ]
    assert max(heights) - min(heights) < 3


def test_three_failures_in_a_row_become_a_thick_line() -> None:
    svg = row_charts.render_sparkline([1.0, "x", "x", "x", "x"])
    assert path(svg, "run").count("M") == 2
    assert path(svg, "x-mark").count("M") == 2


def test_a_failure_beyond_the_scale_is_hatched() -> None:
    root = drawn(charts.render_phase_bar([(4, 20.0), (5, 5000.0)], 200))
    assert [e.get("class") for e in root] == ["ph4", "fail"]
