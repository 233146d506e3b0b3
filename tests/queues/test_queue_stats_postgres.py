"""Looks into real queues that live in PostgreSQL: what is counted, what is missing, and whether anybody works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import ValidationError

from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command, poll_queue, python_worker_command, queue_probe
from tests.support.redis_server import running_worker
from tests.support.third_party import ThirdPartyServers, find_free_port
from watchdog.domain.formatting import format_utc
from watchdog.domain.model import Outcome, RecordedResult
from watchdog.net import Network, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.queues import ConnectContext
from watchdog.queues.clients.postgres import open_postgres_session
from watchdog.queues.pgboss.stats import PgbossStatsSource

NBSP = "\N{NO-BREAK SPACE}"
MIN = 60_000
SHARE = {"failure_ratio": {"over": 0.2, "within": "1h", "min_samples": 4}}


class Lab:
    def __init__(self, url: str):
        self.url, self.name = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


def figures(report: RecordedResult) -> dict[str, Any]:
    """What was counted; ages, which nobody can foretell, are left out."""
    assert report.result.outcome is Outcome.PASS, report.result.message
    told = dict(report.result.measurements)
    assert isinstance(told.pop("oldest", 0), int)
    return told


async def asked(url: str, statement: str) -> None:
    system = PgbossStatsSource.model_validate({"url": url, "queue": "report"})
    async with (
        Network() as wire,
        open_postgres_session(system, ConnectContext(wire, PhaseTimer(), True, 3.0, 0), "") as session,
    ):
        await session.fetch_all(statement)


@pytest.mark.parametrize("statement", ["INSERT INTO jobs VALUES (1)", "DELETE FROM jobs"])
def test_who_only_looks_cannot_write(postgres: PostgresServer, statement: str) -> None:
    with postgres.temporary_database() as url:
        lab = Lab(url)
        lab.sql("CREATE TABLE jobs AS SELECT 0 AS id")
        with pytest.raises(ProbeError, match="in a read-only transaction"):
            asyncio.run(asked(lab.url, statement))
        assert lab.sql("SELECT id FROM jobs") == [(0,)]


# --- pg-boss


class Boss(Lab):
    def __init__(self, url: str, peers: ThirdPartyServers):
        super().__init__(url)
        self.peers, self.system = peers, {"pgboss": {"url": self.url, "queue": self.name}}

    def worker(self, does: str) -> Any:
        told = {"DATABASE": self.url, "QUEUE": self.name, "BEHAVIOR": does, "OPTIONS": '{"retryLimit": 0}'}
        return running_worker(*node_worker_command(self.peers, "pgboss_worker.cjs", **told))

    def make(self) -> None:
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
def bossed(postgres: PostgresServer, peers: ThirdPartyServers) -> Iterator[str]:
    """A database in which pg-boss has made its tables."""
    with postgres.temporary_database() as url:
        with Boss(url, peers).worker("nothing"):
            pass
        yield url


@pytest.fixture
def boss(bossed: str, peers: ThirdPartyServers) -> Boss:
    return Boss(bossed, peers)


def test_pgboss_what_is_there_is_counted(boss: Boss) -> None:
    with boss.worker("throw"):
        boss.add(2)
        wait_until(lambda: boss.count("failed") == 2)
    with boss.worker("hang"):
        boss.add(1)
        wait_until(lambda: boss.count("active") == 1)
        boss.add(3)
        boss.add(1, "now() + interval '1 hour'")
        first = poll_queue(boss.system)
        assert figures(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = poll_queue(boss.system, after_ms=10 * MIN, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc(first.result.slot, later.result.slot)
    assert later.result.message == f"no job taken since {since}: 3 waiting"
    with boss.worker("return"):
        wait_until(lambda: boss.count("created") == 1)
        assert poll_queue(boss.system, after_ms=20 * MIN, first_result=first).result.outcome is Outcome.PASS


def test_pgboss_another_job_is_the_next(boss: Boss) -> None:
    boss.make()
    boss.add(2)
    first = poll_queue(boss.system)
    boss.sql(
        """
        UPDATE pgboss.job SET state = 'active' WHERE id = (
            SELECT id FROM pgboss.job WHERE name = %s ORDER BY priority DESC, created_on, id LIMIT 1
        )
        """,
        boss.name,
    )
    assert poll_queue(boss.system, after_ms=10 * MIN, first_result=first).result.outcome is Outcome.PASS


def test_pgboss_old_is_what_could_have_been_taken_long_ago(boss: Boss) -> None:
    boss.make()
    boss.add(1, "now() - interval '1 hour'")
    report = poll_queue(boss.system, {"oldest": {"over": "15m"}})
    assert report.result.message == f"oldest 1{NBSP}h, limit 15{NBSP}min"
    assert report.evidence.facts["oldest"] == f"1{NBSP}h"


def test_pgboss_the_share_of_failures(boss: Boss) -> None:
    boss.make()
    boss.add(9, state="completed", ended="now() - interval '2 hours'")
    boss.add(3, state="completed", ended="now()")
    boss.add(9, state="failed", ended="now() - interval '2 hours'")
    assert poll_queue(boss.system, SHARE).result.outcome is Outcome.PASS
    boss.add(1, state="failed", ended="now()")
    report = poll_queue(boss.system, SHARE)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.failure_ratio")
    assert report.result.message == f"25% of 4{NBSP}jobs failed within 1{NBSP}h, limit 20%"


def test_pgboss_a_queue_that_is_not_there(boss: Boss) -> None:
    report = poll_queue(boss.system)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == f"queue '{boss.name}' does not exist in schema 'pgboss'"


def test_pgboss_a_role_that_may_only_read(boss: Boss) -> None:
    boss.make()
    boss.add(1)
    boss.sql(
        """
        CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA pgboss TO reader;
        GRANT SELECT ON pgboss.version, pgboss.queue, pgboss.job TO reader
        """
    )
    try:
        url = boss.url.replace("postgres@", "reader@")
        assert figures(poll_queue({"pgboss": {"url": url, "queue": boss.name}}))["waiting"] == 1
    finally:
        boss.sql("DROP OWNED BY reader; DROP ROLE reader")


def test_pgboss_what_takes_too_long_to_count_is_left_out(boss: Boss, monkeypatch: pytest.MonkeyPatch) -> None:
    boss.make()
    boss.add(1)
    monkeypatch.setattr(
        "watchdog.queues.pgboss.stats.FINISHED_COUNTS_SQL", "SELECT pg_sleep(60), %(queue)s, %(window_ms)s"
    )
    monkeypatch.setattr("watchdog.queues.clients.postgres.FULL_COUNT_TIMEOUT_S", 0.2)
    report = poll_queue(boss.system)
    assert figures(report) == {"waiting": 1, "active": 0, "delayed": 0}
    told = "PostgreSQL timed out: canceling statement due to statement timeout"
    assert report.evidence.facts["counts_unavailable"] == told
    assert poll_queue(boss.system, {"failed": {"over": 50}}).result.reason == "queue.metric_unavailable"


# --- Procrastinate


class Crast(Lab):
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
def deferred(postgres: PostgresServer) -> Iterator[str]:
    """A database in which Procrastinate has made its tables."""
    with postgres.temporary_database() as url:
        with Crast(url).worker(BEHAVIOR="nothing"):
            pass
        yield url


@pytest.fixture
def crast(deferred: str) -> Crast:
    crast = Crast(deferred)
    crast.sql("DELETE FROM procrastinate_workers")
    return crast


def test_procrastinate_what_is_there_is_counted(crast: Crast) -> None:
    with crast.worker():
        crast.add("throw", 2)
        wait_until(lambda: crast.count("failed") == 2)
        crast.add("hang")
        wait_until(lambda: crast.count("doing") == 1)
        crast.add("echo", 3)
        crast.add("echo", at="now() + interval '1 hour'")
        first = poll_queue(crast.system)
        assert figures(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = poll_queue(crast.system, after_ms=10 * MIN, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc(first.result.slot, later.result.slot)
    assert later.result.message == f"no job taken since {since}: 3 waiting"
    with crast.worker():
        wait_until(lambda: crast.count("todo") == 1)
        assert poll_queue(crast.system, after_ms=20 * MIN, first_result=first).result.outcome is Outcome.PASS


def test_procrastinate_a_job_that_waits_for_a_lock_holds_no_queue_up(crast: Crast) -> None:
    crast.add("hang", lock="one")
    crast.sql("UPDATE procrastinate_jobs SET status = 'doing' WHERE queue_name = %s", crast.name)
    crast.add("echo", lock="one")
    crast.add("echo", 2)
    first = poll_queue(crast.system)
    crast.sql(
        """
        UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = (
            SELECT min(id) FROM procrastinate_jobs WHERE queue_name = %s AND lock IS NULL
        )
        """,
        crast.name,
    )
    assert poll_queue(crast.system, after_ms=10 * MIN, first_result=first).result.outcome is Outcome.PASS
    assert (
        poll_queue(crast.system, after_ms=10 * MIN, first_result=poll_queue(crast.system)).result.reason
        == "queue.stalled"
    )


def test_procrastinate_the_share_of_failures(crast: Crast) -> None:
    with crast.worker():
        crast.add("throw", 4)
        wait_until(lambda: crast.count("failed") == 4)
        assert poll_queue(crast.system, SHARE).result.reason == "queue.metric_unavailable"
        crast.add("echo", 12, args='{"name": "report"}')
        wait_until(lambda: crast.count("succeeded") == 12)
    report = poll_queue(crast.system, SHARE)
    assert report.result.message == f"25% of 16{NBSP}jobs failed within 1{NBSP}h, limit 20%"
    crast.sql("UPDATE procrastinate_events SET at = at - interval '2 hours'")
    assert poll_queue(crast.system, SHARE).result.outcome is Outcome.PASS


def test_procrastinate_does_not_show_consumers(crast: Crast) -> None:
    assert "consumers" not in poll_queue(crast.system).result.measurements
    with pytest.raises(ValidationError, match="Procrastinate does not report it"):
        queue_probe(crast.system, {"consumers": {"under": 1}})


def test_procrastinate_that_is_not_there(postgres: PostgresServer) -> None:
    with postgres.temporary_database() as url:
        report = poll_queue({"procrastinate": {"url": url.replace("+psycopg", ""), "queue": "report"}})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")


def test_a_server_that_is_down() -> None:
    url = f"postgresql://127.0.0.1:{find_free_port()}/app"
    for system in ("pgboss", "procrastinate"):
        report = poll_queue({system: {"url": url, "queue": "report"}})
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert report.result.message.endswith("connection refused")
