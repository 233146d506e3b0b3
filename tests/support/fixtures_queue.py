"""A queue that grew for hours: too many wait, and the oldest for too long."""

from __future__ import annotations

import json

from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.domain.formatting import MINUTE_MS, SECOND_MS
from watchdog.domain.model import Outcome

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
BACKLOG_MESSAGE = "waiting 212, over 200 for 14 min; oldest 22 min, over 15 min"


def queue_backlog_rows() -> FixtureRows:
    book = FixtureRows()
    book.add_watermark(NOW)
    id = book.add_probe(
        "Email backlog", "queue", "Jobs", config_yaml=QUEUE_PROBE_SPEC, target="redis.acme.example/email"
    )
    newest = NOW - 14 * SECOND_MS
    for ago in range(300, -1, -1):
        waiting = 8 + book.random.randint(0, 6) if ago > 110 else 212 - round(ago * 1.8)
        told = {
            "waiting": waiting,
            "active": 4,
            "delayed": 1_240,
            "failed": 12,
            "consumers": 2,
            "oldest": 22 * MINUTE_MS,
        }
        slot = newest - ago * MINUTE_MS
        if ago < 5:
            book.add_result(
                id, slot, Outcome.FAIL, BACKLOG_MESSAGE, "queue.threshold", 6, measurements=told, phases={"read": 6}
            )
        elif ago != 60:
            book.add_result(id, slot, duration_ms=5, measurements=told, phases={"read": 5})
        else:
            book.add_result(id, slot, Outcome.FAIL, "broker unreachable", "broker.unreachable", None)
    limits = {
        "waiting": {"at": 200, "lasting": 10 * MINUTE_MS, "since": newest - 14 * MINUTE_MS},
        "failed": {"at": 50, "lasting": 0},
        "oldest": {"at": 15 * MINUTE_MS, "lasting": 0, "since": newest - 7 * MINUTE_MS},
        "stalled": {"at": 0, "lasting": 10 * MINUTE_MS, "since": newest - 3 * MINUTE_MS, "head": "b7c1"},
    }
    book.rows["probe_state"].append({"probe": id, "key": "queue", "value": json.dumps(limits)})
    book.add_incident(id, "availability", BACKLOG_MESSAGE, newest - 4 * MINUTE_MS, reason="queue.threshold")
    return book
