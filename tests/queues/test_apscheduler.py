"""The job store of a real APScheduler, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy

from tests.support.polling import wait_until
from tests.support.probe_runs import JobsRun, python_worker_command, run_jobs_probe
from tests.support.redis_server import running_worker
from watchdog.domain.model import Json, Outcome
from watchdog.probes import JobsProbe


def scheduler(url: str) -> Any:
    return running_worker(*python_worker_command("apscheduler_scheduler.py", DATABASE=url))


def poll(url: str, grace: str = "1m", state: Mapping[str, Json] | None = None) -> JobsRun:
    source = {"url": url.replace("+psycopg", "")}
    probe = JobsProbe.model_validate({"name": "Clock", "jobs": {"apscheduler": source, "grace": grace}})
    return run_jobs_probe(probe, state)


def updated(state: Mapping[str, Json], run: JobsRun) -> dict[str, Json]:
    return {key: value for key, value in {**state, **run.state_updates}.items() if value is not None}


def test_a_killed_scheduler_is_one_problem(database_url: str) -> None:
    with scheduler(database_url) as process:
        running = poll(database_url, "5s")
        process.kill()
        wait_until(lambda: poll(database_url, "1s").result.outcome is Outcome.FAIL)
    assert (running.result.outcome, running.result.measurements) == (Outcome.PASS, {"jobs": 3, "jobs_failing": 0})
    dead = poll(database_url, "1s")
    assert (dead.result.reason, dead.problems) == ("job.scheduler_dead", None)
    assert dead.result.message.startswith("no APScheduler is running: digest was due at ")
    with scheduler(database_url):
        wait_until(lambda: poll(database_url, "5s").result.outcome is Outcome.PASS)


def test_an_emptied_job_store_and_its_jobs_restored(database_url: str) -> None:
    with scheduler(database_url):
        first = poll(database_url, "5s")
        state = updated({}, first)
        wait_until(lambda: poll(database_url, "5s", state).state_updates)  # digest has run, so it is no one-off job
        state = updated(state, poll(database_url, "5s", state))
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE backup AS SELECT * FROM apscheduler_jobs")
        connection.exec_driver_sql("DELETE FROM apscheduler_jobs")
    emptied = poll(database_url, "1h", state)
    assert (emptied.result.reason, emptied.problems) == ("job.most_gone", {})
    message = "table apscheduler_jobs is empty; none of its 2 jobs is listed any more: digest, nightly"
    assert emptied.result.message == message
    state = updated(state, emptied)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO apscheduler_jobs SELECT * FROM backup WHERE id <> 'nightly'")
    engine.dispose()
    restored = poll(database_url, "1h", state)
    assert {name: problem.reason for name, problem in (restored.problems or {}).items()} == {"nightly": "job.gone"}


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
