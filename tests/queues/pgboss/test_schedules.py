"""Schedules of a real pg-boss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command
from tests.support.redis_server import running_worker
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import Outcome
from watchdog.domain.probe_state import JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY, SCHEDULED_JOB_STATE_KEY_PREFIX

MINUTE_MS = 60_000
TIME_COLUMNS_SQL = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = 'pgboss.job'::regclass AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
"""


class PgbossScheduleHarness(JobSourceHarness):
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
        for key, state in self.state.items():
            names: tuple[str, ...] = ()
            if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX):
                names = ("expected_from", "last_start", "last_end", "last_ok")
            elif key == JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY and not scheduler_alive:
                names = ("heartbeat_at",)
            for name in names:
                state[name] = None if state[name] is None else state[name] - minutes * MINUTE_MS

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"pgboss": {"url": self.url}}


@pytest.fixture
def harness(postgres: PostgresServer, peers: ThirdPartyServers) -> Iterator[PgbossScheduleHarness]:
    with postgres.temporary_database() as url:
        yield PgbossScheduleHarness(url, peers)


def test_every_schedule_is_read(harness: PgbossScheduleHarness) -> None:
    with harness.worker("return"):
        report = harness.run_probe()
        wait_until(lambda: "last_ok" in harness.job_evidence(f"{harness.queue}-shared/often"))
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    facts = report.evidence.facts["jobs"]
    names = {harness.queue, *(f"{harness.queue}-{rest}" for rest in ("nightly", "shared/often", "shared/rule"))}
    assert set(facts) == names
    nightly = facts[f"{harness.queue}-nightly"]
    assert (nightly.keys(), nightly["cron"], nightly["timezone"]) == (
        {"cron", "timezone", "next_run"}, "0 3 * * *", "Europe/Berlin",
    )  # fmt: skip
    digest = report.result.listings["job"].subjects[harness.queue]
    assert digest.last_ok >= digest.last_start
    assert set(report.findings("schedule")) == {f"{harness.queue}-shared/rule"}
    assert harness.job_state(harness.queue)["schedule_text"]


def test_a_stopped_process_is_one_problem_after_two_minutes(harness: PgbossScheduleHarness) -> None:
    with harness.worker("return"):
        assert harness.problems() == {}
    harness.age_everything(1)
    assert harness.problems("1s") == {}, "it may be starting again"
    harness.age_everything(2)
    report = harness.run_probe("1s")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("no pg-boss scheduler is running: the last heartbeat was at ")
    assert report.problems is None
    with harness.worker("return"):
        assert harness.queue not in harness.problems()


def test_deleted_schedules_are_one_problem_and_restored_ones_are_as_before(harness: PgbossScheduleHarness) -> None:
    with harness.worker("return"):
        assert harness.source_reason() == ""
        harness.sql("CREATE TABLE backup AS SELECT * FROM pgboss.schedule")
        harness.sql("DELETE FROM pgboss.schedule")
        report = harness.run_probe()
        assert (report.result.reason, report.problems) == ("job.most_gone", {})
        assert report.result.message.startswith(
            "table pgboss.schedule is empty; none of its 4 jobs is listed any more: digest-"
        )
        harness.sql("INSERT INTO pgboss.schedule SELECT * FROM backup")
        assert harness.source_reason() == ""
        harness.sql("DELETE FROM pgboss.schedule WHERE name = %s", harness.queue)
        assert harness.problems()[harness.queue][0] == "job.gone"
        harness.sql("ALTER SCHEMA pgboss RENAME TO elsewhere")
        assert harness.source_reason() == "job.most_gone"


def test_schedules_that_cannot_be_read_are_not_judged(harness: PgbossScheduleHarness) -> None:
    """pg-boss stores any text as a time zone. It knows schedules other than cron expressions."""
    harness.sql(TABLES_BY_VERSION[24])
    harness.sql("INSERT INTO pgboss.version VALUES (24, now())")
    harness.sql("INSERT INTO pgboss.schedule (name, cron, timezone) VALUES ('a', '0 * * * *', 'America/New_Yrok')")
    harness.sql("INSERT INTO pgboss.schedule (name, cron) VALUES ('b', '0 * * *'), ('c', '0 * * * *')")
    report = harness.run_probe()
    assert report.problems == {}
    findings = report.findings("schedule")
    assert set(findings) == {"a", "b"}
    assert findings["a"].endswith("unknown time zone 'America/New_Yrok': did you mean America/New_York?")
    harness.sql("UPDATE pgboss.schedule SET timezone = 'America/New_York', cron = '0 * * * *'")
    assert harness.run_probe().findings("schedule") == {}
    assert harness.run_probe(rest={"every": "1h"}).findings("schedule") == {}


def test_runs_before_the_first_poll_count(harness: PgbossScheduleHarness) -> None:
    with harness.worker("return"):
        pass
    harness.sql("UPDATE pgboss.job SET state = 'completed', completed_on = now() WHERE state = 'active'")
    harness.age_everything(10, scheduler_alive=True)
    reason, message = harness.problems()[harness.queue]
    assert reason == "job.overdue"
    assert message.startswith(f"{harness.queue} is overdue: ")


def test_without_a_worker_a_schedule_is_overdue_from_its_oldest_job(harness: PgbossScheduleHarness) -> None:
    with harness.worker("nothing"):
        count_sql = "SELECT count(*) FROM pgboss.job WHERE name = %s"
        wait_until(lambda: harness.sql(count_sql, harness.queue)[0][0])
        assert harness.problems() == {}
        harness.age_everything(3, scheduler_alive=True)
        assert harness.problems()[harness.queue][0] == "job.overdue"


def test_deleted_runs_are_remembered(harness: PgbossScheduleHarness) -> None:
    with harness.worker("return"):
        assert harness.problems() == {}
    before = harness.job_state(harness.queue)["last_ok"]
    harness.sql("DELETE FROM pgboss.job")
    assert harness.problems() == {}
    assert harness.job_state(harness.queue)["last_ok"] == before


def test_a_job_that_throws_has_failed(harness: PgbossScheduleHarness) -> None:
    problems: dict[str, tuple[str, str]] = {}
    with harness.worker("throw"):
        wait_until(lambda: problems.update(harness.problems()) or harness.queue in problems)
    reason, message = problems[harness.queue]
    assert reason == "job.failed"
    # On a busy machine the job may have failed twice before the first poll that finds it.
    assert re.fullmatch(rf"{harness.queue} failed( \d+\stimes in a row)?: no address book", message)


def test_a_killed_workers_job_is_stalled(harness: PgbossScheduleHarness) -> None:
    with harness.worker("hang") as worker:
        assert harness.problems() == {}
        assert harness.problems(rest={"max_runtime": "1ms"})[harness.queue][0] == "job.stuck"
        worker.kill()
    harness.age_everything(1, scheduler_alive=True)
    reason, message = harness.problems()[harness.queue]
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
def test_other_versions_of_the_tables(harness: PgbossScheduleHarness, version: int) -> None:
    harness.sql(TABLES_BY_VERSION[version])
    harness.sql("INSERT INTO pgboss.version VALUES (%s, now())", version)
    harness.sql("INSERT INTO pgboss.schedule (name, cron) VALUES ('report', '* * * * *')")
    insert_run_sql = (
        "INSERT INTO pgboss.job (name, state, started_on, completed_on) VALUES ('report', 'completed', now(), now())"
    )
    harness.sql(insert_run_sql)
    report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert set(report.evidence.facts) == {"jobs", "write_access"}
    harness.age_everything(3, scheduler_alive=True)
    assert harness.problems()["report"][0] == "job.overdue"
    harness.sql(insert_run_sql)
    assert harness.problems() == {}


def test_schedules_that_share_a_queue_are_reported(harness: PgbossScheduleHarness) -> None:
    harness.sql(TABLES_BY_VERSION[26])
    harness.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    harness.sql("INSERT INTO pgboss.schedule (name, key, cron) VALUES ('r', 'a', '0 3 * * *'), ('r', 'b', '0 4 * * *')")
    facts = harness.run_probe().evidence.facts
    assert set(facts["jobs"]) == {"r/a", "r/b"}
    assert facts["shared_queues"] == "r: pg-boss before 12 does not distinguish the schedules of one queue"


def test_without_schedules_that_is_the_problem_and_not_the_heartbeat(harness: PgbossScheduleHarness) -> None:
    harness.sql(TABLES_BY_VERSION[26])
    harness.sql("INSERT INTO pgboss.version VALUES (26, now() - interval '1 day')")
    assert harness.source_reason() == "job.none_listed"


def test_a_schema_without_schedules(harness: PgbossScheduleHarness) -> None:
    harness.sql(TABLES_BY_VERSION[26])
    harness.sql("DROP TABLE pgboss.schedule")
    result = harness.run_probe().result
    assert (result.reason, result.message) == (
        "queue.missing", "pg-boss in schema 'pgboss' has no schedules: table schedule is missing",
    )  # fmt: skip
    assert harness.run_probe(overrides={"schema": "elsewhere"}).result.reason == "queue.missing"


def test_missing_and_needless_privileges_are_reported(harness: PgbossScheduleHarness) -> None:
    harness.sql(TABLES_BY_VERSION[26])
    harness.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    harness.sql("CREATE ROLE reader LOGIN")
    reader = {"url": harness.url.replace("postgres@", "reader@")}
    try:
        result = harness.run_probe(overrides=reader).result
        harness.sql("GRANT USAGE ON SCHEMA pgboss TO reader")
        harness.sql("GRANT SELECT ON pgboss.version, pgboss.queue, pgboss.schedule, pgboss.job TO reader")
        facts = [harness.run_probe(overrides=reader).evidence.facts]
        for table in ("schedule", "job"):
            harness.sql(f"GRANT INSERT ON pgboss.{table} TO reader")
            facts.append(harness.run_probe(overrides=reader).evidence.facts)
            harness.sql(f"REVOKE INSERT ON pgboss.{table} FROM reader")
    finally:
        harness.sql("DROP OWNED BY reader")
        harness.sql("DROP ROLE reader")
    required = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"
    assert result.reason == "broker.refused"
    assert result.message.endswith(required)
    warning = f"reader can write; {required} only"
    assert [fact.get("write_access") for fact in facts] == [None, warning, warning]


def test_a_database_that_is_down(harness: PgbossScheduleHarness) -> None:
    run = harness.run_probe(overrides={"url": f"postgresql://u@127.0.0.1:{find_free_port()}/app"})
    assert (run.result.outcome, run.result.reason, run.problems) == (Outcome.FAIL, "broker.unreachable", None)
