"""Canary jobs through pg-boss: queue policies, versions, privileges and its database."""

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

from tests.support.polling import HANG_S, wait_until, wait_until_async
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import canary_probe, run_probe
from tests.support.queue_harness import NBSP
from tests.support.queue_harnesses import PgbossHarness
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import Outcome, ResultToRecord


@pytest.fixture(scope="module")
def system() -> type[PgbossHarness]:
    return PgbossHarness


# --- the stages


def test_the_message_counts_waiting_jobs(harness: PgbossHarness) -> None:
    """Neither delayed nor blocked jobs count."""
    harness.create_queue()
    row = "INSERT INTO pgboss.job (name, policy, start_after, state, blocked) VALUES (%s, 'standard', "
    harness.execute(f"{row} now() - interval '1 hour', 'created', false)", harness.queue_name)
    harness.execute(f"{row} now() + interval '1 hour', 'created', false)", harness.queue_name)
    harness.execute(f"{row} now() - interval '2 hours', 'created', true)", harness.queue_name)
    harness.execute(f"{row} now() - interval '2 hours', 'active', false)", harness.queue_name)
    message = harness.run_probe(start_within="100ms").result.message
    assert message == f"canary job not picked up within 100{NBSP}ms: 2 waiting, 1 active, oldest 1{NBSP}h"


def test_a_thrown_value_that_is_not_an_error_is_reported(harness: PgbossHarness) -> None:
    with harness.running_worker("refuse"):
        report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.failed")
    assert report.result.message == 'the job failed: {"code": 7}'
    assert harness.job_states() == []


def test_a_worker_without_heartbeats_is_gone(harness: PgbossHarness) -> None:
    def kill_worker() -> None:
        worker.kill()
        harness.update_jobs("heartbeat_on = now() - interval '1 hour'")

    with harness.running_worker("hang", OPTIONS='{"heartbeatSeconds": 10}') as worker:
        report = harness.run_probe_and_trigger(
            harness.count_active, kill_worker, start_within="10s", finish_within="10s"
        )
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished within 10{NBSP}s: its worker is gone")
    assert harness.job_states() == []


# --- queue policies


@pytest.mark.parametrize("policy", ["standard", "short", "singleton", "stately", "exclusive"])
def test_a_sentinel_and_other_jobs_do_not_exclude_each_other(harness: PgbossHarness, policy: str) -> None:
    """Also where the policy allows only one waiting job."""
    harness.create_queue(f'{{"policy": "{policy}"}}')
    insert_other_sql = "INSERT INTO pgboss.job (name, policy) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING id"
    assert harness.execute(insert_other_sql, harness.queue_name, policy)

    def replace_other_job() -> None:
        harness.execute("DELETE FROM pgboss.job WHERE name = %s AND data IS NULL", harness.queue_name)
        assert harness.execute(insert_other_sql, harness.queue_name, policy)

    report = harness.run_probe_and_trigger(lambda: len(harness.job_states()) == 2, replace_other_job, start_within="5s")
    assert report.result.measurements["waiting"] == 2
    assert harness.job_states() == ["created"]


def test_a_sentinel_waits_in_a_singleton_queue(harness: PgbossHarness) -> None:
    """With a key of its own it would overtake the job that blocks all others."""
    with harness.running_worker("hang", CONCURRENCY="2", OPTIONS='{"policy": "singleton"}'):
        harness.execute("INSERT INTO pgboss.job (name, policy) VALUES (%s, 'singleton')", harness.queue_name)
        wait_until(lambda: harness.job_states() == ["active"])
        message = harness.run_probe(start_within="3s").result.message
    assert message.startswith(f"canary job not picked up within 3{NBSP}s: 1 waiting, 1 active")


def test_listening_workers_are_notified(harness: PgbossHarness) -> None:
    """They poll only every 30 s."""
    with harness.running_worker("return", LISTENS="1", OPTIONS='{"notify": true}'):
        assert [harness.run_probe(start_within="20s", finish_within="20s").result.outcome for _ in range(2)] == [
            Outcome.PASS
        ] * 2


def test_another_schema(postgres: PostgresServer, peers: ThirdPartyServers) -> None:
    with postgres.temporary_database() as url:
        harness = PgbossHarness(url, peers)
        with harness.running_worker("return", SCHEMA='"Jobs-2"', LISTENS="1", OPTIONS='{"notify": true}'):
            report = harness.run_probe({"schema": "Jobs-2"}, start_within="20s", finish_within="20s")
            assert report.result.outcome is Outcome.PASS


TABLES_BY_VERSION = {
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
    ("version", "tables", "facts"),
    [
        (24, 24, {}),
        (26, 26, {}),
        (99, 26, {"schema_version": "99 is untested (tested: 24, 26, 46)"}),
    ],
)
def test_other_versions_of_the_tables(
    postgres: PostgresServer, peers: ThirdPartyServers, version: int, tables: int, facts: dict[str, str]
) -> None:
    states = "'created', 'retry', 'active', 'completed', 'cancelled', 'failed'"
    with postgres.temporary_database() as url:
        harness = PgbossHarness(url, peers)
        harness.queue_name = "report"
        harness.execute(
            f"CREATE SCHEMA pgboss; CREATE TYPE pgboss.job_state AS ENUM ({states}); {TABLES_BY_VERSION[tables]}"
        )
        harness.execute(
            f"CREATE TABLE pgboss.version (version int PRIMARY KEY); INSERT INTO pgboss.version VALUES ({version})"
        )
        harness.execute("INSERT INTO pgboss.queue (name, policy) VALUES ('report', 'standard')")

        async def run_while_working() -> ResultToRecord:
            task = asyncio.create_task(run_probe(harness.build_probe()))
            await wait_until_async(harness.job_states)
            ((timeout, retention),) = harness.execute(
                f"SELECT {'expire_in' if tables == 24 else 'expire_seconds'}, keep_until - created_on FROM pgboss.job"
            )
            assert (retention.total_seconds(), getattr(timeout, "total_seconds", lambda: timeout)()) == (70, 70)
            harness.update_jobs("state = 'active', started_on = now()")
            await asyncio.sleep(0.1)
            harness.update_jobs("state = 'completed', completed_on = now()")
            return await task

        report = asyncio.run(run_while_working())
        assert (report.result.outcome, report.result.message) == (Outcome.PASS, "")
        assert report.evidence.facts == {"sentinel": report.evidence.facts["sentinel"], **facts}
        assert "pick_up" in report.result.phases
        assert harness.job_states() == []
        assert harness.run_probe(start_within="100ms").result.reason == "canary.not_picked_up"
        assert harness.job_states() == []


# --- missing tables and privileges


def test_a_schema_without_pgboss(harness: PgbossHarness) -> None:
    report = harness.run_probe({"schema": "elsewhere"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == "pg-boss is not in schema 'elsewhere': its tables do not exist"


def test_tables_of_another_application(harness: PgbossHarness) -> None:
    harness.execute("CREATE SCHEMA IF NOT EXISTS other")
    harness.execute("CREATE TABLE IF NOT EXISTS other.job (id int)")
    assert harness.run_probe({"schema": "other"}).result.message == (
        "pg-boss is not in schema 'other': table version is missing"
    )


@contextmanager
def role(harness: PgbossHarness, *grants: str) -> Iterator[str]:
    """The URL of a role with these privileges only."""
    name = f"watcher_{uuid4().hex[:8]}"
    harness.execute(f"CREATE ROLE {name} LOGIN")
    for grant in grants:
        harness.execute(f"GRANT {grant} TO {name}")
    try:
        yield harness.probed_url.replace("postgres@", f"{name}@")
    finally:
        harness.execute(f"DROP OWNED BY {name}")
        harness.execute(f"DROP ROLE {name}")


REQUIRED_GRANTS = (
    "USAGE ON SCHEMA pgboss",
    "SELECT ON pgboss.version, pgboss.queue, pgboss.job",
    "INSERT, DELETE ON pgboss.job",
)


def test_the_required_privileges_are_enough(harness: PgbossHarness) -> None:
    with (
        role(harness, *REQUIRED_GRANTS) as url,
        harness.running_worker("return", OPTIONS='{"notify": true, "partition": true}'),
    ):
        assert harness.run_probe({"url": url}).result.message == ""


@pytest.mark.parametrize(
    ("grants", "problem"),
    [
        ((), "permission denied for schema pgboss"),
        (REQUIRED_GRANTS[:1], "permission denied for table version"),
        (
            (REQUIRED_GRANTS[0], "SELECT ON pgboss.version", REQUIRED_GRANTS[2], "SELECT ON pgboss.job"),
            "permission denied for table queue",
        ),
        ((*REQUIRED_GRANTS[:2], "INSERT ON pgboss.job"), "no DELETE on job"),
        (REQUIRED_GRANTS[:2], "no INSERT, no DELETE on job"),
    ],
)
def test_missing_privileges_are_reported(harness: PgbossHarness, grants: tuple[str, ...], problem: str) -> None:
    harness.create_queue()
    with role(harness, *grants) as url:
        report = harness.run_probe({"url": url})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == (
        f"PostgreSQL denies access: {problem}; the role needs USAGE on the schema, "
        "SELECT on version, queue and job, INSERT and DELETE on job"
    )
    assert harness.job_states() == []


def test_a_read_only_database(harness: PgbossHarness) -> None:
    harness.create_queue()
    report = harness.run_probe({"url": f"{harness.probed_url}?options=-cdefault_transaction_read_only%3Don"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == "PostgreSQL returned an error: cannot execute SELECT in a read-only transaction"


# --- database failures


@pytest.mark.usefixtures("impatient")
def test_a_database_that_accepts_no_more_connections(harness: PgbossHarness) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0) as full_server:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full_server.getsockname())
        started = time.monotonic()
        report = harness.run_probe({"url": f"postgresql://postgres@127.0.0.1:{full_server.getsockname()[1]}/app"})
        elapsed_s = time.monotonic() - started
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message.endswith("timed out while connecting")
    assert elapsed_s < HANG_S


@pytest.mark.usefixtures("impatient")
def test_locked_tables(harness: PgbossHarness) -> None:
    harness.create_queue()
    with psycopg.connect(harness.probed_url) as other:
        other.execute("LOCK TABLE pgboss.job IN ACCESS EXCLUSIVE MODE")
        report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert report.result.message == "PostgreSQL timed out: canceling statement due to lock timeout"
    assert harness.job_states() == []


def test_the_checked_address_is_the_one_that_is_connected_to(
    harness: PgbossHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second DNS query could return another address."""
    monkeypatch.setattr(
        "watchdog.net.name_lookup.resolve_host_blocking", lambda _, port: [(socket.AF_INET, ("127.0.0.1", port))]
    )
    report = harness.run_probe({"url": harness.probed_url.replace("127.0.0.1", "db.invalid")})
    assert report.result.reason == "queue.missing"


# --- configuration


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:p@db/app", "expected postgresql://user:password@host/database"),
        ("postgresql:///app", "expected postgresql://user:password@host/database"),
        ("postgresql://u:p/ss@db/app", "encode : / @ % in the password"),
        ("postgresql://u@db/app#?sslkey=/etc/shadow", "encode : / @ % in the password"),
        ("postgresql://u:hush%zz@db/app", "encode : / @ % in the password"),
        ("postgresql://db/app?host=169.254.169.254", "host is not supported as a parameter"),
        ("postgresql://db/app?hostaddr=169.254.169.254", "hostaddr is not supported as a parameter"),
        ("postgresql://u@db/app?password=hush", "password is not supported as a parameter"),
    ],
)
def test_invalid_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=r"pgboss\.url") as refused:
        canary_probe({"pgboss": {"url": url, "queue": "report"}})
    assert message in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_scheme_is_accepted(scheme: str) -> None:
    probe = canary_probe(
        {"pgboss": {"url": f"{scheme}://u:hush@db.example:5433/app?sslmode=require", "queue": "report"}}
    )
    assert (probe.target, probe.network_endpoint) == ("postgresql://db.example:5433/app, queue report", "db.example")


@pytest.mark.parametrize("schema", ['a"b', "a.b", "", "1st", "a%sb"])
def test_invalid_schema_names_are_refused(schema: str) -> None:
    with pytest.raises(ValidationError, match="expected a schema name"):
        canary_probe({"pgboss": {"url": "postgresql://db/app", "queue": "report", "schema": schema}})
