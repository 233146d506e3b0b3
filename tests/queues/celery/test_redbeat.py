"""Schedules that a real beat of Celery keeps in Redis, watched without a change to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry

from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.third_party import find_free_port
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe

NBSP = "\N{NO-BREAK SPACE}"


class Lab:
    def __init__(self, server: RedisServer):
        self.server = server
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.memory: dict[str, Json] = {}

    def beat(self) -> Any:
        return running_worker(*python_worker_command("celery_beat.py", BROKER=self.server.url))

    def look(self, grace: str = "1m", **celery: str) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        jobs = {"celery": {"redbeat": self.server.url, **celery}, "grace": grace}
        report = asyncio.run(
            run_probe(JobsProbe.model_validate({"name": "Beat", "jobs": jobs}), probe_state=self.memory)
        )
        self.memory |= report.state_updates
        return report

    def reason(self, grace: str = "1m") -> str:
        return (self.look(grace).result.jobs or {}).get("digest", ("", ""))[0]

    def sent(self) -> bool:
        return "last_start" in self.look().evidence.facts["jobs"]["digest"]

    def save(self, every: Any, **fields: Any) -> None:
        """As an application writes down a schedule."""
        app = Celery("shop", broker=self.server.url, set_as_current=False)
        app.conf.update(redbeat_redis_url=self.server.url, redbeat_redis_options={}, timezone="Europe/Berlin")
        RedBeatSchedulerEntry("digest", "celery.accumulate", every, app=app, **fields).save()
        app.redbeat_redis.close()

    def age(self, minutes: int) -> None:
        """What was sent last was sent so long ago, and so long is digest due."""
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        told = {part: getattr(at, part) for part in ("year", "month", "day", "hour", "minute", "second", "microsecond")}
        meta = {"last_run_at": {"__type__": "datetime", **told, "timezone": "UTC"}, "total_run_count": 7}
        self.client.hset("redbeat:digest", "meta", json.dumps(meta))
        self.client.zadd("redbeat::schedule", {"redbeat:digest": int(at.timestamp()) + 1})


@pytest.fixture
def lab(redis_server: RedisServer) -> Iterator[Lab]:
    lab = Lab(redis_server)
    lab.client.flushdb()
    yield lab
    lab.client.close()


def test_every_schedule_is_found_and_well(lab: Lab) -> None:
    with lab.beat():
        wait_until(lab.sent)
        report = lab.look()
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 4, "jobs_failing": 0}
    jobs = report.evidence.facts["jobs"]
    assert set(jobs) == {"digest", "nightly", "rates", "celery.backend_cleanup"}
    assert jobs["digest"]["every"] == f"1{NBSP}s"
    assert (jobs["rates"]["cron"], jobs["rates"]["timezone"]) == ("*/15 8-18 * * 1-5", "Europe/Berlin")
    assert (jobs["nightly"]["next"], jobs["nightly"].get("last_start")) == (jobs["nightly"]["next_due"], None)
    assert str(report.evidence.facts["lock"]).startswith("redbeat::lock expires in 2")
    assert "unreadable_definitions" not in report.evidence.facts


def test_a_stopped_beat_makes_its_jobs_overdue_within_their_grace(lab: Lab) -> None:
    with lab.beat() as beat:
        wait_until(lab.sent)
        beat.process.terminate()
        beat.process.wait(30)
        wait_until(lambda: lab.reason("1s") == "job.overdue")
    assert lab.look("1s").evidence.facts["lock"] == "redbeat::lock is not held"
    with lab.beat():
        wait_until(lambda: lab.reason("5s") == "")


def test_a_killed_beat_is_named_once_for_all_its_jobs(lab: Lab) -> None:
    """The lock of one that was killed stays for 25 minutes."""
    with lab.beat() as beat:
        wait_until(lab.sent)
        beat.kill()
    lab.age(6)
    assert lab.reason() == "job.overdue"
    lab.age(11)
    report = lab.look()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("the scheduler has not reported since ")
    assert not report.state_updates
    lab.client.delete("redbeat::lock")
    lab.age(6)
    assert lab.look().result.reason == "job.scheduler_dead"
    with lab.beat():
        wait_until(lambda: lab.look("5s").result.outcome is Outcome.PASS)


def test_a_disabled_schedule_is_known_and_not_judged(lab: Lab) -> None:
    lab.save(schedule(1.0), enabled=False)
    lab.age(60)
    report = lab.look()
    assert (report.result.outcome, report.result.measurements["jobs"]) == (Outcome.PASS, 1)
    lab.save(schedule(1.0))
    lab.age(4)
    assert lab.reason() == "job.overdue"


def test_an_edited_schedule_is_held_to_what_it_says_now(lab: Lab) -> None:
    with lab.beat():
        wait_until(lab.sent)
        lab.save(crontab("0", "3", "fri-sun"))
        report = lab.look("1s")
    assert report.result.outcome is Outcome.PASS
    assert report.evidence.facts["jobs"]["digest"]["cron"] == "0 3 * * 5,6,0"
    lab.save(crontab("0", "3", "mon", "1-7"))  # what cron cannot say is judged by when it is due
    told = lab.look().evidence.facts["jobs"]["digest"]
    assert (told["cron"], told["next"], "unreadable_schedule" in told) == (
        "0 3 1-7 * 1 (both days)",
        told["next_due"],
        False,
    )


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
def test_a_definition_that_cannot_be_read_is_judged_by_when_it_is_due(lab: Lab, definition: str | bytes) -> None:
    """Its own beat breaks over it."""
    lab.save(schedule(3600.0))
    lab.age(4)
    lab.client.hset("redbeat:evil", "definition", definition)
    deep = json.dumps({"last_run_at": {"timezone": "a." * 2_000}})
    for meta in (
        deep,
        "{",
        '{"last_run_at": 7}',
        '{"last_run_at": {"year": 99999999999999999999, "timezone": "../etc"}}',
    ):
        lab.client.hset("redbeat:evil", "meta", meta)
        lab.client.zadd("redbeat::schedule", {"redbeat:evil": datetime.now(UTC).timestamp() - 200})
        jobs = lab.look().result.jobs or {}
        assert {name: reason for name, (reason, *_) in jobs.items()} == dict.fromkeys(("digest", "evil"), "job.overdue")


def test_what_is_no_schedule_does_no_harm(lab: Lab) -> None:
    lab.save(schedule(3600.0))
    lab.client.set("redbeat:text", "poison")
    names = ("text", "gone", "x" * 10_000, "\x00\N{BELL}")
    lab.client.zadd("redbeat::schedule", {f"redbeat:{name}": float("inf") for name in names})
    lab.client.zadd("redbeat::schedule", {"redbeat:past": float("-inf"), "redbeat:over": -1, "redbeat:far": 1e300})
    report = lab.look()
    assert (report.result.outcome, report.result.measurements["jobs"]) == (Outcome.PASS, 8)
    assert str(report.evidence.facts["unreadable_definitions"]).startswith("past, over, ")


def test_another_prefix(lab: Lab) -> None:
    lab.save(schedule(3600.0))
    assert lab.look(prefix="shop:").result.measurements == {"jobs": 0, "jobs_failing": 0}


def test_redis_is_away(lab: Lab) -> None:
    port = find_free_port()
    report = lab.look(redbeat=f"redis://127.0.0.1:{port}/0")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{port}: connection refused"


def test_redis_does_not_allow_it(lab: Lab) -> None:
    lab.save(schedule(3600.0))
    lab.client.acl_setuser("reader", True, passwords=["+pw"], keys=["*"], commands=["+@all", "-hget"])
    try:
        report = lab.look(redbeat=lab.server.url.replace("//", "//reader:pw@"))
    finally:
        lab.client.acl_deluser("reader")
    assert report.result.reason == "broker.refused"
