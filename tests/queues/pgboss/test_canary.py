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
from tests.support.queue_lab import NBSP
from tests.support.queue_labs import PgbossLab
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import Outcome, RecordedResult


@pytest.fixture(scope="module")
def system() -> type[PgbossLab]:
    return PgbossLab


# --- the stages


def test_the_message_counts_waiting_jobs(lab: PgbossLab) -> None:
    """Neither delayed nor blocked jobs count."""
    lab.create_queue()
    row = "INSERT INTO pgboss.job (name, policy, start_after, state, blocked) VALUES (%s, 'standard', "
    lab.execute(f"{row} now() - interval '1 hour', 'created', false)", lab.queue_name)
    lab.execute(f"{row} now() + interval '1 hour', 'created', false)", lab.queue_name)
    lab.execute(f"{row} now() - interval '2 hours', 'created', true)", lab.queue_name)
    lab.execute(f"{row} now() - interval '2 hours', 'active', false)", lab.queue_name)
    message = lab.run_probe(start_within="100ms").result.message
    assert message == f"not picked up within 100{NBSP}ms: 1 active, 2 waiting, oldest 1{NBSP}h"


def test_a_thrown_value_that_is_not_an_error_is_reported(lab: PgbossLab) -> None:
    with lab.running_worker("refuse"):
        report = lab.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.failed")
    assert report.result.message == 'the job failed: {"code": 7}'
    assert lab.job_states() == []


def test_a_worker_without_heartbeats_is_gone(lab: PgbossLab) -> None:
    def kill_worker() -> None:
        worker.kill()
        lab.update_jobs("heartbeat_on = now() - interval '1 hour'")

    with lab.running_worker("hang", OPTIONS='{"heartbeatSeconds": 10}') as worker:
        report = lab.run_probe_and_trigger(lab.count_active, kill_worker, start_within="2s", finish_within="2s")
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished within 2{NBSP}s: its worker is gone")
    assert lab.job_states() == []


# --- queue policies


@pytest.mark.parametrize("policy", ["standard", "short", "singleton", "stately", "exclusive"])
def test_a_sentinel_and_other_jobs_do_not_exclude_each_other(lab: PgbossLab, policy: str) -> None:
    """Also where the policy allows only one waiting job."""
    lab.create_queue(f'{{"policy": "{policy}"}}')
    insert_other_sql = "INSERT INTO pgboss.job (name, policy) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING id"
    assert lab.execute(insert_other_sql, lab.queue_name, policy)

    def replace_other_job() -> None:
        lab.execute("DELETE FROM pgboss.job WHERE name = %s AND data IS NULL", lab.queue_name)
        assert lab.execute(insert_other_sql, lab.queue_name, policy)

    report = lab.run_probe_and_trigger(lambda: len(lab.job_states()) == 2, replace_other_job, start_within="1s")
    assert report.result.measurements["waiting"] == 2
    assert lab.job_states() == ["created"]


def test_a_sentinel_waits_in_a_singleton_queue(lab: PgbossLab) -> None:
    """With a key of its own it would overtake the job that blocks all others."""
    with lab.running_worker("hang", CONCURRENCY="2", OPTIONS='{"policy": "singleton"}'):
        lab.execute("INSERT INTO pgboss.job (name, policy) VALUES (%s, 'singleton')", lab.queue_name)
        wait_until(lambda: lab.job_states() == ["active"])
        message = lab.run_probe(start_within="900ms").result.message
    assert message.startswith(f"not picked up within 900{NBSP}ms: 1 active, 1 waiting")


def test_listening_workers_are_notified(lab: PgbossLab) -> None:
    """They poll only every 30 s."""
    with lab.running_worker("return", LISTENS="1", OPTIONS='{"notify": true}'):
        assert [lab.run_probe().result.outcome for _ in range(2)] == [Outcome.PASS] * 2


def test_another_schema(postgres: PostgresServer, peers: ThirdPartyServers) -> None:
    with postgres.temporary_database() as url:
        lab = PgbossLab(url, peers)
        with lab.running_worker("return", SCHEMA='"Jobs-2"', LISTENS="1", OPTIONS='{"notify": true}'):
            assert lab.run_probe({"schema": "Jobs-2"}).result.outcome is Outcome.PASS


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
        lab = PgbossLab(url, peers)
        lab.queue_name = "report"
        lab.execute(
            f"CREATE SCHEMA pgboss; CREATE TYPE pgboss.job_state AS ENUM ({states}); {TABLES_BY_VERSION[tables]}"
        )
        lab.execute(
            f"CREATE TABLE pgboss.version (version int PRIMARY KEY); INSERT INTO pgboss.version VALUES ({version})"
        )
        lab.execute("INSERT INTO pgboss.queue (name, policy) VALUES ('report', 'standard')")

        async def run_while_working() -> RecordedResult:
            task = asyncio.create_task(run_probe(lab.build_probe()))
            await wait_until_async(lab.job_states)
            ((timeout, retention),) = lab.execute(
                f"SELECT {'expire_in' if tables == 24 else 'expire_seconds'}, keep_until - created_on FROM pgboss.job"
            )
            assert (retention.total_seconds(), getattr(timeout, "total_seconds", lambda: timeout)()) == (70, 70)
            lab.update_jobs("state = 'active', started_on = now()")
            await asyncio.sleep(0.1)
            lab.update_jobs("state = 'completed', completed_on = now()")
            return await task

        report = asyncio.run(run_while_working())
        assert (report.result.outcome, report.result.message) == (Outcome.PASS, "")
        assert report.evidence.facts == {"sentinel": report.evidence.facts["sentinel"], **facts}
        assert "pick_up" in report.result.phases
        assert lab.job_states() == []
        assert lab.run_probe(start_within="100ms").result.reason == "canary.not_picked_up"
        assert lab.job_states() == []


# --- missing tables and privileges


def test_a_schema_without_pgboss(lab: PgbossLab) -> None:
    report = lab.run_probe({"schema": "elsewhere"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == "pg-boss is not in schema 'elsewhere': its tables do not exist"


def test_tables_of_another_application(lab: PgbossLab) -> None:
    lab.execute("CREATE SCHEMA IF NOT EXISTS other")
    lab.execute("CREATE TABLE IF NOT EXISTS other.job (id int)")
    assert lab.run_probe({"schema": "other"}).result.message == (
        "pg-boss is not in schema 'other': table version is missing"
    )


@contextmanager
def role(lab: PgbossLab, *grants: str) -> Iterator[str]:
    """The URL of a role with these privileges only."""
    name = f"watcher_{uuid4().hex[:8]}"
    lab.execute(f"CREATE ROLE {name} LOGIN")
    for grant in grants:
        lab.execute(f"GRANT {grant} TO {name}")
    try:
        yield lab.probed_url.replace("postgres@", f"{name}@")
    finally:
        lab.execute(f"DROP OWNED BY {name}")
        lab.execute(f"DROP ROLE {name}")


REQUIRED_GRANTS = (
    "USAGE ON SCHEMA pgboss",
    "SELECT ON pgboss.version, pgboss.queue, pgboss.job",
    "INSERT, DELETE ON pgboss.job",
)


def test_the_required_privileges_are_enough(lab: PgbossLab) -> None:
    with (
        role(lab, *REQUIRED_GRANTS) as url,
        lab.running_worker("return", OPTIONS='{"notify": true, "partition": true}'),
    ):
        assert lab.run_probe({"url": url}).result.message == ""


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
def test_missing_privileges_are_reported(lab: PgbossLab, grants: tuple[str, ...], problem: str) -> None:
    lab.create_queue()
    with role(lab, *grants) as url:
        report = lab.run_probe({"url": url})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == (
        f"PostgreSQL denies access: {problem}; the role needs USAGE on the schema, "
        "SELECT on version, queue and job, INSERT and DELETE on job"
    )
    assert lab.job_states() == []


def test_a_read_only_database(lab: PgbossLab) -> None:
    lab.create_queue()
    report = lab.run_probe({"url": f"{lab.probed_url}?options=-cdefault_transaction_read_only%3Don"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == "PostgreSQL returned an error: cannot execute SELECT in a read-only transaction"


# --- database failures


@pytest.mark.usefixtures("impatient")
def test_a_database_that_accepts_no_more_connections(lab: PgbossLab) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0) as full_server:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full_server.getsockname())
        started = time.monotonic()
        report = lab.run_probe({"url": f"postgresql://postgres@127.0.0.1:{full_server.getsockname()[1]}/app"})
        elapsed_s = time.monotonic() - started
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message.endswith("timed out while connecting")
    assert elapsed_s < HANG_S


@pytest.mark.usefixtures("impatient")
def test_locked_tables(lab: PgbossLab) -> None:
    lab.create_queue()
    with psycopg.connect(lab.probed_url) as other:
        other.execute("LOCK TABLE pgboss.job IN ACCESS EXCLUSIVE MODE")
        report = lab.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert report.result.message == "PostgreSQL timed out: canceling statement due to lock timeout"
    assert lab.job_states() == []


def test_the_checked_address_is_the_one_that_is_connected_to(lab: PgbossLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second DNS query could return another address."""
    monkeypatch.setattr("watchdog.net.connector.resolve_host", lambda _, port: [(socket.AF_INET, ("127.0.0.1", port))])
    report = lab.run_probe({"url": lab.probed_url.replace("127.0.0.1", "db.invalid")})
    assert report.result.reason == "queue.missing"


# --- configuration


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:p@db/app", "expected postgresql://user:password@host/database"),
        ("postgresql:///app", "expected postgresql://user:password@host/database"),
        ("postgresql://u:p/ss@db/app", "encode : / @ % in the password"),
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
    assert (probe.target, probe.host) == ("db.example/report", "db.example")


@pytest.mark.parametrize("schema", ['a"b', "a.b", "", "1st", "a%sb"])
def test_invalid_schema_names_are_refused(schema: str) -> None:
    with pytest.raises(ValidationError, match="expected a schema name"):
        canary_probe({"pgboss": {"url": "postgresql://db/app", "queue": "report", "schema": schema}})
