"""Periodic tasks of a real Procrastinate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import running_worker
from watchdog.domain.model import Outcome
from watchdog.domain.probe_state import JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY

EVERY_SECOND = {"every": "1s"}


class PeriodicTaskHarness(JobSourceHarness):
    """A database of its own."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self.queue = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"

    def worker(self, behavior: str = "return", **env: str) -> Any:
        env = {"DATABASE": self.url, "QUEUE": self.queue, "PERIODIC": behavior, **env}
        return running_worker(*python_worker_command("procrastinate_worker.py", **env))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def let_workers_be_silent(self, seconds: int) -> None:
        older = f"last_heartbeat - interval '{seconds} seconds'"
        self.sql(f"UPDATE procrastinate_workers SET last_heartbeat = {older}")
        if JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY in self.state:
            self.state[JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY]["heartbeat_at"] -= seconds * 1000

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"procrastinate": {"url": self.url}}


@pytest.fixture
def harness(postgres: PostgresServer) -> Iterator[PeriodicTaskHarness]:
    with postgres.temporary_database() as url:
        harness = PeriodicTaskHarness(url)
        with harness.worker(BEHAVIOR="nothing"):
            pass
        yield harness


def has_run(harness: PeriodicTaskHarness) -> bool:
    return "last_ok" in harness.job_evidence()


def test_every_task_is_read(harness: PeriodicTaskHarness) -> None:
    with harness.worker():
        wait_until(lambda: has_run(harness))
        report = harness.run_probe(digest=EVERY_SECOND)
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 1, "jobs_failing": 0}


def test_a_killed_worker_is_one_problem_after_half_a_minute(harness: PeriodicTaskHarness) -> None:
    with harness.worker() as worker:
        wait_until(lambda: has_run(harness))
        worker.kill()
    time.sleep(3)
    assert harness.source_reason("1s", digest=EVERY_SECOND) == "", "it may be starting again"
    harness.let_workers_be_silent(31)
    dead = harness.run_probe("1s", digest=EVERY_SECOND)
    assert (dead.result.outcome, dead.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    harness.sql("DELETE FROM procrastinate_workers")
    gone = harness.run_probe("1s", digest=EVERY_SECOND)
    assert gone.result.reason == "job.scheduler_dead"
    assert gone.result.message.startswith("no Procrastinate worker is running: the last heartbeat was at ")
    with harness.worker():
        wait_until(lambda: harness.run_probe("10s", digest=EVERY_SECOND).result.outcome is Outcome.PASS)


def test_a_worker_that_is_restarted_in_order_is_no_problem(harness: PeriodicTaskHarness) -> None:
    """It removes itself from the table of workers."""
    with harness.worker() as worker:
        wait_until(lambda: has_run(harness))
        worker.process.terminate()
        worker.process.wait(30)
    assert harness.sql("SELECT 1 FROM procrastinate_workers") == []
    assert harness.source_reason("10s", digest=EVERY_SECOND) == ""


def test_a_dead_worker_is_reported_although_it_was_never_seen_alive(harness: PeriodicTaskHarness) -> None:
    with harness.worker():
        wait_until(lambda: has_run(harness))
    harness.state = {}
    harness.sql("DELETE FROM procrastinate_workers")
    report = harness.run_probe()
    assert report.result.message == "no Procrastinate worker is running: none has ever sent a heartbeat"


def test_an_emptied_table_is_reported(harness: PeriodicTaskHarness) -> None:
    with harness.worker():
        wait_until(lambda: has_run(harness))
    harness.sql("DELETE FROM procrastinate_periodic_defers")
    report = harness.run_probe("1h")
    assert (report.problems or {})["digest"].reason == "job.gone"
    harness.state = {}
    unknown = harness.run_probe("1h")
    assert unknown.result.reason == "job.none_listed"
    assert unknown.result.message.endswith("table procrastinate_periodic_defers is empty")


def test_a_run_that_no_worker_picks_up_is_overdue(harness: PeriodicTaskHarness) -> None:
    """Although the newest run has never waited for longer than a second."""
    with harness.worker(QUEUE_OF_WORKER="another"):
        wait_until(lambda: harness.reason("3s") == "job.overdue")
        first = harness.run_probe("3s").problems
        time.sleep(1)
        later = harness.run_probe("3s").problems
    messages = [(problems or {})["digest"].message for problems in (first, later)]
    assert messages[0] == messages[1], "the first run that waits is the same"


@pytest.mark.parametrize("arguments", ["same", "others"])
def test_each_id_of_a_task_is_overdue_since_its_oldest_run_that_waits(
    harness: PeriodicTaskHarness, arguments: str
) -> None:
    """A new run is added every second, so the newest one is never late."""
    ids = {"export/eu", "export/us"}
    with harness.worker("", PERIODIC_IDS=arguments, QUEUE_OF_WORKER="another"):
        wait_until(lambda: harness.problems("3s").keys() == ids)
        problems = harness.problems("3s")
    assert {name: reason for name, (reason, _) in problems.items()} == dict.fromkeys(ids, "job.overdue")
    if arguments == "same":
        with harness.worker("", PERIODIC_IDS=arguments):
            wait_until(lambda: not harness.problems("3s"))


def test_each_id_of_a_task_has_failures_of_its_own(harness: PeriodicTaskHarness) -> None:
    with harness.worker("", PERIODIC_IDS="others"):
        wait_until(lambda: "3" in harness.problems("1h", rest={"failures": 3}).get("export/eu", ("", ""))[1])
        assert harness.problems("1h", rest={"failures": 3}).keys() == {"export/eu"}


def test_a_run_that_waits_for_its_retry_has_started(harness: PeriodicTaskHarness) -> None:
    with harness.worker("retry"):
        wait_until(lambda: harness.sql("SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND attempts > 0"))
        time.sleep(2)
        assert harness.reason("1s") == ""


def test_a_task_that_throws_has_failed(harness: PeriodicTaskHarness) -> None:
    with harness.worker("throw"):
        wait_until(lambda: harness.reason(digest={"failures": 2}) == "job.failed")
        _, message = (harness.run_probe(digest={"failures": 2}).problems or {})["digest"]
    assert message.endswith("in a row: Procrastinate does not store the reason")


def test_a_success_that_was_removed_clears_a_failure_that_is_kept(harness: PeriodicTaskHarness) -> None:
    with harness.worker("throw"):
        wait_until(lambda: harness.reason("1h") == "job.failed")
    with harness.worker(DELETES="successful"):
        newest = "SELECT 1 FROM procrastinate_periodic_defers WHERE job_id IS NULL"
        wait_until(lambda: harness.sql(newest))
    harness.sql("UPDATE procrastinate_periodic_defers SET job_id = NULL")  # also of runs that have started meanwhile
    assert harness.sql("SELECT 1 FROM procrastinate_jobs WHERE status = 'failed'")
    assert harness.reason("1h") == ""


def test_a_task_that_hangs_is_stuck_and_without_its_worker_stalled(harness: PeriodicTaskHarness) -> None:
    with harness.worker("hang") as worker:
        wait_until(lambda: harness.reason("1h", digest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        harness.let_workers_be_silent(31)
        assert harness.source_reason("1h") == "job.scheduler_dead", "it was the only worker"
        with harness.worker("hang", QUEUE_OF_WORKER="another"):
            wait_until(lambda: harness.reason("1h") == "job.stalled")


def test_a_stalled_run_is_over_once_a_later_run_has_succeeded(harness: PeriodicTaskHarness) -> None:
    with harness.worker("hang") as worker:
        wait_until(lambda: harness.sql("SELECT 1 FROM procrastinate_jobs WHERE status = 'doing'"))
        worker.kill()
        harness.let_workers_be_silent(31)
    with harness.worker():
        wait_until(lambda: has_run(harness) and harness.source_reason("1h") == "")
    assert harness.sql("SELECT 1 FROM procrastinate_jobs WHERE status = 'doing'"), "Procrastinate still lists the run"


def test_a_role_that_can_write_is_reported(harness: PeriodicTaskHarness) -> None:
    tables = [f"procrastinate_{name}" for name in ("jobs", "events", "workers", "periodic_defers")]
    admin, harness.url = harness.url, harness.url.replace("postgres@", "reader@")
    warnings = []
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        try:
            for privilege in (f"SELECT ON {', '.join(tables)}", f"UPDATE ON {tables[3]}", f"DELETE ON {tables[0]}"):
                connection.execute(f"GRANT {privilege} TO reader".encode())
                warnings.append(harness.run_probe().evidence.facts.get("write_access"))
                connection.execute("REVOKE UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM reader")
        finally:
            connection.execute("DROP OWNED BY reader; DROP ROLE reader")
    required = "the role needs SELECT on procrastinate_jobs, _events, _workers and _periodic_defers"
    assert warnings == [None, *[f"reader can write; {required} only"] * 2]
