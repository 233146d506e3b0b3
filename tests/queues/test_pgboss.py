"""A sentinel through a real queue of pg-boss, with real workers on Node.js: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import ValidationError

from tests.mcp_peers import Peers, free_port
from tests.patience import until, wait
from tests.postgres import LOCKED, Postgres
from tests.queues.runs import canary, node, once
from tests.redis_server import working
from watchdog.model import Outcome, Report
from watchdog.probes import CanaryProbe
from watchdog.probes.base import idempotency_key

SCRIPT = "pgboss.cjs"
NBSP = "\N{NO-BREAK SPACE}"


class Lab:
    """One queue of its own in a database where pg-boss keeps its jobs."""

    def __init__(self, url: str, peers: Peers):
        self.url, self.peers, self.queue = url.replace("+psycopg", ""), peers, f"report-{uuid4().hex[:8]}"

    def worker(self, does: str, **env: str) -> Any:
        told = {"DATABASE": self.url, "QUEUE": self.queue, "DOES": does, **env}
        return working(*node(self.peers, SCRIPT, **told))

    def probe(self, pgboss: dict[str, Any] | None = None, **job: Any) -> CanaryProbe:
        system = {"url": self.url, "queue": self.queue, **(pgboss or {})}
        return canary({"pgboss": system, "start_within": "3s", "finish_within": "5s", **job})

    def once(self, pgboss: dict[str, Any] | None = None, **job: Any) -> Report:
        return asyncio.run(once(self.probe(pgboss, **job)))

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def make(self, options: str = '{"policy": "standard"}') -> None:
        """The queue, as an application makes it when it starts."""
        self.sql("SELECT pgboss.create_queue(%s, %s::jsonb)", self.queue, options)

    def states(self) -> list[str]:
        """Of the jobs in the queue."""
        return [state for (state,) in self.sql("SELECT state::text FROM pgboss.job WHERE name = %s", self.queue)]

    def touch(self, change: str) -> None:
        self.sql(f"UPDATE pgboss.job SET {change} WHERE name = %s", self.queue)


@pytest.fixture(scope="module")
def database(postgres: Postgres, peers: Peers) -> Iterator[str]:
    """A database in which pg-boss has made its tables."""
    with postgres.fresh() as url:
        with Lab(url, peers).worker("nothing"):
            pass
        yield url


@pytest.fixture
def lab(database: str, peers: Peers) -> Lab:
    return Lab(database, peers)


# --- the stages


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: Lab) -> None:
    with lab.worker("return"):
        report = lab.once(payload={"nonce": 7})
    result = report.result
    assert (result.outcome, result.reason, result.message) == (Outcome.PASS, "", "")
    assert list(result.phases) == ["connect", "enqueue", "pick_up", "finish"]
    assert 0 <= (result.duration or -1) < 2_000
    assert report.evidence.facts == {
        "sentinel": lab.probe().job.system.ref_of(idempotency_key("pipeline", result.slot))
    }
    assert not report.remember
    assert lab.states() == []


def test_nobody_works(lab: Lab) -> None:
    lab.make()
    since = time.monotonic()
    report = lab.once(start_within="500ms")
    took = time.monotonic() - since
    result = report.result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "not_picked_up")
    assert result.message.startswith(f"not picked up in 500{NBSP}ms: 1 waiting, oldest ")
    assert result.measurements == {"waiting": 1}
    assert took < 1.5
    assert lab.states() == []


def test_what_waits_is_told(lab: Lab) -> None:
    """Neither what waits for its time nor what waits for another job is in anybody's way."""
    lab.make()
    row = "INSERT INTO pgboss.job (name, policy, start_after, state, blocked) VALUES (%s, 'standard', "
    lab.sql(f"{row} now() - interval '1 hour', 'created', false)", lab.queue)
    lab.sql(f"{row} now() + interval '1 hour', 'created', false)", lab.queue)
    lab.sql(f"{row} now() - interval '2 hours', 'created', true)", lab.queue)
    lab.sql(f"{row} now() - interval '2 hours', 'active', false)", lab.queue)
    message = lab.once(start_within="100ms").result.message
    assert message == f"not picked up in 100{NBSP}ms: 1 active, 2 waiting, oldest 1{NBSP}h"


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker("return") as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        assert lab.once(start_within="100ms").result.reason == "not_picked_up"
    with lab.worker("return"):
        assert lab.once().result.outcome is Outcome.PASS
    assert lab.states() == []


@pytest.mark.parametrize(
    ("does", "error"),
    [("throw", 'no template for {"sentinel":true}'), ("refuse", '{"code": 7}')],
)
def test_a_job_that_throws_tells_why(lab: Lab, does: str, error: str) -> None:
    with lab.worker(does):
        report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_failed")
    assert report.result.message == f"the job failed: {error}"
    assert lab.states() == []


def test_a_job_that_hangs_is_not_followed_by_another(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        first = lab.once(start_within="2s", finish_within="2s")
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
        assert late.remember == {"flight": [ref, first.result.slot - 60_000]}
        assert lab.states() == ["active"]
        worker.kill()
        lab.touch("started_on = now() - interval '1 hour'")  # what its expiry comes to
    with lab.worker("return"):
        again = asyncio.run(next_one(60_000))
        assert again.result.outcome is Outcome.PASS
        assert again.remember == {"flight": None}
    assert lab.states() == []


@pytest.mark.parametrize(
    "gone",
    ["started_on = now() - interval '1 hour'", "heartbeat_on = now() - interval '1 hour'"],
    ids=["its time is over", "its heart stopped"],
)
def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: Lab, gone: str) -> None:
    async def dying() -> Report:
        flying = asyncio.create_task(once(lab.probe(start_within="2s", finish_within="2s")))
        await until(lambda: lab.states() == ["active"])
        os.kill(worker.process.pid, signal.SIGKILL)
        lab.touch(gone)
        return await flying

    with lab.worker("hang", OPTIONS='{"heartbeatSeconds": 10}') as worker:
        report = asyncio.run(dying())
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith(f"not finished in 2{NBSP}s: its worker is gone")
    assert lab.states() == []


@pytest.mark.parametrize(
    ("meddle", "reason", "message"),
    [
        ("DELETE FROM pgboss.job", "job_vanished", "the sentinel vanished, before anybody was seen to pick it up"),
        ("UPDATE pgboss.job SET state = 'cancelled'", "job_failed", "the job failed: somebody cancelled it"),
    ],
)
def test_a_job_that_somebody_meddles_with(lab: Lab, meddle: str, reason: str, message: str) -> None:
    async def meddled() -> Report:
        flying = asyncio.create_task(once(lab.probe()))
        await until(lab.states)
        lab.sql(f"{meddle} WHERE name = %s", lab.queue)
        return await flying

    lab.make()
    report = asyncio.run(meddled())
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, reason)
    assert report.result.message == message
    assert lab.states() == []


# --- one sentinel a slot


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab) -> None:
    """The sentinel of the slot before waits in the queue: sent by somebody who could not remember it."""
    lab.make()
    probe = lab.probe(start_within="500ms")

    async def dies() -> list[str]:
        flying = asyncio.create_task(once(probe, 5_000))
        await until(lab.states)
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)
        return lab.states()

    assert asyncio.run(dies()) == ["created"]
    report = asyncio.run(once(probe, 6_000, prev=5_000))
    assert report.result.reason == "not_picked_up"
    assert report.result.measurements["waiting"] == 1
    assert lab.states() == []


def test_sending_a_slot_twice_makes_one_job(lab: Lab) -> None:
    lab.make()
    probe = lab.probe(start_within="500ms")
    most = 0

    async def twice() -> None:
        nonlocal most
        flying = [asyncio.create_task(once(probe, 5_000)) for _ in range(2)]
        while not all(task.done() for task in flying):
            most = max(most, len(lab.states()))
            await asyncio.sleep(0.02)

    asyncio.run(twice())
    assert most == 1
    assert lab.states() == []


# --- queues of every kind


@pytest.mark.parametrize("policy", ["standard", "short", "singleton", "stately", "exclusive"])
def test_a_sentinel_takes_no_place_of_another_job(lab: Lab, policy: str) -> None:
    """Where only one job may wait, ours is sent beside it, and theirs beside ours."""
    lab.make(f'{{"policy": "{policy}"}}')
    theirs = "INSERT INTO pgboss.job (name, policy) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING id"
    assert lab.sql(theirs, lab.queue, policy)

    async def beside() -> Report:
        flying = asyncio.create_task(once(lab.probe(start_within="1s")))
        await until(lambda: len(lab.states()) == 2)
        lab.sql("DELETE FROM pgboss.job WHERE name = %s AND data IS NULL", lab.queue)
        assert lab.sql(theirs, lab.queue, policy)
        return await flying

    assert asyncio.run(beside()).result.measurements["waiting"] == 2
    assert lab.states() == ["created"]


def test_where_one_job_runs_at_a_time_a_sentinel_waits_in_line(lab: Lab) -> None:
    """Its own key would let it pass by the job that holds everybody up."""
    with lab.worker("hang", CONCURRENCY="2", OPTIONS='{"policy": "singleton"}'):
        lab.sql("INSERT INTO pgboss.job (name, policy) VALUES (%s, 'singleton')", lab.queue)
        wait(lambda: lab.states() == ["active"])
        message = lab.once(start_within="900ms").result.message
    assert message.startswith(f"not picked up in 900{NBSP}ms: 1 active, 1 waiting")


def test_workers_that_wait_to_be_told_are_told(lab: Lab) -> None:
    """They look only every 30 s by themselves."""
    with lab.worker("return", LISTENS="1", OPTIONS='{"notify": true}'):
        assert [lab.once().result.outcome for _ in range(2)] == [Outcome.PASS] * 2


def test_a_schema_of_another_name(postgres: Postgres, peers: Peers) -> None:
    with postgres.fresh() as url:
        lab = Lab(url, peers)
        with lab.worker("return", SCHEMA='"Jobs-2"', LISTENS="1", OPTIONS='{"notify": true}'):
            assert lab.once({"schema": "Jobs-2"}).result.outcome is Outcome.PASS


OLDER = {
    24: """
        CREATE TABLE pgboss.queue (name text PRIMARY KEY, policy text, expire_seconds int, retention_minutes int);
        CREATE TABLE pgboss.job (
            id uuid NOT NULL, name text NOT NULL REFERENCES pgboss.queue, priority int NOT NULL DEFAULT 0, data jsonb,
            state pgboss.job_state NOT NULL DEFAULT 'created', retry_limit int NOT NULL DEFAULT 2,
            start_after timestamptz NOT NULL DEFAULT now(), started_on timestamptz, singleton_key text,
            expire_in interval NOT NULL DEFAULT interval '15 minutes', created_on timestamptz NOT NULL DEFAULT now(),
            completed_on timestamptz, keep_until timestamptz NOT NULL DEFAULT now() + interval '14 days',
            output jsonb, policy text, PRIMARY KEY (name, id)) PARTITION BY LIST (name);
        CREATE TABLE pgboss.j1 PARTITION OF pgboss.job FOR VALUES IN ('report');
    """,
    26: """
        CREATE TABLE pgboss.queue (name text PRIMARY KEY, policy text NOT NULL, expire_seconds int);
        CREATE TABLE pgboss.job (
            id uuid NOT NULL, name text NOT NULL, priority int NOT NULL DEFAULT 0, data jsonb,
            state pgboss.job_state NOT NULL DEFAULT 'created', retry_limit int NOT NULL DEFAULT 2,
            expire_seconds int NOT NULL DEFAULT 900, deletion_seconds int NOT NULL DEFAULT 604800, singleton_key text,
            start_after timestamptz NOT NULL DEFAULT now(), created_on timestamptz NOT NULL DEFAULT now(),
            started_on timestamptz, completed_on timestamptz,
            keep_until timestamptz NOT NULL DEFAULT now() + interval '14 days',
            output jsonb, policy text, PRIMARY KEY (name, id)) PARTITION BY LIST (name);
        CREATE TABLE pgboss.job_common PARTITION OF pgboss.job DEFAULT;
    """,
}


@pytest.mark.parametrize(
    ("version", "shape", "facts"),
    [
        (24, 24, {}),
        (26, 26, {}),
        (99, 26, {"schema_version": "99 is none of 24, 26, 46, which we know"}),
    ],
)
def test_other_versions_of_the_tables(
    postgres: Postgres, peers: Peers, version: int, shape: int, facts: dict[str, str]
) -> None:
    states = "'created', 'retry', 'active', 'completed', 'cancelled', 'failed'"
    with postgres.fresh() as url:
        lab = Lab(url, peers)
        lab.queue = "report"
        lab.sql(f"CREATE SCHEMA pgboss; CREATE TYPE pgboss.job_state AS ENUM ({states}); {OLDER[shape]}")
        lab.sql(f"CREATE TABLE pgboss.version (version int PRIMARY KEY); INSERT INTO pgboss.version VALUES ({version})")
        lab.sql("INSERT INTO pgboss.queue (name, policy) VALUES ('report', 'standard')")

        async def worked_on() -> Report:
            flying = asyncio.create_task(once(lab.probe()))
            await until(lab.states)
            ((limit, keep),) = lab.sql(
                f"SELECT {'expire_in' if shape == 24 else 'expire_seconds'}, keep_until - created_on FROM pgboss.job"
            )
            assert (keep.total_seconds(), getattr(limit, "total_seconds", lambda: limit)()) == (70, 70)
            lab.touch("state = 'active', started_on = now()")
            await asyncio.sleep(0.1)
            lab.touch("state = 'completed', completed_on = now()")
            return await flying

        report = asyncio.run(worked_on())
        assert (report.result.outcome, report.result.message) == (Outcome.PASS, "")
        assert report.evidence.facts == {"sentinel": report.evidence.facts["sentinel"], **facts}
        assert "pick_up" in report.result.phases
        assert lab.states() == []
        assert lab.once(start_within="100ms").result.reason == "not_picked_up"
        assert lab.states() == []


# --- what is not there, and what is not allowed


def test_a_queue_that_is_not_there_is_not_made(lab: Lab) -> None:
    report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue_missing")
    assert report.result.message == f"no queue '{lab.queue}' in the schema 'pgboss'"
    assert lab.sql("SELECT name FROM pgboss.queue WHERE name = %s", lab.queue) == []


def test_a_schema_without_pgboss(lab: Lab) -> None:
    report = lab.once({"schema": "elsewhere"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue_missing")
    assert report.result.message == "no pg-boss in the schema 'elsewhere': no such tables"


def test_tables_of_something_else(lab: Lab) -> None:
    lab.sql("CREATE SCHEMA IF NOT EXISTS other")
    lab.sql("CREATE TABLE IF NOT EXISTS other.job (id int)")
    assert lab.once({"schema": "other"}).result.message == ("no pg-boss in the schema 'other': it has no table version")


@contextmanager
def role(lab: Lab, *grants: str) -> Iterator[str]:
    """The URL of somebody who may do this and nothing else."""
    name = f"watcher_{uuid4().hex[:8]}"
    lab.sql(f"CREATE ROLE {name} LOGIN")
    for grant in grants:
        lab.sql(f"GRANT {grant} TO {name}")
    try:
        yield lab.url.replace("postgres@", f"{name}@")
    finally:
        lab.sql(f"DROP OWNED BY {name}")
        lab.sql(f"DROP ROLE {name}")


LEAST = (
    "USAGE ON SCHEMA pgboss",
    "SELECT ON pgboss.version, pgboss.queue, pgboss.job",
    "INSERT, DELETE ON pgboss.job",
)


def test_the_least_rights_suffice(lab: Lab) -> None:
    with role(lab, *LEAST) as url, lab.worker("return", OPTIONS='{"notify": true, "partition": true}'):
        assert lab.once({"url": url}).result.message == ""


@pytest.mark.parametrize(
    ("grants", "denied"),
    [
        ((), "permission denied for schema pgboss"),
        (LEAST[:1], "permission denied for table version"),
        ((LEAST[0], "SELECT ON pgboss.version", LEAST[2], "SELECT ON pgboss.job"), "permission denied for table queue"),
        ((*LEAST[:2], "INSERT ON pgboss.job"), "no DELETE on job"),
        (LEAST[:2], "no INSERT, no DELETE on job"),
    ],
)
def test_a_role_without_rights_is_told_what_it_needs(lab: Lab, grants: tuple[str, ...], denied: str) -> None:
    lab.make()
    with role(lab, *grants) as url:
        report = lab.once({"url": url})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_refused")
    assert report.result.message == (
        f"PostgreSQL does not allow it: {denied}; the role needs USAGE on the schema, "
        "SELECT on version, queue and job, INSERT and DELETE on job"
    )
    assert lab.states() == []


def test_a_database_that_only_reads_refuses(lab: Lab) -> None:
    lab.make()
    report = lab.once({"url": f"{lab.url}?options=-cdefault_transaction_read_only%3Don"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_refused")
    assert report.result.message == "PostgreSQL answers: cannot execute SELECT in a read-only transaction"


# --- a database in trouble


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a second for any one answer; connecting still has two, the least that libpq knows."""
    monkeypatch.setattr("watchdog.probes.canary.PATIENCE", 1.0)


def test_a_database_that_is_down_is_unreachable(lab: Lab) -> None:
    port = free_port()
    report = lab.once({"url": f"postgresql://postgres@127.0.0.1:{port}/app"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    ("full", "message"), [(True, "timed out while connecting"), (False, "connection timeout expired")]
)
@pytest.mark.usefixtures("impatient")
def test_a_database_that_does_not_answer_is_unreachable(lab: Lab, full: bool, message: str) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0 if full else 10) as deaf:
        for _ in range(3 if full else 0):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        since = time.monotonic()
        report = lab.once({"url": f"postgresql://postgres@127.0.0.1:{deaf.getsockname()[1]}/app"})
        took = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message.endswith(message)
    assert took < 4.0


@pytest.mark.usefixtures("impatient")
def test_a_database_that_stops_answering_is_unreachable_inside_the_deadline(lab: Lab) -> None:
    """Its process stands still while the connection is up: no limit of the server's own helps."""
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"

    async def stops() -> tuple[Report, float]:
        flying = asyncio.create_task(once(lab.probe()))
        await until(lab.states)
        ((pid,),) = lab.sql(ours)
        os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        try:
            return await flying, time.monotonic() - since
        finally:
            os.kill(pid, signal.SIGCONT)

    lab.make()
    report, took = asyncio.run(stops())
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == "broker unreachable: PostgreSQL gives no answer in 1 s"
    assert took < 3.0
    again = asyncio.run(once(lab.probe(start_within="100ms"), report.result.slot + 1, report.result.slot))
    assert again.result.measurements == {"waiting": 1}
    assert lab.states() == []


@pytest.mark.usefixtures("impatient")
def test_tables_that_somebody_locks_hold_nothing_up(lab: Lab) -> None:
    lab.make()
    with psycopg.connect(lab.url) as other:
        other.execute("LOCK TABLE pgboss.job IN ACCESS EXCLUSIVE MODE")
        report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "query_timeout")
    assert report.result.message == "PostgreSQL took too long: canceling statement due to lock timeout"
    assert lab.states() == []


def test_a_wrong_password_is_said_without_it(lab: Lab) -> None:
    lab.sql(f"CREATE ROLE {LOCKED} LOGIN PASSWORD 'right'")
    try:
        report = lab.once({"url": lab.url.replace("postgres@", f"{LOCKED}:hushhush1@")})
    finally:
        lab.sql(f"DROP ROLE {LOCKED}")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == 'broker unreachable: password authentication failed for user "locked"'
    assert "hushhush1" not in str(report)


def test_the_address_that_was_looked_at_is_the_one_that_is_reached(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look-up could lead elsewhere."""
    monkeypatch.setattr("watchdog.wire.dial.look_up", lambda _, port: [(socket.AF_INET, ("127.0.0.1", port))])
    report = lab.once({"url": lab.url.replace("127.0.0.1", "db.invalid")})
    assert report.result.reason == "queue_missing"


def test_an_address_that_may_not_be_reached(lab: Lab) -> None:
    job = {"pgboss": {"url": lab.url, "queue": lab.queue}, "finish_within": "2s"}
    report = asyncio.run(once(canary(job, egress="public")))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "address_refused")


# --- configuration


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://u:p@db/app", "expected postgresql://user:password@host/database"),
        ("postgresql:///app", "expected postgresql://user:password@host/database"),
        ("postgresql://u:p/ss@db/app", "encode : / @ % in its password"),
        ("postgresql://u:hush%zz@db/app", "encode : / @ % in its password"),
        ("postgresql://db/app?host=169.254.169.254", "host has no place after the '?'"),
        ("postgresql://db/app?hostaddr=169.254.169.254", "hostaddr has no place after the '?'"),
        ("postgresql://u@db/app?password=hush", "password has no place after the '?'"),
    ],
)
def test_urls_that_do_not_load(url: str, why: str) -> None:
    with pytest.raises(ValidationError, match=r"pgboss\.url") as refused:
        canary({"pgboss": {"url": url, "queue": "report"}})
    assert why in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_urls_of_every_spelling_load(scheme: str) -> None:
    probe = canary({"pgboss": {"url": f"{scheme}://u:hush@db.example:5433/app?sslmode=require", "queue": "report"}})
    assert (probe.target, probe.host) == ("db.example/report", "db.example")


@pytest.mark.parametrize("schema", ['a"b', "a.b", "", "1st", "a%sb"])
def test_a_schema_is_a_plain_name(schema: str) -> None:
    with pytest.raises(ValidationError, match="expected the name of a schema"):
        canary({"pgboss": {"url": "postgresql://db/app", "queue": "report", "schema": schema}})
