"""Schedules of a real pg-boss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.job_source_lab import JobSourceLab
from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command
from tests.support.redis_server import running_worker
from tests.support.third_party import ThirdPartyServers, find_free_port
from watchdog.domain.model import Outcome

MINUTE_MS = 60_000
TIME_COLUMNS_SQL = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = 'pgboss.job'::regclass AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
"""


class PgbossScheduleLab(JobSourceLab):
    """A database of its own. Time passes by making everything in it older."""

    def __init__(self, url: str, peers: ThirdPartyServers):
        super().__init__()
        self.url, self.peers, self.queue = url.replace("+psycopg", ""), peers, f"digest-{uuid4().hex[:8]}"

    def worker(self, behavior: str) -> Any:
        env = {"DATABASE": self.url, "QUEUE": self.queue, "BEHAVIOR": behavior}
        return running_worker(*node_worker_command(self.peers, "pgboss_schedules.cjs", **env))

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def age_everything(self, minutes: int, *, scheduler_alive: bool = False) -> None:
        """`scheduler_alive`: except for the scheduler's heartbeat."""
        older = ", ".join(f"{name} = {name} - interval '{minutes} min'" for (name,) in self.sql(TIME_COLUMNS_SQL))
        self.sql(f"UPDATE pgboss.job SET {older}")
        self.sql(f"UPDATE pgboss.schedule SET updated_on = updated_on - interval '{minutes} min'")
        if not scheduler_alive:
            self.sql(f"UPDATE pgboss.version SET cron_on = cron_on - interval '{minutes} min'")
        for state in self.state.values():
            for name in ("expected_from", "last_start", "last_end", "last_ok"):
                state[name] = None if state[name] is None else state[name] - minutes * MINUTE_MS

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"pgboss": {"url": self.url}}


@pytest.fixture
def lab(postgres: PostgresServer, peers: ThirdPartyServers) -> Iterator[PgbossScheduleLab]:
    with postgres.temporary_database() as url:
        yield PgbossScheduleLab(url, peers)


def test_every_schedule_is_read(lab: PgbossScheduleLab) -> None:
    with lab.worker("return"):
        report = lab.run_probe()
        wait_until(lambda: "last_ok" in lab.job_evidence(f"{lab.queue}-shared/often"))
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    facts = report.evidence.facts["jobs"]
    names = {lab.queue, *(f"{lab.queue}-{rest}" for rest in ("nightly", "shared/often", "shared/rule"))}
    assert set(facts) == names
    nightly = facts[f"{lab.queue}-nightly"]
    assert (nightly.keys(), nightly["cron"], nightly["timezone"]) == (
        {"cron", "timezone", "next"}, "0 3 * * *", "Europe/Berlin",
    )  # fmt: skip
    assert facts[lab.queue]["last_ok"] >= facts[lab.queue]["last_start"]
    assert facts[f"{lab.queue}-shared/rule"]["unreadable_schedule"].startswith("this schedule cannot be read")
    assert lab.job_state(lab.queue)["schedule_text"]


def test_a_stopped_process_is_reported_first_as_overdue_schedules_then_as_dead(lab: PgbossScheduleLab) -> None:
    with lab.worker("return"):
        assert lab.problems() == {}
    lab.age_everything(3)
    problems = lab.problems()
    assert problems[lab.queue][0] == "job.overdue"
    assert set(problems) <= {lab.queue, f"{lab.queue}-shared/often"}
    lab.age_everything(4)
    report = lab.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("the scheduler has not reported since ")
    assert report.problems is None
    with lab.worker("return"):
        assert lab.queue not in lab.problems()


def test_runs_before_the_first_poll_count(lab: PgbossScheduleLab) -> None:
    with lab.worker("return"):
        pass
    lab.sql("UPDATE pgboss.job SET state = 'completed', completed_on = now() WHERE state = 'active'")
    lab.age_everything(10, scheduler_alive=True)
    reason, message = lab.problems()[lab.queue]
    assert reason == "job.overdue"
    assert message.startswith(f"{lab.queue} is overdue: ")


def test_without_a_worker_a_schedule_is_overdue_from_its_oldest_job(lab: PgbossScheduleLab) -> None:
    with lab.worker("nothing"):
        count_sql = "SELECT count(*) FROM pgboss.job WHERE name = %s"
        wait_until(lambda: lab.sql(count_sql, lab.queue)[0][0])
        assert lab.problems() == {}
        lab.age_everything(3, scheduler_alive=True)
        assert lab.problems()[lab.queue][0] == "job.overdue"


def test_deleted_runs_are_remembered(lab: PgbossScheduleLab) -> None:
    with lab.worker("return"):
        assert lab.problems() == {}
    before = lab.job_state(lab.queue)["last_ok"]
    lab.sql("DELETE FROM pgboss.job")
    assert lab.problems() == {}
    assert lab.job_state(lab.queue)["last_ok"] == before


def test_a_job_that_throws_has_failed(lab: PgbossScheduleLab) -> None:
    problems: dict[str, tuple[str, str]] = {}
    with lab.worker("throw"):
        # The first poll that reports the failure counts: a minute later the job has failed twice.
        wait_until(lambda: problems.update(lab.problems()) or lab.queue in problems)
    assert problems[lab.queue] == ("job.failed", f"{lab.queue} failed: no address book")


def test_a_killed_workers_job_is_stalled(lab: PgbossScheduleLab) -> None:
    with lab.worker("hang") as worker:
        assert lab.problems() == {}
        assert lab.problems(rest={"max_runtime": "1ms"})[lab.queue][0] == "job.stuck"
        worker.kill()
    lab.age_everything(1, scheduler_alive=True)
    reason, message = lab.problems()[lab.queue]
    assert reason == "job.stalled"
    assert message.endswith("and its worker is gone")


# --- other versions, and missing tables and privileges


TABLES = """
    CREATE SCHEMA pgboss;
    CREATE TYPE pgboss.job_state AS ENUM ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
    CREATE TABLE pgboss.version (version int PRIMARY KEY, cron_on timestamptz);
    CREATE TABLE pgboss.queue (name text PRIMARY KEY, policy text);
    CREATE TABLE pgboss.job (
        id uuid DEFAULT gen_random_uuid(), name text NOT NULL, state pgboss.job_state NOT NULL DEFAULT 'created',
        start_after timestamptz NOT NULL DEFAULT now(), created_on timestamptz NOT NULL DEFAULT now(),
        started_on timestamptz, completed_on timestamptz, keep_until timestamptz, output jsonb,
        EXPIRE, PRIMARY KEY (name, id)) PARTITION BY LIST (name);
    CREATE TABLE pgboss.j1 PARTITION OF pgboss.job DEFAULT;
    CREATE TABLE pgboss.schedule (
        name text, KEY cron text NOT NULL, timezone text, data jsonb, options jsonb,
        created_on timestamptz NOT NULL DEFAULT now(), updated_on timestamptz NOT NULL DEFAULT now());
"""
TABLES_BY_VERSION = {
    24: TABLES.replace("EXPIRE", "expire_in interval DEFAULT interval '15 min'").replace("KEY cron", "cron"),
    26: TABLES.replace("EXPIRE", "expire_seconds int DEFAULT 900").replace("KEY cron", "key text DEFAULT '', cron"),
}


@pytest.mark.parametrize("version", TABLES_BY_VERSION)
def test_other_versions_of_the_tables(lab: PgbossScheduleLab, version: int) -> None:
    lab.sql(TABLES_BY_VERSION[version])
    lab.sql("INSERT INTO pgboss.version VALUES (%s, now())", version)
    lab.sql("INSERT INTO pgboss.schedule (name, cron) VALUES ('report', '* * * * *')")
    insert_run_sql = (
        "INSERT INTO pgboss.job (name, state, started_on, completed_on) VALUES ('report', 'completed', now(), now())"
    )
    lab.sql(insert_run_sql)
    report = lab.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert set(report.evidence.facts) == {"jobs", "write_access"}
    lab.age_everything(3, scheduler_alive=True)
    assert lab.problems()["report"][0] == "job.overdue"
    lab.sql(insert_run_sql)
    assert lab.problems() == {}


def test_schedules_that_share_a_queue_are_reported(lab: PgbossScheduleLab) -> None:
    lab.sql(TABLES_BY_VERSION[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    lab.sql("INSERT INTO pgboss.schedule (name, key, cron) VALUES ('r', 'a', '0 3 * * *'), ('r', 'b', '0 4 * * *')")
    facts = lab.run_probe().evidence.facts
    assert set(facts["jobs"]) == {"r/a", "r/b"}
    assert facts["shared_queues"] == "r: pg-boss before 12 does not distinguish the schedules of one queue"


def test_a_scheduler_without_schedules_needs_no_heartbeat(lab: PgbossScheduleLab) -> None:
    lab.sql(TABLES_BY_VERSION[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, now() - interval '1 day')")
    assert lab.run_probe().result.outcome is Outcome.PASS


def test_a_schema_without_schedules(lab: PgbossScheduleLab) -> None:
    lab.sql(TABLES_BY_VERSION[26])
    lab.sql("DROP TABLE pgboss.schedule")
    result = lab.run_probe().result
    assert (result.reason, result.message) == (
        "queue.missing", "pg-boss in schema 'pgboss' has no schedules: table schedule is missing",
    )  # fmt: skip
    assert lab.run_probe(overrides={"schema": "elsewhere"}).result.reason == "queue.missing"


def test_missing_and_needless_privileges_are_reported(lab: PgbossScheduleLab) -> None:
    lab.sql(TABLES_BY_VERSION[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    lab.sql("CREATE ROLE reader LOGIN")
    reader = {"url": lab.url.replace("postgres@", "reader@")}
    try:
        result = lab.run_probe(overrides=reader).result
        lab.sql("GRANT USAGE ON SCHEMA pgboss TO reader")
        lab.sql("GRANT SELECT ON pgboss.version, pgboss.queue, pgboss.schedule, pgboss.job TO reader")
        facts = [lab.run_probe(overrides=reader).evidence.facts]
        for table in ("schedule", "job"):
            lab.sql(f"GRANT INSERT ON pgboss.{table} TO reader")
            facts.append(lab.run_probe(overrides=reader).evidence.facts)
            lab.sql(f"REVOKE INSERT ON pgboss.{table} FROM reader")
    finally:
        lab.sql("DROP OWNED BY reader")
        lab.sql("DROP ROLE reader")
    required = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"
    assert result.reason == "broker.refused"
    assert result.message.endswith(required)
    warning = f"reader can write; {required} only"
    assert [fact.get("write_access") for fact in facts] == [None, warning, warning]


def test_a_database_that_is_down(lab: PgbossScheduleLab) -> None:
    run = lab.run_probe(overrides={"url": f"postgresql://u@127.0.0.1:{find_free_port()}/app"})
    assert (run.result.outcome, run.result.reason, run.problems) == (Outcome.FAIL, "broker.unreachable", None)
