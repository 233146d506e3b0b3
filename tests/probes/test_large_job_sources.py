"""The jobs of a source with many are evaluated in the worker process, with the same result."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.support.probe_runs import JobsRun, run_jobs_probe
from tests.support.redis_server import RedisServer
from watchdog.domain.model import Outcome
from watchdog.probes import JobsProbe
from watchdog.probes.jobs import MAX_JOBS_IN_EVENT_LOOP


def source(folder: Path, job_count: int) -> JobsProbe:
    """A table with `job_count` jobs, each of which ran once, long ago; every tenth failed."""
    path = folder / f"{job_count}.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER, name TEXT, status TEXT, started TEXT, finished TEXT)")
        rows = [(i, f"job-{i:04}", "done" if i % 10 else "failed", "2026-11-01T06:00:00Z") for i in range(job_count)]
        connection.executemany("INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?4)", rows)
        connection.commit()
    columns = {"id": "id", "type": "name", "status": "status", "started": "started", "finished": "finished"}
    statuses = {"done": ["done"], "failed": ["failed"]}
    sql = {"url": f"sqlite:///{path}", "table": "runs", "columns": columns, "statuses": statuses, "since": "3650d"}
    jobs = {"sql": sql, "watch": {"*": {"schedule": "0 6 * * *", "timezone": "Europe/Berlin"}}}
    return JobsProbe.model_validate({"name": "Reports", "id": "reports", "timeout": "60s", "jobs": jobs})


def without_times(run: JobsRun) -> tuple[object, ...]:
    subjects = {name: (facts.last_start, facts.last_end) for name, facts in run.result.listings["job"].subjects.items()}
    return (run.result.outcome, run.result.reason, run.problems, subjects, dict(run.result.measurements))


def test_the_result_does_not_depend_on_where_jobs_are_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = source(tmp_path, MAX_JOBS_IN_EVENT_LOOP), source(tmp_path, MAX_JOBS_IN_EVENT_LOOP + 1)
    there = run_jobs_probe(many)
    assert "judge" not in run_jobs_probe(few).result.phases
    assert "judge" in there.result.phases
    again = run_jobs_probe(many, there.state_updates)
    monkeypatch.setattr("watchdog.probes.jobs.MAX_JOBS_IN_EVENT_LOOP", 10_000)
    here = run_jobs_probe(many)
    assert "judge" not in here.result.phases
    assert without_times(there) == without_times(here)
    assert without_times(again) == without_times(run_jobs_probe(many, here.state_updates))
    assert there.problems


SOURCES = {
    "bullmq": ("bull:mail:repeat", {"queue": "mail"}),
    "celery": ("redbeat::schedule", {}),
}


@pytest.mark.parametrize("system", SOURCES)
def test_a_source_with_more_jobs_than_are_read_is_not_judged(redis_server: RedisServer, system: str) -> None:
    """Redis sorts them by their next run. Of one job too many, another one would be missing at every run."""
    key, options = SOURCES[system]
    url = {"redbeat" if system == "celery" else "redis": redis_server.url}
    probe = JobsProbe.model_validate({"name": "Many", "jobs": {system: url | options}})
    due_at_ms = round(time.time() * 1000) + 3_600_000
    due = {f"job-{i}": due_at_ms if system == "bullmq" else due_at_ms / 1000 for i in range(2_001)}
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushdb()
        client.zadd(key, due)
        too_many = run_jobs_probe(probe)
        client.zrem(key, "job-0")
        enough = run_jobs_probe(probe)
    assert (too_many.result.outcome, too_many.result.reason) == (Outcome.ERROR, "watchdog.too_many_jobs")
    assert too_many.result.message == "the source lists more than 2,000 jobs, which is Watchdog's limit"
    assert enough.result.measurements["jobs"] == 2_000


def test_a_job_store_with_more_jobs_than_are_read_is_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE apscheduler_jobs (id TEXT, next_run_time REAL, job_state BLOB)")
        rows = [(f"job-{i}", time.time() + 3_600) for i in range(2_001)]
        connection.executemany("INSERT INTO apscheduler_jobs VALUES (?, ?, '')", rows)
        connection.commit()
    probe = JobsProbe.model_validate({"name": "Many", "jobs": {"apscheduler": {"url": f"sqlite:///{path}"}}})
    assert run_jobs_probe(probe).result.reason == "watchdog.too_many_jobs"
