"""Cron jobs of a real RQ."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Outcome
from watchdog.domain.probe_state import JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY

NBSP = "\N{NO-BREAK SPACE}"


class RqCronHarness(JobSourceHarness):
    """A queue of its own on the shared server."""

    def __init__(self, server: RedisServer):
        super().__init__()
        self.server, self.queue = server, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url)

    def scheduler(self, behavior: str, **env: str) -> Any:
        return running_worker(
            *python_worker_command("rq_cron.py", REDIS=self.server.url, QUEUE=self.queue, BEHAVIOR=behavior, **env)
        )

    def worker(self) -> Any:
        return running_worker(
            *python_worker_command("rq_worker.py", REDIS=self.server.url, QUEUE=self.queue, FORKS="no")
        )

    def let_scheduler_be_silent(self, seconds: int) -> None:
        for name, heartbeat_s in self.client.zrange("rq:cron_schedulers", 0, -1, withscores=True):
            self.client.zadd("rq:cron_schedulers", {name: heartbeat_s - seconds})
        self.state[JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY]["heartbeat_at"] -= seconds * 1000

    def publish_scheduler(
        self,
        name: str,
        heartbeat_s: float,
        *,
        created: float,
        job_list: list[dict[str, Any]] | None = None,
        **jobs: dict[str, float],
    ) -> None:
        """`jobs`: interval, and instant of the next run, by name."""
        listed = [
            {
                "name": job,
                "interval": fields["interval"],
                "next_enqueue_time": datetime.fromtimestamp(fields.get("due", time.time() + 60), UTC).isoformat(),
            }
            for job, fields in jobs.items()
        ]
        fields = {
            "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "cron_jobs": json.dumps(job_list or listed),
        }
        self.client.hset(f"rq:cron_scheduler:{name}", mapping=fields)
        self.client.zadd("rq:cron_schedulers", {name: heartbeat_s})

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"rq": {"redis": self.server.url}}


@pytest.fixture
def harness(redis_server: RedisServer) -> Iterator[RqCronHarness]:
    harness = RqCronHarness(redis_server)
    harness.client.flushdb()
    yield harness
    harness.client.close()


def test_every_cron_job_is_read(harness: RqCronHarness) -> None:
    with harness.scheduler("return"), harness.worker():
        wait_until(lambda: "last_ok" in harness.job_evidence())
        report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    assert "next_run" in report.evidence.facts["jobs"]["nightly"]


def test_without_a_worker_jobs_are_overdue_after_their_grace(harness: RqCronHarness) -> None:
    with harness.scheduler("return"):
        with harness.worker():
            wait_until(lambda: "last_ok" in harness.job_evidence())  # a worker killed in its first run stalls it
            assert harness.reason("5s") == ""
        wait_until(lambda: harness.reason("1s") == "job.overdue")
        with harness.worker():
            wait_until(lambda: harness.reason("5s") == "")


def test_many_runs_that_wait_are_overdue_since_the_first_of_them(harness: RqCronHarness) -> None:
    """Each of the newest ten has waited for less than the grace."""
    now = int(time.time())
    harness.publish_scheduler("one", now, created=now - 900, digest={"interval": 1})
    runs = [(f"old-{n}", now - 140 + n, "finished") for n in range(40)]
    runs += [(f"new-{n}", now - 95 + n, "queued") for n in range(95)]
    for run_id, at, status in runs:
        queued_at = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        harness.client.hset(f"rq:job:{run_id}", mapping={"status": status, "enqueued_at": queued_at})
        harness.client.zadd("rq:cron_job:digest:jobs", {run_id: at})
    reason, message = harness.problems()["digest"]
    assert reason == "job.overdue"
    first = datetime.fromtimestamp(now - 95, UTC)
    due = f"the first due {first:%H:%M:%S}".removesuffix(":00")
    missed = re.fullmatch(rf"digest is overdue: (\d+) runs missed, {due} UTC", message)
    assert missed, message
    passed_s = int(time.time()) - now
    assert 36 <= int(missed[1]) <= 36 + passed_s, "one more for each second that has passed"


def test_a_killed_scheduler_is_one_problem_for_any_graces_of_its_jobs(harness: RqCronHarness) -> None:
    limits: dict[str, Any] = {"digest": {"grace": "1s"}, "rest": {"grace": "1h"}}
    with harness.worker(), harness.scheduler("return") as scheduler:
        wait_until(lambda: "last_ok" in harness.job_evidence())
        scheduler.kill()
        killed_at = time.monotonic()
        while time.monotonic() < killed_at + 3:
            assert harness.source_reason(**limits) == "", "it may be starting again"
    for key in harness.client.keys("rq:cron_scheduler:*"):
        harness.client.delete(key)  # as they expire after two minutes
    assert harness.source_reason(**limits) == "", "nothing is missed while it may be starting again"
    harness.let_scheduler_be_silent(seconds=121)
    report = harness.run_probe(**limits)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("no RQ scheduler is running: the last heartbeat was at ")
    assert not report.state_updates
    with harness.worker(), harness.scheduler("return"):
        wait_until(lambda: harness.source_reason("5s") == "")
        assert set(harness.run_probe().evidence.facts["jobs"]) == {"digest", "nightly"}


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_restarted_scheduler_has_the_same_jobs(harness: RqCronHarness, is_killed: bool) -> None:
    """A killed scheduler stays registered, with all its jobs, for two minutes."""
    with harness.worker():
        with harness.scheduler("return") as scheduler:
            wait_until(lambda: "last_ok" in harness.job_evidence())
            if is_killed:
                scheduler.kill()
            else:
                scheduler.process.terminate()
                scheduler.process.wait(30)
        assert harness.source_reason("5s") == ""
        with harness.scheduler("return"):
            assert harness.client.zcard("rq:cron_schedulers") == (2 if is_killed else 1)
            restarted_at = time.monotonic()
            while time.monotonic() < restarted_at + 8:
                report = harness.run_probe("3s")
                assert (report.result.message, report.problems) == ("", {})
                assert set(report.evidence.facts["jobs"]) == {"digest", "nightly"}


def test_each_job_is_as_the_newest_living_scheduler_lists_it(harness: RqCronHarness) -> None:
    now = time.time()
    publish = harness.publish_scheduler
    publish("old", now - 1, created=now - 900, digest={"interval": 60}, report={"interval": 60})
    publish("new", now - 1, created=now - 100, digest={"interval": 90})
    publish("dead", now - 100, created=now - 50, digest={"interval": 120, "due": now - 40}, removed={"interval": 60})
    jobs = harness.run_probe().evidence.facts["jobs"]
    assert {name: facts["every"] for name, facts in jobs.items()} == {
        "digest": f"1{NBSP}min 30{NBSP}s",
        "report": f"1{NBSP}min",
    }


def test_jobs_that_share_a_name_are_distinguished_by_their_schedules(harness: RqCronHarness) -> None:
    listed: list[dict[str, Any]] = [{"func_name": "f", "interval": 60}, {"func_name": "f", "cron": "0 3 * * *"}]
    harness.publish_scheduler("one", time.time(), created=time.time(), job_list=listed)
    harness.publish_scheduler("again", time.time(), created=time.time(), job_list=listed)
    assert set(harness.run_probe().evidence.facts["jobs"]) == {"f every 60 s", "f 0 3 * * *"}


def test_a_flushed_redis_is_reported(harness: RqCronHarness) -> None:
    with harness.scheduler("return"):
        assert harness.source_reason("1h") == ""
    harness.client.flushdb()
    harness.let_scheduler_be_silent(seconds=121)
    assert harness.source_reason("1h") == "job.scheduler_dead"


def test_a_job_that_throws_has_failed(harness: RqCronHarness) -> None:
    with harness.scheduler("throw"), harness.worker():
        wait_until(lambda: harness.reason(rest={"failures": 2}) == "job.failed")
        _, message = (harness.run_probe(rest={"failures": 2}).problems or {})["digest"]
    assert message.endswith("in a row: ValueError: no template for digest")


def test_an_expired_run_after_a_failure_counts_as_a_success(harness: RqCronHarness) -> None:
    with harness.scheduler("throw"), harness.worker():
        wait_until(lambda: harness.reason() == "job.failed")
    newest = harness.client.zrevrange("rq:cron_job:digest:jobs", 0, 0)[0]
    harness.state = {}
    assert harness.reason("1h") == "job.failed"
    harness.client.zadd(
        "rq:cron_job:digest:jobs", {"expired": harness.client.zscore("rq:cron_job:digest:jobs", newest) + 1}
    )
    assert harness.reason("1h") == ""


def test_a_killed_workers_job_is_stalled(harness: RqCronHarness) -> None:
    with harness.worker() as worker:
        with harness.scheduler("hang"):  # then it sends no more: only the newest runs of a job are read
            wait_until(lambda: harness.client.zcard(f"rq:wip:{harness.queue}"))
        wait_until(lambda: harness.reason("1h", rest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        wait_until(lambda: harness.reason("1h") == "job.stalled")


def test_nothing_is_scheduled(harness: RqCronHarness) -> None:
    report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.none_listed")
    place = f"no RQ scheduler is registered in {harness.server.url}"
    assert report.result.message == f"no scheduled jobs are listed: {place}"


def test_a_scheduler_that_was_dead_before_the_first_run(harness: RqCronHarness) -> None:
    harness.client.zadd("rq:cron_jobs", {"digest": time.time() - 3600})
    assert harness.source_reason() == "job.scheduler_dead"


def test_a_stalled_run_is_over_once_a_later_run_has_succeeded(harness: RqCronHarness) -> None:
    with harness.worker() as worker:
        with harness.scheduler("hang"):  # then it sends no more: only the newest runs of a job are read
            wait_until(lambda: harness.client.zcard(f"rq:wip:{harness.queue}"))
        worker.kill()
        wait_until(lambda: harness.reason("1h") == "job.stalled")
    with harness.scheduler("return"), harness.worker():
        wait_until(lambda: harness.reason("1h") == "")
    assert harness.client.zcard(f"rq:wip:{harness.queue}"), "RQ still lists the run"


def test_runs_whose_time_to_live_ended_in_the_queue_have_not_succeeded(harness: RqCronHarness) -> None:
    with harness.scheduler("return", TTL="1"), harness.worker():
        wait_until(lambda: harness.problems("2s") == {} and "last_ok" in harness.job_evidence())
    with harness.scheduler("return", TTL="1"):
        wait_until(lambda: harness.reason("4s") == "job.overdue")
        harness.client.set("rq:suspended", 1)
        assert harness.problems("4s")["digest"][1].endswith(", its queue is paused")
        harness.client.delete("rq:suspended")
        with harness.worker():
            wait_until(lambda: harness.reason("4s") == "")
