"""Thresholds applied to queue statistics, one case per row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watchdog.domain.observations import QueueStats, RecentlyEndedJobCounts
from watchdog.domain.probe_state import (
    QueueThreshold,
    QueueThresholdStateRecord,
    compute_short_digest,
    queue_threshold_records_from_json,
    queue_threshold_records_to_json,
)
from watchdog.domain.rules.queue import (
    EvaluatedQueueThreshold,
    build_queue_threshold_breach_problem,
    evaluate_each_queue_threshold,
)
from watchdog.domain.uptime_clock import DowntimeGaps

NB = "\N{NO-BREAK SPACE}"
MIN, HOUR = 60_000, 3_600_000
NOON = 1_777_723_200_000

MANY = QueueThreshold("waiting", 200)
MANY_FOR_LONG = QueueThreshold("waiting", 200, for_ms=10 * MIN)
OLD = QueueThreshold("oldest", 15 * MIN)
FEW = QueueThreshold("consumers", 1, for_ms=5 * MIN)
STILL = QueueThreshold("stalled", for_ms=10 * MIN)
FAILING = QueueThreshold("failure_ratio", 0.2, window_ms=HOUR, min_samples=20)


def run_polls(
    limit: QueueThreshold, *polls: tuple[int, QueueStats | None]
) -> tuple[EvaluatedQueueThreshold, QueueStats, int]:
    """The state after several polls, as (minutes after noon, statistics). None: the poll failed."""
    records: dict[str, QueueThresholdStateRecord] = {}
    state, stats, now = EvaluatedQueueThreshold(QueueThresholdStateRecord(limit), None), QueueStats(), NOON
    for minutes, polled in polls:
        if polled is None:
            continue
        stats, now = polled, NOON + minutes * MIN
        (state,) = evaluate_each_queue_threshold([limit], stats, records, now)
        stored = json.loads(json.dumps(queue_threshold_records_to_json([state.record])))
        records = queue_threshold_records_from_json(stored)
        assert records == {limit.metric: state.record}
    return state, stats, now


def waiting(n: int, head: str | None = None) -> QueueStats:
    return QueueStats(n, head=head)


def ended(failed: int, well: int | None) -> QueueStats:
    return QueueStats(completed=RecentlyEndedJobCounts(failed, well))


TABLE: list[tuple[str, QueueThreshold, list[tuple[int, QueueStats | None]], tuple[str, str]]] = [
    ("as many wait as the limit", MANY, [(0, waiting(200))], ("", "")),
    (
        "one more waits than the limit",
        MANY,
        [(0, waiting(201))],
        ("queue.threshold", f"201{NB}jobs waiting, limit 200"),
    ),
    (
        "a limit of 0",
        QueueThreshold("failed", 0),
        [(0, QueueStats(failed=1))],
        ("queue.failed_jobs", f"1{NB}job failed, limit 0"),
    ),
    (
        "numbers above a thousand",
        QueueThreshold("delayed", 9_999),
        [(0, QueueStats(delayed=12_400))],
        ("queue.threshold", f"12\N{NARROW NO-BREAK SPACE}400{NB}jobs delayed, limit 9\N{NARROW NO-BREAK SPACE}999"),
    ),
    ("above the limit for less than `for`", MANY_FOR_LONG, [(0, waiting(240)), (9, waiting(240))], ("", "")),
    (
        "above the limit for exactly `for`",
        MANY_FOR_LONG,
        [(0, waiting(240)), (10, waiting(240))],
        ("queue.threshold", f"240{NB}jobs waiting, limit 200, exceeded since 12:00 UTC (allowed for 10{NB}min)"),
    ),
    (
        "above the limit for longer than `for`",
        MANY_FOR_LONG,
        [(0, waiting(999)), (5, waiting(201)), (12, waiting(240))],
        ("queue.threshold", f"240{NB}jobs waiting, limit 200, exceeded since 12:00 UTC (allowed for 10{NB}min)"),
    ),
    (
        "below the limit in between: the period starts again",
        MANY_FOR_LONG,
        [(0, waiting(240)), (5, waiting(200)), (12, waiting(240))],
        ("", ""),
    ),
    (
        "a failed poll in between has no effect",
        MANY_FOR_LONG,
        [(0, waiting(240)), (5, None), (12, waiting(240))],
        ("queue.threshold", f"240{NB}jobs waiting, limit 200, exceeded since 12:00 UTC (allowed for 10{NB}min)"),
    ),
    (
        "a poll without the metric has no effect",
        MANY_FOR_LONG,
        [(0, waiting(240)), (5, QueueStats()), (12, waiting(240))],
        ("queue.threshold", f"240{NB}jobs waiting, limit 200, exceeded since 12:00 UTC (allowed for 10{NB}min)"),
    ),
    (
        "the clock was set back: the period starts again",
        MANY_FOR_LONG,
        [(60, waiting(240)), (0, waiting(240)), (9, waiting(240))],
        ("", ""),
    ),
    (
        "the clock was set back, and the new period is over",
        MANY_FOR_LONG,
        [(60, waiting(240)), (0, waiting(240)), (10, waiting(240))],
        ("queue.threshold", f"240{NB}jobs waiting, limit 200, exceeded since 12:00 UTC (allowed for 10{NB}min)"),
    ),
    ("as old as the limit", OLD, [(0, QueueStats(1, oldest=15 * MIN))], ("", "")),
    (
        "seconds older than the limit",
        OLD,
        [(0, QueueStats(1, oldest=15 * MIN + 20_000))],
        ("queue.threshold", f"oldest job waiting for 15{NB}min 20{NB}s, limit 15{NB}min"),
    ),
    ("nothing waits: no age, even with a limit of 0", QueueThreshold("oldest", 0), [(0, QueueStats(0))], ("", "")),
    ("nothing waits: no age", OLD, [(0, QueueStats(0))], ("", "")),
    ("one worker", FEW, [(0, QueueStats(consumers=1)), (9, QueueStats(consumers=1))], ("", "")),
    ("no worker for less than `for`", FEW, [(0, QueueStats(consumers=0)), (4, QueueStats(consumers=0))], ("", "")),
    (
        "no worker for exactly `for`",
        FEW,
        [(0, QueueStats(consumers=0)), (5, QueueStats(consumers=0))],
        ("queue.no_consumers", f"0{NB}workers, expected at least 1, since 12:00:00 UTC (allowed for 5{NB}min)"),
    ),
    (
        "too few workers, without `for`",
        QueueThreshold("consumers", 3),
        [(0, QueueStats(consumers=2))],
        ("queue.no_consumers", f"2{NB}workers, expected at least 3"),
    ),
    (
        "the job at the head stays the same",
        STILL,
        [(0, waiting(3, "a")), (5, waiting(9, "a")), (10, waiting(9, "a"))],
        ("queue.stalled", "no job has been started since 12:00 UTC: 9 waiting"),
    ),
    (
        "the job at the head stays the same for less than `for`",
        STILL,
        [(0, waiting(3, "a")), (9, waiting(3, "a"))],
        ("", ""),
    ),
    (
        "more jobs wait, and the job at the head changes",
        STILL,
        [(0, waiting(3, "a")), (5, waiting(9, "b")), (12, waiting(20, "b"))],
        ("", ""),
    ),
    ("the queue was empty in between", STILL, [(0, waiting(3, "a")), (5, waiting(0)), (10, waiting(3, "a"))], ("", "")),
    (
        "a failed poll in between has no effect",
        STILL,
        [(0, waiting(3, "a")), (5, None), (10, waiting(3, "a"))],
        ("queue.stalled", "no job has been started since 12:00 UTC: 3 waiting"),
    ),
    (
        "a poll without counts has no effect",
        STILL,
        [(0, waiting(3, "a")), (5, QueueStats()), (10, waiting(3, "a"))],
        ("queue.stalled", "no job has been started since 12:00 UTC: 3 waiting"),
    ),
    (
        "the head is unknown: as many jobs wait",
        STILL,
        [(0, waiting(3)), (5, waiting(3)), (10, waiting(3))],
        ("queue.stalled", "the number of waiting jobs has not fallen since 12:00 UTC: 3 waiting"),
    ),
    (
        "the head is unknown: more jobs wait",
        STILL,
        [(0, waiting(3)), (5, waiting(9)), (10, waiting(9))],
        ("queue.stalled", "the number of waiting jobs has not fallen since 12:00 UTC: 9 waiting"),
    ),
    ("the head is unknown: fewer jobs wait", STILL, [(0, waiting(9)), (5, waiting(8)), (12, waiting(9))], ("", "")),
    ("the head is no longer known", STILL, [(0, waiting(9, "a")), (10, waiting(9))], ("", "")),
    ("failures at the limit", FAILING, [(0, ended(4, 16))], ("", "")),
    (
        "failures above the limit",
        FAILING,
        [(0, ended(5, 15))],
        ("queue.failure_ratio", f"25% of 20{NB}jobs failed within 1{NB}h, limit 20%"),
    ),
    ("fewer jobs than min_samples", FAILING, [(0, ended(19, 0))], ("", "")),
    (
        "every job failed",
        FAILING,
        [(0, ended(20, 0))],
        ("queue.failure_ratio", f"100% of 20{NB}jobs failed within 1{NB}h, limit 20%"),
    ),
]


@pytest.mark.parametrize(("sentence", "limit", "polls", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_breaches(
    sentence: str, limit: QueueThreshold, polls: list[tuple[int, QueueStats | None]], expected: tuple[str, str]
) -> None:
    state, stats, now = run_polls(limit, *polls)
    assert (build_queue_threshold_breach_problem(state, stats, now) if state.is_breached(now) else ("", "")) == expected


@pytest.mark.parametrize(
    ("limit", "stats", "unknown"),
    [
        (MANY, QueueStats(), True),
        (OLD, QueueStats(3), True),
        (OLD, QueueStats(0), False),
        (FEW, QueueStats(3), True),
        (STILL, QueueStats(), True),
        (STILL, QueueStats(3), False),
        (FAILING, QueueStats(), True),
        (FAILING, ended(3, None), False),
        (FAILING, ended(20, None), True),
    ],
)
def test_an_unavailable_metric_is_no_breach(limit: QueueThreshold, stats: QueueStats, unknown: bool) -> None:
    state, _, now = run_polls(limit, (0, stats))
    assert state.unavailable is unknown
    assert not state.is_breached(now)


def test_a_missing_metric_does_not_end_a_breach() -> None:
    state, _, now = run_polls(MANY_FOR_LONG, (0, waiting(240)), (12, QueueStats()))
    assert (state.unavailable, state.is_breached(now), state.record.breached_since) == (True, False, NOON)


def test_an_empty_queue_is_not_stalled() -> None:
    state, _, _ = run_polls(STILL, (0, waiting(0)))
    assert state == EvaluatedQueueThreshold(QueueThresholdStateRecord(STILL), 0)


def test_a_changed_threshold_starts_a_new_period() -> None:
    (before,) = evaluate_each_queue_threshold([QueueThreshold("waiting", 100, 10 * MIN)], waiting(240), {}, NOON)
    (after,) = evaluate_each_queue_threshold([MANY_FOR_LONG], waiting(240), {"waiting": before.record}, NOON + 10 * MIN)
    assert after.record.breached_since == NOON + 10 * MIN


def test_the_stored_record_is_small() -> None:
    stored = run_polls(STILL, (0, waiting(3, "a job's id" * 100)))[0].record.to_json()
    assert stored == {
        "metric": "stalled", "value": 0, "for_ms": 10 * MIN, "window_ms": 0, "min_samples": 0,
        "breached_since": NOON, "head_marker": stored["head_marker"],
    }  # fmt: skip
    assert len(stored["head_marker"]) == 12


A_DAY = tuple((NOON + from_ * MIN, NOON + to * MIN) for from_, to in ((-60, -50), (3, 123), (200, 201)))
"""Periods without polls. The second lasts two hours and starts three minutes after noon."""
SHORT_GAP = ((NOON + 3 * MIN, NOON + 3 * MIN + 30_000),)


@pytest.mark.parametrize(
    ("sentence", "limit", "changes", "stats", "at", "gaps", "since"),
    [
        ("above the limit across a gap of two hours", MANY_FOR_LONG, {}, waiting(250), 123, A_DAY, 123),
        ("above the limit for long enough before the gap",
         QueueThreshold("waiting", 200, 3 * MIN), {}, waiting(250), 123, A_DAY, 0),
        ("above the limit, without `for`", MANY, {}, waiting(250), 123, A_DAY, 0),
        ("the gap ended before the breach started",
         MANY_FOR_LONG, {"breached_since": NOON + 123 * MIN}, waiting(250), 140,
         A_DAY, 123),
        ("the gap started with the breach", MANY_FOR_LONG, {"breached_since": NOON + 3 * MIN}, waiting(250),
         123, A_DAY, 123),
        ("a gap of 30 seconds", MANY_FOR_LONG, {}, waiting(250), 9, SHORT_GAP, 0),
        ("no gap, but failed polls", MANY_FOR_LONG, {}, waiting(250), 123, (), 0),
        ("the metric is missing now", MANY_FOR_LONG, {}, QueueStats(), 123, A_DAY, None),
        ("the same job at the head across a gap",
         STILL, {"head_marker": compute_short_digest("a")}, waiting(3, "a"), 123, A_DAY, 123),
        ("as many jobs wait across a gap", STILL, {"head_marker": 3}, waiting(3), 123, A_DAY, 123),
        ("the same job at the head for long enough before the gap", QueueThreshold("stalled", for_ms=3 * MIN),
         {"head_marker": compute_short_digest("a")}, waiting(3, "a"), 123, A_DAY, 0),
    ],
)  # fmt: skip
def test_thresholds_after_a_gap(
    sentence: str,
    limit: QueueThreshold,
    changes: dict[str, Any],
    stats: QueueStats,
    at: int,
    gaps: DowntimeGaps,
    since: int | None,
) -> None:
    record = QueueThresholdStateRecord(limit, NOON)._replace(**changes)
    (state,) = evaluate_each_queue_threshold([limit], stats, {limit.metric: record}, NOON + at * MIN, gaps)
    assert state.record.breached_since == (None if since is None else NOON + since * MIN), sentence
