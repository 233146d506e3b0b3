"""Schedules of a real pg-boss, watched without a change to them: each fault is named with its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command, run_probe
from tests.support.redis_server import running_worker
from tests.support.third_party import ThirdPartyServers, find_free_port
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe

MINUTE = 60_000
INSTANTS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = 'pgboss.job'::regclass AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
"""


class Lab:
    """A database of its own in which pg-boss keeps its schedules. Time passes by making everything older."""

    def __init__(self, url: str, peers: ThirdPartyServers):
        self.url, self.peers, self.queue = url.replace("+psycopg", ""), peers, f"digest-{uuid4().hex[:8]}"
        self.memory: dict[str, Json] = {}

    def worker(self, does: str) -> Any:
        told = {"DATABASE": self.url, "QUEUE": self.queue, "BEHAVIOR": does}
        return running_worker(*node_worker_command(self.peers, "pgboss_schedules.cjs", **told))

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def later(self, minutes: int, *, beating: bool = False) -> None:
        """`beating`: the scheduler itself goes on."""
        older = ", ".join(f"{name} = {name} - interval '{minutes} min'" for (name,) in self.sql(INSTANTS))
        self.sql(f"UPDATE pgboss.job SET {older}")
        self.sql(f"UPDATE pgboss.schedule SET updated_on = updated_on - interval '{minutes} min'")
        if not beating:
            self.sql(f"UPDATE pgboss.version SET cron_on = cron_on - interval '{minutes} min'")
        for known in self.memory.values():
            for name in ("expected_from", "last_started_at", "last_finished_at", "last_succeeded_at"):
                known[name] = None if known[name] is None else known[name] - minutes * MINUTE

    def look(self, pgboss: Mapping[str, Any] = {}, **watch: Mapping[str, Any]) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        limits = {"*" if name == "rest" else name: told for name, told in watch.items()}
        jobs = {"pgboss": {"url": self.url, **pgboss}, "watch": limits}
        report = asyncio.run(
            run_probe(JobsProbe.model_validate({"name": "Schedules", "jobs": jobs}), probe_state=self.memory)
        )
        self.memory |= report.state_updates
        return report

    def wrong(self, **watch: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        report = self.look(**watch)
        assert report.result.jobs is not None, report.result.message
        return {name: trouble[:2] for name, trouble in report.result.jobs.items()}

    def known(self, name: str) -> Json:
        """What is remembered of a job."""
        [told] = [known for known in self.memory.values() if known["name"] == name]
        return told


@pytest.fixture
def lab(postgres: PostgresServer, peers: ThirdPartyServers) -> Iterator[Lab]:
    with postgres.temporary_database() as url:
        yield Lab(url, peers)


def test_every_schedule_is_found_and_well(lab: Lab) -> None:
    with lab.worker("return"):
        report = lab.look()
        wait_until(lambda: "last_ok" in lab.look().evidence.facts["jobs"][f"{lab.queue}-shared/often"])
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    facts = report.evidence.facts["jobs"]
    names = {lab.queue, *(f"{lab.queue}-{rest}" for rest in ("nightly", "shared/often", "shared/rule"))}
    assert set(facts) == names
    nightly = facts[f"{lab.queue}-nightly"]
    assert (nightly.keys(), nightly["cron"], nightly["timezone"]) == (
        {"cron", "timezone", "next"}, "0 3 * * *", "Europe/Berlin",
    )  # fmt: skip
    assert facts[lab.queue]["last_ok"] >= facts[lab.queue]["last_start"]
    assert facts[f"{lab.queue}-shared/rule"]["unreadable_schedule"].startswith("this schedule cannot be read")
    assert lab.known(lab.queue)["next_expected_at"] is not None


def test_a_stopped_process_makes_its_schedules_overdue_within_their_grace_and_then_is_dead_itself(lab: Lab) -> None:
    with lab.worker("return"):
        assert lab.wrong() == {}
    lab.later(3)
    wrong = lab.wrong()
    assert wrong[lab.queue][0] == "job.overdue"
    assert set(wrong) <= {lab.queue, f"{lab.queue}-shared/often"}
    lab.later(4)
    report = lab.look()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("the scheduler has not reported since ")
    assert report.result.jobs is None
    with lab.worker("return"):
        assert lab.queue not in lab.wrong()


def test_what_happened_before_the_first_look_counts(lab: Lab) -> None:
    with lab.worker("return"):
        pass
    lab.sql("UPDATE pgboss.job SET state = 'completed', completed_on = now() WHERE state = 'active'")
    lab.later(10, beating=True)
    reason, message = lab.wrong()[lab.queue]
    assert reason == "job.overdue"
    assert message.startswith(f"{lab.queue} is overdue: ")


def test_a_schedule_that_nobody_works_for_is_overdue_from_its_oldest_job(lab: Lab) -> None:
    with lab.worker("nothing"):
        made = "SELECT count(*) FROM pgboss.job WHERE name = %s"
        wait_until(lambda: lab.sql(made, lab.queue)[0][0])
        assert lab.wrong() == {}
        lab.later(3, beating=True)
        assert lab.wrong()[lab.queue][0] == "job.overdue"


def test_a_monthly_job_whose_runs_are_deleted_is_remembered(lab: Lab) -> None:
    with lab.worker("return"):
        assert lab.wrong() == {}
    before = lab.known(lab.queue)["last_succeeded_at"]
    lab.sql("DELETE FROM pgboss.job")
    assert lab.wrong() == {}
    assert lab.known(lab.queue)["last_succeeded_at"] == before


def test_a_job_that_throws_has_failed(lab: Lab) -> None:
    told: dict[str, tuple[str, str]] = {}
    with lab.worker("throw"):
        wait_until(lambda: told.update(lab.wrong()) or lab.queue in told)  # by the next minute it has failed twice
    assert told[lab.queue] == ("job.failed", f"{lab.queue} failed: no address book")


def test_a_killed_workers_job_is_stalled(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        assert lab.wrong() == {}
        assert lab.wrong(rest={"max_runtime": "1ms"})[lab.queue][0] == "job.stuck"
        worker.kill()
    lab.later(1, beating=True)
    reason, message = lab.wrong()[lab.queue]
    assert reason == "job.stalled"
    assert message.endswith("and its worker is gone")


# --- other versions, and what is not there


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
OLDER = {
    24: TABLES.replace("EXPIRE", "expire_in interval DEFAULT interval '15 min'").replace("KEY cron", "cron"),
    26: TABLES.replace("EXPIRE", "expire_seconds int DEFAULT 900").replace("KEY cron", "key text DEFAULT '', cron"),
}


@pytest.mark.parametrize("version", OLDER)
def test_other_versions_of_the_tables(lab: Lab, version: int) -> None:
    lab.sql(OLDER[version])
    lab.sql("INSERT INTO pgboss.version VALUES (%s, now())", version)
    lab.sql("INSERT INTO pgboss.schedule (name, cron) VALUES ('report', '* * * * *')")
    done = "INSERT INTO pgboss.job (name, state, started_on, completed_on) VALUES ('report', 'completed', now(), now())"
    lab.sql(done)
    report = lab.look()
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    assert set(report.evidence.facts) == {"jobs", "write_access"}
    lab.later(3, beating=True)
    assert lab.wrong()["report"][0] == "job.overdue"
    lab.sql(done)
    assert lab.wrong() == {}


def test_schedules_that_are_not_told_apart_are_said_to_be_so(lab: Lab) -> None:
    lab.sql(OLDER[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    lab.sql("INSERT INTO pgboss.schedule (name, key, cron) VALUES ('r', 'a', '0 3 * * *'), ('r', 'b', '0 4 * * *')")
    facts = lab.look().evidence.facts
    assert set(facts["jobs"]) == {"r/a", "r/b"}
    assert facts["shared_queues"] == "r: pg-boss before 12 does not distinguish the schedules of one queue"


def test_a_scheduler_without_schedules_may_be_silent(lab: Lab) -> None:
    lab.sql(OLDER[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, now() - interval '1 day')")
    assert lab.look().result.outcome is Outcome.PASS


def test_a_schema_without_schedules(lab: Lab) -> None:
    lab.sql(OLDER[26])
    lab.sql("DROP TABLE pgboss.schedule")
    result = lab.look().result
    assert (result.reason, result.message) == (
        "queue.missing", "pg-boss in schema 'pgboss' has no schedules: table schedule is missing",
    )  # fmt: skip
    assert lab.look({"schema": "elsewhere"}).result.reason == "queue.missing"


def test_a_role_is_told_what_it_lacks_and_what_it_need_not_have(lab: Lab) -> None:
    lab.sql(OLDER[26])
    lab.sql("INSERT INTO pgboss.version VALUES (26, NULL)")
    lab.sql("CREATE ROLE looker LOGIN")
    looker = {"url": lab.url.replace("postgres@", "looker@")}
    try:
        result = lab.look(looker).result
        lab.sql("GRANT USAGE ON SCHEMA pgboss TO looker")
        lab.sql("GRANT SELECT ON pgboss.version, pgboss.queue, pgboss.schedule, pgboss.job TO looker")
        facts = [lab.look(looker).evidence.facts]
        for table in ("schedule", "job"):
            lab.sql(f"GRANT INSERT ON pgboss.{table} TO looker")
            facts.append(lab.look(looker).evidence.facts)
            lab.sql(f"REVOKE INSERT ON pgboss.{table} FROM looker")
    finally:
        lab.sql("DROP OWNED BY looker")
        lab.sql("DROP ROLE looker")
    rights = "the role needs USAGE on the schema, SELECT on version, queue, schedule and job"
    assert result.reason == "broker.refused"
    assert result.message.endswith(rights)
    told = f"looker can write; {rights} only"
    assert [fact.get("write_access") for fact in facts] == [None, told, told]


def test_a_database_that_is_down_says_nothing_of_its_jobs(lab: Lab) -> None:
    result = lab.look({"url": f"postgresql://u@127.0.0.1:{find_free_port()}/app"}).result
    assert (result.outcome, result.reason, result.jobs) == (Outcome.FAIL, "broker.unreachable", None)
