"""Schedules that a real beat of Celery keeps in a database of Django, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.third_party import find_free_port
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe

NBSP = "\N{NO-BREAK SPACE}"
TASK = "django_celery_beat_periodictask"


def look(url: str, memory: dict[str, Json] | None = None) -> RecordedResult:
    source = {"database": url.replace("+psycopg", "")}
    probe = JobsProbe.model_validate({"name": "Beat", "jobs": {"celery": source}})
    return asyncio.run(run_probe(probe, probe_state=memory))


class Shop:
    def __init__(self, url: str, broker: str):
        self.url, self.broker = url, broker
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.memory: dict[str, Json] | None = None

    def beat(self) -> Any:
        return running_worker(*python_worker_command("celery_beat.py", BROKER=self.broker, DATABASE=self.url))

    def look(self) -> RecordedResult:
        """One run; nothing is remembered for the next, unless there is a memory."""
        report = look(self.url, self.memory)
        if self.memory is not None:
            self.memory |= report.state_updates
        return report

    def wrong(self) -> dict[str, str]:
        report = self.look()
        assert report.result.jobs is not None, report.result.message
        return {name: reason for name, (reason, *_) in report.result.jobs.items()}

    def sent(self) -> bool:
        return "last_start" in self.look().evidence.facts["jobs"]["digest"]

    def at(self, minutes: float) -> Any:
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        return at.strftime("%Y-%m-%d %H:%M:%S.%f") if "sqlite" in self.url else at

    def do(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def change(self, name: str = "digest", **columns: Any) -> None:
        told = ", ".join(f"{column} = :{column}" for column in columns)
        self.do(f"UPDATE {TASK} SET {told} WHERE name = :of", of=name, **columns)


@pytest.fixture
def shop(database_url: str, redis_server: RedisServer) -> Iterator[Shop]:
    """Beat has run, and was killed."""
    shop = Shop(database_url, redis_server.url)
    with shop.beat():
        wait_until(shop.sent)
        report = shop.look()
    assert (report.result.outcome, report.result.measurements) == (Outcome.PASS, {"jobs": 4, "jobs_failing": 0})
    yield shop
    shop.engine.dispose()


def test_every_schedule_is_found_and_a_stopped_beat_is_named(shop: Shop) -> None:
    jobs = shop.look().evidence.facts["jobs"]
    assert set(jobs) == {"digest", "nightly", "rates", "celery.backend_cleanup"}
    assert (jobs["rates"]["cron"], jobs["rates"]["timezone"]) == ("*/15 8-18 * * 1-5", "Europe/Berlin")
    assert jobs["digest"]["every"] == f"1{NBSP}s"
    told = f"postgres can write to {TASK}; SELECT is enough"
    assert shop.look().evidence.facts.get("write_access") == (None if "sqlite" in shop.url else told)
    shop.change(last_run_at=shop.at(4))
    assert shop.wrong() == {}  # beat may not have written down what it sent since
    shop.change(last_run_at=shop.at(4.6))
    assert shop.wrong() == {"digest": "job.overdue"}
    shop.change(last_run_at=shop.at(10))
    report = shop.look()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("the scheduler has not reported since ")
    with shop.beat():
        wait_until(lambda: shop.look().result.outcome is Outcome.PASS)


def test_what_is_over_or_has_not_begun_is_not_judged(shop: Shop) -> None:
    """A schedule is held to its plan while it is enabled, has begun, has not expired and has not run its only time."""
    late = {"last_run_at": shop.at(4.6), "date_changed": shop.at(4.6)}
    for why in (
        {"enabled": False},
        {"one_off": True},
        {"expires": shop.at(1)},
        {"start_time": shop.at(-60)},
    ):
        shop.change(**late, **why)
        assert shop.wrong() == {}, why
        shop.change(enabled=True, one_off=False, expires=None, start_time=None)
        assert shop.wrong() == {"digest": "job.overdue"}, why


def test_a_schedule_that_was_enabled_again_is_owed_anew(shop: Shop) -> None:
    shop.memory = {}
    shop.change(last_run_at=shop.at(10_000), enabled=False)
    assert shop.wrong() == {}
    shop.change(last_run_at=None, enabled=True, date_changed=shop.at(4))  # as Django saves it
    assert shop.wrong() == {}
    shop.change(date_changed=shop.at(4.6))
    shop.memory = {key: {**told, "expected_from": 0} for key, told in shop.memory.items()}
    assert shop.wrong() == {"digest": "job.overdue"}


def test_a_clocked_schedule_is_due_once(shop: Shop) -> None:
    shop.do("INSERT INTO django_celery_beat_clockedschedule (id, clocked_time) VALUES (1, :at)", at=shop.at(4.6))
    shop.change(last_run_at=None, interval_id=None, clocked_id=1, one_off=True, total_run_count=0)
    assert shop.wrong() == {"digest": "job.overdue"}
    shop.change(last_run_at=shop.at(4.5))
    assert shop.wrong() == {}


def test_an_edited_schedule_is_held_to_what_it_says_now(shop: Shop) -> None:
    shop.change(last_run_at=shop.at(4.6))
    shop.do("UPDATE django_celery_beat_intervalschedule SET every = 2, period = 'hours'")
    assert shop.wrong() == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_without_the_table(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    engine.connect().close()
    engine.dispose()
    report = look(database_url)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "database.table_missing")
    hint = "django-celery-beat creates it when the application is migrated"
    assert report.result.message == f"table {TASK} does not exist: {hint}"


def test_a_database_that_is_away() -> None:
    port = find_free_port()
    report = look(f"postgresql://shop@127.0.0.1:{port}/shop")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == f"database unreachable: 127.0.0.1:{port}: connection refused"
