"""Jobs in tables of every shape, watched without a change to them: each fault is named with its job."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from tests.support.mariadb import MariaDbServer
from tests.support.polling import HANG_S, wait_until_async
from tests.support.postgres import PASSWORD_ROLE, PostgresServer
from tests.support.probe_runs import run_probe
from tests.support.third_party import find_free_port
from watchdog.config.load import load_config
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import JobProblem, Json, Outcome, RecordedResult
from watchdog.net.errors import ProbeError
from watchdog.probes import JobsProbe
from watchdog.queues.clients import external_database
from watchdog.queues.sql import SqlJobSource

NBSP = "\N{NO-BREAK SPACE}"
COLUMNS = {
    "id": "id", "type": "job_type", "scheduled": "scheduled_at", "started": "started_at", "finished": "completed_at",
    "status": "status", "worker": "instance_id", "error": "error",
}  # fmt: skip
STATUSES = {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]}
TABLE = """
    CREATE TABLE scheduled_jobs (
        id INTEGER PRIMARY KEY, job_type TEXT NOT NULL, status TEXT NOT NULL, scheduled_at TIMESTAMP WITH TIME ZONE,
        started_at TIMESTAMP WITH TIME ZONE, completed_at TIMESTAMP WITH TIME ZONE, instance_id TEXT, error TEXT)
"""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _iso(at: datetime) -> str:
    return format_iso8601(_ms(at))


class Shop:
    """A database of somebody else's."""

    def __init__(self, url: str):
        self.url, self.memory = url, dict[str, Json]()
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.rows = 0

    def do(self, *statements: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement), values)

    def add(self, kind: str, status: str, **columns: Any) -> None:
        """A row; instants as times, or as how long ago."""
        self.rows += 1
        values = {"id": self.rows, "job_type": kind, "status": status, **columns}
        told = {k: NOW - v if isinstance(v, timedelta) else v for k, v in values.items()}
        told = {k: str(v) if isinstance(v, datetime) and "sqlite" in self.url else v for k, v in told.items()}
        self.do(f"INSERT INTO scheduled_jobs ({', '.join(told)}) VALUES ({', '.join(f':{k}' for k in told)})", **told)

    def source(self, **sql: Any) -> dict[str, Any]:
        url = self.url.replace("+psycopg", "").replace("+pymysql", "")
        return {"url": url, "table": "scheduled_jobs", "columns": COLUMNS, "statuses": STATUSES, **sql}

    def look(
        self, watch: Mapping[str, Mapping[str, Any]] = {}, allow_private_addresses: bool = True, **sql: Any
    ) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        jobs = {"sql": self.source(**sql), "watch": watch}
        probe = JobsProbe.model_validate(
            {"name": "Billing jobs", "jobs": jobs, "allow_private_addresses": allow_private_addresses}
        )
        report = asyncio.run(run_probe(probe, probe_state=self.memory))
        self.memory |= report.state_updates
        return report

    def wrong(self, watch: Mapping[str, Mapping[str, Any]] = {}, **sql: Any) -> dict[str, tuple[str, str]]:
        report = self.look(watch, **sql)
        assert report.result.jobs is not None, report.result.message
        return {name: trouble[:2] for name, trouble in report.result.jobs.items()}


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    made = Shop(database_url)
    made.do(TABLE)
    yield made
    made.engine.dispose()


@pytest.fixture
def pg(postgres: PostgresServer) -> Iterator[Shop]:
    with postgres.temporary_database() as url:
        yield Shop(url)


# --- what is named


YAML = """\
probes:
  - name: Billing jobs
    jobs:
      sql:
        url: URL
        table: scheduled_jobs
        columns: {type: job_type, scheduled: scheduled_at, started: started_at, finished: completed_at, status: status}
        statuses: {waiting: [pending], running: [running], done: [completed], failed: [failed]}
      watch: {"*": {max_runtime: 1h}}
"""


def test_ten_lines_name_the_late_job_and_the_stuck_one(shop: Shop, tmp_path: Path) -> None:
    shop.add("daily-report", "completed", scheduled_at=50 * HOUR, started_at=50 * HOUR, completed_at=49 * HOUR)
    shop.add("daily-report", "pending", scheduled_at=26 * HOUR)
    shop.add("reconcile-ledger", "running", scheduled_at=2 * HOUR, started_at=2 * HOUR)
    shop.add("usage-rollup", "completed", scheduled_at=HOUR, started_at=HOUR, completed_at=HOUR / 2)
    assert len(YAML.splitlines()) <= 10
    file = tmp_path / "watchdog.yaml"
    file.write_text(YAML.replace("URL", shop.url.replace("+psycopg", "")))
    [probe] = load_config(file).config.probes
    report = asyncio.run(run_probe(probe))
    jobs = report.result.jobs or {}
    assert {name: reason for name, (reason, _, _) in jobs.items()} == {
        "daily-report": "job.overdue",
        "reconcile-ledger": "job.stuck",
    }
    due = NOW - 26 * HOUR
    assert jobs["daily-report"][1].startswith(f"daily-report is overdue: due {due.day}{NBSP}{due:%b %H:%M} UTC")
    assert jobs["reconcile-ledger"][1].startswith("reconcile-ledger is stuck: running since ")
    assert report.result.measurements == {"jobs": 3, "jobs_failing": 2}
    assert report.result.message == f"2 of 3{NBSP}jobs have problems: daily-report, reconcile-ledger"


def test_a_schedule_of_our_own_is_held_against_the_runs_that_are_known(shop: Shop) -> None:
    shop.add("daily", "completed", started_at=26 * HOUR, completed_at=25 * HOUR)
    at = NOW - 2 * HOUR
    plan = {"daily": {"schedule": f"{at.minute} {at.hour} * * *", "grace": "1h"}}
    [(reason, message)] = shop.wrong(plan).values()
    assert reason == "job.overdue"
    assert re.fullmatch(rf"daily is overdue: due (\d+{NBSP}\w+ )?{at:%H:%M} UTC", message)
    shop.add("daily", "running", started_at=HOUR)
    assert shop.wrong(plan) == {}


def test_what_the_rows_say_of_a_job(shop: Shop) -> None:
    shop.add("export", "completed", started_at=9 * HOUR, completed_at=8 * HOUR)
    for n in range(3):
        shop.add("export", "failed", started_at=(5 - n) * HOUR, completed_at=(5 - n) * HOUR, error=f"no disk {n}")
    shop.add("export", "running", started_at=HOUR, instance_id="app-3")
    shop.add("export", "running", started_at=HOUR / 2, instance_id="app-4")
    shop.add("export", "pending", scheduled_at=-HOUR)
    report = shop.look({"*": {"failures": 3}})
    facts = report.evidence.facts["jobs"]["export"]
    wrong = f"export failed 3{NBSP}times in a row: no disk 2"
    assert report.result.jobs == {"export": JobProblem("job.failed", wrong, "5")}

    assert facts == {
        "next": _iso(NOW + HOUR), "next_due": _iso(NOW + HOUR), "last_start": _iso(NOW - HOUR / 2),
        "last_end": _iso(NOW - 3 * HOUR), "last_ok": _iso(NOW - 8 * HOUR), "running_since": _iso(NOW - HOUR),
        "failures": 3, "error": "no disk 2", "worker": "app-3", "run_id": "5",
    }  # fmt: skip
    [(reason, message)] = shop.wrong({"*": {"max_runtime": "10m"}}).values()
    assert reason == "job.stuck"
    assert message.endswith(" on app-3, limit 10\N{NO-BREAK SPACE}min")


def test_a_failed_run_without_an_end_counts_from_its_start(shop: Shop) -> None:
    shop.add("export", "completed", started_at=3 * HOUR, completed_at=2 * HOUR)
    shop.add("export", "failed", started_at=HOUR)
    assert shop.wrong() == {"export": ("job.failed", "export failed")}
    shop.add("export", "completed", started_at=HOUR / 2, completed_at=HOUR / 4)
    assert shop.wrong() == {}


def test_old_runs_are_not_looked_at_but_what_waits_or_runs_is(shop: Shop) -> None:
    shop.add("weekly", "failed", scheduled_at=40 * DAY, started_at=40 * DAY, completed_at=40 * DAY)
    shop.add("yearly", "pending", scheduled_at=40 * DAY)
    shop.add("monthly", "running", started_at=40 * DAY)
    shop.add("daily", "failed", scheduled_at=20 * DAY, completed_at=20 * DAY)
    assert set(shop.wrong({"*": {"max_runtime": "1h"}})) == {"yearly", "monthly", "daily"}
    assert set(shop.wrong(since="10d")) == {"yearly"}
    assert "weekly" in shop.wrong(since="50d")


def test_a_status_that_stands_for_nothing_is_told(shop: Shop) -> None:
    shop.add("export", "archived", started_at=HOUR)
    report = shop.look()
    assert report.evidence.facts["unmapped_statuses"] == "archived"
    assert report.evidence.facts["jobs"]["export"]["last_start"]


def test_an_empty_table_has_no_jobs_and_one_that_is_asked_for_is_gone(shop: Shop) -> None:
    assert shop.look().result.measurements == {"jobs": 0, "jobs_failing": 0}
    assert shop.wrong({"export": {}})["export"][0] == "job.gone"


# --- tables of every shape


BERLIN = ZoneInfo("Europe/Berlin")
FORMS: list[tuple[str, str, Any]] = [
    ("sqlite", "DATETIME", lambda at: at.isoformat()),
    ("sqlite", "TIMESTAMP", lambda at: f"{at:%Y-%m-%d %H:%M:%S}"),
    ("sqlite", "TEXT", lambda at: f"{at:%Y-%m-%dT%H:%M:%S.000Z}"),
    ("sqlite", "TEXT", lambda at: at.astimezone(BERLIN).isoformat()),
    ("sqlite", "INTEGER", lambda at: _ms(at) // 1000),
    ("sqlite", "INTEGER", _ms),
    ("sqlite", "", lambda at: at.timestamp()),
    ("postgres", "timestamptz", lambda at: at),
    ("postgres", "timestamp", lambda at: at.replace(tzinfo=None)),
    ("postgres", "bigint", _ms),
    ("postgres", "integer", lambda at: _ms(at) // 1000),
    ("postgres", "double precision", lambda at: at.timestamp()),
    ("postgres", "numeric", lambda at: at.timestamp()),
    ("postgres", "text", lambda at: at.isoformat()),
    ("postgres", "varchar(40)", lambda at: f"{at:%Y-%m-%d %H:%M:%S}"),
]


@pytest.mark.parametrize(("kind", "column", "form"), FORMS, ids=[f"{k} {c} {n}" for n, (k, c, _) in enumerate(FORMS)])
def test_instants_of_every_form(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, column: str, form: Any
) -> None:
    with ExitStack() as stack:
        server = None if kind == "sqlite" else request.getfixturevalue("postgres")
        shop = Shop(
            f"sqlite:///{tmp_path / 'app.db'}" if server is None else stack.enter_context(server.temporary_database())
        )
        shop.do(f"CREATE TABLE jobs (kind TEXT, state TEXT, due {column}, begun {column}, over {column})")
        row = "INSERT INTO jobs VALUES (:kind, :state, :due, :begun, :over)"
        done, late, old = NOW - HOUR, NOW - 26 * HOUR, NOW - 40 * DAY
        shop.do(row, kind="hourly", state="ok", due=form(done), begun=form(done), over=form(done + HOUR / 4))
        shop.do(row, kind="daily", state="new", due=form(late), begun=None, over=None)
        shop.do(row, kind="hourly", state="bad", due=form(old), begun=form(old), over=form(old))
        shop.do(row, kind="ancient", state="bad", due=form(old), begun=form(old), over=form(old))
        report = shop.look(
            table="jobs", statuses={"waiting": ["new"], "done": ["ok"], "failed": ["bad"]},
            columns={"type": "kind", "status": "state", "scheduled": "due", "started": "begun", "finished": "over"},
        )  # fmt: skip
        assert report.result.jobs is not None, report.result.message
        facts = report.evidence.facts["jobs"]
        assert set(facts) == {"hourly", "daily"}
        ok = _iso(done + HOUR / 4)
        assert facts["hourly"] == {"last_start": _iso(done), "last_end": ok, "last_ok": ok, "duration": f"15{NBSP}min"}
        assert facts["daily"]["next_due"] == _iso(late)
        assert report.result.jobs["daily"][0] == "job.overdue"


def test_naive_times_are_of_the_zone_that_is_configured(shop: Shop) -> None:
    shop.do("CREATE TABLE jobs (kind TEXT, state TEXT, begun TIMESTAMP)")
    told = (NOW - HOUR).astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    shop.do("INSERT INTO jobs VALUES ('x', 'ok', :at)", at=str(told) if "sqlite" in shop.url else told)
    columns = {"type": "kind", "status": "state", "started": "begun"}
    sql: dict[str, Any] = {"table": "jobs", "columns": columns, "statuses": {"done": ["ok"]}}
    assert shop.look(timezone="Asia/Tokyo", **sql).evidence.facts["jobs"]["x"]["last_start"] == _iso(NOW - HOUR)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"finished": "completed_at"}, {"last_start": HOUR, "last_end": HOUR, "last_ok": HOUR}),
        ({"started": "started_at"}, {"last_start": 2 * HOUR, "last_end": 2 * HOUR, "last_ok": 2 * HOUR}),
        ({"scheduled": "scheduled_at"}, {"last_start": 3 * HOUR, "last_end": 3 * HOUR, "last_ok": 3 * HOUR}),
    ],
)
def test_one_column_of_time_is_enough(shop: Shop, columns: dict[str, str], says: dict[str, timedelta]) -> None:
    shop.add("export", "completed", scheduled_at=3 * HOUR, started_at=2 * HOUR, completed_at=HOUR)
    report = shop.look(columns={"type": "job_type", "status": "status", **columns})
    assert report.evidence.facts["jobs"]["export"] == {name: _iso(NOW - ago) for name, ago in says.items()}


def test_statuses_of_every_type(pg: Shop) -> None:
    pg.do(
        "CREATE TYPE mood AS ENUM ('fine', 'broken')",
        "CREATE TABLE jobs (kind mood, n smallint, mood mood, ok boolean, said jsonb, who uuid, at timestamptz)",
        """INSERT INTO jobs VALUES
            ('fine', 1, 'broken', false, '{"message": "no disk"}', gen_random_uuid(), now())""",
    )
    for column, failed in (("n", [1]), ("mood", ["broken"]), ("ok", [False])):
        columns = {"type": "kind", "status": column, "finished": "at", "error": "said", "worker": "who"}
        assert pg.wrong(table="jobs", columns=columns, statuses={"failed": failed}) == {
            "fine": ("job.failed", 'fine failed: {"message": "no disk"}')
        }


def test_names_that_need_quotes_and_a_schema(pg: Shop) -> None:
    pg.do(
        'CREATE SCHEMA "Ops"',
        'CREATE TABLE "Ops"."Order" ("select" text, "Status" text, "größe" timestamptz)',
        """INSERT INTO "Ops"."Order" VALUES ('x', 'bad', now())""",
    )
    columns = {"type": "select", "status": "Status", "finished": "größe"}
    sql: dict[str, Any] = {"table": "Ops.Order", "columns": columns, "statuses": {"failed": ["bad"]}}
    assert pg.wrong(**sql) == {"x": ("job.failed", "x failed")}


def test_a_view_will_do(shop: Shop) -> None:
    shop.add("export", "failed", completed_at=HOUR)
    shop.do("CREATE VIEW seen AS SELECT * FROM scheduled_jobs")
    assert shop.wrong(table="seen") == {"export": ("job.failed", "export failed")}


# --- what is not there, and what is not allowed


@pytest.mark.parametrize(
    ("sql", "reason", "message"),
    [
        (
            {"table": "scheduled_job"},
            "database.table_missing",
            "table scheduled_job does not exist; did you mean scheduled_jobs?",
        ),
        ({"table": "nowhere"}, "database.table_missing", "table nowhere does not exist"),
        (
            {"columns": {**COLUMNS, "status": "Status"}},
            "database.column_missing",
            "column Status of scheduled_jobs does not exist; did you mean status?",
        ),
        (
            {"columns": {**COLUMNS, "error": "zzz"}},
            "database.column_missing",
            "column zzz of scheduled_jobs does not exist",
        ),
    ],
)
def test_what_the_catalogue_does_not_have(shop: Shop, sql: dict[str, Any], reason: str, message: str) -> None:
    result = shop.look(**sql).result
    assert (result.outcome, result.reason, result.message) == (Outcome.FAIL, reason, message)
    assert result.jobs is None


def test_what_is_no_time_is_told(shop: Shop) -> None:
    shop.add("export", "failed", completed_at=HOUR, error="2999, or so")
    result = shop.look(columns={**COLUMNS, "finished": "error"}).result
    assert (result.reason, result.message) == (
        "database.column_invalid",
        "column error holds '2999, or so', which is not a time",
    )


def test_a_column_of_a_type_that_is_no_time(pg: Shop) -> None:
    pg.do(TABLE.replace("completed_at TIMESTAMP WITH TIME ZONE", "completed_at jsonb"))
    result = pg.look().result
    assert (result.reason, result.message) == (
        "database.column_invalid",
        "column completed_at has type JSONB, not a time",
    )


def test_a_column_that_is_no_type_of_job(shop: Shop) -> None:
    shop.do(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2001)"
        " INSERT INTO scheduled_jobs (id, job_type, status) SELECT i, 'job-' || i, 'pending' FROM n"
    )
    assert shop.look().result.reason == "database.column_invalid"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO scheduled_jobs (id, job_type, status) VALUES (1, 'x', 'y')",
        "DELETE FROM scheduled_jobs",
        "CREATE TABLE more (id INTEGER)",
        "DROP TABLE scheduled_jobs",
    ],
)
def test_nothing_can_be_written_through_our_connection(shop: Shop, statement: str) -> None:
    there = SqlJobSource.model_validate(shop.source()).database

    def write() -> None:
        with there.open_transaction("127.0.0.1") as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM scheduled_jobs")).scalar() == 0
            connection.execute(sa.text(statement))

    with pytest.raises(ProbeError, match=r"read-?only"):
        write()


def test_a_role_that_could_write_is_told_of_and_one_that_could_not_is_not(pg: Shop) -> None:
    pg.do(TABLE, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN")
    try:
        told = pg.look().evidence.facts["write_access"]
        assert told == "postgres can write to scheduled_jobs; SELECT is enough"
        as_reader = pg.url.replace("+psycopg", "").replace("postgres@", "reader@")
        refused = pg.look(url=as_reader).result
        assert (refused.outcome, refused.reason) == (Outcome.FAIL, "broker.refused")
        assert refused.message == (
            "PostgreSQL denies access: permission denied for table scheduled_jobs;"
            " required: GRANT SELECT ON scheduled_jobs TO reader"
        )
        pg.do("GRANT SELECT ON scheduled_jobs TO reader")
        report = pg.look(url=as_reader)
        assert report.result.outcome is Outcome.PASS
        assert "write_access" not in report.evidence.facts
    finally:
        pg.do("DROP OWNED BY reader", "DROP ROLE reader")


def _watched(shop: Shop, **sql: Any) -> tuple[RecordedResult, float, int]:
    """Returns the result of a poll, its duration in s, and how often the event loop ran meanwhile."""
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": shop.source(**sql)}})

    async def watched() -> tuple[RecordedResult, float, int]:
        looking, since, loop_count = asyncio.create_task(run_probe(probe)), time.monotonic(), 0
        while not looking.done():
            await asyncio.sleep(0.01)
            loop_count += 1
        return looking.result(), time.monotonic() - since, loop_count

    return asyncio.run(watched())


def test_a_statement_that_takes_too_long_ends_and_holds_nothing_up(shop: Shop) -> None:
    endless = (
        "SELECT i, 'x' AS job_type, 'failed' AS status, i AS completed_at FROM"
        " (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900000000) SELECT i FROM n) AS n"
    )
    shop.do(f"CREATE VIEW endless AS {endless}")
    columns = {"type": "job_type", "status": "status", "finished": "completed_at"}
    report, took, loop_count = _watched(shop, table="endless", columns=columns)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert report.result.message.split(":")[0].endswith("exceeded the limit of 2 s")
    assert took < HANG_S
    assert loop_count > 20, "the event loop runs while the statement does"


def test_a_table_that_somebody_locks_holds_nothing_up(shop: Shop) -> None:
    lock = "BEGIN EXCLUSIVE" if "sqlite" in shop.url else "LOCK TABLE scheduled_jobs IN ACCESS EXCLUSIVE MODE"
    with shop.engine.connect() as other:
        other.exec_driver_sql(lock)
        report, took, _ = _watched(shop)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert took < HANG_S


def test_a_server_that_stops_answering_is_unreachable(pg: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process stands still while the connection is up: no limit of the server's own helps."""
    monkeypatch.setattr(external_database, "TOTAL_TIMEOUT_S", 2.0)
    pg.do(TABLE)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": pg.source()}})

    def pids() -> list[int]:
        with pg.engine.connect() as connection:
            return list(connection.execute(sa.text(ours)).scalars())

    async def stops() -> RecordedResult:
        with pg.engine.connect() as other:
            other.exec_driver_sql("LOCK TABLE scheduled_jobs IN ACCESS EXCLUSIVE MODE")
            looking = asyncio.create_task(run_probe(probe))
            await wait_until_async(pids)
            [pid] = pids()
            os.kill(pid, signal.SIGSTOP)
        try:
            return await looking
        finally:
            os.kill(pid, signal.SIGCONT)

    result = asyncio.run(stops()).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert result.message == "database unreachable: PostgreSQL did not respond within 2 s"


def test_a_database_that_is_not_there(shop: Shop) -> None:
    missing = {
        "sqlite:///nowhere/app.db": "database unreachable: the file nowhere/app.db does not exist",
        f"postgresql://u@127.0.0.1:{(port := find_free_port())}/app": f"127.0.0.1:{port}: connection refused",
    }
    if "sqlite" not in shop.url:
        there = shop.url.replace("+psycopg", "").rpartition("/")[0]
        missing = {f"{there}/nowhere": 'database unreachable: database "nowhere" does not exist'}
    for url, message in missing.items():
        result = shop.look(url=url).result
        assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert message in result.message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "app.db").write_text("not a database at all, whatever it is called" * 50)
    result = Shop(f"sqlite:///{tmp_path / 'app.db'}").look().result
    assert (result.reason, result.message) == ("broker.refused", "SQLite returned an error: file is not a database")


def test_a_text_that_is_none_keeps_no_other_job_from_being_judged(tmp_path: Path) -> None:
    shop = Shop(f"sqlite:///{tmp_path / 'app.db'}")
    shop.do(TABLE)
    for kind in ("digest", "export"):
        shop.add(kind, "failed", started_at=HOUR, completed_at=HOUR, error="no space")
    shop.do("UPDATE scheduled_jobs SET error = CAST(x'ff6e6f' AS TEXT) WHERE job_type = 'export'")
    wrong = shop.wrong(columns=COLUMNS | {"error": "error"})
    assert {name: message for name, (_, message) in wrong.items()} == {
        "digest": "digest failed: no space",
        "export": "export failed: \N{REPLACEMENT CHARACTER}no",
    }
    shop.engine.dispose()


def test_a_wrong_password_is_said_without_it(pg: Shop) -> None:
    pg.do(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD 'right'")
    try:
        report = pg.look(url=pg.url.replace("+psycopg", "").replace("postgres@", f"{PASSWORD_ROLE}:hushhush1@"))
    finally:
        pg.do(f"DROP ROLE {PASSWORD_ROLE}")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == 'database unreachable: password authentication failed for user "locked"'
    assert "hushhush1" not in str(report)


def test_an_address_that_may_not_be_reached(pg: Shop) -> None:
    assert pg.look(allow_private_addresses=False).result.reason == "connection.address_blocked"


# --- MySQL and MariaDB


@pytest.fixture
def my(mariadb: MariaDbServer) -> Iterator[Shop]:
    with mariadb.temporary_database() as url:
        shop = Shop(url)
        shop.do(TABLE.replace("TIMESTAMP WITH TIME ZONE", "DATETIME"))
        yield shop


def test_a_table_of_mariadb(my: Shop) -> None:
    my.add("daily", "pending", scheduled_at=26 * HOUR)
    my.add("export", "completed", started_at=3 * HOUR, completed_at=2 * HOUR)
    my.add("export", "failed", started_at=HOUR, completed_at=HOUR / 2, error="no disk")
    my.add("ledger", "running", started_at=2 * HOUR, instance_id="app-3")
    jobs = my.wrong({"*": {"max_runtime": "1h"}})
    assert {name: reason for name, (reason, _) in jobs.items()} == {
        "daily": "job.overdue", "export": "job.failed", "ledger": "job.stuck",
    }  # fmt: skip
    assert jobs["export"][1] == "export failed: no disk"
    assert my.look().evidence.facts["write_access"] == "root can write to scheduled_jobs; SELECT is enough"


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ("TIMESTAMP NULL", lambda at: f"{at:%Y-%m-%d %H:%M:%S}"),
        ("DATETIME(3)", lambda at: f"{at.astimezone(BERLIN):%Y-%m-%d %H:%M:%S}"),
        ("BIGINT", _ms),
        ("INT UNSIGNED", lambda at: _ms(at) // 1000),
        ("VARCHAR(40)", lambda at: at.isoformat()),
    ],
)
def test_instants_in_mariadb(my: Shop, column: str, form: Any) -> None:
    my.do(f"CREATE TABLE jobs (kind TEXT, state ENUM('ok', 'new'), begun {column})")
    with my.engine.begin() as connection:
        connection.execute(sa.text("SET time_zone = '+00:00'"))
        row = "INSERT INTO jobs VALUES ('x', 'ok', :recent), ('old', 'ok', :old)"
        connection.execute(sa.text(row), {"recent": form(NOW - HOUR), "old": form(NOW - 40 * DAY)})
    columns = {"type": "kind", "status": "state", "started": "begun"}
    facts = my.look(table="jobs", columns=columns, statuses={"done": ["ok"]}, timezone="Europe/Berlin").evidence.facts
    assert set(facts["jobs"]) == {"x"}
    assert facts["jobs"]["x"]["last_start"] == _iso(NOW - HOUR)


def test_nothing_can_be_written_to_mariadb(my: Shop) -> None:
    there = SqlJobSource.model_validate(my.source(url=my.url.replace("+pymysql", ""))).database

    def write() -> None:
        with there.open_transaction("127.0.0.1") as connection:
            connection.execute(sa.text("INSERT INTO scheduled_jobs (id, job_type, status) VALUES (1, 'x', 'y')"))

    with pytest.raises(ProbeError, match="READ ONLY"):
        write()


def test_what_mariadb_refuses(my: Shop, mariadb: MariaDbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    base = my.url.replace("+pymysql", "").replace("root@", "reader:hush-hush@")
    mariadb.execute("CREATE USER reader@localhost IDENTIFIED BY 'hush-hush'", "GRANT USAGE ON *.* TO reader@localhost")
    name = my.url.rpartition("/")[2]
    try:
        assert my.look(url=base).result.reason == "broker.unreachable"
        mariadb.execute(f"GRANT SELECT (id) ON {name}.scheduled_jobs TO reader@localhost")
        refused = my.look(url=base).result
        assert refused.reason in ("broker.refused", "database.column_missing")
        mariadb.execute(f"GRANT SELECT ON {name}.scheduled_jobs TO reader@localhost")
        report = my.look(url=base)
        assert (report.result.outcome, set(report.evidence.facts)) == (Outcome.PASS, {"jobs"})
        wrong = my.look(url=base.replace("hush-hush", "hush-hish")).result
        assert wrong.reason == "broker.unreachable"
        assert "hush" not in wrong.message
    finally:
        mariadb.execute("DROP USER reader@localhost")


def test_a_statement_that_takes_too_long_in_mariadb(my: Shop) -> None:
    my.do("CREATE VIEW endless AS SELECT j.*, SLEEP(30) AS s FROM scheduled_jobs j")
    my.add("x", "failed", completed_at=HOUR)
    report, took, _ = _watched(my, table="endless", columns={**COLUMNS, "error": "s"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert took < HANG_S
    with my.engine.connect() as other:
        other.exec_driver_sql("LOCK TABLES scheduled_jobs WRITE")
        report, took, _ = _watched(my)
    assert report.result.reason == "database.query_timeout"
    assert took < HANG_S


def test_a_table_that_mariadb_does_not_have(my: Shop) -> None:
    result = my.look(table="scheduled_job").result
    assert (result.reason, result.message) == (
        "database.table_missing", "table scheduled_job does not exist; did you mean scheduled_jobs?",
    )  # fmt: skip


# --- configuration


INJECTIONS = [
    "jobs; DROP TABLE jobs", "jobs--", "jobs/**/x", 'jobs"', "jobs'", "jobs`", "jobs)", "(SELECT 1)", "jobs OR 1=1",
    "jobs\x00", "jobs\n", "a.b.c", ".jobs", "jobs.", "%s", "{jobs}", "jobs,users", "*", "1jobs", "pg_sleep(10)",
    "jobs::text", "@@version", "$$jobs$$", "[jobs]", "jobs UNION SELECT", "\\", "",
]  # fmt: skip


@pytest.mark.parametrize("name", INJECTIONS)
def test_names_that_are_none_do_not_load(name: str) -> None:
    def refusal(**sql: Any) -> str:
        with pytest.raises(ValidationError) as refused:
            SqlJobSource.model_validate(Shop("sqlite:///app.db").source(**sql))
        [error] = refused.value.errors()
        assert error["loc"][-1] in ("table", *COLUMNS)
        return str(error["msg"])

    assert "expected a table name" in refusal(table=name)
    for column in COLUMNS:
        assert "expected a column name" in refusal(columns={**COLUMNS, column: name})


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ({"url": "sqlite://app.db"}, "expected the path of a file"),
        ({"url": "sqlite:///:memory:"}, "expected the path of a file"),
        ({"url": "sqlite:///app.db?mode=rw"}, "expected the path of a file"),
        ({"url": "postgresql://db/app?host=169.254.169.254"}, "host is not supported as a parameter"),
        ({"url": "postgresql://u:p/hush@db/app"}, "encode : / @ % in the password"),
        ({"url": "mysql://db/app?unix_socket=/tmp/x"}, "unsupported parameter unix_socket"),
        ({"url": "mysql://db/app?init_command=DROP"}, "unsupported parameter init_command"),
        ({"url": "mysql://u:hush%zz@db/app"}, "encode : / @ % in the password"),
        ({"url": "mysql://db"}, "expected mysql://user:password@host/database"),
        ({"url": "oracle://db/app"}, "expected postgresql:// or mysql://"),
        (
            {"columns": {"type": "t", "status": "s"}},
            "no time column: add at least one of scheduled, started and finished",
        ),
        ({"statuses": {}}, "no status: add values to at least one of"),
        ({"statuses": {"done": ["x"], "failed": ["y", "x"]}}, "this value is listed already"),
        ({"timezone": "Europe/Berlim"}, "did you mean Europe/Berlin?"),
    ],
)
def test_what_does_not_load(sql: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SqlJobSource.model_validate(Shop("sqlite:///app.db").source(**sql))
    assert why in str(refused.value)
    assert "hush" not in str(refused.value)


def test_where_it_points_is_told_without_secrets() -> None:
    def source(url: str) -> SqlJobSource:
        return SqlJobSource.model_validate(Shop("sqlite:///app.db").source(url=url, table="ops.jobs"))

    there = source("postgres://watcher:hush@db.example:5433/app?sslmode=require")
    assert (there.target, there.host) == ("db.example/ops.jobs", "db.example")
    here = source("sqlite:////var/lib/app.db")
    assert (here.target, here.host) == ("app.db/ops.jobs", "")
