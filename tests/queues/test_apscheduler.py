"""The job store of a real APScheduler, in SQLite and in PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy

from tests.support.polling import wait_until
from tests.support.probe_runs import JobsRun, python_worker_command, run_jobs_probe
from tests.support.redis_server import running_worker
from watchdog.domain.model import Outcome
from watchdog.probes import JobsProbe


def scheduler(url: str) -> Any:
    return running_worker(*python_worker_command("apscheduler_scheduler.py", DATABASE=url))


def poll(url: str, grace: str = "1m") -> JobsRun:
    source = {"url": url.replace("+psycopg", "")}
    return run_jobs_probe(JobsProbe.model_validate({"name": "Clock", "jobs": {"apscheduler": source, "grace": grace}}))


def test_a_killed_scheduler_makes_its_jobs_overdue(database_url: str) -> None:
    with scheduler(database_url) as process:
        running = poll(database_url, "5s")
        process.kill()
        wait_until(lambda: poll(database_url, "1s").result.outcome is Outcome.FAIL)
    assert (running.result.outcome, running.result.measurements) == (Outcome.PASS, {"jobs": 3, "jobs_failing": 0})
    jobs = poll(database_url, "1s").problems or {}
    assert {name: reason for name, (reason, _) in jobs.items()} == {"digest": "job.overdue"}
    with scheduler(database_url):
        wait_until(lambda: poll(database_url, "5s").result.outcome is Outcome.PASS)


def test_pickled_state_is_not_read(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        blob = "bytea" if connection.dialect.name == "postgresql" else "blob"
        connection.exec_driver_sql(f"CREATE TABLE apscheduler_jobs (id text, next_run_time float8, job_state {blob})")
        connection.exec_driver_sql("INSERT INTO apscheduler_jobs VALUES ('digest', 0.5, 'poison')")
    engine.dispose()
    report = poll(database_url)
    assert (report.problems or {})["digest"][0] == "job.overdue"
    warning = "postgres can write to apscheduler_jobs; SELECT is enough"
    assert report.evidence.facts.get("write_access") == (None if database_url.startswith("sqlite") else warning)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["'soon'", "9e999"])
def test_a_value_that_is_not_a_time(database_url: str, value: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE apscheduler_jobs (id text, next_run_time, job_state blob)")
        connection.exec_driver_sql(f"INSERT INTO apscheduler_jobs VALUES ('digest', {value}, '')")
    engine.dispose()
    assert poll(database_url).result.reason == "database.column_invalid"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_without_the_table(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    engine.connect().close()
    engine.dispose()
    report = poll(database_url)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.table_missing")
    assert report.result.message == "table apscheduler_jobs does not exist: APScheduler creates it when it starts"
