"""What is particular to canaries through pg-boss: queues of every kind, other versions, rights, its database."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import psycopg
import pytest
from pydantic import ValidationError

from tests.mcp_peers import Peers
from tests.patience import until, wait
from tests.postgres import Postgres
from tests.queues.lab import NBSP
from tests.queues.labs import PgbossLab
from tests.queues.runs import canary, once
from watchdog.model import Outcome, Report


@pytest.fixture(scope="module")
def system() -> type[PgbossLab]:
    return PgbossLab


# --- the stages


def test_what_waits_is_told(lab: PgbossLab) -> None:
    """Neither what waits for its time nor what waits for another job is in anybody's way."""
    lab.make()
    row = "INSERT INTO pgboss.job (name, policy, start_after, state, blocked) VALUES (%s, 'standard', "
    lab.sql(f"{row} now() - interval '1 hour', 'created', false)", lab.queue)
    lab.sql(f"{row} now() + interval '1 hour', 'created', false)", lab.queue)
    lab.sql(f"{row} now() - interval '2 hours', 'created', true)", lab.queue)
    lab.sql(f"{row} now() - interval '2 hours', 'active', false)", lab.queue)
    message = lab.once(start_within="100ms").result.message
    assert message == f"not picked up in 100{NBSP}ms: 1 active, 2 waiting, oldest 1{NBSP}h"


def test_a_job_that_throws_no_error_tells_what(lab: PgbossLab) -> None:
    with lab.worker("refuse"):
        report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.failed")
    assert report.result.message == 'the job failed: {"code": 7}'
    assert lab.states() == []


def test_a_worker_whose_heart_stops_is_gone_before_its_time_is_over(lab: PgbossLab) -> None:
    def stops() -> None:
        worker.kill()
        lab.touch("heartbeat_on = now() - interval '1 hour'")

    with lab.worker("hang", OPTIONS='{"heartbeatSeconds": 10}') as worker:
        report = lab.once_when(lab.active, stops, start_within="2s", finish_within="2s")
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished in 2{NBSP}s: its worker is gone")
    assert lab.states() == []


# --- queues of every kind


@pytest.mark.parametrize("policy", ["standard", "short", "singleton", "stately", "exclusive"])
def test_a_sentinel_takes_no_place_of_another_job(lab: PgbossLab, policy: str) -> None:
    """Where only one job may wait, ours is sent beside it, and theirs beside ours."""
    lab.make(f'{{"policy": "{policy}"}}')
    theirs = "INSERT INTO pgboss.job (name, policy) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING id"
    assert lab.sql(theirs, lab.queue, policy)

    def again() -> None:
        lab.sql("DELETE FROM pgboss.job WHERE name = %s AND data IS NULL", lab.queue)
        assert lab.sql(theirs, lab.queue, policy)

    report = lab.once_when(lambda: len(lab.states()) == 2, again, start_within="1s")
    assert report.result.measurements["waiting"] == 2
    assert lab.states() == ["created"]


def test_where_one_job_runs_at_a_time_a_sentinel_waits_in_line(lab: PgbossLab) -> None:
    """Its own key would let it pass by the job that holds everybody up."""
    with lab.worker("hang", CONCURRENCY="2", OPTIONS='{"policy": "singleton"}'):
        lab.sql("INSERT INTO pgboss.job (name, policy) VALUES (%s, 'singleton')", lab.queue)
        wait(lambda: lab.states() == ["active"])
        message = lab.once(start_within="900ms").result.message
    assert message.startswith(f"not picked up in 900{NBSP}ms: 1 active, 1 waiting")


def test_workers_that_wait_to_be_told_are_told(lab: PgbossLab) -> None:
    """They look only every 30 s by themselves."""
    with lab.worker("return", LISTENS="1", OPTIONS='{"notify": true}'):
        assert [lab.once().result.outcome for _ in range(2)] == [Outcome.PASS] * 2


def test_a_schema_of_another_name(postgres: Postgres, peers: Peers) -> None:
    with postgres.fresh() as url:
        lab = PgbossLab(url, peers)
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
        lab = PgbossLab(url, peers)
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
        assert lab.once(start_within="100ms").result.reason == "canary.not_picked_up"
        assert lab.states() == []


# --- what is not there, and what is not allowed


def test_a_schema_without_pgboss(lab: PgbossLab) -> None:
    report = lab.once({"schema": "elsewhere"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == "no pg-boss in the schema 'elsewhere': no such tables"


def test_tables_of_something_else(lab: PgbossLab) -> None:
    lab.sql("CREATE SCHEMA IF NOT EXISTS other")
    lab.sql("CREATE TABLE IF NOT EXISTS other.job (id int)")
    assert lab.once({"schema": "other"}).result.message == ("no pg-boss in the schema 'other': it has no table version")


@contextmanager
def role(lab: PgbossLab, *grants: str) -> Iterator[str]:
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


def test_the_least_rights_suffice(lab: PgbossLab) -> None:
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
def test_a_role_without_rights_is_told_what_it_needs(lab: PgbossLab, grants: tuple[str, ...], denied: str) -> None:
    lab.make()
    with role(lab, *grants) as url:
        report = lab.once({"url": url})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == (
        f"PostgreSQL does not allow it: {denied}; the role needs USAGE on the schema, "
        "SELECT on version, queue and job, INSERT and DELETE on job"
    )
    assert lab.states() == []


def test_a_database_that_only_reads_refuses(lab: PgbossLab) -> None:
    lab.make()
    report = lab.once({"url": f"{lab.url}?options=-cdefault_transaction_read_only%3Don"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == "PostgreSQL answers: cannot execute SELECT in a read-only transaction"


# --- a database in trouble


@pytest.mark.usefixtures("impatient")
def test_a_database_that_takes_no_more_connections_is_unreachable(lab: PgbossLab) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        since = time.monotonic()
        report = lab.once({"url": f"postgresql://postgres@127.0.0.1:{full.getsockname()[1]}/app"})
        took = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message.endswith("timed out while connecting")
    assert took < 4.0


@pytest.mark.usefixtures("impatient")
def test_tables_that_somebody_locks_hold_nothing_up(lab: PgbossLab) -> None:
    lab.make()
    with psycopg.connect(lab.url) as other:
        other.execute("LOCK TABLE pgboss.job IN ACCESS EXCLUSIVE MODE")
        report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert report.result.message == "PostgreSQL took too long: canceling statement due to lock timeout"
    assert lab.states() == []


def test_the_address_that_was_looked_at_is_the_one_that_is_reached(
    lab: PgbossLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up could lead elsewhere."""
    monkeypatch.setattr("watchdog.wire.dial.look_up", lambda _, port: [(socket.AF_INET, ("127.0.0.1", port))])
    report = lab.once({"url": lab.url.replace("127.0.0.1", "db.invalid")})
    assert report.result.reason == "queue.missing"


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
