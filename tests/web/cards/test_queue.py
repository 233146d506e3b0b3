"""The card of a queue: metrics, limits, and for how long they have been exceeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures_queue import queue_backlog_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.probe_state import QueueThreshold, QueueThresholdStateRecord
from watchdog.store.read.queue_stats import QueueSample
from watchdog.web.cards.queue import (
    QueueChartPoint,
    build_queue_card_metrics,
    compute_queue_chart_points,
    render_waiting_jobs_chart,
)
from watchdog.web.chart_window import ChartUrlQuery, ChartWindow

HOUR = ChartWindow(0, 60 * MINUTE_MS, MINUTE_MS, 60)
NOW = 59 * MINUTE_MS
STALLED = QueueThreshold("stalled", for_ms=10 * MINUTE_MS)
WAITING = QueueThreshold("waiting", 9)
WAITING_FOR_LONG = QueueThreshold("waiting", 9, for_ms=5 * MINUTE_MS)


def by_metric(records: list[QueueThresholdStateRecord]) -> dict[str, QueueThresholdStateRecord]:
    return {record.threshold.metric: record for record in records}


@pytest.mark.parametrize(
    ("sentence", "metrics", "records", "expected"),
    [
        ("no limit", QueueMeasurements(waiting=3), [], ["Waiting 3"]),
        ("within its limit", QueueMeasurements(waiting=3), [QueueThresholdStateRecord(WAITING)],
         ["Waiting 3, limit 9"]),
        ("just over", QueueMeasurements(waiting=12), [QueueThresholdStateRecord(WAITING, NOW)],
         ["Waiting 12, limit 9, just now: bad"]),
        ("over its limit for less than `for`", QueueMeasurements(waiting=12),
         [QueueThresholdStateRecord(WAITING_FOR_LONG, 55 * MINUTE_MS)],
         ["Waiting 12, limit 9 for 5 min, over for 4 min"]),
        ("over its limit for longer than `for`",
         QueueMeasurements(waiting=12), [QueueThresholdStateRecord(WAITING_FOR_LONG, 54 * MINUTE_MS)],
         ["Waiting 12, limit 9 for 5 min, over for 5 min: bad"]),
        ("no consumer",
         QueueMeasurements(waiting=0, consumers=0), [QueueThresholdStateRecord(QueueThreshold("consumers", 1), 0)],
         ["Waiting 0", "Consumers 0, at least 1, under for 59 min: bad"]),
        ("ages and ratios", QueueMeasurements(waiting=1, oldest=90_000, failure_ratio=0.25),
         [QueueThresholdStateRecord(QueueThreshold("oldest", MINUTE_MS * 5)),
          QueueThresholdStateRecord(QueueThreshold("failure_ratio", 0.2), 0)],
         ["Waiting 1", "Oldest waiting 1 min 30 s, limit 5 min", "Failure ratio 25%, limit 20%, over for 59 min: bad"]),
        ("jobs are taken", QueueMeasurements(waiting=1), [QueueThresholdStateRecord(STALLED, 55 * MINUTE_MS)],
         ["Waiting 1", "Stalled no, limit 10 min, same job next for 4 min"]),
        ("no job is taken", QueueMeasurements(waiting=1), [QueueThresholdStateRecord(STALLED, 49 * MINUTE_MS)],
         ["Waiting 1", "Stalled yes, limit 10 min, same job next for 10 min: bad"]),
        ("the head of the queue is unknown", QueueMeasurements(waiting=5),
         [QueueThresholdStateRecord(STALLED, 49 * MINUTE_MS, 5)],
         ["Waiting 5", "Stalled yes, limit 10 min, not shorter for 10 min: bad"]),
        ("the queue is empty", QueueMeasurements(waiting=0), [QueueThresholdStateRecord(STALLED)],
         ["Waiting 0", "Stalled no, limit 10 min, queue is empty"]),
    ],
)  # fmt: skip
def test_metrics_against_their_limits(
    sentence: str, metrics: QueueMeasurements, records: list[QueueThresholdStateRecord], expected: list[str]
) -> None:
    lines = [
        f"{', '.join([f'{metric.title} {metric.value_text}', *metric.notes])}{': bad' if metric.exceeds_limit else ''}"
        for metric in build_queue_card_metrics(QueueSample(NOW, metrics), by_metric(records))
    ]
    assert [line.replace(NBSP, " ") for line in lines] == expected, sentence


def test_a_point_is_the_maximum_of_waiting_jobs() -> None:
    samples = [QueueSample(NOW + i * 1_000, QueueMeasurements(waiting=n)) for i, n in enumerate((3, 12_400, 5))]
    first = QueueSample(0, QueueMeasurements(waiting=0, oldest=7))
    points = compute_queue_chart_points([first, *samples], HOUR, ChartUrlQuery())
    assert points == [QueueChartPoint(0, "", 0, 7), QueueChartPoint(NOW, "", 12_400, None)]
    chart = render_waiting_jobs_chart(points, QueueThresholdStateRecord(WAITING), HOUR, HOUR.stop)
    assert 'class="limit"' in chart
    assert "Waiting jobs over 1 h: at most 12\u202f400, 12\u202f400 at the end." in chart.replace(NBSP, " ")
    sample = render_waiting_jobs_chart(points, None, HOUR, HOUR.stop, is_sample=True)
    assert "Waiting jobs over 1 h: highest run shown 12\u202f400, 12\u202f400 at the end." in sample.replace(NBSP, " ")
    high_limit = QueueThresholdStateRecord(QueueThreshold("waiting", 90_000))
    assert 'class="limit"' not in render_waiting_jobs_chart(points, high_limit, HOUR, HOUR.stop)
    assert render_waiting_jobs_chart([], high_limit, HOUR, HOUR.stop) == ""


def test_a_point_has_the_age_of_its_oldest_job() -> None:
    ages = (None, 5_000, 9_000, None, 1_000)
    samples = [QueueSample(NOW + i, QueueMeasurements(waiting=1, oldest=age)) for i, age in enumerate(ages)]
    (point,) = compute_queue_chart_points(samples, HOUR, ChartUrlQuery())
    assert point.oldest == 9_000


def test_the_page_shows_the_queue(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/q.db", queue_backlog_rows()) as database:
        response: Any = request_page(create_test_app(database), "/probes/email-backlog")
    assert find_html_problems(response.text) == []
    text = visible_text(response.text).replace(NBSP, " ")
    assert "Waiting 212 limit 200 for 10 min over for 14 min" in text
    assert "Failed 12 limit 50" in text
    assert "Delayed 1 240" in text
    assert "Stalled no limit 10 min same job next for 3 min" in text
