"""Queue statistics of pg-boss and Procrastinate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import ValidationError

from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command, poll_queue, python_worker_command, queue_probe
from tests.support.redis_server import running_worker
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.queues import QueueConnectContext
from watchdog.queues.clients.postgres import open_postgres_queue_session
from watchdog.queues.pgboss.stats import PgbossQueueStatsSource

NBSP = "\N{NO-BREAK SPACE}"
MINUTE_MS = 60_000
FAILURE_RATIO_RULE = {"failure_ratio": {"over": 0.2, "within": "1h", "min_samples": 4}}


class PostgresQueue:
    def __init__(self, url: str):
        self.url, self.name = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


def counts(report: ResultToRecord) -> dict[str, Any]:
    """The measurements without ages, which depend on timing."""
    assert report.result.outcome is Outcome.PASS, report.result.message
    values = dict(report.result.measurements)
    assert isinstance(values.pop("oldest", 0), int)
    return values


async def fetch_all(url: str, statement: str) -> None:
    system = PgbossQueueStatsSource.model_validate({"url": url, "queue": "report"})
    async with (
        NetworkAccess() as network,
        open_postgres_queue_session(system, QueueConnectContext(network, PhaseTimer(), True, 3.0, 0), "") as session,
    ):
        await session.fetch_all(statement)


@pytest.mark.parametrize("statement", ["INSERT INTO jobs VALUES (1)", "DELETE FROM jobs"])
def test_a_session_is_read_only(postgres: PostgresServer, statement: str) -> None:
    with postgres.temporary_database() as url:
        harness = PostgresQueue(url)
        harness.sql("CREATE TABLE jobs AS SELECT 0 AS id")
        with pytest.raises(ProbeError, match="in a read-only transaction"):
            asyncio.run(fetch_all(harness.url, statement))
        assert harness.sql("SELECT id FROM jobs") == [(0,)]


# --- pg-boss


class PgbossQueue(PostgresQueue):
    def __init__(self, url: str, peers: ThirdPartyServers):
        super().__init__(url)
        self.peers, self.system = peers, {"pgboss": {"url": self.url, "queue": self.name}}

    def worker(self, behavior: str) -> Any:
        values = {"DATABASE": self.url, "QUEUE": self.name, "BEHAVIOR": behavior, "OPTIONS": '{"retryLimit": 0}'}
        return running_worker(*node_worker_command(self.peers, "pgboss_worker.cjs", **values))

    def create_queue(self) -> None:
        self.sql("SELECT pgboss.create_queue(%s, %s::jsonb)", self.name, '{"policy": "standard"}')

    def add(self, n: int, start: str = "now()", state: str = "created", ended: str = "NULL") -> None:
        self.sql(
            f"""
            INSERT INTO pgboss.job (name, policy, retry_limit, start_after, state, completed_on)
            SELECT %s, 'standard', 0, {start}, '{state}', {ended} FROM generate_series(1, %s)
            """,
            self.name,
            n,
        )

    def count(self, state: str) -> int:
        ((n,),) = self.sql("SELECT count(*) FROM pgboss.job WHERE name = %s AND state::text = %s", self.name, state)
        return int(n)


@pytest.fixture(scope="module")
def pgboss_url(postgres: PostgresServer, peers: ThirdPartyServers) -> Iterator[str]:
    """A database with the tables of pg-boss."""
    with postgres.temporary_database() as url:
        with PgbossQueue(url, peers).worker("nothing"):
            pass
        yield url


@pytest.fixture
def pgboss(pgboss_url: str, peers: ThirdPartyServers) -> PgbossQueue:
    return PgbossQueue(pgboss_url, peers)


def test_pgboss_counts(pgboss: PgbossQueue) -> None:
    with pgboss.worker("throw"):
        pgboss.add(2)
        wait_until(lambda: pgboss.count("failed") == 2)
    with pgboss.worker("hang"):
        pgboss.add(1)
        wait_until(lambda: pgboss.count("active") == 1)
        pgboss.add(3)
        pgboss.add(1, "now() + interval '1 hour'")
        first = poll_queue(pgboss.system)
        assert counts(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = poll_queue(pgboss.system, after_ms=10 * MINUTE_MS, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc_timestamp(first.result.slot, later.result.slot)
    assert later.result.message == f"no job has been started since {since}: 3 waiting"
    with pgboss.worker("return"):
        wait_until(lambda: pgboss.count("created") == 1)
        assert poll_queue(pgboss.system, after_ms=20 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS


def test_pgboss_the_head_of_the_queue_changes(pgboss: PgbossQueue) -> None:
    pgboss.create_queue()
    pgboss.add(2)
    first = poll_queue(pgboss.system)
    pgboss.sql(
        """
        UPDATE pgboss.job SET state = 'active' WHERE id = (
            SELECT id FROM pgboss.job WHERE name = %s ORDER BY priority DESC, created_on, id LIMIT 1
        )
        """,
        pgboss.name,
    )
    assert poll_queue(pgboss.system, after_ms=10 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS


def test_pgboss_the_age_of_the_oldest_job(pgboss: PgbossQueue) -> None:
    pgboss.create_queue()
    pgboss.add(1, "now() - interval '1 hour'")
    report = poll_queue(pgboss.system, {"oldest": {"over": "15m"}})
    assert report.result.message == f"oldest job waiting for 1{NBSP}h, limit 15{NBSP}min"
    assert report.evidence.facts["oldest"] == f"1{NBSP}h"


def test_pgboss_the_failure_ratio(pgboss: PgbossQueue) -> None:
    pgboss.create_queue()
    pgboss.add(9, state="completed", ended="now() - interval '2 hours'")
    pgboss.add(3, state="completed", ended="now()")
    pgboss.add(9, state="failed", ended="now() - interval '2 hours'")
    assert poll_queue(pgboss.system, FAILURE_RATIO_RULE).result.outcome is Outcome.PASS
    pgboss.add(1, state="failed", ended="now()")
    report = poll_queue(pgboss.system, FAILURE_RATIO_RULE)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.failure_ratio")
    assert report.result.message == f"25% of 4{NBSP}jobs failed within 1{NBSP}h, limit 20%"


def test_pgboss_a_missing_queue(pgboss: PgbossQueue) -> None:
    report = poll_queue(pgboss.system)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == f"queue '{pgboss.name}' does not exist in schema 'pgboss'"


def test_pgboss_a_role_that_can_only_read(pgboss: PgbossQueue) -> None:
    pgboss.create_queue()
    pgboss.add(1)
    pgboss.sql(
        """
        CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA pgboss TO reader;
        GRANT SELECT ON pgboss.version, pgboss.queue, pgboss.job TO reader
        """
    )
    try:
        url = pgboss.url.replace("postgres@", "reader@")
        assert counts(poll_queue({"pgboss": {"url": url, "queue": pgboss.name}}))["waiting"] == 1
    finally:
        pgboss.sql("DROP OWNED BY reader; DROP ROLE reader")


def test_pgboss_counts_that_take_too_long_are_omitted(pgboss: PgbossQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    pgboss.create_queue()
    pgboss.add(1)
    monkeypatch.setattr(
        "watchdog.queues.pgboss.stats.PGBOSS_FINISHED_COUNTS_SQL", "SELECT pg_sleep(60), %(queue)s, %(window_ms)s"
    )
    monkeypatch.setattr("watchdog.queues.clients.postgres.STORED_JOBS_COUNT_TIMEOUT_S", 0.2)
    report = poll_queue(pgboss.system)
    assert counts(report) == {"waiting": 1, "active": 0, "delayed": 0}
    values = "PostgreSQL timed out: canceling statement due to statement timeout"
    assert report.evidence.facts["counts_unavailable"] == values
    assert poll_queue(pgboss.system, {"failed": {"over": 50}}).result.reason == "queue.metric_unavailable"


# --- Procrastinate


class ProcrastinateQueue(PostgresQueue):
    def __init__(self, url: str):
        super().__init__(url)
        self.system = {"procrastinate": {"url": self.url, "queue": self.name}}

    def worker(self, **env: str) -> Any:
        return running_worker(
            *python_worker_command("procrastinate_worker.py", DATABASE=self.url, QUEUE=self.name, **env)
        )

    def add(self, task: str, n: int = 1, at: str = "NULL", lock: str | None = None, args: str = "{}") -> None:
        self.sql(
            f"""
            INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, scheduled_at)
            SELECT %s, %s, %s, %s::jsonb, {at} FROM generate_series(1, %s)
            """,
            self.name,
            task,
            lock,
            args,
            n,
        )

    def count(self, status: str) -> int:
        statement = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %s AND status::text = %s"
        ((n,),) = self.sql(statement, self.name, status)
        return int(n)


@pytest.fixture(scope="module")
def procrastinate_url(postgres: PostgresServer) -> Iterator[str]:
    """A database with the tables of Procrastinate."""
    with postgres.temporary_database() as url:
        with ProcrastinateQueue(url).worker(BEHAVIOR="nothing"):
            pass
        yield url


@pytest.fixture
def procrastinate(procrastinate_url: str) -> ProcrastinateQueue:
    procrastinate = ProcrastinateQueue(procrastinate_url)
    procrastinate.sql("DELETE FROM procrastinate_workers")
    return procrastinate


def test_procrastinate_counts(procrastinate: ProcrastinateQueue) -> None:
    with procrastinate.worker():
        procrastinate.add("throw", 2)
        wait_until(lambda: procrastinate.count("failed") == 2)
        procrastinate.add("hang")
        wait_until(lambda: procrastinate.count("doing") == 1)
        procrastinate.add("echo", 3)
        procrastinate.add("echo", at="now() + interval '1 hour'")
        first = poll_queue(procrastinate.system)
        assert counts(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = poll_queue(procrastinate.system, after_ms=10 * MINUTE_MS, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc_timestamp(first.result.slot, later.result.slot)
    assert later.result.message == f"no job has been started since {since}: 3 waiting"
    with procrastinate.worker():
        wait_until(lambda: procrastinate.count("todo") == 1)
        assert (
            poll_queue(procrastinate.system, after_ms=20 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS
        )


def test_procrastinate_a_job_that_waits_for_a_lock_is_not_the_head(procrastinate: ProcrastinateQueue) -> None:
    procrastinate.add("hang", lock="one")
    procrastinate.sql("UPDATE procrastinate_jobs SET status = 'doing' WHERE queue_name = %s", procrastinate.name)
    procrastinate.add("echo", lock="one")
    procrastinate.add("echo", 2)
    first = poll_queue(procrastinate.system)
    procrastinate.sql(
        """
        UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = (
            SELECT min(id) FROM procrastinate_jobs WHERE queue_name = %s AND lock IS NULL
        )
        """,
        procrastinate.name,
    )
    assert poll_queue(procrastinate.system, after_ms=10 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS
    assert (
        poll_queue(
            procrastinate.system, after_ms=10 * MINUTE_MS, first_result=poll_queue(procrastinate.system)
        ).result.reason
        == "queue.stalled"
    )


def test_procrastinate_the_failure_ratio(procrastinate: ProcrastinateQueue) -> None:
    with procrastinate.worker():
        procrastinate.add("throw", 4)
        wait_until(lambda: procrastinate.count("failed") == 4)
        assert poll_queue(procrastinate.system, FAILURE_RATIO_RULE).result.reason == "queue.metric_unavailable"
        procrastinate.add("echo", 12, args='{"name": "report"}')
        wait_until(lambda: procrastinate.count("succeeded") == 12)
    report = poll_queue(procrastinate.system, FAILURE_RATIO_RULE)
    assert report.result.message == f"25% of 16{NBSP}jobs failed within 1{NBSP}h, limit 20%"
    procrastinate.sql("UPDATE procrastinate_events SET at = at - interval '2 hours'")
    assert poll_queue(procrastinate.system, FAILURE_RATIO_RULE).result.outcome is Outcome.PASS


def test_procrastinate_does_not_report_consumers(procrastinate: ProcrastinateQueue) -> None:
    assert "consumers" not in poll_queue(procrastinate.system).result.measurements
    with pytest.raises(ValidationError, match="Procrastinate does not report it"):
        queue_probe(procrastinate.system, {"consumers": {"under": 1}})


def test_procrastinate_missing_tables(postgres: PostgresServer) -> None:
    with postgres.temporary_database() as url:
        report = poll_queue({"procrastinate": {"url": url.replace("+psycopg", ""), "queue": "report"}})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")


def test_a_server_that_is_down() -> None:
    url = f"postgresql://127.0.0.1:{find_free_port()}/app"
    for system in ("pgboss", "procrastinate"):
        report = poll_queue({system: {"url": url, "queue": "report"}})
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert report.result.message.endswith("connection refused")
