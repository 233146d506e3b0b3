"""Sources with as many jobs as are read at once, for the check of what holds the event loop."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

JOB_COUNT = 2_000
WORKER_COUNT = 9_000


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


@asynccontextmanager
async def running_bullmq_queue(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A queue of BullMQ with many workers, whose next job has large options."""
    import redis

    from tests.support.redis_server import running_redis

    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    name = b"bull:" + base64.b64encode(b"mail")
    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        client.hset("bull:mail:meta", "version", "bullmq:6")
        client.hset("bull:mail:1", mapping={"timestamp": 1, "opts": json.dumps({"x": ["ok"] * 4_000_000})})
        client.lpush("bull:mail:wait", "1")
        port = urlsplit(server.url).port or 0
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(WORKER_COUNT)]
        for writer in writers:
            writer.write(b"CLIENT SETNAME %b\r\n" % name)
        yield {"queue": {"bullmq": {"redis": server.url, "queue": "mail"}}}
        for writer in writers:
            writer.close()


@asynccontextmanager
async def running_rq_queue(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A queue of RQ with many workers."""
    import redis

    from tests.support.redis_server import running_redis

    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        client.sadd("rq:queues", "rq:queue:mail")
        client.sadd("rq:workers:mail", *(f"rq:worker:{i:032}" for i in range(2 * WORKER_COUNT)))
        yield {"queue": {"rq": {"redis": server.url, "queue": "mail"}}}


@asynccontextmanager
async def running_celery_queue(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A queue of Celery whose next message is large."""
    import redis

    from tests.support.redis_server import running_redis

    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        client.rpush("celery", b"x" * 60_000_000)
        yield {"queue": {"celery": {"broker": server.url, "queue": "celery"}}}
