"""A queue that has grown for hours: too many jobs wait, and the oldest for too long."""

from __future__ import annotations

import json

from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.domain.formatting import MINUTE_MS, SECOND_MS
from watchdog.domain.model import Outcome
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    QueueThreshold,
    QueueThresholdStateRecord,
    queue_threshold_records_to_json,
)

QUEUE_PROBE_SPEC = """\
name: Email backlog
queue:
  bullmq: {redis: "${REDIS_URL}", queue: email}
rules:
  waiting: {over: 200, for: 10m}
  failed: {over: 50}
  oldest: {over: 15m}
  stalled: {for: 10m}
"""
BACKLOG_MESSAGE = (
    "212 jobs waiting, limit 200, exceeded since 01:36 UTC (allowed for 10 min); oldest job waiting for 22 min, "
    "limit 15 min"
)


def queue_backlog_rows() -> FixtureRows:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    add_queue_probe(rows)
    return rows


def add_queue_probe(rows: FixtureRows) -> None:
    id = rows.add_probe(
        "Email backlog",
        "queue",
        "Jobs",
        config_yaml=QUEUE_PROBE_SPEC,
        target="redis://redis.acme.example:6379/0, queue email",
    )
    newest = NOW - 14 * SECOND_MS
    for ago in range(300, -1, -1):
        waiting = 8 + rows.random.randint(0, 6) if ago > 110 else 212 - round(ago * 1.8)
        metrics = {
            "waiting": waiting,
            "active": 4,
            "delayed": 1_240,
            "failed": 12,
            "consumers": 2,
            "oldest": 22 * MINUTE_MS,
        }
        slot = newest - ago * MINUTE_MS
        if ago < 5:
            rows.add_result(
                id, slot, Outcome.FAIL, BACKLOG_MESSAGE, "queue.threshold", 6, measurements=metrics, phases={"read": 6}
            )
        elif ago != 60:
            rows.add_result(id, slot, duration_ms=5, measurements=metrics, phases={"read": 5})
        else:
            rows.add_result(id, slot, Outcome.FAIL, "broker unreachable", "broker.unreachable", None)
    records = [
        QueueThresholdStateRecord(QueueThreshold("waiting", 200, 10 * MINUTE_MS), newest - 14 * MINUTE_MS),
        QueueThresholdStateRecord(QueueThreshold("failed", 50)),
        QueueThresholdStateRecord(QueueThreshold("oldest", 15 * MINUTE_MS), newest - 7 * MINUTE_MS),
        QueueThresholdStateRecord(QueueThreshold("stalled", for_ms=10 * MINUTE_MS), newest - 3 * MINUTE_MS, "b7c1"),
    ]
    state = json.dumps(queue_threshold_records_to_json(records))
    rows.rows["probe_state"].append({"probe": id, "key": QUEUE_THRESHOLDS_STATE_KEY, "value": state})
    rows.add_incident(id, "availability", BACKLOG_MESSAGE, newest - 4 * MINUTE_MS, reason="queue.threshold")
