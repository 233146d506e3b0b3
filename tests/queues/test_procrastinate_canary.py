"""Canary jobs through Procrastinate: what other systems do not have."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.postgres import PostgresServer
from tests.support.probe_runs import run_probe
from tests.support.queue_harness import NBSP
from tests.support.queue_harnesses import ProcrastinateHarness
from watchdog.domain.model import Outcome


@pytest.fixture(scope="module")
def system() -> type[ProcrastinateHarness]:
    return ProcrastinateHarness


def test_the_message_counts_waiting_jobs(harness: ProcrastinateHarness) -> None:
    row = "INSERT INTO procrastinate_jobs (queue_name, task_name, scheduled_at, status) VALUES (%s, 'x', "
    harness.execute(f"{row} now() - interval '1 hour', 'todo')", harness.queue_name)
    harness.execute(f"{row} now() + interval '1 hour', 'todo')", harness.queue_name)
    harness.execute(f"{row} now() - interval '2 hours', 'doing')", harness.queue_name)
    harness.execute("INSERT INTO procrastinate_workers DEFAULT VALUES")
    message = harness.run_probe(start_within="100ms").result.message
    assert message == f"canary job not picked up within 100{NBSP}ms: 2 waiting, 1 active, oldest 1{NBSP}h"


def test_a_job_that_waits_for_a_retry_is_not_finished(harness: ProcrastinateHarness) -> None:
    with harness.running_worker():
        report = harness.run_probe({"task": "retry_later"}, finish_within="3s")
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished within 3{NBSP}s: it failed and waits for a retry")
    assert harness.job_states() == []


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_the_finished_sentinel_of_a_killed_process_is_removed(harness: ProcrastinateHarness, status: str) -> None:
    harness.abandon_sentinel(5_000)
    harness.execute("UPDATE procrastinate_jobs SET status = %s WHERE queue_name = %s", status, harness.queue_name)
    report = asyncio.run(run_probe(harness.build_probe(**harness.short_limits), 6_000, previous_slot=5_000))
    assert report.result.reason == "canary.not_picked_up"
    assert report.result.measurements["waiting"] == 1
    assert harness.job_states() == []


def test_a_database_without_procrastinate(postgres: PostgresServer) -> None:
    with postgres.temporary_database() as url:
        report = ProcrastinateHarness(url).run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == "Procrastinate is not in this database: table procrastinate_jobs is missing"


GRANTS_SQL = """
    GRANT SELECT, INSERT, DELETE ON procrastinate_jobs TO monitor;
    GRANT SELECT, INSERT ON procrastinate_events TO monitor;
    GRANT USAGE ON SEQUENCE procrastinate_jobs_id_seq, procrastinate_events_id_seq TO monitor;
    GRANT SELECT, UPDATE ON procrastinate_periodic_defers TO monitor;
    GRANT SELECT ON procrastinate_workers TO monitor;
"""


def test_the_required_privileges(harness: ProcrastinateHarness) -> None:
    monitor = {"url": harness.probed_url.replace("postgres@", "monitor@")}
    harness.execute("CREATE ROLE monitor LOGIN")
    try:
        refused = harness.run_probe(monitor)
        harness.execute(GRANTS_SQL)
        with harness.running_worker():
            allowed = harness.run_probe(monitor)
    finally:
        harness.execute("DROP OWNED BY monitor; DROP ROLE monitor")
    assert (refused.result.outcome, refused.result.reason) == (Outcome.FAIL, "broker.refused")
    assert "the role needs SELECT, INSERT and DELETE on procrastinate_jobs" in refused.result.message
    assert allowed.result.outcome is Outcome.PASS
    assert harness.job_states() == []
