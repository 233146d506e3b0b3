"""Schedules of a real Celery beat in a Django database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Outcome

NBSP = "\N{NO-BREAK SPACE}"
TASK_TABLE = "django_celery_beat_periodictask"


class DjangoBeatHarness(JobSourceHarness):
    """A database of its own. Runs keep no state, unless a test sets `keeps_state`."""

    def __init__(self, url: str, broker: str = ""):
        super().__init__()
        self.url, self.broker, self.keeps_state = url, broker, False
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"celery": {"database": self.url.replace("+psycopg", "")}}

    def beat(self) -> Any:
        return running_worker(*python_worker_command("celery_beat.py", BROKER=self.broker, DATABASE=self.url))

    def reasons(self) -> dict[str, str]:
        """By job; under the empty name that of the source."""
        report = self.run_probe()
        jobs = {name: problem.reason for name, problem in (report.problems or {}).items()}
        return jobs or ({"": report.result.reason} if report.result.reason else {})

    def has_sent(self) -> bool:
        return "last_start" in self.job_evidence()

    def time_ago(self, minutes: float) -> Any:
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        return at.strftime("%Y-%m-%d %H:%M:%S.%f") if "sqlite" in self.url else at

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def update(self, name: str = "digest", **columns: Any) -> None:
        assignments = ", ".join(f"{column} = :{column}" for column in columns)
        self.execute(f"UPDATE {TASK_TABLE} SET {assignments} WHERE name = :task", task=name, **columns)


@pytest.fixture
def harness(database_url: str, redis_server: RedisServer) -> Iterator[DjangoBeatHarness]:
    """Beat has run and has stopped."""
    harness = DjangoBeatHarness(database_url, redis_server.url)
    with harness.beat():
        wait_until(harness.has_sent)
        report = harness.run_probe()
    assert (report.result.outcome, report.result.measurements) == (Outcome.PASS, {"jobs": 4, "jobs_failing": 0})
    yield harness
    harness.engine.dispose()


def test_every_schedule_is_read_and_a_stopped_beat_reported(harness: DjangoBeatHarness) -> None:
    jobs = harness.run_probe().evidence.facts["jobs"]
    assert set(jobs) == {"digest", "nightly", "rates", "celery.backend_cleanup"}
    assert (jobs["rates"]["cron"], jobs["rates"]["timezone"]) == ("*/15 8-18 * * 1-5", "Europe/Berlin")
    assert jobs["digest"]["every"] == f"1{NBSP}s"
    warning = f"postgres can write to {TASK_TABLE}; SELECT is enough"
    assert harness.run_probe().evidence.facts.get("write_access") == (None if "sqlite" in harness.url else warning)
    harness.update(last_run_at=harness.time_ago(4))
    assert harness.reasons() == {}  # beat may not have stored its newest runs yet
    harness.update(last_run_at=harness.time_ago(4.6))
    report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("no Celery beat is running: digest was due at ")
    harness.update("nightly", last_run_at=harness.time_ago(0))  # beat runs: it has sent something since
    assert harness.reasons() == {"digest": "job.overdue"}
    with harness.beat():
        wait_until(lambda: harness.run_probe().result.outcome is Outcome.PASS)


def test_only_schedules_in_force_are_judged(harness: DjangoBeatHarness) -> None:
    """A schedule is in force while it is enabled, has started, has not expired and, if one-off, has not run."""
    harness.update("nightly", last_run_at=harness.time_ago(0))
    late = {"last_run_at": harness.time_ago(4.6), "date_changed": harness.time_ago(4.6)}
    for change in (
        {"enabled": False},
        {"one_off": True},
        {"expires": harness.time_ago(1)},
        {"start_time": harness.time_ago(-60)},
    ):
        harness.update(**late, **change)
        assert harness.reasons() == {}, change
        harness.update(enabled=True, one_off=False, expires=None, start_time=None)
        assert harness.reasons() == {"digest": "job.overdue"}, change


def test_runs_of_a_schedule_are_expected_from_its_enabling_on(harness: DjangoBeatHarness) -> None:
    harness.keeps_state = True
    harness.update("nightly", last_run_at=harness.time_ago(0))
    harness.update(last_run_at=harness.time_ago(10_000), enabled=False)
    assert harness.reasons() == {}
    harness.update(last_run_at=None, enabled=True, date_changed=harness.time_ago(4))  # as Django saves it
    assert harness.reasons() == {}
    harness.update(date_changed=harness.time_ago(4.6))
    harness.state = {
        key: {**state, "expected_from": 0} if key.startswith("job:") else state for key, state in harness.state.items()
    }
    assert harness.reasons() == {"digest": "job.overdue"}


def test_a_clocked_schedule_is_due_once(harness: DjangoBeatHarness) -> None:
    harness.execute(
        "INSERT INTO django_celery_beat_clockedschedule (id, clocked_time) VALUES (1, :at)", at=harness.time_ago(4.6)
    )
    harness.update("nightly", last_run_at=harness.time_ago(0))
    harness.update(last_run_at=None, interval_id=None, clocked_id=1, one_off=True, total_run_count=0)
    assert harness.reasons() == {"digest": "job.overdue"}
    harness.update(last_run_at=harness.time_ago(4.5))
    assert harness.reasons() == {}


def test_an_edited_schedule_counts_from_now_on(harness: DjangoBeatHarness) -> None:
    harness.update(last_run_at=harness.time_ago(4.6))
    harness.execute("UPDATE django_celery_beat_intervalschedule SET every = 2, period = 'hours'")
    assert harness.reasons() == {}


def test_a_solar_schedule_and_an_unknown_time_zone_are_not_judged(harness: DjangoBeatHarness) -> None:
    harness.execute(
        "INSERT INTO django_celery_beat_solarschedule (id, event, latitude, longitude) VALUES (1, 'sunset', 52, 13)"
    )
    harness.update(interval_id=None, solar_id=1)
    harness.execute("UPDATE django_celery_beat_crontabschedule SET timezone = 'America/New_Yrok' WHERE hour = '3'")
    findings = harness.run_probe().findings("schedule")
    assert set(findings) == {"digest", "nightly"}
    assert "'solar sunset' is not a cron expression" in findings["digest"]
    assert findings["nightly"].endswith("unknown time zone 'America/New_Yrok': did you mean America/New_York?")


def test_an_emptied_table_and_its_rows_restored(harness: DjangoBeatHarness) -> None:
    harness.keeps_state = True
    assert harness.reasons() == {}
    harness.execute(f"CREATE TABLE backup AS SELECT * FROM {TASK_TABLE}")
    harness.execute(f"DELETE FROM {TASK_TABLE}")
    report = harness.run_probe()
    assert (report.result.reason, report.problems) == ("job.most_gone", {})
    names = "celery.backend_cleanup, digest, nightly, rates"
    assert report.result.message == f"table {TASK_TABLE} is empty; none of its 4 jobs is listed any more: {names}"
    harness.execute(f"INSERT INTO {TASK_TABLE} SELECT * FROM backup")
    assert harness.reasons() == {}
    harness.execute(f"DELETE FROM {TASK_TABLE} WHERE name = 'rates'")
    assert harness.reasons() == {"rates": "job.gone"}
    harness.execute(f"ALTER TABLE {TASK_TABLE} RENAME TO elsewhere")
    assert harness.run_probe().result.message.partition("; ")[2].startswith("none of its 4 jobs is listed any more: ")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_without_the_table(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    engine.connect().close()
    engine.dispose()
    report = DjangoBeatHarness(database_url).run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.table_missing")
    hint = "django-celery-beat creates it when the application is migrated"
    assert report.result.message == f"table {TASK_TABLE} does not exist: {hint}"


def test_a_database_that_is_down() -> None:
    port = find_free_port()
    report = DjangoBeatHarness(f"postgresql://shop@127.0.0.1:{port}/shop").run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == f"database unreachable: 127.0.0.1:{port}: connection refused"
