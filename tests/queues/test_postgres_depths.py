"""Looks into real queues that live in PostgreSQL: what is counted, what is missing, and whether anybody works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import ValidationError

from tests.mcp_peers import Peers, free_port
from tests.patience import wait
from tests.postgres import Postgres
from tests.queues.runs import look, node, python, queue
from tests.redis_server import working
from watchdog.model import Outcome, Report
from watchdog.queues import Reach
from watchdog.queues.pgboss_depth import PgbossDepth
from watchdog.queues.postgres import connected
from watchdog.wire import Trace, Wire
from watchdog.wire.faults import Fault

NBSP = "\N{NO-BREAK SPACE}"
MIN = 60_000
SHARE = {"failure_ratio": {"over": 0.2, "within": "1h", "least": 4}}


class Lab:
    def __init__(self, url: str):
        self.url, self.name = url.replace("+psycopg", ""), f"report-{uuid4().hex[:8]}"

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


def figures(report: Report) -> dict[str, Any]:
    """What was counted; ages, which nobody can foretell, are left out."""
    assert report.result.outcome is Outcome.PASS, report.result.message
    told = dict(report.result.measurements)
    assert isinstance(told.pop("oldest", 0), int)
    return told


async def asked(url: str, statement: str) -> None:
    system = PgbossDepth.model_validate({"url": url, "queue": "report"})
    async with Wire() as wire, connected(system, Reach(wire, Trace(), "private", 3.0, 0), "") as session:
        await session.ask(statement)


@pytest.mark.parametrize("statement", ["INSERT INTO jobs VALUES (1)", "DELETE FROM jobs"])
def test_who_only_looks_cannot_write(postgres: Postgres, statement: str) -> None:
    with postgres.fresh() as url:
        lab = Lab(url)
        lab.sql("CREATE TABLE jobs AS SELECT 0 AS id")
        with pytest.raises(Fault, match="in a read-only transaction"):
            asyncio.run(asked(lab.url, statement))
        assert lab.sql("SELECT id FROM jobs") == [(0,)]


# --- pg-boss


class Boss(Lab):
    def __init__(self, url: str, peers: Peers):
        super().__init__(url)
        self.peers, self.system = peers, {"pgboss": {"url": self.url, "queue": self.name}}

    def worker(self, does: str) -> Any:
        told = {"DATABASE": self.url, "QUEUE": self.name, "DOES": does, "OPTIONS": '{"retryLimit": 0}'}
        return working(*node(self.peers, "pgboss.cjs", **told))

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
def bossed(postgres: Postgres, peers: Peers) -> Iterator[str]:
    """A database in which pg-boss has made its tables."""
    with postgres.fresh() as url:
        with Boss(url, peers).worker("nothing"):
            pass
        yield url


@pytest.fixture
def boss(bossed: str, peers: Peers) -> Boss:
    return Boss(bossed, peers)


def test_pgboss_what_is_there_is_counted(boss: Boss) -> None:
    with boss.worker("throw"):
        boss.add(2)
        wait(lambda: boss.count("failed") == 2)
    with boss.worker("hang"):
        boss.add(1)
        wait(lambda: boss.count("active") == 1)
        boss.add(3)
        boss.add(1, "now() + interval '1 hour'")
        first = look(boss.system)
        assert figures(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = look(boss.system, after=10 * MIN, first=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    assert later.result.message == f"not draining for 10{NBSP}min: 3 waiting"
    with boss.worker("return"):
        wait(lambda: boss.count("created") == 1)
        assert look(boss.system, after=20 * MIN, first=first).result.outcome is Outcome.PASS


def test_pgboss_another_job_is_the_next(boss: Boss) -> None:
    boss.make()
    boss.add(2)
    first = look(boss.system)
    boss.sql(
        """
        UPDATE pgboss.job SET state = 'active' WHERE id = (
            SELECT id FROM pgboss.job WHERE name = %s ORDER BY priority DESC, created_on, id LIMIT 1
        )
        """,
        boss.name,
    )
    assert look(boss.system, after=10 * MIN, first=first).result.outcome is Outcome.PASS


def test_pgboss_old_is_what_could_have_been_taken_long_ago(boss: Boss) -> None:
    boss.make()
    boss.add(1, "now() - interval '1 hour'")
    report = look(boss.system, {"oldest": {"over": "15m"}})
    assert report.result.message == f"oldest 1{NBSP}h, over 15{NBSP}min"
    assert report.evidence.facts["oldest"] == f"1{NBSP}h"


def test_pgboss_the_share_of_failures(boss: Boss) -> None:
    boss.make()
    boss.add(9, state="completed", ended="now() - interval '2 hours'")
    boss.add(3, state="completed", ended="now()")
    boss.add(9, state="failed", ended="now() - interval '2 hours'")
    assert look(boss.system, SHARE).result.outcome is Outcome.PASS
    boss.add(1, state="failed", ended="now()")
    report = look(boss.system, SHARE)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.failure_ratio")
    assert report.result.message == f"25% of 4{NBSP}jobs failed within 1{NBSP}h, over 20%"


def test_pgboss_a_queue_that_is_not_there(boss: Boss) -> None:
    report = look(boss.system)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == f"no queue '{boss.name}' in the schema 'pgboss'"


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
        assert figures(look({"pgboss": {"url": url, "queue": boss.name}}))["waiting"] == 1
    finally:
        boss.sql("DROP OWNED BY reader; DROP ROLE reader")


def test_pgboss_what_takes_too_long_to_count_is_left_out(boss: Boss, monkeypatch: pytest.MonkeyPatch) -> None:
    boss.make()
    boss.add(1)
    monkeypatch.setattr("watchdog.queues.pgboss_depth.OVER", "SELECT pg_sleep(60), %(queue)s, %(within)s")
    monkeypatch.setattr("watchdog.queues.postgres.COUNTING_ALL", 0.2)
    report = look(boss.system)
    assert figures(report) == {"waiting": 1, "active": 0, "delayed": 0}
    told = "PostgreSQL took too long: canceling statement due to statement timeout"
    assert report.evidence.facts["not_counted"] == told
    assert look(boss.system, {"failed": {"over": 50}}).result.reason == "queue.metric_unavailable"


# --- Procrastinate


class Crast(Lab):
    def __init__(self, url: str):
        super().__init__(url)
        self.system = {"procrastinate": {"url": self.url, "queue": self.name}}

    def worker(self, **env: str) -> Any:
        return working(*python("procrastinate_worker.py", DATABASE=self.url, QUEUE=self.name, **env))

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
def deferred(postgres: Postgres) -> Iterator[str]:
    """A database in which Procrastinate has made its tables."""
    with postgres.fresh() as url:
        with Crast(url).worker(DOES="nothing"):
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
        wait(lambda: crast.count("failed") == 2)
        crast.add("hang")
        wait(lambda: crast.count("doing") == 1)
        crast.add("whose", 3)
        crast.add("whose", at="now() + interval '1 hour'")
        first = look(crast.system)
        assert figures(first) == {"waiting": 3, "active": 1, "delayed": 1, "failed": 2}
    later = look(crast.system, after=10 * MIN, first=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    assert later.result.message == f"not draining for 10{NBSP}min: 3 waiting"
    with crast.worker():
        wait(lambda: crast.count("todo") == 1)
        assert look(crast.system, after=20 * MIN, first=first).result.outcome is Outcome.PASS


def test_procrastinate_a_job_that_waits_for_a_lock_holds_no_queue_up(crast: Crast) -> None:
    crast.add("hang", lock="one")
    crast.sql("UPDATE procrastinate_jobs SET status = 'doing' WHERE queue_name = %s", crast.name)
    crast.add("whose", lock="one")
    crast.add("whose", 2)
    first = look(crast.system)
    crast.sql(
        """
        UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = (
            SELECT min(id) FROM procrastinate_jobs WHERE queue_name = %s AND lock IS NULL
        )
        """,
        crast.name,
    )
    assert look(crast.system, after=10 * MIN, first=first).result.outcome is Outcome.PASS
    assert look(crast.system, after=10 * MIN, first=look(crast.system)).result.reason == "queue.stalled"


def test_procrastinate_the_share_of_failures(crast: Crast) -> None:
    with crast.worker():
        crast.add("throw", 4)
        wait(lambda: crast.count("failed") == 4)
        assert look(crast.system, SHARE).result.reason == "queue.metric_unavailable"
        crast.add("whose", 12, args='{"name": "report"}')
        wait(lambda: crast.count("succeeded") == 12)
    report = look(crast.system, SHARE)
    assert report.result.message == f"25% of 16{NBSP}jobs failed within 1{NBSP}h, over 20%"
    crast.sql("UPDATE procrastinate_events SET at = at - interval '2 hours'")
    assert look(crast.system, SHARE).result.outcome is Outcome.PASS


def test_procrastinate_does_not_show_consumers(crast: Crast) -> None:
    assert "consumers" not in look(crast.system).result.measurements
    with pytest.raises(ValidationError, match="Procrastinate does not show this"):
        queue(crast.system, {"consumers": {"under": 1}})


def test_procrastinate_that_is_not_there(postgres: Postgres) -> None:
    with postgres.fresh() as url:
        report = look({"procrastinate": {"url": url.replace("+psycopg", ""), "queue": "report"}})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")


def test_a_server_that_is_down() -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/app"
    for system in ("pgboss", "procrastinate"):
        report = look({system: {"url": url, "queue": "report"}})
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert report.result.message.endswith("connection refused")
