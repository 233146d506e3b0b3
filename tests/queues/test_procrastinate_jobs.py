"""Periodic tasks of a real Procrastinate, watched without a change to them: each fault is named with its task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import python_worker_command, run_probe
from tests.support.redis_server import running_worker
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe

SECONDLY = {"every": "1s"}


class Lab:
    def __init__(self, url: str):
        self.url, self.queue = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"
        self.memory: dict[str, Json] = {}

    def worker(self, does: str = "return", **env: str) -> Any:
        told = {"DATABASE": self.url, "QUEUE": self.queue, "PERIODIC": does, **env}
        return running_worker(*python_worker_command("procrastinate_worker.py", **told))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def look(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        jobs = {"procrastinate": {"url": self.url}, "grace": grace, "watch": watch}
        report = asyncio.run(
            run_probe(JobsProbe.model_validate({"name": "Tasks", "jobs": jobs}), probe_state=self.memory)
        )
        self.memory |= report.state_updates
        return report

    def reason(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> str:
        return (self.look(grace, **watch).result.jobs or {}).get("digest", ("", ""))[0]


@pytest.fixture
def lab(postgres: PostgresServer) -> Iterator[Lab]:
    with postgres.temporary_database() as url:
        lab = Lab(url)
        with lab.worker(BEHAVIOR="nothing"):
            pass
        yield lab


def ran(lab: Lab) -> bool:
    return "last_ok" in lab.look().evidence.facts["jobs"].get("digest", {})


def test_every_task_is_found_and_well(lab: Lab) -> None:
    with lab.worker():
        wait_until(lambda: ran(lab))
        report = lab.look(digest=SECONDLY)
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 1, "jobs_failing": 0}


def test_a_killed_worker_makes_its_tasks_overdue_and_is_named_once_it_is_surely_dead(lab: Lab) -> None:
    with lab.worker() as worker:
        wait_until(lambda: ran(lab))
        worker.kill()
        wait_until(lambda: lab.reason("1s", digest=SECONDLY) == "job.overdue")
    lab.sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    dead = lab.look(digest=SECONDLY)
    assert (dead.result.outcome, dead.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    lab.sql("DELETE FROM procrastinate_workers")
    gone = lab.look(digest=SECONDLY)
    assert gone.result.reason == "job.scheduler_dead"
    assert gone.result.message.startswith("no Procrastinate worker is running")
    with lab.worker():
        wait_until(lambda: lab.look("10s", digest=SECONDLY).result.outcome is Outcome.PASS)


def test_a_run_that_nobody_picks_up_is_overdue(lab: Lab) -> None:
    with lab.worker(QUEUE_OF_WORKER="another"):
        wait_until(lambda: lab.reason("1s") == "job.overdue")


def test_a_task_that_throws_has_failed(lab: Lab) -> None:
    with lab.worker("throw"):
        wait_until(lambda: lab.reason(digest={"failures": 2}) == "job.failed")
        _, message, _ = (lab.look(digest={"failures": 2}).result.jobs or {})["digest"]
    assert message.endswith("in a row: Procrastinate does not store the reason")


def test_a_failed_run_that_is_kept_is_mended_by_a_good_one_that_is_not(lab: Lab) -> None:
    with lab.worker("throw"):
        wait_until(lambda: lab.reason("1h") == "job.failed")
    with lab.worker(DELETES="successful"):
        newest = "SELECT 1 FROM procrastinate_periodic_defers WHERE job_id IS NULL"
        wait_until(lambda: lab.sql(newest))
    lab.sql("UPDATE procrastinate_periodic_defers SET job_id = NULL")  # whatever was begun in between
    assert lab.sql("SELECT 1 FROM procrastinate_jobs WHERE status = 'failed'")
    assert lab.reason("1h") == ""


def test_a_task_that_hangs_is_stuck_and_stalled_when_its_worker_is_gone(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        wait_until(lambda: lab.reason("1h", digest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        lab.sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'")
        assert lab.reason("1h") == "job.stalled"


def test_a_role_that_could_write_is_told_of_and_one_that_could_not_is_not(lab: Lab) -> None:
    tables = [f"procrastinate_{name}" for name in ("jobs", "events", "workers", "periodic_defers")]
    admin, lab.url = lab.url, lab.url.replace("postgres@", "looker@")
    told = []
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE looker LOGIN")
        try:
            for right in (f"SELECT ON {', '.join(tables)}", f"UPDATE ON {tables[3]}", f"DELETE ON {tables[0]}"):
                connection.execute(f"GRANT {right} TO looker".encode())
                told.append(lab.look().evidence.facts.get("write_access"))
                connection.execute("REVOKE UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM looker")
        finally:
            connection.execute("DROP OWNED BY looker; DROP ROLE looker")
    rights = "the role needs SELECT on procrastinate_jobs, _events, _workers and _periodic_defers"
    assert told == [None, *[f"looker can write; {rights} only"] * 2]
