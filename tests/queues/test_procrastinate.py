"""A sentinel through a real queue of Procrastinate, with real workers: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.mcp_peers import free_port
from tests.patience import until
from tests.postgres import Postgres
from tests.queues.runs import canary, once, python
from tests.redis_server import Worker, working
from watchdog.model import Outcome, Report
from watchdog.probes import CanaryProbe
from watchdog.probes.base import idempotency_key

NBSP = "\N{NO-BREAK SPACE}"
HANG: dict[str, Any] = {"task": "hang"}


class Lab:
    """One queue of its own in a database where Procrastinate keeps its jobs."""

    def __init__(self, url: str):
        self.url, self.queue = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"

    def worker(self, **env: str) -> Any:
        return working(*python("procrastinate_worker.py", DATABASE=self.url, QUEUE=self.queue, **env))

    def probe(self, procrastinate: dict[str, Any] | None = None, **job: Any) -> CanaryProbe:
        system = {"url": self.url, "queue": self.queue, **(procrastinate or {})}
        return canary({"procrastinate": system, "start_within": "3s", "finish_within": "5s", **job})

    def once(self, procrastinate: dict[str, Any] | None = None, **job: Any) -> Report:
        return asyncio.run(once(self.probe(procrastinate, **job)))

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def states(self) -> list[str]:
        """Of the jobs in the queue."""
        return [s for (s,) in self.sql("SELECT status::text FROM procrastinate_jobs WHERE queue_name = %s", self.queue)]

    def beats_stop(self) -> None:
        """What half a minute of silence comes to."""
        self.sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    """A database in which Procrastinate has made its tables."""
    with postgres.fresh() as url:
        with Lab(url).worker(DOES="nothing"):
            pass
        yield url


@pytest.fixture
def lab(database: str) -> Lab:
    lab = Lab(database)
    lab.sql("DELETE FROM procrastinate_workers")
    return lab


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: Lab) -> None:
    with lab.worker():
        report = lab.once()
    result = report.result
    assert (result.outcome, result.reason, result.message) == (Outcome.PASS, "", "")
    assert list(result.phases) == ["connect", "enqueue", "pick_up", "finish"]
    assert 0 <= (result.duration or -1) < 5_000
    assert report.evidence.facts == {"sentinel": idempotency_key("pipeline", result.slot)}
    assert not report.remember
    assert lab.states() == []
    assert lab.sql("SELECT count(*) FROM procrastinate_events") == [(0,)]


def test_a_task_of_ones_own(lab: Lab) -> None:
    with lab.worker():
        assert lab.once({"task": "whose", "args": {"name": "canary"}}).result.outcome is Outcome.PASS


def test_nobody_works(lab: Lab) -> None:
    report = lab.once(start_within="500ms")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "not_picked_up")
    assert report.result.message.startswith(f"not picked up in 500{NBSP}ms: no worker, 1 waiting, oldest ")
    assert report.result.measurements == {"waiting": 1, "consumers": 0}
    assert lab.states() == []


def test_what_waits_is_told(lab: Lab) -> None:
    row = "INSERT INTO procrastinate_jobs (queue_name, task_name, scheduled_at, status) VALUES (%s, 'x', "
    lab.sql(f"{row} now() - interval '1 hour', 'todo')", lab.queue)
    lab.sql(f"{row} now() + interval '1 hour', 'todo')", lab.queue)
    lab.sql(f"{row} now() - interval '2 hours', 'doing')", lab.queue)
    lab.sql("INSERT INTO procrastinate_workers DEFAULT VALUES")
    message = lab.once(start_within="100ms").result.message
    assert message == f"not picked up in 100{NBSP}ms: 1 active, 2 waiting, oldest 1{NBSP}h"


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker() as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        assert lab.once(start_within="200ms").result.reason == "not_picked_up"
    with lab.worker():
        assert lab.once().result.outcome is Outcome.PASS
    assert lab.states() == []


def test_a_job_that_throws_has_failed_and_nothing_says_why(lab: Lab) -> None:
    with lab.worker():
        report = lab.once({"task": "throw"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_failed")
    assert report.result.message == "the job failed: Procrastinate does not keep the reason"
    assert lab.states() == []


def test_a_job_that_is_to_be_tried_again_is_not_finished(lab: Lab) -> None:
    with lab.worker():
        report = lab.once({"task": "again"}, finish_within="3s")
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith(f"not finished in 3{NBSP}s: it failed, and waits for another try")
    assert lab.states() == []


def test_a_job_that_hangs_is_not_followed_by_another(lab: Lab) -> None:
    with lab.worker() as worker:
        first = lab.once(HANG, finish_within="3s")
        assert (first.result.outcome, first.result.reason) == (Outcome.FAIL, "not_finished")
        assert first.result.message.startswith("picked up after ")
        ref = first.evidence.facts["sentinel"]
        assert first.remember == {"flight": [ref, first.result.slot]}

        async def next_one(since: int) -> Report:
            flight = {"flight": [ref, first.result.slot - since]}
            return await once(lab.probe(), first.result.slot + 1, first.result.slot, flight)

        soon = asyncio.run(next_one(0))
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "in_flight")
        late = asyncio.run(next_one(60_000))
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "not_finished")
        assert lab.states() == ["doing"]
        worker.kill()
        lab.beats_stop()
    with lab.worker():
        again = asyncio.run(next_one(60_000))
        assert again.result.outcome is Outcome.PASS
        assert again.remember == {"flight": None}
    assert lab.states() == []


def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: Lab) -> None:
    async def dying(worker: Worker) -> Report:
        flying = asyncio.create_task(once(lab.probe(HANG, start_within="2s", finish_within="3s")))
        await until(lambda: lab.states() == ["doing"])
        os.kill(worker.process.pid, signal.SIGKILL)
        lab.beats_stop()
        return await flying

    with lab.worker() as worker:
        report = asyncio.run(dying(worker))
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith(f"not finished in 3{NBSP}s: its worker is gone")
    assert lab.states() == []


@pytest.mark.parametrize(
    ("meddle", "reason", "message"),
    [
        (
            "DELETE FROM procrastinate_jobs",
            "job_vanished",
            "the sentinel vanished, before anybody was seen to pick it up",
        ),
        (
            "UPDATE procrastinate_jobs SET status = 'cancelled'",
            "job_failed",
            "the job failed: somebody cancelled it",
        ),
    ],
)
def test_a_job_that_somebody_meddles_with(lab: Lab, meddle: str, reason: str, message: str) -> None:
    async def meddled() -> Report:
        flying = asyncio.create_task(once(lab.probe()))
        await until(lab.states)
        lab.sql(f"{meddle} WHERE queue_name = %s", lab.queue)
        return await flying

    report = asyncio.run(meddled())
    assert (report.result.reason, report.result.message) == (reason, message)
    assert lab.states() == []


@pytest.mark.parametrize("became", ["todo", "succeeded", "failed"])
def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab, became: str) -> None:
    probe = lab.probe(start_within="500ms")

    async def dies() -> None:
        flying = asyncio.create_task(once(probe, 5_000))
        await until(lab.states)
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)

    asyncio.run(dies())
    assert lab.states() == ["todo"]
    lab.sql("UPDATE procrastinate_jobs SET status = %s WHERE queue_name = %s", became, lab.queue)
    report = asyncio.run(once(probe, 6_000, prev=5_000))
    assert report.result.reason == "not_picked_up"
    assert report.result.measurements["waiting"] == 1
    assert lab.states() == []


def test_sending_a_slot_twice_makes_one_job(lab: Lab) -> None:
    most = 0

    async def twice() -> None:
        nonlocal most
        flying = [asyncio.create_task(once(lab.probe(start_within="500ms"), 5_000)) for _ in range(2)]
        while not all(task.done() for task in flying):
            most = max(most, len(lab.states()))
            await asyncio.sleep(0.02)

    asyncio.run(twice())
    assert most == 1
    assert lab.states() == []


def test_a_database_without_procrastinate(postgres: Postgres) -> None:
    with postgres.fresh() as url:
        report = Lab(url).once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue_missing")
    assert report.result.message == "no Procrastinate in this database: it has no table procrastinate_jobs"


RIGHTS = """
    GRANT SELECT, INSERT, DELETE ON procrastinate_jobs TO monitor;
    GRANT SELECT, INSERT ON procrastinate_events TO monitor;
    GRANT USAGE ON SEQUENCE procrastinate_jobs_id_seq, procrastinate_events_id_seq TO monitor;
    GRANT SELECT, UPDATE ON procrastinate_periodic_defers TO monitor;
    GRANT SELECT ON procrastinate_workers TO monitor;
"""


def test_a_role_with_few_rights(lab: Lab) -> None:
    own = lab.url
    lab.sql("CREATE ROLE monitor LOGIN")
    try:
        lab.url = own.replace("postgres@", "monitor@")
        refused = lab.once()
        lab.url = own
        lab.sql(RIGHTS)
        with lab.worker():
            lab.url = own.replace("postgres@", "monitor@")
            allowed = lab.once()
    finally:
        lab.url = own
        lab.sql("DROP OWNED BY monitor; DROP ROLE monitor")
    assert (refused.result.outcome, refused.result.reason) == (Outcome.FAIL, "broker_refused")
    assert "the role needs SELECT, INSERT and DELETE on procrastinate_jobs" in refused.result.message
    assert allowed.result.outcome is Outcome.PASS
    assert lab.states() == []


def test_a_broker_that_is_down_is_unreachable() -> None:
    port = free_port()
    report = Lab(f"postgresql://postgres@127.0.0.1:{port}/app").once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{port}: connection refused"
