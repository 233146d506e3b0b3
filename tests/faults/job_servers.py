"""Real servers with jobs, for the table of faults of queues, job tables and schedulers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import redis

from tests.support.job_api import FakeJobApi
from tests.support.third_party import ThirdPartyServers
from watchdog.probes import JobsProbe, Probe, QueueProbe

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
TABLE_SQL = """
    CREATE TABLE {name} (
        id serial, job_type text, status text, scheduled_at timestamptz, started_at timestamptz,
        completed_at timestamptz, error text, is_active boolean)
"""
COLUMNS = {
    "type": "job_type", "status": "status", "scheduled": "scheduled_at", "started": "started_at",
    "finished": "completed_at", "error": "error",
}  # fmt: skip
STATUSES = {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]}


class JobServers:
    """A database and a Redis, with a healthy job table and a healthy queue beside what a fault adds."""

    def __init__(self, database_url: str, redis_url: str, api: FakeJobApi, peers: ThirdPartyServers | None = None):
        self.database_url, self.redis_url = database_url.replace("+psycopg", ""), redis_url
        self.api, self.peers, self.queue = api, peers, f"mail-{uuid4().hex[:8]}"
        self.redis: Any = redis.Redis.from_url(redis_url, decode_responses=True)
        self.redis.flushall()
        self.redis.hset("bull:neighbour:meta", "version", "bullmq:5")
        for name in ("neighbour_jobs", "scheduled_jobs"):
            self.sql(TABLE_SQL.format(name=name))
        for n in range(3):
            self.add_run(f"healthy-{n}", table="neighbour_jobs", started=MINUTE, ended=MINUTE / 2)

    # --- the database

    def sql(self, statement: str, *values: Any) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def add_run(
        self,
        job: str,
        status: str = "completed",
        *,
        due: timedelta | None = None,
        started: timedelta | None = None,
        ended: timedelta | None = None,
        error: str = "",
        table: str = "scheduled_jobs",
    ) -> None:
        """Times are how long ago."""
        columns = "(job_type, status, scheduled_at, started_at, completed_at, error)"
        times = "now() - %s::interval, now() - %s::interval, now() - %s::interval"
        self.sql(f"INSERT INTO {table} {columns} VALUES (%s, %s, {times}, %s)", job, status, due, started, ended, error)

    def add_healthy_runs(self) -> None:
        """Of two jobs in the same table as the faulty one."""
        for job in ("import", "report"):
            self.add_run(job, started=MINUTE, ended=MINUTE / 2)

    def table_probe(
        self, watch: Mapping[str, Any] = {}, table: str = "scheduled_jobs", **columns: str
    ) -> dict[str, Any]:
        source = {"url": self.database_url, "table": table, "columns": {**COLUMNS, **columns}, "statuses": STATUSES}
        return {"jobs": {"sql": source, "watch": {**watch, "*": {}} if watch else {}}}

    # --- Redis

    def add_rq_jobs(self, count: int) -> None:
        self.redis.sadd("rq:queues", f"rq:queue:{self.queue}")
        for n in range(count):
            now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
            self.redis.hset(f"rq:job:{n}", mapping={"status": "queued", "enqueued_at": now, "created_at": now})
            self.redis.rpush(f"rq:queue:{self.queue}", str(n))

    def rq(self) -> dict[str, str]:
        return {"redis": self.redis_url, "queue": self.queue}

    def neighbours(self) -> list[Probe]:
        queue = {"bullmq": {"redis": self.redis_url, "queue": "neighbour"}}
        jobs = self.table_probe(table="neighbour_jobs")
        return [
            JobsProbe.model_validate({"name": "Healthy jobs", **jobs}),
            QueueProbe.model_validate({"name": "Healthy queue", "queue": queue, "rules": {"waiting": {"over": 9}}}),
        ]
