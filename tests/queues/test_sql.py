"""Scheduled jobs in tables of PostgreSQL, MariaDB and SQLite."""

from __future__ import annotations

import asyncio
import os
import re
import signal
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
from tests.support.polling import wait_until_async
from tests.support.ports import find_free_port
from tests.support.postgres import PASSWORD_ROLE, PostgresServer
from tests.support.probe_runs import JobProblem, JobsRun, run_jobs_probe, run_probe
from watchdog.config.load import load_config
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import Json, Outcome, ResultToRecord
from watchdog.net.errors import ProbeError
from watchdog.probes import JobsProbe
from watchdog.queues.clients import external_database
from watchdog.queues.sql import SqlTableJobSource
from watchdog.service.clock import read_wall_clock_ms

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


def _as_text(at: datetime) -> str:
    """As the evidence shows it to people."""
    return format_utc_timestamp(_ms(at), read_wall_clock_ms(), seconds=True)


class ExternalApp:
    """A database of another application."""

    def __init__(self, url: str):
        self.url, self.state = url, dict[str, Json]()
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.rows = 0

    def execute(self, *statements: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement), values)

    def add(self, kind: str, status: str, **columns: Any) -> None:
        """Inserts a row. Times are datetimes, or timedeltas before now."""
        self.rows += 1
        values = {"id": self.rows, "job_type": kind, "status": status, **columns}
        stored = {k: NOW - v if isinstance(v, timedelta) else v for k, v in values.items()}
        stored = {k: str(v) if isinstance(v, datetime) and "sqlite" in self.url else v for k, v in stored.items()}
        self.execute(
            f"INSERT INTO scheduled_jobs ({', '.join(stored)}) VALUES ({', '.join(f':{k}' for k in stored)})", **stored
        )

    def source(self, **sql: Any) -> dict[str, Any]:
        url = self.url.replace("+psycopg", "").replace("+pymysql", "")
        return {"url": url, "table": "scheduled_jobs", "columns": COLUMNS, "statuses": STATUSES, **sql}

    def run(
        self, watch: Mapping[str, Mapping[str, Any]] = {}, allow_private_addresses: bool = True, **sql: Any
    ) -> JobsRun:
        """One run. Its state updates are kept for the next one."""
        jobs = {"sql": self.source(**sql), "watch": watch}
        probe = JobsProbe.model_validate(
            {"name": "Billing jobs", "jobs": jobs, "allow_private_addresses": allow_private_addresses}
        )
        report = run_jobs_probe(probe, self.state)
        state = {**self.state, **report.state_updates}
        self.state = {key: value for key, value in state.items() if value is not None}
        return report

    def problems(self, watch: Mapping[str, Mapping[str, Any]] = {}, **sql: Any) -> dict[str, tuple[str, str]]:
        report = self.run(watch, **sql)
        assert report.problems is not None, report.result.message
        return {name: (trouble.reason, trouble.message) for name, trouble in report.problems.items()}


@pytest.fixture
def app(database_url: str) -> Iterator[ExternalApp]:
    app = ExternalApp(database_url)
    app.execute(TABLE)
    yield app
    app.engine.dispose()


@pytest.fixture
def postgres_app(postgres: PostgresServer) -> Iterator[ExternalApp]:
    with postgres.temporary_database() as url:
        yield ExternalApp(url)


# --- findings


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


def test_ten_lines_report_the_late_job_and_the_stuck_one(app: ExternalApp, tmp_path: Path) -> None:
    app.add("daily-report", "completed", scheduled_at=50 * HOUR, started_at=50 * HOUR, completed_at=49 * HOUR)
    app.add("daily-report", "pending", scheduled_at=26 * HOUR)
    app.add("reconcile-ledger", "running", scheduled_at=2 * HOUR, started_at=2 * HOUR)
    app.add("usage-rollup", "completed", scheduled_at=HOUR, started_at=HOUR, completed_at=HOUR / 2)
    assert len(YAML.splitlines()) <= 10
    file = tmp_path / "watchdog.yaml"
    file.write_text(YAML.replace("URL", app.url.replace("+psycopg", "")))
    [probe] = load_config(file).config.probes
    report = run_jobs_probe(probe)
    jobs = report.problems or {}
    assert {name: reason for name, (reason, _) in jobs.items()} == {
        "daily-report": "job.overdue",
        "reconcile-ledger": "job.stuck",
    }
    due = NOW - 26 * HOUR
    due_text = f"{due.day}{NBSP}{due:%b %H:%M:%S}".removesuffix(":00")
    assert jobs["daily-report"][1].startswith(f"daily-report is overdue: due {due_text} UTC")
    assert jobs["reconcile-ledger"][1].startswith("reconcile-ledger is stuck: running since ")
    assert report.result.measurements == {"jobs": 3, "jobs_failing": 2}
    assert report.result.message == f"2 of 3{NBSP}jobs have problems: daily-report, reconcile-ledger"


def test_a_configured_schedule_is_compared_with_the_runs(app: ExternalApp) -> None:
    app.add("daily", "completed", started_at=26 * HOUR, completed_at=25 * HOUR)
    at = NOW - 2 * HOUR
    plan = {"daily": {"schedule": f"{at.minute} {at.hour} * * *", "grace": "1h"}}
    [(reason, message)] = app.problems(plan).values()
    assert reason == "job.overdue"
    assert re.fullmatch(rf"daily is overdue: due (\d+{NBSP}\w+ )?{at:%H:%M} UTC, last run .+ UTC", message)
    app.add("daily", "running", started_at=HOUR)
    assert app.problems(plan) == {}


def test_the_facts_of_a_job(app: ExternalApp) -> None:
    app.add("export", "completed", started_at=9 * HOUR, completed_at=8 * HOUR)
    for n in range(3):
        app.add("export", "failed", started_at=(5 - n) * HOUR, completed_at=(5 - n) * HOUR, error=f"no disk {n}")
    app.add("export", "running", started_at=HOUR, instance_id="app-3")
    app.add("export", "running", started_at=HOUR / 2, instance_id="app-4")
    app.add("export", "pending", scheduled_at=-HOUR)
    report = app.run({"*": {"failures": 3}})
    facts = report.evidence.facts["jobs"]["export"]
    problems = f"export failed 3{NBSP}times in a row: no disk 2"
    assert report.problems == {"export": JobProblem("job.failed", problems)}
    assert report.result.listings["job"].subjects["export"].run_id == "5"

    assert facts == {
        "next_run": _as_text(NOW + HOUR), "last_start": _as_text(NOW - HOUR / 2),
        "last_end": _as_text(NOW - 3 * HOUR), "last_ok": _as_text(NOW - 8 * HOUR),
        "running_since": _as_text(NOW - HOUR), "failures": 3, "error": "no disk 2", "worker": "app-3", "run_id": "5",
    }  # fmt: skip
    [(reason, message)] = app.problems({"*": {"max_runtime": "10m"}}).values()
    assert reason == "job.stuck"
    assert message.endswith(" on app-3, limit 10\N{NO-BREAK SPACE}min")


def test_the_evidence_shows_times_in_the_zone_of_the_schedule(app: ExternalApp) -> None:
    due = NOW - 26 * HOUR
    app.add("export", "pending", scheduled_at=due)
    app.add("export", "completed", started_at=26 * HOUR, completed_at=26 * HOUR)
    nightly = {"schedule": "0 3 * * *", "timezone": "Asia/Tokyo"}
    app.run({"export": nightly})
    facts = app.run({"export": nightly}).evidence.facts["jobs"]["export"]
    local = due.astimezone(ZoneInfo("Asia/Tokyo"))
    text = rf"{local.day}{NBSP}{local:%b}( \d{{4}})? {local:%H:%M:%S} JST"
    for name in ("last_start", "last_end", "last_ok", "next_due"):
        assert re.fullmatch(text, facts[name]), name
    assert re.fullmatch(rf"(\d+{NBSP}\w+ (\d{{4}} )?)?03:00:00 JST", facts["next_run"])
    assert "advanced_at" not in facts


def test_a_failed_run_without_an_end_counts_from_its_start(app: ExternalApp) -> None:
    app.add("export", "completed", started_at=3 * HOUR, completed_at=2 * HOUR)
    app.add("export", "failed", started_at=HOUR)
    assert app.problems() == {"export": ("job.failed", "export failed")}
    app.add("export", "completed", started_at=HOUR / 2, completed_at=HOUR / 4)
    assert app.problems() == {}


def test_every_run_whose_worker_was_killed_is_lost_once(app: ExternalApp) -> None:
    """The table lists them as running until someone changes their rows."""
    limits = {"export": {"max_runtime": "1h"}}
    for hours in (20, 12, 4):
        app.add("export", "running", started_at=hours * HOUR)
        app.add("export", "completed", started_at=(hours - 2) * HOUR, completed_at=(hours - 3) * HOUR)
        [(reason, message)] = app.problems(limits).values()
        assert reason == "job.lost"
        assert message.startswith("export: the ")
        assert " run never reported its end, and a later run " in message
        assert f"{NOW - hours * HOUR:%H:%M} UTC" in message
        assert app.problems(limits) == {}


@pytest.mark.parametrize("hung_worker", ["app-3", None])
def test_a_stuck_run_beside_an_older_lost_one_has_its_own_id_and_worker(
    app: ExternalApp, hung_worker: str | None
) -> None:
    """A remediation acts on the run with this id."""
    app.add("export", "running", started_at=20 * HOUR, instance_id="app-1")
    app.add("export", "completed", started_at=12 * HOUR, completed_at=11 * HOUR)
    app.add("export", "running", started_at=4 * HOUR, instance_id=hung_worker)
    limits = {"export": {"max_runtime": "1h"}}
    assert app.problems(limits)["export"][0] == "job.lost"
    report = app.run(limits)
    facts = report.result.listings["job"].subjects["export"]
    assert (facts.run_id, facts.worker) == ("3", hung_worker or "")
    problem = (report.problems or {})["export"]
    assert problem.reason == "job.stuck"
    assert ("on app-3, limit" in problem.message) is (hung_worker is not None)


def test_old_runs_are_ignored_unless_they_wait_or_run(app: ExternalApp) -> None:
    app.add("weekly", "failed", scheduled_at=40 * DAY, started_at=40 * DAY, completed_at=40 * DAY)
    app.add("yearly", "pending", scheduled_at=40 * DAY)
    app.add("monthly", "running", started_at=40 * DAY)
    app.add("daily", "failed", scheduled_at=20 * DAY, completed_at=20 * DAY)
    assert set(app.problems({"*": {"max_runtime": "1h"}})) == {"yearly", "monthly", "daily"}
    assert set(app.problems(since="10d")) == {"yearly"}
    assert "weekly" in app.problems(since="50d")


@pytest.mark.parametrize("status", ["COMPLETED", "Failed", "completed ", "crashed", "archived"])
def test_a_job_whose_newest_run_has_an_unknown_status_is_not_judged(app: ExternalApp, status: str) -> None:
    app.add("import", "completed", started_at=2 * HOUR, completed_at=HOUR)
    app.add("export", "completed", started_at=4 * HOUR, completed_at=3 * HOUR)
    app.add("export", status, started_at=2 * HOUR, completed_at=HOUR)
    report = app.run()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.evidence.facts["unmapped_statuses"] == status
    message = f"its newest run has the status '{status}', which `statuses` does not list"
    assert report.findings("schedule") == {"export": f"export is not evaluated: {message}"}
    app.add("export", "completed", started_at=HOUR / 2, completed_at=HOUR / 4)
    assert app.run().findings("schedule") == {}


def test_a_job_with_unknown_statuses_only_is_not_judged(app: ExternalApp) -> None:
    app.add("export", "archived", started_at=HOUR)
    report = app.run()
    assert set(report.findings("schedule")) == {"export"}
    assert report.evidence.facts["jobs"]["export"]["last_start"]
    app.add("export", "pending", scheduled_at=-HOUR)
    assert set(app.run().findings("schedule")) == {"export"}, "a run that waits has no outcome"


def test_if_the_table_of_a_single_job_is_missing_the_table_is_the_problem(app: ExternalApp) -> None:
    app.add("export", "completed", started_at=HOUR, completed_at=HOUR)
    assert app.problems() == {}
    app.execute("ALTER TABLE scheduled_jobs RENAME TO scheduled_jobs_old")
    for slot in range(3):
        result = app.run().result
        assert (result.reason, result.listings) == ("database.table_missing", {}), slot
        assert result.message == "table scheduled_jobs does not exist; did you mean scheduled_jobs_old?"
    app.execute("ALTER TABLE scheduled_jobs_old RENAME TO scheduled_jobs")
    assert app.problems() == {}


@pytest.mark.parametrize(("before", "after"), [("failed", "completed"), ("completed", "failed")])
def test_an_outcome_that_is_corrected_while_the_next_run_is_in_progress_counts_at_once(
    app: ExternalApp, before: str, after: str
) -> None:
    app.add("export", before, started_at=2 * HOUR, completed_at=HOUR)
    app.add("export", "running", started_at=HOUR / 2)
    failed = {"export": ("job.failed", "export failed")}
    assert app.problems() == (failed if before == "failed" else {})
    app.execute(f"UPDATE scheduled_jobs SET status = '{after}' WHERE status = '{before}'")
    for slot in range(2):
        assert app.problems() == (failed if after == "failed" else {}), slot


def test_the_message_about_a_failed_run_ends_with_the_exception_of_its_traceback(app: ExternalApp) -> None:
    trace = (
        'Traceback (most recent call last):\n  File "jobs.py", line 7, in export\nOSError: no space left on device\n'
    )
    app.add("export", "failed", started_at=HOUR, completed_at=HOUR, error=trace)
    app.add("import", "failed", started_at=HOUR, completed_at=HOUR, error="no address book:\n  0 of 7 read")
    assert app.problems() == {
        "export": ("job.failed", "export failed: OSError: no space left on device"),
        "import": ("job.failed", "import failed: no address book: 0 of 7 read"),
    }


def test_an_empty_table_is_the_problem_and_not_each_watched_job(app: ExternalApp) -> None:
    report = app.run({"export": {}})
    assert (report.result.measurements, report.problems) == ({"jobs": 0, "jobs_failing": 0}, {})
    assert report.result.reason == "job.none_listed"
    assert report.result.message == "no scheduled jobs are listed: table scheduled_jobs is empty"
    app.add("import", "completed", completed_at=HOUR)
    assert app.problems({"export": {}})["export"][0] == "job.gone"


def test_the_only_job_of_an_emptied_table_is_gone_with_the_table(app: ExternalApp) -> None:
    app.add("import", "completed", scheduled_at=HOUR, completed_at=HOUR)
    assert app.problems() == {}
    app.execute("DELETE FROM scheduled_jobs")
    reason, message = app.problems()["import"]
    assert reason == "job.gone"
    assert message.endswith(": table scheduled_jobs is empty")


def test_a_table_with_old_runs_only_is_not_empty(app: ExternalApp) -> None:
    app.add("import", "completed", started_at=1_000 * HOUR, completed_at=1_000 * HOUR)
    period = "table scheduled_jobs contains no runs from the last 35\N{NO-BREAK SPACE}days"
    assert app.run({"import": {}}).result.message == f"no scheduled jobs are listed: {period}"


def test_an_emptied_table_and_its_rows_restored(app: ExternalApp) -> None:
    for kind in ("export", "import", "digest"):
        app.add(kind, "completed", scheduled_at=HOUR, completed_at=HOUR)
    app.add("digest", "failed", scheduled_at=timedelta(minutes=5), completed_at=timedelta(minutes=5))
    assert set(app.problems()) == {"digest"}
    app.execute("CREATE TABLE backup AS SELECT * FROM scheduled_jobs", "DELETE FROM scheduled_jobs")
    report = app.run()
    assert (report.result.reason, report.problems) == ("job.most_gone", {})
    assert report.result.message.endswith("; none of its 3 jobs is listed any more: digest, export, import")
    app.execute("INSERT INTO scheduled_jobs SELECT * FROM backup")
    assert {name: reason for name, (reason, _) in app.problems().items()} == {"digest": "job.failed"}
    app.execute("DELETE FROM scheduled_jobs WHERE job_type = 'import'")
    assert app.problems()["import"][0] == "job.gone"
    app.execute("ALTER TABLE scheduled_jobs RENAME TO elsewhere")
    assert app.run().result.reason == "job.most_gone"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_has_its_grace_again_when_its_database_returns(app: ExternalApp) -> None:
    now = datetime.now(UTC).replace(microsecond=0)  # NOW may be many minutes ago
    last_run, earlier_run = now - timedelta(minutes=5), now - timedelta(minutes=13)
    app.add("export", "completed", started_at=last_run, completed_at=last_run)
    often = {"export": {"every": "10m", "grace": "2m"}}
    assert app.problems(often) == {}
    file = Path(app.url.removeprefix("sqlite:///"))
    file.rename(file.with_name("away"))
    assert app.run(often).result.reason == "broker.unreachable"
    app.state["source"]["away_since"] -= 5 * 60_000
    file.with_name("away").rename(file)
    app.execute("UPDATE scheduled_jobs SET started_at = :at, completed_at = :at", at=str(earlier_run))
    app.state = {
        key: {**state, "expected_from": 0, "last_start": None, "last_end": None, "last_ok": None}
        if key.startswith("job:")
        else state
        for key, state in app.state.items()
    }
    assert app.problems(often) == {}
    app.state["source"]["returned_at"] -= 3 * 60_000
    assert app.problems(often)["export"][0] == "job.overdue"


def test_a_job_whose_runs_the_application_has_deleted_by_age_is_not_missed(app: ExternalApp) -> None:
    app.add("monthly", "completed", completed_at=8 * DAY)
    for days in range(8):
        app.add("daily", "completed", completed_at=days * DAY + HOUR)
    assert app.problems() == {}
    app.execute("DELETE FROM scheduled_jobs WHERE job_type = 'monthly'")
    assert app.problems() == {}


def test_a_row_that_is_corrected_counts_at_once(app: ExternalApp) -> None:
    app.add("export", "completed", scheduled_at=HOUR, started_at=HOUR, completed_at=HOUR)
    daily = {"export": {"every": "1d"}}
    assert app.problems(daily) == {}
    app.state = {
        key: {**state, "expected_from": 0} if key.startswith("job:") else state for key, state in app.state.items()
    }
    three_days_ago = str(NOW - 3 * DAY) if "sqlite" in app.url else NOW - 3 * DAY
    app.execute("UPDATE scheduled_jobs SET scheduled_at = :at, started_at = :at, completed_at = :at", at=three_days_ago)
    assert app.problems(daily)["export"][0] == "job.overdue"


# --- tables


BERLIN = ZoneInfo("Europe/Berlin")
TIME_FORMATS: list[tuple[str, str, Any]] = [
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


@pytest.mark.parametrize(
    ("kind", "column", "to_stored"), TIME_FORMATS, ids=[f"{k} {c} {n}" for n, (k, c, _) in enumerate(TIME_FORMATS)]
)
def test_times_in_every_format(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, column: str, to_stored: Any
) -> None:
    with ExitStack() as stack:
        server = None if kind == "sqlite" else request.getfixturevalue("postgres")
        app = ExternalApp(
            f"sqlite:///{tmp_path / 'app.db'}" if server is None else stack.enter_context(server.temporary_database())
        )
        app.execute(f"CREATE TABLE jobs (kind TEXT, state TEXT, due {column}, launched {column}, over {column})")
        row = "INSERT INTO jobs VALUES (:kind, :state, :due, :launched, :over)"
        done, late, old = NOW - HOUR, NOW - 26 * HOUR, NOW - 40 * DAY
        app.execute(
            row,
            kind="hourly",
            state="ok",
            due=to_stored(done),
            launched=to_stored(done),
            over=to_stored(done + HOUR / 4),
        )
        app.execute(row, kind="daily", state="new", due=to_stored(late), launched=None, over=None)
        app.execute(row, kind="hourly", state="bad", due=to_stored(old), launched=to_stored(old), over=to_stored(old))
        app.execute(row, kind="ancient", state="bad", due=to_stored(old), launched=to_stored(old), over=to_stored(old))
        report = app.run(
            table="jobs", statuses={"waiting": ["new"], "done": ["ok"], "failed": ["bad"]},
            columns={"type": "kind", "status": "state", "scheduled": "due", "started": "launched", "finished": "over"},
        )  # fmt: skip
        assert report.problems is not None, report.result.message
        facts = report.evidence.facts["jobs"]
        assert set(facts) == {"hourly", "daily"}
        ok = _as_text(done + HOUR / 4)
        assert facts["hourly"] == {
            "last_start": _as_text(done),
            "last_end": ok,
            "last_ok": ok,
            "duration": f"15{NBSP}min",
        }
        assert report.result.listings["job"].subjects["daily"].next_due == _ms(late)
        assert report.problems["daily"][0] == "job.overdue"


def test_times_without_a_zone_are_in_the_configured_zone(app: ExternalApp) -> None:
    app.execute("CREATE TABLE jobs (kind TEXT, state TEXT, launched TIMESTAMP)")
    stored = (NOW - HOUR).astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    app.execute("INSERT INTO jobs VALUES ('x', 'ok', :at)", at=str(stored) if "sqlite" in app.url else stored)
    columns = {"type": "kind", "status": "state", "started": "launched"}
    sql: dict[str, Any] = {"table": "jobs", "columns": columns, "statuses": {"done": ["ok"]}}
    assert app.run(timezone="Asia/Tokyo", **sql).evidence.facts["jobs"]["x"]["last_start"] == _as_text(NOW - HOUR)


@pytest.mark.parametrize(
    ("columns", "ages"),
    [
        ({"finished": "completed_at"}, {"last_start": HOUR, "last_end": HOUR, "last_ok": HOUR}),
        ({"started": "started_at"}, {"last_start": 2 * HOUR, "last_end": 2 * HOUR, "last_ok": 2 * HOUR}),
        ({"scheduled": "scheduled_at"}, {"last_start": 3 * HOUR, "last_end": 3 * HOUR, "last_ok": 3 * HOUR}),
    ],
)
def test_one_time_column_is_enough(app: ExternalApp, columns: dict[str, str], ages: dict[str, timedelta]) -> None:
    app.add("export", "completed", scheduled_at=3 * HOUR, started_at=2 * HOUR, completed_at=HOUR)
    report = app.run(columns={"type": "job_type", "status": "status", **columns})
    assert report.evidence.facts["jobs"]["export"] == {name: _as_text(NOW - ago) for name, ago in ages.items()}


def test_statuses_of_every_type(postgres_app: ExternalApp) -> None:
    postgres_app.execute(
        "CREATE TYPE mood AS ENUM ('fine', 'broken')",
        "CREATE TABLE jobs (kind mood, n smallint, mood mood, ok boolean, problem jsonb, worker uuid, at timestamptz)",
        """INSERT INTO jobs VALUES
            ('fine', 1, 'broken', false, '{"message": "no disk"}', gen_random_uuid(), now())""",
    )
    for column, failed in (("n", [1]), ("mood", ["broken"]), ("ok", [False])):
        columns = {"type": "kind", "status": column, "finished": "at", "error": "problem", "worker": "worker"}
        assert postgres_app.problems(table="jobs", columns=columns, statuses={"failed": failed}) == {
            "fine": ("job.failed", 'fine failed: {"message": "no disk"}')
        }


def test_names_that_need_quotes_and_a_schema(postgres_app: ExternalApp) -> None:
    postgres_app.execute(
        'CREATE SCHEMA "Ops"',
        'CREATE TABLE "Ops"."Order" ("select" text, "Status" text, "größe" timestamptz)',
        """INSERT INTO "Ops"."Order" VALUES ('x', 'bad', now())""",
    )
    columns = {"type": "select", "status": "Status", "finished": "größe"}
    sql: dict[str, Any] = {"table": "Ops.Order", "columns": columns, "statuses": {"failed": ["bad"]}}
    assert postgres_app.problems(**sql) == {"x": ("job.failed", "x failed")}


def test_a_view(app: ExternalApp) -> None:
    app.add("export", "failed", completed_at=HOUR)
    app.execute("CREATE VIEW jobs_view AS SELECT * FROM scheduled_jobs")
    assert app.problems(table="jobs_view") == {"export": ("job.failed", "export failed")}


# --- missing objects and privileges


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
def test_missing_tables_and_columns(app: ExternalApp, sql: dict[str, Any], reason: str, message: str) -> None:
    run = app.run(**sql)
    result = run.result
    assert (result.outcome, result.reason, result.message) == (Outcome.FAIL, reason, message)
    assert run.problems is None


def test_a_value_that_is_not_a_time(app: ExternalApp) -> None:
    app.add("export", "failed", completed_at=HOUR, error="2999, or so")
    result = app.run(columns={**COLUMNS, "finished": "error"}).result
    assert (result.reason, result.message) == (
        "database.column_invalid",
        "column error contains '2999, or so', which is not a time",
    )


def test_a_column_type_that_is_not_a_time(postgres_app: ExternalApp) -> None:
    postgres_app.execute(TABLE.replace("completed_at TIMESTAMP WITH TIME ZONE", "completed_at jsonb"))
    result = postgres_app.run().result
    assert (result.reason, result.message) == (
        "database.column_invalid",
        "column completed_at has type JSONB, not a time",
    )


def test_too_many_jobs(app: ExternalApp) -> None:
    app.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2001)"
        " INSERT INTO scheduled_jobs (id, job_type, status) SELECT i, 'job-' || i, 'pending' FROM n"
    )
    assert app.run().result.reason == "database.column_invalid"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO scheduled_jobs (id, job_type, status) VALUES (1, 'x', 'y')",
        "DELETE FROM scheduled_jobs",
        "CREATE TABLE more (id INTEGER)",
        "DROP TABLE scheduled_jobs",
    ],
)
def test_the_connection_is_read_only(app: ExternalApp, statement: str) -> None:
    database = SqlTableJobSource.model_validate(app.source()).database

    def write() -> None:
        with database.open_transaction("127.0.0.1") as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM scheduled_jobs")).scalar() == 0
            connection.execute(sa.text(statement))

    with pytest.raises(ProbeError, match=r"read-?only"):
        write()


def test_a_role_that_can_write_is_reported(postgres_app: ExternalApp) -> None:
    postgres_app.execute(TABLE, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN")
    try:
        evidence = postgres_app.run().evidence
        assert evidence.facts["write_access"] == "postgres can write to scheduled_jobs; SELECT is enough"
        reader_url = postgres_app.url.replace("+psycopg", "").replace("postgres@", "reader@")
        refused = postgres_app.run(url=reader_url).result
        assert (refused.outcome, refused.reason) == (Outcome.FAIL, "broker.refused")
        assert refused.message == (
            "PostgreSQL denies access: permission denied for table scheduled_jobs;"
            " required: GRANT SELECT ON scheduled_jobs TO reader"
        )
        postgres_app.execute("GRANT SELECT ON scheduled_jobs TO reader")
        report = postgres_app.run(url=reader_url)
        assert report.result.reason == "job.none_listed"
        assert "write_access" not in report.evidence.facts
    finally:
        postgres_app.execute("DROP OWNED BY reader", "DROP ROLE reader")


def _run_beside_another_task(app: ExternalApp, **sql: Any) -> tuple[ResultToRecord, int]:
    """The result of a run, and how often another task of the loop had a turn meanwhile."""
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": app.source(**sql)}})

    async def run_beside_another_task() -> tuple[ResultToRecord, int]:
        task, turns = asyncio.create_task(run_probe(probe)), 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        return task.result(), turns

    return asyncio.run(run_beside_another_task())


def test_a_slow_statement_is_cancelled_and_does_not_block_the_loop(app: ExternalApp) -> None:
    endless = (
        "SELECT i, 'x' AS job_type, 'failed' AS status, i AS completed_at FROM"
        " (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900000000) SELECT i FROM n) AS n"
    )
    app.execute(f"CREATE VIEW endless AS {endless}")
    columns = {"type": "job_type", "status": "status", "finished": "completed_at"}
    report, turns = _run_beside_another_task(app, table="endless", columns=columns)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert report.result.message.split(":")[0].endswith("exceeded the limit of 2 s")
    assert turns > 10


def test_a_locked_table_times_out(app: ExternalApp) -> None:
    lock = "BEGIN EXCLUSIVE" if "sqlite" in app.url else "LOCK TABLE scheduled_jobs IN ACCESS EXCLUSIVE MODE"
    with app.engine.connect() as other:
        other.exec_driver_sql(lock)
        report = app.run()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")


def test_a_server_that_stops_responding_is_unreachable(
    postgres_app: ExternalApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is suspended while connected, so the server's own limits do not apply."""
    monkeypatch.setattr(external_database, "EXTERNAL_DATABASE_TRANSACTION_TIMEOUT_S", 2.0)
    for limit in ("LOCK", "STATEMENT"):
        monkeypatch.setattr(external_database, f"EXTERNAL_DATABASE_{limit}_TIMEOUT_S", 60.0)
    postgres_app.execute(TABLE)
    watchdog_pids_sql = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"
    )
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": postgres_app.source()}})

    def watchdog_pids() -> list[int]:
        with postgres_app.engine.connect() as connection:
            return list(connection.execute(sa.text(watchdog_pids_sql)).scalars())

    async def run_while_stopping_server() -> ResultToRecord:
        with postgres_app.engine.connect() as other:
            other.exec_driver_sql("LOCK TABLE scheduled_jobs IN ACCESS EXCLUSIVE MODE")
            task = asyncio.create_task(run_probe(probe))
            await wait_until_async(watchdog_pids)
            [pid] = watchdog_pids()
            os.kill(pid, signal.SIGSTOP)
        try:
            return await task
        finally:
            os.kill(pid, signal.SIGCONT)

    result = asyncio.run(run_while_stopping_server()).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert result.message == "database unreachable: PostgreSQL did not respond within 2 s"


def test_a_missing_database(app: ExternalApp) -> None:
    missing = {
        "sqlite:///nowhere/app.db": "database unreachable: the file nowhere/app.db does not exist",
        f"postgresql://u@127.0.0.1:{(port := find_free_port())}/app": f"127.0.0.1:{port}: connection refused",
    }
    if "sqlite" not in app.url:
        database = app.url.replace("+psycopg", "").rpartition("/")[0]
        missing = {f"{database}/nowhere": 'database unreachable: database "nowhere" does not exist'}
    for url, message in missing.items():
        result = app.run(url=url).result
        assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert message in result.message


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "app.db").write_text("not a database at all, despite its name" * 50)
    result = ExternalApp(f"sqlite:///{tmp_path / 'app.db'}").run().result
    assert (result.reason, result.message) == ("broker.refused", "SQLite returned an error: file is not a database")


def test_invalid_text_in_one_job_does_not_affect_the_others(tmp_path: Path) -> None:
    app = ExternalApp(f"sqlite:///{tmp_path / 'app.db'}")
    app.execute(TABLE)
    for kind in ("digest", "export"):
        app.add(kind, "failed", started_at=HOUR, completed_at=HOUR, error="no space")
    app.execute("UPDATE scheduled_jobs SET error = CAST(x'ff6e6f' AS TEXT) WHERE job_type = 'export'")
    problems = app.problems(columns=COLUMNS | {"error": "error"})
    assert {name: message for name, (_, message) in problems.items()} == {
        "digest": "digest failed: no space",
        "export": "export failed: \N{REPLACEMENT CHARACTER}no",
    }
    app.engine.dispose()


def test_a_wrong_password_is_not_as_text(postgres_app: ExternalApp) -> None:
    postgres_app.execute(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD 'right'")
    try:
        report = postgres_app.run(
            url=postgres_app.url.replace("+psycopg", "").replace("postgres@", f"{PASSWORD_ROLE}:hushhush1@")
        )
    finally:
        postgres_app.execute(f"DROP ROLE {PASSWORD_ROLE}")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == 'database unreachable: password authentication failed for user "locked"'
    assert "hushhush1" not in str(report)


def test_a_blocked_address(postgres_app: ExternalApp) -> None:
    assert postgres_app.run(allow_private_addresses=False).result.reason == "connection.address_blocked"


# --- MySQL and MariaDB


@pytest.fixture
def mariadb_app(mariadb: MariaDbServer) -> Iterator[ExternalApp]:
    with mariadb.temporary_database() as url:
        app = ExternalApp(url)
        app.execute(TABLE.replace("TIMESTAMP WITH TIME ZONE", "DATETIME"))
        yield app


def test_a_mariadb_table(mariadb_app: ExternalApp) -> None:
    mariadb_app.add("daily", "pending", scheduled_at=26 * HOUR)
    mariadb_app.add("export", "completed", started_at=3 * HOUR, completed_at=2 * HOUR)
    mariadb_app.add("export", "failed", started_at=HOUR, completed_at=HOUR / 2, error="no disk")
    mariadb_app.add("ledger", "running", started_at=2 * HOUR, instance_id="app-3")
    jobs = mariadb_app.problems({"*": {"max_runtime": "1h"}})
    assert {name: reason for name, (reason, _) in jobs.items()} == {
        "daily": "job.overdue", "export": "job.failed", "ledger": "job.stuck",
    }  # fmt: skip
    assert jobs["export"][1] == "export failed: no disk"
    assert mariadb_app.run().evidence.facts["write_access"] == "root can write to scheduled_jobs; SELECT is enough"


@pytest.mark.parametrize(
    ("column", "to_stored"),
    [
        ("TIMESTAMP NULL", lambda at: f"{at:%Y-%m-%d %H:%M:%S}"),
        ("DATETIME(3)", lambda at: f"{at.astimezone(BERLIN):%Y-%m-%d %H:%M:%S}"),
        ("BIGINT", _ms),
        ("INT UNSIGNED", lambda at: _ms(at) // 1000),
        ("VARCHAR(40)", lambda at: at.isoformat()),
    ],
)
def test_times_in_mariadb(mariadb_app: ExternalApp, column: str, to_stored: Any) -> None:
    mariadb_app.execute(f"CREATE TABLE jobs (kind TEXT, state ENUM('ok', 'new'), launched {column})")
    with mariadb_app.engine.begin() as connection:
        connection.execute(sa.text("SET time_zone = '+00:00'"))
        row = "INSERT INTO jobs VALUES ('x', 'ok', :recent), ('old', 'ok', :old)"
        connection.execute(sa.text(row), {"recent": to_stored(NOW - HOUR), "old": to_stored(NOW - 40 * DAY)})
    columns = {"type": "kind", "status": "state", "started": "launched"}
    facts = mariadb_app.run(
        table="jobs", columns=columns, statuses={"done": ["ok"]}, timezone="Europe/Berlin"
    ).evidence.facts
    assert set(facts["jobs"]) == {"x"}
    assert facts["jobs"]["x"]["last_start"] == _as_text(NOW - HOUR)


def test_the_mariadb_connection_is_read_only(mariadb_app: ExternalApp) -> None:
    database = SqlTableJobSource.model_validate(
        mariadb_app.source(url=mariadb_app.url.replace("+pymysql", ""))
    ).database

    def write() -> None:
        with database.open_transaction("127.0.0.1") as connection:
            connection.execute(sa.text("INSERT INTO scheduled_jobs (id, job_type, status) VALUES (1, 'x', 'y')"))

    with pytest.raises(ProbeError, match="READ ONLY"):
        write()


def test_mariadb_privileges(mariadb_app: ExternalApp, mariadb: MariaDbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    base = mariadb_app.url.replace("+pymysql", "").replace("root@", "reader:hush-hush@")
    mariadb.execute("CREATE USER reader@localhost IDENTIFIED BY 'hush-hush'", "GRANT USAGE ON *.* TO reader@localhost")
    name = mariadb_app.url.rpartition("/")[2]
    try:
        assert mariadb_app.run(url=base).result.reason == "broker.unreachable"
        mariadb.execute(f"GRANT SELECT (id) ON {name}.scheduled_jobs TO reader@localhost")
        refused = mariadb_app.run(url=base).result
        assert refused.reason in ("broker.refused", "database.column_missing")
        mariadb.execute(f"GRANT SELECT ON {name}.scheduled_jobs TO reader@localhost")
        report = mariadb_app.run(url=base)
        assert (report.result.reason, set(report.evidence.facts)) == ("job.none_listed", {"jobs"})
        problems = mariadb_app.run(url=base.replace("hush-hush", "hush-hish")).result
        assert problems.reason == "broker.unreachable"
        assert "hush" not in problems.message
    finally:
        mariadb.execute("DROP USER reader@localhost")


def test_a_slow_statement_in_mariadb_is_cancelled(mariadb_app: ExternalApp) -> None:
    mariadb_app.execute("CREATE VIEW endless AS SELECT j.*, SLEEP(30) AS s FROM scheduled_jobs j")
    mariadb_app.add("x", "failed", completed_at=HOUR)
    report = mariadb_app.run(table="endless", columns={**COLUMNS, "error": "s"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.query_timeout")
    with mariadb_app.engine.connect() as other:
        other.exec_driver_sql("LOCK TABLES scheduled_jobs WRITE")
        report = mariadb_app.run()
    assert report.result.reason == "database.query_timeout"


def test_a_missing_mariadb_table(mariadb_app: ExternalApp) -> None:
    result = mariadb_app.run(table="scheduled_job").result
    assert (result.reason, result.message) == (
        "database.table_missing", "table scheduled_job does not exist; did you mean scheduled_jobs?",
    )  # fmt: skip


# --- configuration


INVALID_NAMES = [
    "jobs; DROP TABLE jobs", "jobs--", "jobs/**/x", 'jobs"', "jobs'", "jobs`", "jobs)", "(SELECT 1)", "jobs OR 1=1",
    "jobs\x00", "jobs\n", "a.b.c", ".jobs", "jobs.", "%s", "{jobs}", "jobs,users", "*", "1jobs", "pg_sleep(10)",
    "jobs::text", "@@version", "$$jobs$$", "[jobs]", "jobs UNION SELECT", "\\", "",
]  # fmt: skip


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_invalid_names_are_refused(name: str) -> None:
    def refusal(**sql: Any) -> str:
        with pytest.raises(ValidationError) as refused:
            SqlTableJobSource.model_validate(ExternalApp("sqlite:///app.db").source(**sql))
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
        ({"url": "mysql://u:p@db/app#?local_infile=1"}, "encode : / @ % in the password"),
        ({"url": "postgresql://u:p@db/app#?passfile=/etc/shadow"}, "encode : / @ % in the password"),
        ({"url": "mysql://u:hush%zz@db/app"}, "encode : / @ % in the password"),
        ({"url": "mysql://db"}, "expected mysql://user:password@host/database"),
        ({"url": "oracle://db/app"}, "expected postgresql:// or mysql://"),
        (
            {"columns": {"type": "t", "status": "s"}},
            "no time column: add at least one of scheduled, started and finished",
        ),
        ({"statuses": {}}, "no status: add values to at least one of"),
        ({"statuses": {"done": ["x"], "failed": ["y", "x"]}}, "this value is listed twice"),
        ({"timezone": "Europe/Berlim"}, "did you mean Europe/Berlin?"),
    ],
)
def test_invalid_configuration_is_refused(sql: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SqlTableJobSource.model_validate(ExternalApp("sqlite:///app.db").source(**sql))
    assert why in str(refused.value)
    assert "hush" not in str(refused.value)


def test_the_target_contains_no_secrets() -> None:
    def source(url: str) -> SqlTableJobSource:
        return SqlTableJobSource.model_validate(ExternalApp("sqlite:///app.db").source(url=url, table="ops.jobs"))

    database = source("postgres://watcher:hush@db.example:5433/app?sslmode=require")
    assert (database.target, database.host) == (
        "postgresql://db.example:5433/app, table ops.jobs",
        "db.example",
    )
    here = source("sqlite:////var/lib/app.db")
    assert (here.target, here.host) == ("sqlite:////var/lib/app.db, table ops.jobs", "")
