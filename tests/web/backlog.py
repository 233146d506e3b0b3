"""A queue that grew for hours: too many wait, and the oldest for too long."""

from __future__ import annotations

import json

from tests.web.book import NOW, Book
from watchdog.model import Outcome
from watchdog.words import MINUTE, SECOND

SPEC = """\
name: Email backlog
queue:
  bullmq: {redis: "${REDIS_URL}", queue: email}
rules:
  waiting: {over: 200, for: 10m}
  failed: {over: 50}
  oldest: {over: 15m}
  draining: {for: 10m}
"""
WHY = "waiting 212, over 200 for 14 min; oldest 22 min, over 15 min"


def backlog() -> Book:
    book = Book()
    book.mark(NOW)
    id = book.probe("Email backlog", "queue", "Jobs", spec=SPEC, target="redis.acme.example/email")
    newest = NOW - 14 * SECOND
    for ago in range(300, -1, -1):
        waiting = 8 + book.random.randint(0, 6) if ago > 110 else 212 - round(ago * 1.8)
        told = {"waiting": waiting, "active": 4, "delayed": 1_240, "failed": 12, "consumers": 2, "oldest": 22 * MINUTE}
        slot = newest - ago * MINUTE
        if ago < 5:
            book.result(id, slot, Outcome.FAIL, WHY, "queue.threshold", 6, measurements=told, phases={"read": 6})
        elif ago != 60:
            book.result(id, slot, took=5, measurements=told, phases={"read": 5})
        else:
            book.result(id, slot, Outcome.FAIL, "broker unreachable", "broker.unreachable", None)
    limits = {
        "waiting": {"at": 200, "lasting": 10 * MINUTE, "since": newest - 14 * MINUTE},
        "failed": {"at": 50, "lasting": 0},
        "oldest": {"at": 15 * MINUTE, "lasting": 0, "since": newest - 7 * MINUTE},
        "draining": {"at": 0, "lasting": 10 * MINUTE, "since": newest - 3 * MINUTE, "head": "b7c1"},
    }
    book.rows["memory"].append({"probe": id, "key": "queue", "value": json.dumps(limits)})
    book.incident(id, "availability", WHY, newest - 4 * MINUTE, reason="queue.threshold")
    return book
