"""Sources with as many jobs as are read at once, for the check of what holds the event loop."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

JOB_COUNT = 2_000


@asynccontextmanager
async def running_job_table(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A table in which each job has just run."""
    path = folder / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT, status TEXT, started TEXT, finished TEXT)"
        )
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows = [(f"job {i:05} {'x' * 60}", now, now) for i in range(JOB_COUNT)]
        connection.executemany("INSERT INTO runs (name, status, started, finished) VALUES (?, 'done', ?, ?)", rows)
        connection.execute("CREATE INDEX by_name ON runs (name, started)")
        connection.commit()
    columns = {"type": "name", "status": "status", "id": "id", "started": "started", "finished": "finished"}
    source = {"url": f"sqlite:///{path}", "table": "runs", "columns": columns, "statuses": {"done": ["done"]}}
    yield {
        "jobs": {"sql": source, "grace": "1d", "watch": {"*": {"schedule": "0 6 * * *", "timezone": "Europe/Berlin"}}}
    }


@asynccontextmanager
async def running_redbeat(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The schedules of Celery beat in Redis, none of which is due."""
    import redis

    from tests.support.redis_server import running_redis

    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        pipe = client.pipeline(transaction=False)
        for i in range(JOB_COUNT):
            key, schedule = f"redbeat:job {i:05}", {"__type__": "interval", "every": 86_400.0}
            pipe.zadd("redbeat::schedule", {key: time.time() + 80_000})
            definition = {"name": key, "task": "t.x", "schedule": schedule, "enabled": True}
            pipe.hset(key, "definition", json.dumps(definition))
        pipe.set("redbeat::lock", "x")
        pipe.execute()
        yield {"jobs": {"celery": {"redbeat": server.url}}}
