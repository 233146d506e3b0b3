"""The jobs of a source with many are evaluated in the worker process, with the same result."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.probe_runs import JobsRun, run_jobs_probe
from watchdog.probes import JobsProbe
from watchdog.probes.jobs import MAX_INLINE_JOBS


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
    few, many = source(tmp_path, MAX_INLINE_JOBS), source(tmp_path, MAX_INLINE_JOBS + 1)
    there = run_jobs_probe(many)
    assert "judge" not in run_jobs_probe(few).result.phases
    assert "judge" in there.result.phases
    again = run_jobs_probe(many, there.state_updates)
    monkeypatch.setattr("watchdog.probes.jobs.MAX_INLINE_JOBS", 10_000)
    here = run_jobs_probe(many)
    assert "judge" not in here.result.phases
    assert without_times(there) == without_times(here)
    assert without_times(again) == without_times(run_jobs_probe(many, here.state_updates))
    assert there.problems
