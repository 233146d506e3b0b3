"""A queue on its page: figures, limits, and for how long they are beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures_queue import queue_backlog_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.probe_state import QueueThreshold, ThresholdRecord
from watchdog.store.read.queue_stats import QueueSample
from watchdog.web.cards.latency import ChartWindow
from watchdog.web.cards.queue import build_queue_card

HOUR = ChartWindow(0, 60 * MINUTE_MS, MINUTE_MS, 60)
NOW = 59 * MINUTE_MS
DRAINING = QueueThreshold("stalled", for_ms=10 * MINUTE_MS)
WAITING = QueueThreshold("waiting", 9)
WAITING_FOR_LONG = QueueThreshold("waiting", 9, for_ms=5 * MINUTE_MS)


def by_metric(records: list[ThresholdRecord]) -> dict[str, ThresholdRecord]:
    return {record.threshold.metric: record for record in records}


@pytest.mark.parametrize(
    ("sentence", "figures", "records", "told"),
    [
        ("no limit", {"waiting": 3}, [], ["Waiting 3"]),
        ("within its limit", {"waiting": 3}, [ThresholdRecord(WAITING)], ["Waiting 3, limit 9"]),
        ("just beyond", {"waiting": 12}, [ThresholdRecord(WAITING, NOW)],
         ["Waiting 12, limit 9, just now: bad"]),
        ("beyond, not yet for long", {"waiting": 12},
         [ThresholdRecord(WAITING_FOR_LONG, 55 * MINUTE_MS)],
         ["Waiting 12, limit 9 for 5 min, over for 4 min"]),
        ("beyond for long", {"waiting": 12}, [ThresholdRecord(WAITING_FOR_LONG, 54 * MINUTE_MS)],
         ["Waiting 12, limit 9 for 5 min, over for 5 min: bad"]),
        ("nobody works", {"waiting": 0, "consumers": 0}, [ThresholdRecord(QueueThreshold("consumers", 1), 0)],
         ["Waiting 0", "Consumers 0, at least 1, under for 59 min: bad"]),
        ("ages and shares", {"waiting": 1, "oldest": 90_000, "failure_ratio": 0.25},
         [ThresholdRecord(QueueThreshold("oldest", MINUTE_MS * 5)),
          ThresholdRecord(QueueThreshold("failure_ratio", 0.2), 0)],
         ["Waiting 1", "Oldest waiting 1 min 30 s, limit 5 min", "Failed lately 25%, limit 20%, over for 59 min: bad"]),
        ("it drains", {"waiting": 1}, [ThresholdRecord(DRAINING, 55 * MINUTE_MS)],
         ["Waiting 1", "Draining yes, limit 10 min, same job next for 4 min"]),
        ("it does not", {"waiting": 1}, [ThresholdRecord(DRAINING, 49 * MINUTE_MS)],
         ["Waiting 1", "Draining no, limit 10 min, same job next for 10 min: bad"]),
        ("it is not shown who is next", {"waiting": 5},
         [ThresholdRecord(DRAINING, 49 * MINUTE_MS, 5)],
         ["Waiting 5", "Getting shorter no, limit 10 min, as many or more for 10 min: bad"]),
        ("it is empty", {"waiting": 0}, [ThresholdRecord(DRAINING)],
         ["Waiting 0", "Draining empty, limit 10 min"]),
    ],
)  # fmt: skip
def test_figures_against_their_limits(
    sentence: str, figures: dict[str, Any], records: list[ThresholdRecord], told: list[str]
) -> None:
    seen = build_queue_card([QueueSample(NOW, figures)], by_metric(records), HOUR)
    said = [
        f"{', '.join([f'{f.title} {f.value_text}', *f.notes])}{': bad' if f.exceeds_limit else ''}"
        for f in seen.metrics
    ]
    assert [line.replace(NBSP, " ") for line in said] == told, sentence


def test_a_point_is_the_most_that_waited() -> None:
    looks = [QueueSample(NOW + i * 1_000, {"waiting": n}) for i, n in enumerate((3, 12_400, 5))]
    seen = build_queue_card([QueueSample(0, {"waiting": 0}), *looks], by_metric([ThresholdRecord(WAITING)]), HOUR)
    assert list(seen.table_rows) == [(NOW, 12_400), (0, 0)]
    assert 'class="limit"' in seen.chart
    assert (
        'class="limit"'
        not in build_queue_card(looks[:1], by_metric([ThresholdRecord(QueueThreshold("waiting", 9_000))]), HOUR).chart
    )


def test_the_page_shows_the_queue(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/q.db", queue_backlog_rows()) as database:
        response: Any = request_page(create_test_app(database), "/probes/email-backlog")
    assert find_html_problems(response.text) == []
    said = visible_text(response.text).replace(NBSP, " ")
    assert "Waiting 212 limit 200 for 10 min over for 14 min" in said
    assert "Failed 12 limit 50" in said
    assert "Delayed 1 240" in said
    assert "Draining yes limit 10 min same job next for 3 min" in said
