"""Schedules of a real Celery beat in RedBeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Outcome

NBSP = "\N{NO-BREAK SPACE}"


class RedbeatHarness(JobSourceHarness):
    """RedBeat's keys on the shared server."""

    def __init__(self, server: RedisServer):
        super().__init__()
        self.server = server
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def beat(self) -> Any:
        return running_worker(*python_worker_command("celery_beat.py", BROKER=self.server.url))

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"celery": {"redbeat": self.server.url}}

    def has_sent(self) -> bool:
        return "last_start" in self.job_evidence()

    def save(self, every: Any, name: str = "digest", **fields: Any) -> None:
        """Saves a schedule as an application does."""
        app = Celery("shop", broker=self.server.url, set_as_current=False)
        app.conf.update(redbeat_redis_url=self.server.url, redbeat_redis_options={}, timezone="Europe/Berlin")
        RedBeatSchedulerEntry(name, "celery.accumulate", every, app=app, **fields).save()
        app.redbeat_redis.close()

    def set_last_run(self, minutes: int, name: str = "digest", due_after: int = 1) -> None:
        """Sets a schedule as last sent this many minutes ago, and due this many seconds later."""
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        parts = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        last_run = {part: getattr(at, part) for part in parts}
        meta = {"last_run_at": {"__type__": "datetime", **last_run, "timezone": "UTC"}, "total_run_count": 7}
        self.client.hset(f"redbeat:{name}", "meta", json.dumps(meta))
        self.client.zadd("redbeat::schedule", {f"redbeat:{name}": int(at.timestamp()) + due_after})


@pytest.fixture
def harness(redis_server: RedisServer) -> Iterator[RedbeatHarness]:
    harness = RedbeatHarness(redis_server)
    harness.client.flushdb()
    yield harness
    harness.client.close()


def test_every_schedule_is_read(harness: RedbeatHarness) -> None:
    with harness.beat():
        wait_until(harness.has_sent)
        report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 4, "jobs_failing": 0}
    jobs = report.evidence.facts["jobs"]
    assert set(jobs) == {"digest", "nightly", "rates", "celery.backend_cleanup"}
    assert jobs["digest"]["every"] == f"1{NBSP}s"
    assert (jobs["rates"]["cron"], jobs["rates"]["timezone"]) == ("*/15 8-18 * * 1-5", "Europe/Berlin")
    assert jobs["nightly"]["next_run"]
    assert not jobs["nightly"].keys() & {"next_due", "last_start"}, "it is due at its next run, and has not run"
    assert str(report.evidence.facts["lock"]).startswith("redbeat::lock expires in 2")
    assert "unreadable_definitions" not in report.evidence.facts


def test_a_stopped_beat_is_one_problem_for_any_graces_of_its_jobs(harness: RedbeatHarness) -> None:
    with harness.beat() as beat:
        wait_until(harness.has_sent)
        beat.process.terminate()
        beat.process.wait(30)
        limits: dict[str, Any] = {"digest": {"grace": "1s"}, "rest": {"grace": "1h"}}
        wait_until(lambda: harness.source_reason(**limits) == "job.scheduler_dead")
    report = harness.run_probe(**limits)
    assert (report.result.outcome, report.problems) == (Outcome.FAIL, None)
    assert report.result.message.startswith("no Celery beat is running: digest was due at ")
    with harness.beat():
        wait_until(lambda: harness.source_reason("5s") == "")


def test_a_killed_beat_is_reported_once_for_all_its_jobs(harness: RedbeatHarness) -> None:
    """The lock of a killed beat stays for 25 minutes."""
    with harness.beat() as beat:
        wait_until(harness.has_sent)
        harness.run_probe()
        beat.kill()
    harness.set_last_run(6)
    report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert not report.state_updates
    harness.client.delete("redbeat::lock")
    assert harness.source_reason() == "job.scheduler_dead"
    with harness.beat():
        wait_until(lambda: harness.run_probe("5s").result.outcome is Outcome.PASS)


def test_flushed_schedules_are_one_problem_and_restored_ones_are_as_before(harness: RedbeatHarness) -> None:
    for name in ("a", "b", "digest"):
        harness.save(schedule(3600.0), name=name)
    assert harness.source_reason() == ""
    harness.client.flushdb()
    report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.FAIL, {})
    place = f"redbeat::schedule does not exist in {harness.server.url}"
    assert report.result.message == f"{place}; none of its 3 jobs is listed any more: a, b, digest"
    assert set(report.findings("source")) == {""}
    for name in ("a", "b", "digest"):
        harness.save(schedule(3600.0), name=name)
    assert harness.source_reason() == ""
    harness.client.zrem("redbeat::schedule", "redbeat:b")
    assert {name: reason for name, (reason, _) in harness.problems().items()} == {"b": "job.gone"}


def test_schedules_of_another_database_are_not_there(harness: RedbeatHarness) -> None:
    harness.save(schedule(3600.0))
    report = harness.run_probe(overrides={"redbeat": f"{harness.server.url.removesuffix('/0')}/7"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.none_listed")
    assert report.result.message.endswith("/7")


def test_a_disabled_schedule_is_listed_and_not_judged(harness: RedbeatHarness) -> None:
    harness.save(schedule(1.0), enabled=False)
    harness.set_last_run(60)
    report = harness.run_probe()
    assert (report.result.outcome, report.result.measurements["jobs"]) == (Outcome.PASS, 1)
    harness.save(schedule(1.0))
    harness.set_last_run(4)
    assert harness.reason() == "job.overdue"


def test_an_edited_schedule_counts_from_now_on(harness: RedbeatHarness) -> None:
    with harness.beat():
        wait_until(harness.has_sent)
        harness.save(crontab("0", "3", "fri-sun"))
        report = harness.run_probe("1s")
    assert report.result.outcome is Outcome.PASS
    assert report.evidence.facts["jobs"]["digest"]["cron"] == "0 3 * * 5,6,0"
    harness.save(crontab("0", "3", "mon", "1-7"))  # no cron expression means the same, so its due time counts
    digest = harness.job_evidence()
    assert (digest["cron"], "next_due" in digest) == ("0 3 1-7 * 1 (both days)", False)
    assert digest["next_run"]
    assert "unreadable_schedule" not in digest


@pytest.mark.parametrize(
    "definition",
    [
        "", "{", "[]", "null", b"\xff\xfe", "[" * 19_999, "x" * 1_000_000, '{"schedule": 7, "enabled": []}',
        '{"schedule": {"__type__": "crontab", "minute": {"a": 1}, "hour": [[[7]]]}}',
        '{"schedule": {"__type__": "interval", "every": 1e999}}', '{"schedule": {"every": NaN}}',
        '{"schedule": {"every": -5}}', '{"schedule": {"every": "soon"}}',
        '{"schedule": {"__type__": "crontab", "hour": "0-99999999999"}}',
    ],
)  # fmt: skip
def test_an_unreadable_definition_is_judged_by_its_due_time(harness: RedbeatHarness, definition: str | bytes) -> None:
    """Beat itself crashes on such a definition, unless it is another that runs."""
    harness.save(schedule(3600.0), name="hourly")
    harness.set_last_run(0, "hourly", due_after=3600)
    harness.save(schedule(3600.0))
    harness.set_last_run(4)
    harness.client.hset("redbeat:evil", "definition", definition)
    long_zone = json.dumps({"last_run_at": {"timezone": "a." * 2_000}})
    for meta in (
        long_zone,
        "{",
        '{"last_run_at": 7}',
        '{"last_run_at": {"year": 99999999999999999999, "timezone": "../etc"}}',
    ):
        harness.client.hset("redbeat:evil", "meta", meta)
        harness.client.zadd("redbeat::schedule", {"redbeat:evil": datetime.now(UTC).timestamp() - 200})
        jobs = harness.run_probe().problems or {}
        assert {name: reason for name, (reason, *_) in jobs.items()} == dict.fromkeys(("digest", "evil"), "job.overdue")


def test_invalid_entries_are_harmless(harness: RedbeatHarness) -> None:
    harness.save(schedule(3600.0))
    harness.client.set("redbeat:text", "poison")
    names = ("text", "gone", "x" * 10_000, "\x00\N{BELL}")
    harness.client.zadd("redbeat::schedule", {f"redbeat:{name}": float("inf") for name in names})
    harness.client.zadd("redbeat::schedule", {"redbeat:past": float("-inf"), "redbeat:over": -1, "redbeat:far": 1e300})
    report = harness.run_probe()
    assert (report.result.outcome, report.result.measurements["jobs"]) == (Outcome.PASS, 8)
    assert str(report.evidence.facts["unreadable_definitions"]).startswith("past, over, ")


def test_another_prefix(harness: RedbeatHarness) -> None:
    harness.save(schedule(3600.0))
    report = harness.run_probe(overrides={"prefix": "shop:"})
    assert (report.result.reason, report.result.measurements["jobs"]) == ("job.none_listed", 0)
    assert "shop::schedule does not exist" in report.result.message


def test_redis_is_down(harness: RedbeatHarness) -> None:
    port = find_free_port()
    report = harness.run_probe(overrides={"redbeat": f"redis://127.0.0.1:{port}/0"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{port}: connection refused"


def test_redis_denies_access(harness: RedbeatHarness) -> None:
    harness.save(schedule(3600.0))
    harness.client.acl_setuser("reader", True, passwords=["+pw"], keys=["*"], commands=["+@all", "-hget"])
    try:
        report = harness.run_probe(overrides={"redbeat": harness.server.url.replace("//", "//reader:pw@")})
    finally:
        harness.client.acl_deluser("reader")
    assert report.result.reason == "broker.refused"
